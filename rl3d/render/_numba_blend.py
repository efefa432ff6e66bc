"""Compiled loops of the CPU rasterizer: tiles, sorting, blending, and blending's backward.

The screen is cut into tiles of 16 x 16 pixels. Each (tile, Gaussian) pair that can matter is a *pair*: it knows the rows of
the tile that the Gaussian's ellipse (at alpha = 1/255) reaches, so that no work is done beyond them. Pairs lie tile by tile,
front to back. Results do not depend on the number of threads: every pair's gradient has a slot of its own, and
each Gaussian sums its slots in order.

The inner loops run over the pixels of a pair, without branches and in float32 only, so that compilers turn them into vector
instructions; features come in groups of four, alpha being the first feature, whose value is 1.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

TILE = 16
AREA = TILE * TILE
GEOMETRY = 6
"""Gradients of a pair that are not of features: six moments (see :func:`_pair_gradients`)."""

STRICT = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
FAST = {**STRICT, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}
"""Sums may be reordered (when compiled, not when run); NaN and infinity keep their meaning."""
PARALLEL = {**STRICT, "parallel": True}

F = np.float32
MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE = F(0.999), F(1 / 255), F(1e-4)
HALF_LOG2E = F(0.5 * math.log2(math.e))
ROUND = F(1.5 * 2**23)
"""Added to a small float32, it leaves the nearest integer in the low bits of the mantissa."""
CHECK_EVERY = 8
"""After how many Gaussians a tile looks whether it is opaque."""


@intrinsic
@no_type_check
def _bits(typingctx, x):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
@no_type_check
def _from_bits(typingctx, i):
    """The float32 with the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@njit(**STRICT)
@no_type_check
def _exp2(x):
    """2**x for float32 x in about [-126, 0], within 2e-7 relative."""
    x = x if x > F(-100) else F(-100)
    shifted = x + ROUND
    f = x - (shifted - ROUND)
    p = F(1.3333558e-3)
    p = p * f + F(9.6181291e-3)
    p = p * f + F(5.5504109e-2)
    p = p * f + F(2.4022651e-1)
    p = p * f + F(6.9314718e-1)
    p = p * f + F(1.0)
    return _from_bits(types.int32(_bits(p) + types.int32(_bits(shifted) << types.int32(23))))


@njit(**STRICT)
@no_type_check
def _sort(keys, order, keys2, order2, n):
    """Sort ``order`` by positive float32 ``keys`` given as their bits, stably: a radix sort of three passes of 11 bits."""
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
def _box(x, y, a, b, c, opacity, width, height):
    """The range of tiles [x0, x1) x [y0, y1) of an ellipse, and its squared reach, determinant and topmost x."""
    reach = 2.0 * math.log(opacity * 255.0)
    det = a * c - b * b
    if det <= 1e-12 * a * c:
        return 0, (width + TILE - 1) // TILE, reach, 0.0, 0.0
    half_width, half_height = math.sqrt(reach * c / det), math.sqrt(reach * a / det)
    first = max(0.0, math.ceil(x - half_width - 0.5001))
    last = min(width - 1.0, math.floor(x + half_width - 0.4999))
    top = min(height - 1.0, math.floor(y + half_height - 0.4999))
    if first > last or y + half_height < 0.4999 or math.ceil(y - half_height - 0.5001) > top:
        return 0, 0, reach, det, 0.0
    return int(first) // TILE, int(last) // TILE + 1, reach, det, -b * half_height / a


@njit(**STRICT)
@no_type_check
def _rows(column, x, y, b, c, reach, det, extreme, height):
    """The pixel rows [y0, y1) that an ellipse reaches within a column of tiles."""
    if det == 0.0:
        return 0, height
    left, right = column * TILE + 0.5 - x, column * TILE + (TILE - 0.5) - x
    high, low = min(max(extreme, left), right), min(max(-extreme, left), right)
    y1 = y + (math.sqrt(max(0.0, c * reach - det * high * high)) - b * high) / c
    y0 = y - (math.sqrt(max(0.0, c * reach - det * low * low)) + b * low) / c
    return int(min(max(0.0, math.ceil(y0 - 0.501)), height)), int(min(max(0.0, math.floor(y1 + 0.501)), height))


@njit(**STRICT)
@no_type_check
def _count(tiles, slots, means, conics, opacities, seen, width, height):
    """Count the pairs of one view by tile, and by Gaussian."""
    across = (width + TILE - 1) // TILE
    for g in range(len(seen)):
        if seen[g] > 0:
            x, y, o = float(means[g, 0]), float(means[g, 1]), float(opacities[g])
            a, b, c = float(conics[g, 0]), float(conics[g, 1]), float(conics[g, 2])
            first, last, reach, det, extreme = _box(x, y, a, b, c, o, width, height)
            for column in range(first, last):
                y0, y1 = _rows(column, x, y, b, c, reach, det, extreme, height)
                if y0 < y1:
                    for row in range(y0 // TILE, (y1 - 1) // TILE + 1):
                        tiles[row * across + column] += 1
                        slots[g, 1] += 1


@njit(**STRICT)
@no_type_check
def _fill(pairs, cursor, slots, means, conics, opacities, depths, width, height):
    """List the pairs of one view, by tile and front to back."""
    across = (width + TILE - 1) // TILE
    n = len(depths)
    order, keys = np.empty(n, np.int32), np.empty(n, np.int32)
    visible = 0
    for g in range(n):
        if slots[g, 1] > 0:
            order[visible], keys[visible] = g, _bits(depths[g])
            visible += 1
    order = _sort(keys, order, np.empty(n, np.int32), np.empty(n, np.int32), visible)
    for k in range(visible):
        g = order[k]
        x, y, o = float(means[g, 0]), float(means[g, 1]), float(opacities[g])
        a, b, c = float(conics[g, 0]), float(conics[g, 1]), float(conics[g, 2])
        first, last, reach, det, extreme = _box(x, y, a, b, c, o, width, height)
        slot = slots[g, 0]
        for column in range(first, last):
            y0, y1 = _rows(column, x, y, b, c, reach, det, extreme, height)
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
    """Turn counts into starts; the last one is the total."""
    starts = np.empty(tiles.size + 1, np.int64)
    total = 0
    for i, count in enumerate(tiles.ravel()):
        starts[i] = total
        total += count
    starts[-1] = total
    total = 0
    for i in range(slots.shape[0]):
        for g in range(slots.shape[1]):
            slots[i, g, 0] = total
            total += slots[i, g, 1]
    return starts


@njit(**PARALLEL)
@no_type_check
def bin_pairs(means, conics, opacities, depths, seen, width, height):
    """List the pairs of all views.

    Returns ``starts`` [v * tiles + 1] (where each tile's pairs start), ``pairs`` [p 4] (Gaussian, first row and number of rows
    within the tile, slot), and ``slots`` [v n 2] (each Gaussian's first slot and how many it has).
    """
    v, n = depths.shape
    area = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    tiles, slots = np.zeros((v, area), np.int64), np.zeros((v, n, 2), np.int64)
    for i in prange(v):
        _count(tiles[i], slots[i], means[i], conics[i], opacities[i], seen[i], width, height)
    starts = _start(tiles, slots)
    pairs = np.empty((starts[-1], 4), np.int32)
    for i in prange(v):
        cursor = starts[i * area : (i + 1) * area].copy()
        _fill(pairs, cursor, slots[i], means[i], conics[i], opacities[i], depths[i], width, height)
    return starts, pairs, slots


@njit(**FAST)
@no_type_check
def _weights(scratch, begin, n, x, y, a, b, c, opacity):
    """Let one Gaussian pass over ``n`` pixels: fill their weights and lower their transmittance.

    Rows of ``scratch``: column, row, transmittance (negative where the pixel is finished), weight.
    """
    for j in range(n):
        p = np.uintp(begin + j)
        dx, dy = scratch[0, p] - x, scratch[1, p] - y
        alpha = opacity * _exp2(-(dx * (a * dx + b * dy) + c * dy * dy))
        alpha = alpha if alpha < MAX_ALPHA else MAX_ALPHA
        alpha = alpha if alpha >= MIN_ALPHA else F(0)
        before = scratch[2, p]
        after = before - before * alpha
        alive = after > MIN_TRANSMITTANCE
        scratch[3, p] = before * alpha if alive else F(0)
        scratch[2, p] = after if alive else (-before if before > F(0) else before)


@njit(**FAST)
@no_type_check
def _accumulate(image, scratch, begin, n, group, c0, c1, c2, c3):
    """Add four features to ``n`` pixels."""
    for j in range(n):
        p = np.uintp(begin + j)
        w = scratch[3, p]
        image[4 * group, p] += w * c0
        image[4 * group + 1, p] += w * c1
        image[4 * group + 2, p] += w * c2
        image[4 * group + 3, p] += w * c3


@njit(**FAST)
@no_type_check
def _opaque(scratch):
    """Whether every pixel of a tile is finished."""
    most = scratch[2, 0]
    for p in range(AREA):
        most = scratch[2, p] if scratch[2, p] > most else most
    return most < F(0)


@njit(**STRICT)
@no_type_check
def _start_tile(scratch, left, top, width, height):
    """Fill pixel centres, and full transmittance inside the image."""
    for p in range(AREA):
        column, row = left + p % TILE, top + p // TILE
        scratch[0, p], scratch[1, p] = column + F(0.5), row + F(0.5)
        scratch[2, p] = F(1) if column < width and row < height else F(-1)


@njit(**STRICT)
@no_type_check
def _blend_tile(start, stop, left, top, pairs, means, conics, opacities, features, out):
    height, width, channels = out.shape
    groups = features.shape[1] // 4
    scratch = np.empty((4, AREA), np.float32)
    image = np.zeros((4 * groups, AREA), np.float32)
    _start_tile(scratch, left, top, width, height)
    for k in range(start, stop):
        if (k - start) % CHECK_EVERY == CHECK_EVERY - 1 and _opaque(scratch):
            break
        g, begin, n = pairs[k, 0], pairs[k, 1] * TILE, pairs[k, 2] * TILE
        a, b, c = conics[g, 0] * HALF_LOG2E, conics[g, 1] * (F(2) * HALF_LOG2E), conics[g, 2] * HALF_LOG2E
        _weights(scratch, begin, n, means[g, 0], means[g, 1], a, b, c, opacities[g])
        f = features[g]
        for q in range(groups):
            _accumulate(image, scratch, begin, n, q, f[4 * q], f[4 * q + 1], f[4 * q + 2], f[4 * q + 3])
    for row in range(top, min(top + TILE, height)):
        for column in range(left, min(left + TILE, width)):
            for channel in range(channels):
                out[row, column, channel] = image[channel, (row - top) * TILE + column - left]


@njit(**PARALLEL)
@no_type_check
def blend(starts, pairs, means, conics, opacities, features, out):
    """Blend features [v n 4g] into ``out`` [v h w c]; the first of them is alpha's."""
    v, height, width, _ = out.shape
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    for task in prange(v * across * down):
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * TILE
        _blend_tile(starts[task], starts[task + 1], left, top, pairs, means[i], conics[i], opacities[i], features[i], out[i])


@njit(**FAST)
@no_type_check
def _project_upstream(scratch, upstream, begin, n, group, c0, c1, c2, c3):
    """How much the loss grows with a Gaussian's weight at ``n`` pixels: its features times their gradients."""
    keep = F(1) if group > 0 else F(0)
    for j in range(n):
        p = np.uintp(begin + j)
        dot = c0 * upstream[4 * group, p] + c1 * upstream[4 * group + 1, p]
        dot += c2 * upstream[4 * group + 2, p] + c3 * upstream[4 * group + 3, p]
        scratch[5, p] = keep * scratch[5, p] + dot


@njit(**FAST)
@no_type_check
def _pair_gradients(scratch, begin, n, x, y, a, b, c, opacity, grads):
    """Let one Gaussian pass over ``n`` pixels again, and sum the gradient of its exponent, times 1, dx, dy, dx^2, dx dy, dy^2.

    Beyond what :func:`_weights` uses, rows of ``scratch`` are: the loss's share of everything from here back (4), and the
    gradient of this Gaussian's weight (5). With s = sum of later weights times their gradients,
    d loss / d alpha = transmittance * gradient - s / (1 - alpha).
    """
    s0, sx, sy, sxx, sxy, syy = F(0), F(0), F(0), F(0), F(0), F(0)
    for j in range(n):
        p = np.uintp(begin + j)
        dx, dy = scratch[0, p] - x, scratch[1, p] - y
        free = opacity * _exp2(-(dx * (a * dx + b * dy) + c * dy * dy))
        alpha = free if free < MAX_ALPHA else MAX_ALPHA
        alpha = alpha if alpha >= MIN_ALPHA else F(0)
        before = scratch[2, p]
        after = before - before * alpha
        alive = after > MIN_TRANSMITTANCE
        weight = before * alpha if alive else F(0)
        scratch[3, p] = weight
        scratch[2, p] = after if alive else (-before if before > F(0) else before)
        gradient = scratch[5, p]
        rest = scratch[4, p] - weight * gradient
        scratch[4, p] = rest
        slope = before * gradient - rest / (F(1) - alpha)
        e = slope * alpha if alive and free < MAX_ALPHA else F(0)
        ex, ey = e * dx, e * dy
        s0 += e
        sx += ex
        sy += ey
        sxx += ex * dx
        sxy += ex * dy
        syy += ey * dy
    grads[0], grads[1], grads[2], grads[3], grads[4], grads[5] = s0, sx, sy, sxx, sxy, syy


@njit(**FAST)
@no_type_check
def _feature_gradients(scratch, upstream, begin, n, group, grads):
    """Sum weight times upstream gradient over ``n`` pixels, for four features."""
    s0, s1, s2, s3 = F(0), F(0), F(0), F(0)
    for j in range(n):
        p = np.uintp(begin + j)
        w = scratch[3, p]
        s0 += w * upstream[4 * group, p]
        s1 += w * upstream[4 * group + 1, p]
        s2 += w * upstream[4 * group + 2, p]
        s3 += w * upstream[4 * group + 3, p]
    at = GEOMETRY + 4 * group
    grads[at], grads[at + 1], grads[at + 2], grads[at + 3] = s0, s1, s2, s3


@njit(**STRICT)
@no_type_check
def _unblend_tile(start, stop, left, top, pairs, means, conics, opacities, features, out, d_out, grads):
    height, width, channels = out.shape
    groups = features.shape[1] // 4
    scratch = np.zeros((6, AREA), np.float32)
    upstream = np.zeros((4 * groups, AREA), np.float32)
    _start_tile(scratch, left, top, width, height)
    for row in range(top, min(top + TILE, height)):
        for column in range(left, min(left + TILE, width)):
            p = (row - top) * TILE + column - left
            for channel in range(channels):
                upstream[channel, p] = d_out[row, column, channel]
                scratch[4, p] += d_out[row, column, channel] * out[row, column, channel]
    opaque = False
    for k in range(start, stop):
        slot = pairs[k, 3]
        if opaque or ((k - start) % CHECK_EVERY == CHECK_EVERY - 1 and _opaque(scratch)):
            opaque = True
            grads[slot] = F(0)
            continue
        g, begin, n = pairs[k, 0], pairs[k, 1] * TILE, pairs[k, 2] * TILE
        a, b, c = conics[g, 0] * HALF_LOG2E, conics[g, 1] * (F(2) * HALF_LOG2E), conics[g, 2] * HALF_LOG2E
        f = features[g]
        for q in range(groups):
            _project_upstream(scratch, upstream, begin, n, q, f[4 * q], f[4 * q + 1], f[4 * q + 2], f[4 * q + 3])
        _pair_gradients(scratch, begin, n, means[g, 0], means[g, 1], a, b, c, opacities[g], grads[slot])
        for q in range(groups):
            _feature_gradients(scratch, upstream, begin, n, q, grads[slot])


@njit(**STRICT)
@no_type_check
def _gather(slots, grads, conic, opacity, d_mean, d_conic, d_feature, d_opacities, g):
    """Sum the gradients of one Gaussian over its pairs, and turn moments into the gradients of its ellipse."""
    s0, sx, sy, sxx, sxy, syy = F(0), F(0), F(0), F(0), F(0), F(0)
    d_feature[:] = F(0)
    for slot in range(slots[0], slots[0] + slots[1]):
        s0 += grads[slot, 0]
        sx += grads[slot, 1]
        sy += grads[slot, 2]
        sxx += grads[slot, 3]
        sxy += grads[slot, 4]
        syy += grads[slot, 5]
        for channel in range(len(d_feature)):
            d_feature[channel] += grads[slot, GEOMETRY + channel]
    d_mean[0], d_mean[1] = conic[0] * sx + conic[1] * sy, conic[1] * sx + conic[2] * sy
    d_conic[0], d_conic[1], d_conic[2] = F(-0.5) * sxx, -sxy, F(-0.5) * syy
    d_opacities[g] = s0 / opacity if opacity > 0 else F(0)


@njit(**PARALLEL)
@no_type_check
def unblend(starts, pairs, slots, means, conics, opacities, features, out, d_out):
    """The backward of :func:`blend`: gradients of means, conics, opacities and features."""
    v, height, width, _ = out.shape
    n, channels = features.shape[1:]
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    grads = np.empty((len(pairs), GEOMETRY + channels), np.float32)
    for task in prange(v * across * down):
        i, t = task // (across * down), task % (across * down)
        left, top = t % across * TILE, t // across * TILE
        view = (means[i], conics[i], opacities[i], features[i], out[i], d_out[i])
        _unblend_tile(starts[task], starts[task + 1], left, top, pairs, *view, grads)
    d_means, d_conics = np.empty((v, n, 2), np.float32), np.empty((v, n, 3), np.float32)
    d_opacities, d_features = np.empty((v, n), np.float32), np.empty((v, n, channels), np.float32)
    for k in prange(v * n):
        i, g = k // n, k % n
        _gather(
            slots[i, g],
            grads,
            conics[i, g],
            opacities[i, g],
            d_means[i, g],
            d_conics[i, g],
            d_features[i, g],
            d_opacities[i],
            g,
        )
    return d_means, d_conics, d_opacities, d_features
