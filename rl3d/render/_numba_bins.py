"""Compiled loops of the CPU rasterizer: which Gaussians reach which tiles, front to back.

The screen is cut into tiles, 16 pixels wide and 32 high. Each (tile, Gaussian) that can matter is a *pair*: it knows the
rows of the tile that the Gaussian's ellipse (at alpha = 1/255) reaches, so that no work is done beyond them. Pairs lie tile
by tile, front to back. Threads take chunks of the sorted Gaussians, and where a pair goes follows from counts alone, so that
the list is the same for any number of threads.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import prange

from rl3d.render._compile import MERGED, PARALLEL, STRICT, F, bits, njit

TILE, HIGH = 16, 32
"""Width and height of a tile in pixels. A row is a vector; high tiles make fewer pairs, and each has a price of its own."""
CHUNK = 2048
"""Sorted Gaussians that a thread takes at once, at least."""
LOG2E, LOG255 = math.log2(math.e), math.log2(255)
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


@njit(**PARALLEL)
@no_type_check
def ellipses(means, conics, opacities):
    """What the loops need of each Gaussian in one place, [v n 8]: log2 of its alpha is l - a dx^2 - b dx dy - c dy^2.

    Order: x, y, a, b, c, l, 1 - 2^(-2c), 1 / 4c. All are 0 for what is not seen.
    """
    v, n = opacities.shape
    out = np.zeros((v, n, 8), np.float32)
    for k in prange(v * n):
        i, g = k // n, k % n
        if opacities[i, g] > F(0):
            out[i, g, 0], out[i, g, 1] = means[i, g, 0], means[i, g, 1]
            out[i, g, 2], out[i, g, 3] = F(0.5 * LOG2E) * conics[i, g, 0], F(LOG2E) * conics[i, g, 1]
            out[i, g, 4], out[i, g, 5] = F(0.5 * LOG2E) * conics[i, g, 2], F(math.log2(opacities[i, g]))
            out[i, g, 6] = F(-math.expm1(-2.0 * math.log(2.0) * out[i, g, 4]))
            out[i, g, 7] = F(0.25 / out[i, g, 4])
    return out


@njit(**MERGED)
@no_type_check
def _ellipse(records, i, g):
    """Centre, conic a b c of a x^2 + 2 b x y + c y^2 = reach, that reach, and the determinant, in float64."""
    a, b, c = float(records[i, g, 2]), 0.5 * float(records[i, g, 3]), float(records[i, g, 4])
    return float(records[i, g, 0]), float(records[i, g, 1]), a, b, c, max(0.0, float(records[i, g, 5]) + LOG255), a * c - b * b


@njit(**STRICT)
@no_type_check
def _reach(i, begin, end, order, records, nearest, columns, width, height):
    """Find the columns of tiles [first, last) that the ellipses [begin, end) in ``order`` reach.

    Their records are copied in that order, so that what follows reads memory as it lies.
    """
    for k in range(begin, end):
        for j in range(6):
            nearest[i, k, j] = records[i, order[i, k], j]
        columns[i, k, 0], columns[i, k, 1] = 0, 0
        x, y, a, _, c, reach, det = _ellipse(nearest, i, k)
        if det <= 1e-12 * a * c:
            columns[i, k, 1] = (width + TILE - 1) // TILE
            continue
        scale = math.sqrt(reach / det)
        half_width, half_height = scale * math.sqrt(c), scale * math.sqrt(a)
        first = max(0.0, math.ceil(x - half_width - 0.5001))
        last = min(width - 1.0, math.floor(x + half_width - 0.4999))
        top = min(height - 1.0, math.floor(y + half_height - 0.4999))
        if first <= last and y + half_height >= 0.4999 and math.ceil(y - half_height - 0.5001) <= top:
            columns[i, k, 0], columns[i, k, 1] = int(first) // TILE, int(last) // TILE + 1


@njit(**STRICT)
@no_type_check
def _count(i, begin, end, nearest, columns, spans, tiles, width, height):
    """Find the pixel rows [y0, y1) that ellipses reach within each of their columns of tiles, and count pairs by tile.

    Within a column, an ellipse is highest where its topmost point lies, or else at the side that is nearer to that.
    """
    across = (width + TILE - 1) // TILE
    for k in range(begin, end):
        first, last, at = columns[i, k, 0], columns[i, k, 1], columns[i, k, 2]
        x, y, a, b, c, reach, det = _ellipse(nearest, i, k)
        whole = det <= 1e-12 * a * c
        inverse, extreme = 1.0 / c, 0.0 if whole else -b * math.sqrt(reach / (det * a))
        for column in range(first, last):
            y0, y1 = 0, height
            if not whole:
                left, right = column * TILE + 0.5 - x, column * TILE + (TILE - 0.5) - x
                high, low = min(max(extreme, left), right), min(max(-extreme, left), right)
                bottom = y + (math.sqrt(max(0.0, c * reach - det * high * high)) - b * high) * inverse
                top = y - (math.sqrt(max(0.0, c * reach - det * low * low)) + b * low) * inverse
                y0, y1 = (
                    int(min(max(0.0, math.ceil(top - 0.501)), height)),
                    int(min(max(0.0, math.floor(bottom + 0.501)), height)),
                )
            spans[at, 0], spans[at, 1] = y0, y1
            at += 1
            if y0 < y1:
                for row in range(y0 // HIGH, (y1 - 1) // HIGH + 1):
                    tiles[row * across + column] += 1


@njit(**STRICT)
@no_type_check
def pack(g, first, last):
    """A pair in one number; see :func:`unpack`."""
    return (np.int64(g) << 16) | (first << 8) | last


@njit(**STRICT)
@no_type_check
def unpack(pair):
    """The Gaussian of a pair, and the rows [first, last) of the tile that it reaches."""
    return pair >> 16, (pair >> 8) & 255, pair & 255


@njit(**STRICT)
@no_type_check
def _fill(i, begin, end, order, columns, spans, cursor, pairs, width):
    """List the pairs of some Gaussians from where ``cursor`` says for each tile."""
    across = (width + TILE - 1) // TILE
    for k in range(begin, end):
        g, first, last, span = order[i, k], columns[i, k, 0], columns[i, k, 1], columns[i, k, 2]
        for column in range(first, last):
            y0, y1 = spans[span, 0], spans[span, 1]
            span += 1
            if y0 < y1:
                for row in range(y0 // HIGH, (y1 - 1) // HIGH + 1):
                    at = cursor[row * across + column]
                    cursor[row * across + column] = at + 1
                    pairs[at] = pack(g, max(y0 - row * HIGH, 0), min(y1 - row * HIGH, HIGH))


@njit(**STRICT)
@no_type_check
def _start(tiles):
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
    return starts


@njit(**STRICT)
@no_type_check
def _place_spans(columns, visible):
    """Give each Gaussian room for a span for each of its columns, and return how many there are."""
    total = 0
    for i in range(columns.shape[0]):
        for k in range(visible[i]):
            columns[i, k, 2] = total
            total += columns[i, k, 1] - columns[i, k, 0]
    return total


@njit(**PARALLEL)
@no_type_check
def bin_pairs(records, depths, radii, width, height):
    """List the pairs of all views.

    Returns ``starts`` [v * tiles + 1] (where each tile's pairs start) and ``pairs`` [p] (see :func:`unpack`).
    """
    v, n = depths.shape
    area = ((width + TILE - 1) // TILE) * ((height + HIGH - 1) // HIGH)
    chunks = min(MOST_CHUNKS, (n + CHUNK - 1) // CHUNK)
    order, visible = np.empty((v, n), np.int32), np.zeros(v, np.int64)
    nearest, columns = np.empty((v, n, 6), np.float32), np.empty((v, n, 3), np.int32)
    for i in prange(v):
        visible[i] = _front_to_back(depths[i], radii[i], order[i])
    for task in prange(v * chunks):
        i, chunk = task // chunks, task % chunks
        begin, end = visible[i] * chunk // chunks, visible[i] * (chunk + 1) // chunks
        _reach(i, begin, end, order, records, nearest, columns, width, height)
    spans, tiles = np.empty((_place_spans(columns, visible), 2), np.int32), np.zeros((v, chunks, area), np.int64)
    for task in prange(v * chunks):
        i, chunk = task // chunks, task % chunks
        begin, end = visible[i] * chunk // chunks, visible[i] * (chunk + 1) // chunks
        _count(i, begin, end, nearest, columns, spans, tiles[i, chunk], width, height)
    starts = _start(tiles)
    pairs = np.empty(starts[-1], np.int64)
    for task in prange(v * chunks):
        i, chunk = task // chunks, task % chunks
        begin, end = visible[i] * chunk // chunks, visible[i] * (chunk + 1) // chunks
        _fill(i, begin, end, order, columns, spans, tiles[i, chunk], pairs, width)
    return starts, pairs
