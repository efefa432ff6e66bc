"""Compiled loops of the CPU rasterizer: blending.

A tile is a thread's own work: it goes through its pairs front to back, row by row of sixteen pixels, in vectors (see
:mod:`rl3d.render._vectors`) and without branches. Features are three, or come in groups of four: what is ``many`` has more
than three, and code of its own.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import prange

from rl3d.render._compile import INLINE, NO, PARALLEL, STRICT, YES, F, njit, sure
from rl3d.render._numba_bins import HIGH, TILE, pack, unpack
from rl3d.render._vectors import ask, both, exp2, load, minus_abs, scratch, some, splat, store, store_fours, store_threes, where

MIN_TRANSMITTANCE = F(1e-4)
MAX_ALPHA, MIN_ALPHA = F(0.999), F(1 / 255)
FAINT, NEARLY_SEEN = F(-120), F(-9)
"""Of log2 of alpha: where it stays above the first, rows follow from the first (see :func:`meet`); less than the second is not
seen, by far."""
RUN = 8
"""Neighbouring tiles that one thread works on in a row."""
CHECK = 8
"""After how many Gaussians a tile looks which rows are finished, and at how many rows it then looks."""
ALL_ROWS = (1 << HIGH) - 1


@njit(**INLINE)
@no_type_check
def start_tile(state, stride, columns, top, width, height):
    """Let all light through inside the image; pixels outside are finished, which a negative sign says.

    A tile's state has ``stride`` numbers for each row: the light let through by its 16 pixels, and others by sixteens.
    """
    state[:] = F(0)
    light = where(columns < F(width), splat(F(1)), F(-1))
    for row in range(HIGH):
        store(state, row * stride, light if top + row < height else splat(F(-1)))


@njit(**INLINE)
@no_type_check
def _close_rows(closed, state, stride, begin):
    """Note (as bits) which of the rows from ``begin`` on have only finished pixels."""
    for row in range(begin, begin + CHECK):
        if not some(load(state, row * stride) > F(0)):
            closed |= 1 << row
    return closed


@njit(**INLINE)
@no_type_check
def _log_alpha(base, slope, c, dy):
    """log2 of a Gaussian's alpha along a row, ``dy`` below its centre."""
    return base - (slope + dy * c) * dy


@njit(**INLINE)
@no_type_check
def cut(alpha):
    """0 where it is below what can be seen, and at most 0.999."""
    return where(alpha >= MIN_ALPHA, where(alpha < MAX_ALPHA, alpha, MAX_ALPHA), F(0))


@njit(**INLINE)
@no_type_check
def _alpha(log_alpha):
    """Two to this power, at most 1, and 0 where it is far too faint to be seen."""
    return where(log_alpha > FAINT, exp2(where(log_alpha < F(0), log_alpha, F(0))), F(0))


@njit(**INLINE)
@no_type_check
def alpha_of_row(g, row, columns, top, records):
    """A Gaussian's alpha in any row."""
    dx, dy = columns - records[g, 0], splat((top + F(row)) - records[g, 1])
    base = splat(records[g, 5]) - splat(records[g, 2]) * dx * dx
    return _alpha(_log_alpha(base, splat(records[g, 3]) * dx, splat(records[g, 4]), dy))


@njit(**INLINE)
@no_type_check
def meet(pair, columns, top, records):
    """What is known of a pair before its rows are: the Gaussian, its rows [first, last), how many of them follow from the first
    (all, or just that one), the alpha of the first, and the factor by which the next row's differs.

    The exponent is quadratic in dy, so that factor changes by the same factor each time, 2^(-2c): two products make a row of
    the one before, where a power of two takes ten instructions. That needs every row to be in float32's range, in columns
    where there is anything to see; the exponent is concave along a column, so it is lowest in the first row or the last.
    """
    g, first, last = unpack(pair)
    x, y, peak = records[g, 0], records[g, 1], records[g, 5]
    a, b, c = splat(records[g, 2]), splat(records[g, 3]), splat(records[g, 4])
    dx = columns - x
    base, slope = splat(peak) - a * dx * dx, b * dx
    dy, dy_last = splat((top + F(first)) - y), splat((top + F(last - 1)) - y)
    begin, end = _log_alpha(base, slope, c, dy), _log_alpha(base, slope, c, dy_last)
    seen = base * F(1 - 2**-20) + slope * slope * records[g, 7] > NEARLY_SEEN  # less of base, for rounding
    follow = 1 if peak > F(0) or some(both(seen, where(begin < end, begin, end) <= FAINT)) else HIGH
    factor = exp2(c * (dy * F(-2) - F(1)) - slope)
    return g, first, last, follow, where(seen, _alpha(begin), F(0)), where(seen, factor, F(0))


@njit(**INLINE)
@no_type_check
def _blend_pair(pair, columns, top, records, features, state, stride, weights, many):
    """Let one Gaussian pass over its rows of a tile: add its features, or four of many, and keep its weights."""
    g, first, last, follow, alpha, factor = meet(pair, columns, top, records)
    f0, f1, f2 = splat(features[g, 0]), splat(features[g, 1]), splat(features[g, 2])
    f3 = splat(features[g, 3] if sure(many) else F(0))
    bend = splat(records[g, 6])
    while first < last:
        for row in range(first, min(first + follow, last)):
            at = row * stride
            before = load(state, at)
            weight = before * cut(alpha)
            alpha, factor = alpha * factor, factor - factor * bend
            after = before - weight
            alive = after > MIN_TRANSMITTANCE
            store(state, at, where(alive, after, minus_abs(before)))
            weight = where(alive, weight, F(0))
            store(state, at + 16, load(state, at + 16) + weight * f0)
            store(state, at + 32, load(state, at + 32) + weight * f1)
            store(state, at + 48, load(state, at + 48) + weight * f2)
            if sure(many):
                store(state, at + 64, load(state, at + 64) + weight * f3)
                store(weights, row * TILE, weight)
        first += follow
        if first < last:
            alpha = alpha_of_row(g, first, columns, top, records)


@njit(**INLINE)
@no_type_check
def _blend_group(first, last, g, features, group, state, stride, weights):
    """Add four features of one Gaussian to the rows [first, last), with the weights that :func:`_blend_pair` kept."""
    q = 4 * group
    f0, f1 = splat(features[g, q]), splat(features[g, q + 1])
    f2, f3 = splat(features[g, q + 2]), splat(features[g, q + 3])
    for row in range(first, last):
        weight, at = load(weights, row * TILE), row * stride + (1 + q) * TILE
        store(state, at, load(state, at) + weight * f0)
        store(state, at + 16, load(state, at + 16) + weight * f1)
        store(state, at + 32, load(state, at + 32) + weight * f2)
        store(state, at + 48, load(state, at + 48) + weight * f3)


@njit(**INLINE)
@no_type_check
def ask_gaussian(pair, records, features):
    """Have what a pair's Gaussian is and shows fetched."""
    g, _, _ = unpack(pair)
    ask(records, g * records.shape[1])
    ask(features, g * features.shape[1])


@njit(**INLINE)
@no_type_check
def centers(left):
    """The x of the pixels of a tile's row."""
    numbers = scratch(TILE)
    for column in range(TILE):
        numbers[column] = F(left + column) + F(0.5)
    return load(numbers, 0)


@njit(**INLINE)
@no_type_check
def _ask_tile(left, top, image):
    """Have a tile of ``image`` [h w c] fetched, row by row: they lie far apart, so that memory cannot guess what comes next."""
    height, width, channels = image.shape
    size = channels * min(TILE, width - left)
    for row in range(top, min(top + HIGH, height)):
        at = channels * (row * width + left)
        for i in range(at, at + size, TILE):
            ask(image, i)
        ask(image, at + size - 1)


@njit(**INLINE)
@no_type_check
def _write_row(state, at, out, alpha, pixel, channels, many):
    """Write what the sixteen pixels from ``pixel`` on show."""
    store(alpha, pixel, minus_abs(load(state, at)) + F(1))
    if not sure(many):
        store_threes(out, 3 * pixel, load(state, at + 16), load(state, at + 32), load(state, at + 48))
        return
    for channel in range(0, channels, 4):
        at += 4 * TILE
        a, b, c, d = load(state, at - 48), load(state, at - 32), load(state, at - 16), load(state, at)
        store_fours(out, channels * pixel + channel, channels, a, b, c, d)


@njit(**STRICT)
@no_type_check
def _blend_tile(start, stop, left, top, pairs, kept, records, features, out, alpha, many):
    """Blend one tile, keep the pairs that had open rows, and return how many that were."""
    height, width, channels = out.shape
    padded = features.shape[1]
    stride = (1 + padded) * TILE
    state, weights, columns = scratch(HIGH * stride), scratch(HIGH * TILE), centers(left)
    _ask_tile(left, top, out)
    _ask_tile(left, top, alpha)
    start_tile(state, stride, columns, top, width, height)
    closed, taken = np.int64(0), 0
    for k in range(start, stop):
        seen = k - start
        if seen % CHECK == CHECK - 1:
            closed = _close_rows(closed, state, stride, seen // CHECK * CHECK % HIGH)
            if closed == ALL_ROWS:
                break
        if k + 2 < stop:
            ask_gaussian(pairs[k + 2], records, features)
        g, first, last = unpack(pairs[k])
        rows = ((1 << last) - (1 << first)) & ~closed
        if rows == 0:
            continue
        while not (rows >> first) & 1:
            first += 1
        while not rows >> (last - 1):
            last -= 1
        pair = kept[start + taken] = pack(g, first, last)
        taken += 1
        _blend_pair(pair, columns, F(top) + F(0.5), records, features, state, stride, weights, many)
        for group in range(1, padded // 4):
            _blend_group(first, last, g, features, group, state, stride, weights)
    for row in range(min(HIGH, height - top)):
        if left + TILE <= width:
            _write_row(state, row * stride, out, alpha, (top + row) * width + left, channels, many)
            continue
        for column in range(min(TILE, width - left)):
            alpha[top + row, left + column, 0] = F(1) - abs(state[row * stride + column])
            for channel in range(channels):
                out[top + row, left + column, channel] = state[row * stride + (1 + channel) * TILE + column]
    return taken


@njit(**STRICT)
@no_type_check
def spread(number, tasks):
    """A permutation of tasks that gives every thread its share of the image's middle, where most of the work is.

    Where there are many, runs of neighbours stay together: they share pages of memory.
    """
    number, run = np.int64(number), RUN if tasks >= RUN * RUN else 1
    runs = tasks // run
    if number >= runs * run:
        return number
    step = int(runs * 0.6180339887) | 1
    while math.gcd(step, runs) != 1:
        step += 2
    return number // run * step % runs * run + number % run


def blend(starts, pairs, records, features, out, alpha):
    """Blend features [v n c] into ``out`` [v h w c], and fill ``alpha`` [v h w 1].

    Returns the pairs that were blended, narrowed to rows that were still open, and how many of each tile; they start where the
    tile's pairs did.
    """
    return _blend(starts, pairs, records, features, out, alpha, YES if features.shape[-1] > 3 else NO)


@njit(**PARALLEL)
@no_type_check
def _blend(starts, pairs, records, features, out, alpha, many):
    v, height, width, _ = out.shape
    across, down = (width + TILE - 1) // TILE, (height + HIGH - 1) // HIGH
    kept, taken = np.empty(len(pairs), np.int64), np.empty(v * across * down, np.int64)
    for number in prange(v * across * down):
        task = spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * HIGH
        view = (records[i], features[i], out[i], alpha[i])
        taken[task] = _blend_tile(starts[task], starts[task + 1], left, top, pairs, kept, *view, many)
    return kept, taken


@njit(**STRICT)
@no_type_check
def _median_tile(start, stop, left, top, pairs, records, found):
    """Note in each pixel the first Gaussian that leaves half of the light or less."""
    height, width = found.shape
    state, columns, names = scratch(HIGH * TILE), centers(left), np.full(HIGH * TILE, -1, np.int32)
    start_tile(state, TILE, columns, top, width, height)
    for k in range(start, stop):
        g, first, last = unpack(pairs[k])
        for row in range(first, last):
            at = row * TILE
            before = load(state, at)
            alpha = cut(alpha_of_row(g, row, columns, F(top) + F(0.5), records))
            after = where(before > F(0.5), before - before * alpha, before)
            store(state, at, after)
            if some(both(before > F(0.5), after <= F(0.5))):
                for p in range(at, at + TILE):
                    if names[p] < 0 and abs(state[p]) <= F(0.5):
                        names[p] = g
    for row in range(min(HIGH, height - top)):
        for column in range(min(TILE, width - left)):
            found[top + row, left + column] = names[row * TILE + column]


@njit(**PARALLEL)
@no_type_check
def medians(starts, pairs, records, found):
    """Fill ``found`` [v h w] with the Gaussian behind which half of the light or less is left; -1 where there is none."""
    v, height, width = found.shape
    across, down = (width + TILE - 1) // TILE, (height + HIGH - 1) // HIGH
    for number in prange(v * across * down):
        task = spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * HIGH
        _median_tile(starts[task], starts[task + 1], left, top, pairs, records[i], found[i])
