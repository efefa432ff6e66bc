"""Compiled loops of the CPU rasterizer: blending, and its backward.

A tile is a thread's own work: it goes through its pairs front to back, row by row of sixteen pixels, in vectors (see
:mod:`rl3d.render._vectors`) and without branches. Results do not depend on the number of threads: every pair's gradient has a
slot of its own, and each Gaussian sums its slots in order. Features come in groups of four.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from rl3d.render._compile import PARALLEL, STRICT, F
from rl3d.render._numba_bins import TILE
from rl3d.render._vectors import both, exp2, load, minus_abs, some, splat, store, total, where

AREA = TILE * TILE
GEOMETRY = 8
"""Gradients of a pair that are not of features: six moments (see :func:`_unblend_pair`), and two of AbsGS."""
INLINE = {**STRICT, "forceinline": True}

LOG2E = math.log2(math.e)
MAX_ALPHA, MIN_TRANSMITTANCE = F(0.999), F(1e-4)
LOG_MAX_ALPHA, LOG_MIN_ALPHA = F(math.log2(0.999)), F(-math.log2(255))
CHECK_EVERY = 8
"""After how many Gaussians a tile looks which of its rows are still open."""


@njit(**PARALLEL)
@no_type_check
def ellipses(means, conics, opacities):
    """What the loops need of each Gaussian in one place, [v n 8]: log2 of its alpha is l - a dx^2 - b dx dy - c dy^2."""
    v, n = opacities.shape
    out = np.zeros((v, n, 8), np.float32)
    for k in prange(v * n):
        i, g = k // n, k % n
        if opacities[i, g] > F(0):
            own = out[i, g]
            own[0], own[1] = means[i, g, 0], means[i, g, 1]
            own[2], own[3] = F(0.5 * LOG2E) * conics[i, g, 0], F(LOG2E) * conics[i, g, 1]
            own[4], own[5] = F(0.5 * LOG2E) * conics[i, g, 2], F(math.log2(opacities[i, g]))
    return out


@njit(**STRICT)
@no_type_check
def _start_tile(through, left, top, width, height):
    """Let all light through inside the image; pixels outside are finished, which a negative sign says."""
    for p in range(AREA):
        through[p] = F(1) if left + p % TILE < width and top + p // TILE < height else F(-1)


@njit(**INLINE)
@no_type_check
def _open_rows(through, low, high):
    """Narrow the rows [low, high) by those at its ends whose pixels are all finished."""
    while low < high and not some(load(through, low * TILE) > F(0)):
        low += 1
    while low < high and not some(load(through, high * TILE - TILE) > F(0)):
        high -= 1
    return low, high


@njit(**INLINE)
@no_type_check
def _log_alpha(base, slope, c, limit, dy):
    """log2 of a Gaussian's alpha along a row; rounding may not lift it above the Gaussian's opacity."""
    log_alpha = base - (slope + c * dy) * dy
    return where(log_alpha < limit, log_alpha, limit)


@njit(**INLINE)
@no_type_check
def _alpha(log_alpha):
    alpha = exp2(log_alpha)
    alpha = where(alpha < MAX_ALPHA, alpha, MAX_ALPHA)
    return where(log_alpha >= LOG_MIN_ALPHA, alpha, F(0))


@njit(**INLINE)
@no_type_check
def _blend_pair(first, last, left, top, own, feature, columns, through, weights, image):
    """Let one Gaussian pass over the rows [first, last) of a tile: add four features, and keep weights for others."""
    x, y, a, b, c, limit = own[0], own[1], own[2], own[3], own[4], own[5]
    dx = load(columns, 0) + (left - x)
    base, slope = limit - a * dx * dx, b * dx
    f0, f1, f2, f3 = splat(feature[0]), splat(feature[1]), splat(feature[2]), splat(feature[3])
    for row in range(first, last):
        at = row * TILE
        alpha = _alpha(_log_alpha(base, slope, c, limit, (top + F(row)) - y))
        before = load(through, at)
        weight = before * alpha
        after = before - weight
        alive = after > MIN_TRANSMITTANCE
        store(through, at, where(alive, after, minus_abs(before)))
        weight = where(alive, weight, F(0))
        store(image, at, load(image, at) + weight * f0)
        store(image, at + AREA, load(image, at + AREA) + weight * f1)
        store(image, at + 2 * AREA, load(image, at + 2 * AREA) + weight * f2)
        store(image, at + 3 * AREA, load(image, at + 3 * AREA) + weight * f3)
        if len(feature) > 4:
            store(weights, at, weight)


@njit(**INLINE)
@no_type_check
def _blend_group(first, last, feature, group, weights, image):
    """Add four features of one Gaussian to the rows [first, last), with the weights that :func:`_blend_pair` kept."""
    f0, f1, f2, f3 = (
        splat(feature[4 * group]),
        splat(feature[4 * group + 1]),
        splat(feature[4 * group + 2]),
        splat(feature[4 * group + 3]),
    )
    for row in range(first, last):
        weight, at = load(weights, row * TILE), 4 * group * AREA + row * TILE
        store(image, at, load(image, at) + weight * f0)
        store(image, at + AREA, load(image, at + AREA) + weight * f1)
        store(image, at + 2 * AREA, load(image, at + 2 * AREA) + weight * f2)
        store(image, at + 3 * AREA, load(image, at + 3 * AREA) + weight * f3)


@njit(**STRICT)
@no_type_check
def _centers():
    return np.arange(TILE).astype(np.float32) + F(0.5)


@njit(**STRICT)
@no_type_check
def _blend_tile(start, stop, left, top, pairs, records, features, out, alpha):
    height, width, channels = out.shape
    groups = features.shape[1] // 4
    columns, through, weights = _centers(), np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    image = np.zeros(4 * groups * AREA, np.float32)
    _start_tile(through, left, top, width, height)
    low, high = 0, TILE
    for k in range(start, stop):
        if (k - start) % CHECK_EVERY == CHECK_EVERY - 1:
            low, high = _open_rows(through, low, high)
            if low == high:
                break
        g = pairs[k, 0]
        first, last = max(pairs[k, 1], low), min(pairs[k, 1] + pairs[k, 2], high)
        _blend_pair(first, last, F(left), F(top) + F(0.5), records[g], features[g], columns, through, weights, image)
        for group in range(1, groups):
            _blend_group(first, last, features[g], group, weights, image)
    for row in range(top, min(top + TILE, height)):
        for column in range(left, min(left + TILE, width)):
            p = (row - top) * TILE + column - left
            alpha[row, column, 0] = F(1) - abs(through[p])
            for channel in range(channels):
                out[row, column, channel] = image[channel * AREA + p]


@njit(**STRICT)
@no_type_check
def _spread(task, tasks):
    """A permutation of tasks that gives every thread its share of the image's middle, where most of the work is."""
    step = int(tasks * 0.6180339887) | 1
    while math.gcd(step, tasks) != 1:
        step += 2
    return task * step % tasks


@njit(**PARALLEL)
@no_type_check
def blend(starts, pairs, records, features, out, alpha):
    """Blend features [v n 4g] into ``out`` [v h w c], and fill ``alpha`` [v h w 1]."""
    v, height, width, _ = out.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for number in prange(v * across * down):
        task = _spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * TILE
        _blend_tile(starts[task], starts[task + 1], left, top, pairs, records[i], features[i], out[i], alpha[i])


@njit(**STRICT)
@no_type_check
def _median_tile(start, stop, left, top, pairs, records, found):
    """Note in each pixel the first Gaussian that leaves half of the light or less."""
    height, width = found.shape
    columns, through = _centers(), np.empty(AREA, np.float32)
    names = np.full(AREA, -1, np.int32)
    _start_tile(through, left, top, width, height)
    for k in range(start, stop):
        g = pairs[k, 0]
        x, y, a, b, c, limit = records[g, 0], records[g, 1], records[g, 2], records[g, 3], records[g, 4], records[g, 5]
        dx = load(columns, 0) + (F(left) - x)
        base, slope = limit - a * dx * dx, b * dx
        for row in range(pairs[k, 1], pairs[k, 1] + pairs[k, 2]):
            at = row * TILE
            before = load(through, at)
            alpha = _alpha(_log_alpha(base, slope, c, limit, (F(top) + F(0.5) + F(row)) - y))
            store(through, at, where(before > F(0.5), before - before * alpha, before))
            if some(both(before > F(0.5), load(through, at) <= F(0.5))):
                for p in range(at, at + TILE):
                    if names[p] < 0 and abs(through[p]) <= F(0.5):
                        names[p] = g
    for row in range(top, min(top + TILE, height)):
        for column in range(left, min(left + TILE, width)):
            found[row, column] = names[(row - top) * TILE + column - left]


@njit(**PARALLEL)
@no_type_check
def medians(starts, pairs, records, found):
    """Fill ``found`` [v h w] with the Gaussian behind which half of the light or less is left; -1 where there is none."""
    v, height, width = found.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for number in prange(v * across * down):
        task = _spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * TILE
        _median_tile(starts[task], starts[task + 1], left, top, pairs, records[i], found[i])


@njit(**INLINE)
@no_type_check
def _unblend_pair(first, last, left, top, own, feature, columns, through, weights, rest, upstream, grads, absolute):
    """Let one Gaussian pass over the rows [first, last) again, and sum the gradient of its exponent, times 1, dx, dy, dx^2,
    dx dy, dy^2, and of its first four features.

    ``rest`` is the loss's share of everything behind. With s = sum of later weights times their gradients,
    d loss / d alpha = transmittance * gradient - s / (1 - alpha).
    """
    x, y, a, b, c, limit = own[0], own[1], own[2], own[3], own[4], own[5]
    dx = load(columns, 0) + (left - x)
    base, slope = limit - a * dx * dx, b * dx
    f0, f1, f2, f3 = splat(feature[0]), splat(feature[1]), splat(feature[2]), splat(feature[3])
    zero = splat(F(0))
    s0, s1, s2, sum0, sum1, sum2, sum3, over_x, over_y = zero, zero, zero, zero, zero, zero, zero, zero, zero
    alphas = len(feature) * AREA
    for row in range(first, last):
        at, dy = row * TILE, (top + F(row)) - y
        log_alpha = _log_alpha(base, slope, c, limit, dy)
        alpha = _alpha(log_alpha)
        before = load(through, at)
        weight = before * alpha
        after = before - weight
        alive = after > MIN_TRANSMITTANCE
        store(through, at, where(alive, after, minus_abs(before)))
        weight = where(alive, weight, F(0))
        u0, u1, u2, u3 = (
            load(upstream, at),
            load(upstream, at + AREA),
            load(upstream, at + 2 * AREA),
            load(upstream, at + 3 * AREA),
        )
        gradient = load(upstream, alphas + at) + u0 * f0 + u1 * f1 + u2 * f2 + u3 * f3
        if len(feature) > 4:
            store(weights, at, weight)
            for channel in range(4, len(feature)):
                gradient = gradient + load(upstream, channel * AREA + at) * feature[channel]
        behind = load(rest, at) - weight * gradient
        store(rest, at, behind)
        e = where(alive, (before * gradient - behind / (F(1) - alpha)) * alpha, F(0))
        e = where(log_alpha < LOG_MAX_ALPHA, e, F(0))
        ey = e * dy
        s0, s1, s2 = s0 + e, s1 + ey, s2 + ey * dy
        sum0, sum1, sum2, sum3 = sum0 + weight * u0, sum1 + weight * u1, sum2 + weight * u2, sum3 + weight * u3
        if absolute:
            # The gradient of the centre is the conic times (dx, dy) times e; here in units of 1 / log2(e).
            over_x = over_x - minus_abs(e * (F(2) * a * dx + b * dy))
            over_y = over_y - minus_abs(e * (slope + F(2) * c * dy))
    grads[0], grads[1], grads[2] = total(s0), total(s0 * dx), total(s1)
    grads[3], grads[4], grads[5] = total(s0 * dx * dx), total(s1 * dx), total(s2)
    if absolute:
        grads[6], grads[7] = total(over_x), total(over_y)
    grads[8], grads[9], grads[10], grads[11] = total(sum0), total(sum1), total(sum2), total(sum3)


@njit(**INLINE)
@no_type_check
def _unblend_group(first, last, group, weights, upstream, grads):
    """Sum weight times upstream gradient over the rows [first, last), for four features."""
    zero = splat(F(0))
    sum0, sum1, sum2, sum3 = zero, zero, zero, zero
    for row in range(first, last):
        weight, at = load(weights, row * TILE), 4 * group * AREA + row * TILE
        sum0, sum1 = sum0 + weight * load(upstream, at), sum1 + weight * load(upstream, at + AREA)
        sum2, sum3 = sum2 + weight * load(upstream, at + 2 * AREA), sum3 + weight * load(upstream, at + 3 * AREA)
    at = GEOMETRY + 4 * group
    grads[at], grads[at + 1], grads[at + 2], grads[at + 3] = total(sum0), total(sum1), total(sum2), total(sum3)


@njit(**STRICT)
@no_type_check
def _unblend_tile(start, stop, left, top, pairs, records, features, out, alpha, d_out, d_alpha, grads, absolute):
    height, width, channels = out.shape
    padded = features.shape[1]
    columns, through, weights = _centers(), np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    rest, upstream = np.zeros(AREA, np.float32), np.zeros((padded + 1) * AREA, np.float32)
    _start_tile(through, left, top, width, height)
    for row in range(top, min(top + TILE, height)):
        for column in range(left, min(left + TILE, width)):
            p = (row - top) * TILE + column - left
            upstream[padded * AREA + p] = d_alpha[row, column, 0]
            share = d_alpha[row, column, 0] * alpha[row, column, 0]
            for channel in range(channels):
                upstream[channel * AREA + p] = d_out[row, column, channel]
                share += d_out[row, column, channel] * out[row, column, channel]
            rest[p] = share
    low, high = 0, TILE
    for k in range(start, stop):
        own = grads[pairs[k, 3]]
        if low < high and (k - start) % CHECK_EVERY == CHECK_EVERY - 1:
            low, high = _open_rows(through, low, high)
        if low == high:
            own[:] = F(0)
            continue
        g = pairs[k, 0]
        first, last = max(pairs[k, 1], low), min(pairs[k, 1] + pairs[k, 2], high)
        state = (through, weights, rest, upstream)
        _unblend_pair(first, last, F(left), F(top) + F(0.5), records[g], features[g], columns, *state, own, absolute)
        for group in range(1, padded // 4):
            _unblend_group(first, last, group, weights, upstream, own)


@njit(**STRICT)
@no_type_check
def _gather(slots, grads, conic, opacity, d_mean, d_conic, d_feature, over, absolute):
    """Sum the gradients of one Gaussian over its pairs, turn moments into the gradients of its ellipse, give its opacity's."""
    s0, sx, sy, sxx, sxy, syy = F(0), F(0), F(0), F(0), F(0), F(0)
    d_feature[:] = F(0)
    over[:] = F(0)
    for slot in range(slots[0], slots[0] + slots[1]):
        own = grads[slot]
        s0 += own[0]
        sx += own[1]
        sy += own[2]
        sxx += own[3]
        sxy += own[4]
        syy += own[5]
        if absolute:
            over[0] += F(1 / LOG2E) * own[6]
            over[1] += F(1 / LOG2E) * own[7]
        for channel in range(len(d_feature)):
            d_feature[channel] += own[GEOMETRY + channel]
    d_mean[0], d_mean[1] = conic[0] * sx + conic[1] * sy, conic[1] * sx + conic[2] * sy
    d_conic[0], d_conic[1], d_conic[2] = F(-0.5) * sxx, -sxy, F(-0.5) * syy
    return s0 / opacity if opacity > F(0) else F(0)


@njit(**PARALLEL)
@no_type_check
def unblend(starts, pairs, slots, conics, opacities, records, features, out, alpha, d_out, d_alpha, absolute):
    """The backward of :func:`blend`: gradients of means, conics, opacities and features.

    The last of what it returns is the sum of absolute values of the means' gradients over pixels (AbsGS), if ``absolute``.
    """
    v, height, width, _ = out.shape
    n, channels = features.shape[1:]
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    grads = np.empty((len(pairs), GEOMETRY + channels), np.float32)
    for number in prange(v * across * down):
        task = _spread(number, v * across * down)
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * TILE
        view = (records[i], features[i], out[i], alpha[i], d_out[i], d_alpha[i])
        _unblend_tile(starts[task], starts[task + 1], left, top, pairs, *view, grads, absolute)
    d_means, d_conics = np.empty((v, n, 2), np.float32), np.empty((v, n, 3), np.float32)
    d_opacities, d_features = np.empty((v, n), np.float32), np.empty((v, n, channels), np.float32)
    over = np.empty((v, n, 2), np.float32)
    for k in prange(v * n):
        i, g = k // n, k % n
        d_mean, d_conic, d_feature = d_means[i, g], d_conics[i, g], d_features[i, g]
        d_opacities[i, g] = _gather(
            slots[i, g], grads, conics[i, g], opacities[i, g], d_mean, d_conic, d_feature, over[i, g], absolute
        )
    return d_means, d_conics, d_opacities, d_features, over
