"""Compiled loops of the CPU rasterizer: which Gaussians reach which tiles, front to back.

The screen is cut into tiles of 16 x 16 pixels. Each (tile, Gaussian) that can matter is a *pair*: it knows the rows of
the tile that the Gaussian's ellipse (at alpha = 1/255) reaches, so that no work is done beyond them. Pairs lie tile by tile,
front to back. Threads take chunks of the sorted Gaussians, and where a pair goes follows from counts alone, so that the
list is the same for any number of threads.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from rl3d.render._compile import PARALLEL, STRICT, bits

TILE = 16
CHUNK = 2048
"""Sorted Gaussians that a thread takes at once, at least."""
MOST_CHUNKS = 64
"""For each view, so that counting them by tile stays cheap."""


@njit(**STRICT)
@no_type_check
def _sort(keys, order, keys2, order2, n):
    """Sort ``order`` by float32 ``keys`` given as their bits, stably: a radix sort of three passes of 11 bits."""
    count = np.empty(2048, np.int64)
    for shift in (0, 11, 22):
        count[:] = 0
        for i in range(n):
            count[(keys[i] >> shift) & 2047] += 1
        total = 0
        for b in range(2048):
            c = count[b]
            count[b] = total
            total += c
        for i in range(n):
            b = (keys[i] >> shift) & 2047
            keys2[count[b]], order2[count[b]] = keys[i], order[i]
            count[b] += 1
        keys, keys2, order, order2 = keys2, keys, order2, order
    return order


@njit(**STRICT)
@no_type_check
def _front_to_back(depths, radii, order):
    """Fill ``order`` with the visible Gaussians by depth, and return how many they are."""
    n, visible = len(depths), 0
    keys, first = np.empty(n, np.int32), np.empty(n, np.int32)
    for g in range(n):
        if radii[g, 0] > 0 or radii[g, 1] > 0:
            # Bits of floats sort like integers, but that negative ones, which an orthographic camera can see, go backwards.
            key = bits(depths[g])
            keys[visible], first[visible] = key ^ ((key >> 31) | np.int32(-(2**31))), g
            visible += 1
    done = _sort(keys, first, np.empty(n, np.int32), np.empty(n, np.int32), visible)
    order[:visible] = done[:visible]
    return visible


@njit(**STRICT)
@no_type_check
def _ellipse(mean, conic, opacity):
    """Centre, conic, squared reach and determinant of an ellipse in float64."""
    a, b, c = float(conic[0]), float(conic[1]), float(conic[2])
    return float(mean[0]), float(mean[1]), a, b, c, 2.0 * math.log(max(1.0, opacity * 255.0)), a * c - b * b


@njit(**STRICT)
@no_type_check
def _columns(x, y, a, b, c, reach, det, width, height):
    """The columns of tiles [first, last) that an ellipse reaches, and the x of its topmost point, from its centre."""
    if det <= 1e-12 * a * c:
        return 0, (width + TILE - 1) // TILE, 0.0
    half_width, half_height = math.sqrt(reach * c / det), math.sqrt(reach * a / det)
    first = max(0.0, math.ceil(x - half_width - 0.5001))
    last = min(width - 1.0, math.floor(x + half_width - 0.4999))
    top = min(height - 1.0, math.floor(y + half_height - 0.4999))
    if first > last or y + half_height < 0.4999 or math.ceil(y - half_height - 0.5001) > top:
        return 0, 0, 0.0
    return int(first) // TILE, int(last) // TILE + 1, -b * half_height / a


@njit(**STRICT)
@no_type_check
def _rows(column, x, y, a, b, c, reach, det, extreme, height):
    """The pixel rows [y0, y1) that an ellipse reaches within a column of tiles."""
    if det <= 1e-12 * a * c:
        return 0, height
    left, right = column * TILE + 0.5 - x, column * TILE + (TILE - 0.5) - x
    high, low = min(max(extreme, left), right), min(max(-extreme, left), right)
    y1 = y + (math.sqrt(max(0.0, c * reach - det * high * high)) - b * high) / c
    y0 = y - (math.sqrt(max(0.0, c * reach - det * low * low)) + b * low) / c
    return int(min(max(0.0, math.ceil(y0 - 0.501)), height)), int(min(max(0.0, math.floor(y1 + 0.501)), height))


@njit(**STRICT)
@no_type_check
def _count(order, tiles, slots, means, conics, opacities, width, height):
    """Count the pairs of some Gaussians by tile, and by Gaussian."""
    across = (width + TILE - 1) // TILE
    for g in order:
        x, y, a, b, c, reach, det = _ellipse(means[g], conics[g], opacities[g])
        first, last, extreme = _columns(x, y, a, b, c, reach, det, width, height)
        found = 0
        for column in range(first, last):
            y0, y1 = _rows(column, x, y, a, b, c, reach, det, extreme, height)
            if y0 < y1:
                for row in range(y0 // TILE, (y1 - 1) // TILE + 1):
                    tiles[row * across + column] += 1
                    found += 1
        slots[g, 1] = found


@njit(**STRICT)
@no_type_check
def _fill(order, cursor, pairs, slots, means, conics, opacities, width, height):
    """List the pairs of some Gaussians from where ``cursor`` says for each tile."""
    across = (width + TILE - 1) // TILE
    for g in order:
        x, y, a, b, c, reach, det = _ellipse(means[g], conics[g], opacities[g])
        first, last, extreme = _columns(x, y, a, b, c, reach, det, width, height)
        slot = slots[g, 0]
        for column in range(first, last):
            y0, y1 = _rows(column, x, y, a, b, c, reach, det, extreme, height)
            if y0 < y1:
                for row in range(y0 // TILE, (y1 - 1) // TILE + 1):
                    at = cursor[row * across + column]
                    cursor[row * across + column] += 1
                    begin = max(y0 - row * TILE, 0)
                    pairs[at, 0], pairs[at, 1] = g, begin
                    pairs[at, 2], pairs[at, 3] = min(y1 - row * TILE, TILE) - begin, slot
                    slot += 1


@njit(**STRICT)
@no_type_check
def _start(tiles, slots):
    """Turn counts by view, chunk and tile into starts; return each tile's own, and the total last."""
    views, chunks, area = tiles.shape
    starts = np.empty(views * area + 1, np.int64)
    total = 0
    for i in range(views):
        for t in range(area):
            starts[i * area + t] = total
            for chunk in range(chunks):
                count = tiles[i, chunk, t]
                tiles[i, chunk, t] = total
                total += count
    starts[-1] = total
    total = 0
    for i in range(views):
        for g in range(slots.shape[1]):
            slots[i, g, 0] = total
            total += slots[i, g, 1]
    return starts


@njit(**PARALLEL)
@no_type_check
def bin_pairs(means, conics, opacities, depths, radii, width, height):
    """List the pairs of all views.

    Returns ``starts`` [v * tiles + 1] (where each tile's pairs start), ``pairs`` [p 4] (Gaussian, first row and number of rows
    within the tile, slot), and ``slots`` [v n 2] (each Gaussian's first slot and how many it has).
    """
    v, n = depths.shape
    area = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    chunks = min(MOST_CHUNKS, (n + CHUNK - 1) // CHUNK)
    tiles, slots = np.zeros((v, chunks, area), np.int64), np.zeros((v, n, 2), np.int64)
    order, visible = np.empty((v, n), np.int32), np.zeros(v, np.int64)
    for i in prange(v):
        visible[i] = _front_to_back(depths[i], radii[i], order[i])
    for task in prange(v * chunks):
        i, chunk = task // chunks, task % chunks
        own = order[i, visible[i] * chunk // chunks : visible[i] * (chunk + 1) // chunks]
        _count(own, tiles[i, chunk], slots[i], means[i], conics[i], opacities[i], width, height)
    starts = _start(tiles, slots)
    pairs = np.empty((starts[-1], 4), np.int32)
    for task in prange(v * chunks):
        i, chunk = task // chunks, task % chunks
        own = order[i, visible[i] * chunk // chunks : visible[i] * (chunk + 1) // chunks]
        _fill(own, tiles[i, chunk], pairs, slots[i], means[i], conics[i], opacities[i], width, height)
    return starts, pairs, slots
