"""Compiled loops of the CPU rasterizer: the backward of blending.

Results do not depend on the number of threads: every pair's gradient has a slot of its own, and each Gaussian sums its slots in
order.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import prange

from rl3d.render._compile import INLINE, NO, PARALLEL, STRICT, YES, F, njit, sure
from rl3d.render._numba_bins import HIGH, LOG2E, TILE, unpack
from rl3d.render._numba_blend import (
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    alpha_of_row,
    ask_gaussian,
    centers,
    cut,
    meet,
    spread,
    start_tile,
)
from rl3d.render._vectors import (
    ask,
    both,
    load,
    load_fours,
    load_threes,
    minus_abs,
    scratch,
    splat,
    store,
    total,
    totals,
    where,
)

GEOMETRY = 8
"""Gradients of a pair that are not of features: six moments (see :func:`_unblend_pair`), and two of AbsGS."""
CHUNK = 256
"""Gaussians whose gradients a thread sums at once."""


@njit(**INLINE)
@no_type_check
def _unblend_pair(pair, columns, top, records, features, state, stride, weights, grads, at_slot, many, absolute):
    """Let one Gaussian pass over the rows [first, last) again, and sum the gradient of its exponent, times 1, dx, dy, dx^2,
    dx dy, dy^2, and of its first four features.

    A row's state is the light let through, the loss's share of everything behind, and the gradients of alpha and of features.
    With s = sum of later weights times their gradients, d loss / d alpha = transmittance * gradient - s / (1 - alpha).
    """
    g, first, last, follow, raw, factor = meet(pair, columns, top, records)
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
            before, alpha = load(state, at), cut(raw)
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
            grown = F(1) / (F(1) - alpha)  # a division takes long: it begins before what is behind is known
            behind = load(state, at + 16) - weight * gradient
            store(state, at + 16, behind)
            free = both(alive, raw < MAX_ALPHA)
            e = where(free, (before * gradient - behind * grown) * alpha, F(0))
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
            raw = alpha_of_row(g, first, columns, top, records)
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
    if start == stop:
        return
    height, width, channels = out.shape
    padded = features.shape[1]
    stride = (3 + padded) * TILE
    state, weights, columns = scratch(HIGH * stride), scratch(HIGH * TILE), centers(left)
    start_tile(state, stride, columns, top, width, height)
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
            ask_gaussian(kept[k + 1], records, features)
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
        task = spread(number, v * across * down)
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
