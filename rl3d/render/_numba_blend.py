"""Compiled loops of the CPU rasterizer: blending, and its backward.

A tile is a thread's own work: it goes through its pairs front to back, row by row of sixteen pixels, in vectors (see
:mod:`rl3d.render._vectors`) and without branches. Results do not depend on the number of threads: every pair's gradient has a
slot of its own, and each Gaussian sums its slots in order. Features are three, or come in groups of four: what is ``many`` has
more than three, and code of its own.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import prange

from rl3d.render._compile import INLINE, NO, PARALLEL, STRICT, YES, F, njit, sure
from rl3d.render._numba_bins import HIGH, LOG2E, TILE, pack, unpack
from rl3d.render._vectors import (
    ask,
    both,
    exp2,
    load,
    load_fours,
    load_threes,
    minus_abs,
    scratch,
    some,
    splat,
    store,
    store_fours,
    store_threes,
    total,
    totals,
    where,
)

GEOMETRY = 8
"""Gradients of a pair that are not of features: six moments (see :func:`_unblend_pair`), and two of AbsGS."""
MIN_TRANSMITTANCE = F(1e-4)
MAX_ALPHA, MIN_ALPHA = F(0.999), F(1 / 255)
FAINT, NEARLY_SEEN = F(-120), F(-9)
"""Of log2 of alpha: where it stays above the first, rows follow from the first (see :func:`_meet`); less than the second is not
seen, by far."""
RUN = 8
"""Neighbouring tiles that one thread works on in a row."""
CHUNK = 256
"""Gaussians whose gradients a thread sums at once."""
CHECK = 8
"""After how many Gaussians a tile looks which rows are finished, and at how many rows it then looks."""
ALL_ROWS = (1 << HIGH) - 1


@njit(**INLINE)
@no_type_check
def _start_tile(state, stride, columns, top, width, height):
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
def _cut(alpha):
    """0 where it is below what can be seen, and at most 0.999."""
    return where(alpha >= MIN_ALPHA, where(alpha < MAX_ALPHA, alpha, MAX_ALPHA), F(0))


@njit(**INLINE)
@no_type_check
def _alpha(log_alpha):
    """Two to this power, at most 1, and 0 where it is far too faint to be seen."""
    return where(log_alpha > FAINT, exp2(where(log_alpha < F(0), log_alpha, F(0))), F(0))


@njit(**INLINE)
@no_type_check
def _alpha_of_row(g, row, columns, top, records):
    """A Gaussian's alpha in any row."""
    dx, dy = columns - records[g, 0], splat((top + F(row)) - records[g, 1])
    base = splat(records[g, 5]) - splat(records[g, 2]) * dx * dx
    return _alpha(_log_alpha(base, splat(records[g, 3]) * dx, splat(records[g, 4]), dy))


@njit(**INLINE)
@no_type_check
def _meet(pair, columns, top, records):
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
    g, first, last, follow, alpha, factor = _meet(pair, columns, top, records)
    f0, f1, f2 = splat(features[g, 0]), splat(features[g, 1]), splat(features[g, 2])
    f3 = splat(features[g, 3] if sure(many) else F(0))
    bend = splat(records[g, 6])
    while first < last:
        for row in range(first, min(first + follow, last)):
            at = row * stride
            before = load(state, at)
            weight = before * _cut(alpha)
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
            alpha = _alpha_of_row(g, first, columns, top, records)


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
def _centers(left):
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
    state, weights, columns = scratch(HIGH * stride), scratch(HIGH * TILE), _centers(left)
    _ask_tile(left, top, out)
    _ask_tile(left, top, alpha)
    _start_tile(state, stride, columns, top, width, height)
    closed, taken = np.int64(0), 0
    for k in range(start, stop):
        seen = k - start
        if seen % CHECK == CHECK - 1:
            closed = _close_rows(closed, state, stride, seen // CHECK * CHECK % HIGH)
            if closed == ALL_ROWS:
                break
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
def _spread(number, tasks):
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
        task = _spread(number, v * across * down)
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
    state, columns, names = scratch(HIGH * TILE), _centers(left), np.full(HIGH * TILE, -1, np.int32)
    _start_tile(state, TILE, columns, top, width, height)
    for k in range(start, stop):
        g, first, last = unpack(pairs[k])
        for row in range(first, last):
            at = row * TILE
            before = load(state, at)
            alpha = _cut(_alpha_of_row(g, row, columns, F(top) + F(0.5), records))
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
        task = _spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * HIGH
        _median_tile(starts[task], starts[task + 1], left, top, pairs, records[i], found[i])


@njit(**INLINE)
@no_type_check
def _unblend_pair(pair, columns, top, records, features, state, stride, weights, grads, at_slot, many, absolute):
    """Let one Gaussian pass over the rows [first, last) again, and sum the gradient of its exponent, times 1, dx, dy, dx^2,
    dx dy, dy^2, and of its first four features.

    A row's state is the light let through, the loss's share of everything behind, and the gradients of alpha and of features.
    With s = sum of later weights times their gradients, d loss / d alpha = transmittance * gradient - s / (1 - alpha).
    """
    g, first, last, follow, raw, factor = _meet(pair, columns, top, records)
    a, b, c, bend = splat(records[g, 2]), splat(records[g, 3]), splat(records[g, 4]), splat(records[g, 6])
    dx = columns - records[g, 0]
    slope = b * dx
    f0, f1, f2 = splat(features[g, 0]), splat(features[g, 1]), splat(features[g, 2])
    f3 = splat(features[g, 3] if sure(many) else F(0))
    zero = splat(F(0))
    s0, s1, s2, sum0, sum1, sum2, sum3, over_x, over_y = zero, zero, zero, zero, zero, zero, zero, zero, zero
    while first < last:
        for row in range(first, min(first + follow, last)):
            at = row * stride
            before, alpha = load(state, at), _cut(raw)
            weight = before * alpha
            after = before - weight
            alive = after > MIN_TRANSMITTANCE
            store(state, at, where(alive, after, minus_abs(before)))
            weight = where(alive, weight, F(0))
            u0, u1, u2 = load(state, at + 48), load(state, at + 64), load(state, at + 80)
            gradient = load(state, at + 32) + u0 * f0 + u1 * f1 + u2 * f2
            if sure(many):
                u3 = load(state, at + 96)
                gradient, sum3 = gradient + u3 * f3, sum3 + weight * u3
                store(weights, row * TILE, weight)
                for channel in range(4, features.shape[1]):
                    gradient = gradient + load(state, at + (3 + channel) * TILE) * features[g, channel]
            behind = load(state, at + 16) - weight * gradient
            store(state, at + 16, behind)
            free = both(alive, raw < MAX_ALPHA)
            e = where(free, (before * gradient - behind / (F(1) - alpha)) * alpha, F(0))
            s0 = s0 + e
            s1 = s1 + s0
            s2 = s2 + s1
            sum0, sum1, sum2 = sum0 + weight * u0, sum1 + weight * u1, sum2 + weight * u2
            if sure(absolute):
                dy = splat((top + F(row)) - records[g, 1])
                # The gradient of the centre is the conic times (dx, dy) times e; here in units of 1 / log2(e).
                over_x = over_x - minus_abs(e * (a * dx * F(2) + b * dy))
                over_y = over_y - minus_abs(e * (slope + c * dy * F(2)))
            raw, factor = raw * factor, factor - factor * bend
        first += follow
        if first < last:
            raw = _alpha_of_row(g, first, columns, top, records)
    # Sums of sums: with m the rows left, itself included, s1 is the sum of m e, s2 that of m (m + 1) / 2 e; and dy is end - m.
    end = splat((top + F(last)) - records[g, 1])
    first_y = end * s0 - s1
    second_y = end * (first_y - s1) + (s2 + s2 - s1)
    moments = (s0, s0 * dx, first_y, s0 * dx * dx, first_y * dx, second_y)
    store(grads, at_slot, totals(*moments, over_x, over_y, sum0, sum1, sum2, sum3))


@njit(**INLINE)
@no_type_check
def _unblend_group(first, last, group, state, stride, weights, grads, at_slot):
    """Sum weight times upstream gradient over the rows [first, last), for four features."""
    zero = splat(F(0))
    sum0, sum1, sum2, sum3 = zero, zero, zero, zero
    for row in range(first, last):
        weight, at = load(weights, row * TILE), row * stride + (3 + 4 * group) * TILE
        sum0, sum1 = sum0 + weight * load(state, at), sum1 + weight * load(state, at + 16)
        sum2, sum3 = sum2 + weight * load(state, at + 32), sum3 + weight * load(state, at + 48)
    at = at_slot + GEOMETRY + 4 * group
    grads[at], grads[at + 1], grads[at + 2], grads[at + 3] = total(sum0), total(sum1), total(sum2), total(sum3)


@njit(**INLINE)
@no_type_check
def _read_row(state, at, out, alpha, d_out, d_alpha, pixel, channels, many):
    """Start the state of the sixteen pixels from ``pixel`` on: the loss's share of all, and the gradients."""
    gradient = load(d_alpha, pixel)
    store(state, at + 32, gradient)
    share = gradient * load(alpha, pixel)
    if not sure(many):
        u, f = load_threes(d_out, 3 * pixel), load_threes(out, 3 * pixel)
        share = share + u[0] * f[0] + u[1] * f[1] + u[2] * f[2]
        store(state, at + 48, u[0])
        store(state, at + 64, u[1])
        store(state, at + 80, u[2])
    else:
        for channel in range(0, channels, 4):
            index, place = channels * pixel + channel, at + (3 + channel) * TILE
            u, f = load_fours(d_out, index, channels), load_fours(out, index, channels)
            share = share + u[0] * f[0] + u[1] * f[1] + u[2] * f[2] + u[3] * f[3]
            store(state, place, u[0])
            store(state, place + 16, u[1])
            store(state, place + 32, u[2])
            store(state, place + 48, u[3])
    store(state, at + 16, share)


@njit(**STRICT)
@no_type_check
def _unblend_tile(
    start, stop, left, top, kept, slots, records, features, out, alpha, d_out, d_alpha, grads, room, many, absolute
):
    height, width, channels = out.shape
    padded = features.shape[1]
    stride = (3 + padded) * TILE
    state, weights, columns = scratch(HIGH * stride), scratch(HIGH * TILE), _centers(left)
    _start_tile(state, stride, columns, top, width, height)
    for row in range(min(HIGH, height - top)):
        if left + TILE <= width:
            _read_row(state, row * stride, out, alpha, d_out, d_alpha, (top + row) * width + left, channels, many)
            continue
        for column in range(min(TILE, width - left)):
            y, x, at = top + row, left + column, row * stride + column
            share = d_alpha[y, x, 0] * alpha[y, x, 0]
            state[at + 32] = d_alpha[y, x, 0]
            for channel in range(channels):
                share += d_out[y, x, channel] * out[y, x, channel]
                state[at + (3 + channel) * TILE] = d_out[y, x, channel]
            state[at + 16] = share
    for k in range(start, stop):
        if k + 1 < stop:
            ask(grads, slots[k + 1] * room)
        pair, at_slot = kept[k], slots[k] * room
        view = (records, features, state, stride, weights)
        _unblend_pair(pair, columns, F(top) + F(0.5), *view, grads, at_slot, many, absolute)
        _, first, last = unpack(pair)
        for group in range(1, padded // 4):
            _unblend_group(first, last, group, state, stride, weights, grads, at_slot)


@njit(**STRICT)
@no_type_check
def _give_slots(starts, taken, kept, views, n):
    """Number the pairs that were blended so that each Gaussian's lie together, in the order of tiles.

    Returns each pair's slot, and where those of each Gaussian start.
    """
    firsts, slots = np.zeros(views * n + 1, np.int64), np.empty(len(kept), np.int32)
    area = len(taken) // max(views, 1)
    for task in range(len(taken)):
        for k in range(starts[task], starts[task] + taken[task]):
            firsts[task // area * n + unpack(kept[k])[0] + 1] += 1
    for i in range(views * n):
        firsts[i + 1] += firsts[i]
    cursor = firsts[:-1].copy()
    for task in range(len(taken)):
        for k in range(starts[task], starts[task] + taken[task]):
            own = task // area * n + unpack(kept[k])[0]
            slots[k] = cursor[own]
            cursor[own] += 1
    return slots, firsts


@njit(**STRICT)
@no_type_check
def _gather(i, begin, end, firsts, grads, room, conics, opacities, d_means, d_conics, d_opacities, d_features, over):
    """Sum the gradients of Gaussians [begin, end) over their pairs, and turn moments into those of ellipses and opacities."""
    channels = d_features.shape[2]
    for g in range(begin, end):
        first, last = firsts[i * opacities.shape[1] + g], firsts[i * opacities.shape[1] + g + 1]
        if first == last:
            d_means[i, g, 0], d_means[i, g, 1], d_opacities[i, g] = F(0), F(0), F(0)
            d_conics[i, g, 0], d_conics[i, g, 1], d_conics[i, g, 2] = F(0), F(0), F(0)
            over[i, g, 0], over[i, g, 1] = F(0), F(0)
            for channel in range(channels):
                d_features[i, g, channel] = F(0)
            continue
        at, sums = first * room, load(grads, first * room)
        for slot in range(first + 1, last):
            sums = sums + load(grads, slot * room)
            for channel in range(TILE - GEOMETRY, channels):
                grads[at + GEOMETRY + channel] += grads[slot * room + GEOMETRY + channel]
        store(grads, at, sums)
        sx, sy, a, b, c = grads[at + 1], grads[at + 2], conics[i, g, 0], conics[i, g, 1], conics[i, g, 2]
        d_means[i, g, 0], d_means[i, g, 1], d_opacities[i, g] = a * sx + b * sy, b * sx + c * sy, grads[at] / opacities[i, g]
        d_conics[i, g, 0], d_conics[i, g, 1], d_conics[i, g, 2] = (
            F(-0.5) * grads[at + 3],
            -grads[at + 4],
            F(-0.5) * grads[at + 5],
        )
        over[i, g, 0], over[i, g, 1] = F(1 / LOG2E) * grads[at + 6], F(1 / LOG2E) * grads[at + 7]
        for channel in range(channels):
            d_features[i, g, channel] = grads[at + GEOMETRY + channel]


def unblend(starts, kept, taken, conics, opacities, records, features, out, alpha, d_out, d_alpha, absolute: bool):
    """The backward of :func:`blend`: gradients of means, conics, opacities and features.

    The last of what it returns is the sum of absolute values of the means' gradients over pixels (AbsGS), if ``absolute``.
    """
    known = (starts, kept, taken, conics, opacities, records, features, out, alpha, d_out, d_alpha)
    return _unblend(*known, YES if features.shape[-1] > 3 else NO, YES if absolute else NO)


@njit(**PARALLEL)
@no_type_check
def _unblend(starts, kept, taken, conics, opacities, records, features, out, alpha, d_out, d_alpha, many, absolute):
    v, height, width, _ = out.shape
    n, channels = features.shape[1:]
    across, down = (width + TILE - 1) // TILE, (height + HIGH - 1) // HIGH
    slots, firsts = _give_slots(starts, taken, kept, v, n)
    room = max(TILE, GEOMETRY + channels)
    grads = scratch(firsts[-1] * room)
    for number in prange(v * across * down):
        task = _spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * HIGH
        view = (records[i], features[i], out[i], alpha[i], d_out[i], d_alpha[i])
        start = starts[task]
        _unblend_tile(start, start + taken[task], left, top, kept, slots, *view, grads, room, many, absolute)
    d_means, d_conics = np.empty((v, n, 2), np.float32), np.empty((v, n, 3), np.float32)
    d_opacities, d_features = np.empty((v, n), np.float32), np.empty((v, n, channels), np.float32)
    over = np.empty((v, n, 2), np.float32)
    chunks = (n + CHUNK - 1) // CHUNK
    for task in prange(v * chunks):
        i, begin = task // chunks, task % chunks * CHUNK
        found = (d_means, d_conics, d_opacities, d_features, over)
        _gather(i, begin, min(n, begin + CHUNK), firsts, grads, room, conics, opacities, *found)
    return d_means, d_conics, d_opacities, d_features, over
