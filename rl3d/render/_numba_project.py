"""Compiled loops of the CPU rasterizer: projection and shading of Gaussians, and their backward.

All of it is float32, one Gaussian after another: each Gaussian's gradient is summed over the views in order, so that results
do not depend on the number of threads. Small matrices are tuples, row by row, which live in registers. Arrays are indexed where
they are used, never cut into views, and functions that take some are inlined by numba itself: it counts references to
every view and argument, atomically, which costs more than the arithmetic where two threads do it.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import prange

from rl3d.render._compile import INLINE, MERGED, PARALLEL, STRICT, F, njit

MIN_ALPHA = F(1 / 255)
CHUNK = 64
"""Gaussians that a thread takes at once."""


@njit(**INLINE)
@no_type_check
def _rotation(w, x, y, z):
    """The rotation matrix of a unit quaternion."""
    two, one = F(2), F(1)
    return (
        *(one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)),
        *(two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)),
        *(two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)),
    )


@njit(**MERGED)
@no_type_check
def _unit(quats, g):
    """A quaternion scaled to unit length, and its length."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    length = F(math.sqrt(w * w + x * x + y * y + z * z))
    return w / length, x / length, y / length, z / length, length


@njit(**INLINE)
@no_type_check
def _rotation_gradient(w, x, y, z, length, d):
    """The gradient of a quaternion from ``d``, that of its rotation matrix."""
    two = F(2)
    dw = two * (x * (d[7] - d[5]) + y * (d[2] - d[6]) + z * (d[3] - d[1]))
    dx = two * (w * (d[7] - d[5]) + y * (d[1] + d[3]) + z * (d[2] + d[6]) - two * x * (d[4] + d[8]))
    dy = two * (w * (d[2] - d[6]) + x * (d[1] + d[3]) + z * (d[5] + d[7]) - two * y * (d[0] + d[8]))
    dz = two * (w * (d[3] - d[1]) + x * (d[2] + d[6]) + y * (d[5] + d[7]) - two * z * (d[0] + d[4]))
    along = dw * w + dx * x + dy * y + dz * z
    return (dw - along * w) / length, (dx - along * x) / length, (dy - along * y) / length, (dz - along * z) / length


@njit(**INLINE)
@no_type_check
def _basis(k, x, y, z, Y):
    """Fill the first k real spherical harmonics of a unit direction."""
    Y[0] = F(0.28209479177387814)
    if k > 1:
        Y[1], Y[2], Y[3] = F(-0.4886025119029199) * y, F(0.4886025119029199) * z, F(-0.4886025119029199) * x
    if k > 4:
        Y[4], Y[5] = F(1.0925484305920792) * x * y, F(-1.0925484305920792) * y * z
        Y[6] = F(0.31539156525252005) * (F(2) * z * z - x * x - y * y)
        Y[7], Y[8] = F(-1.0925484305920792) * x * z, F(0.5462742152960396) * (x * x - y * y)
    if k > 9:
        Y[9], Y[10] = F(-0.5900435899266435) * y * (F(3) * x * x - y * y), F(2.890611442640554) * x * y * z
        Y[11] = F(-0.4570457994644658) * y * (F(4) * z * z - x * x - y * y)
        Y[12] = F(0.3731763325901154) * z * (F(2) * z * z - F(3) * x * x - F(3) * y * y)
        Y[13] = F(-0.4570457994644658) * x * (F(4) * z * z - x * x - y * y)
        Y[14] = F(1.445305721320277) * z * (x * x - y * y)
        Y[15] = F(-0.5900435899266435) * x * (x * x - F(3) * y * y)


@njit(**INLINE)
@no_type_check
def _basis_gradient(k, x, y, z, d):
    """The gradient of the direction from ``d`` [k], that of its harmonics."""
    gx, gy, gz = F(-0.4886025119029199) * d[3], F(-0.4886025119029199) * d[1], F(0.4886025119029199) * d[2]
    if k > 4:
        p, q, r = F(1.0925484305920792), F(0.31539156525252005), F(0.5462742152960396)
        gx += p * (y * d[4] - z * d[7]) + F(2) * x * (r * d[8] - q * d[6])
        gy += p * (x * d[4] - z * d[5]) - F(2) * y * (r * d[8] + q * d[6])
        gz += -p * (y * d[5] + x * d[7]) + F(4) * q * z * d[6]
    if k > 9:
        a, b, c = F(-0.5900435899266435), F(2.890611442640554), F(-0.4570457994644658)
        e, f = F(0.3731763325901154), F(1.445305721320277)
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        gx += a * F(6) * xy * d[9] + b * yz * d[10] - c * F(2) * xy * d[11] - e * F(6) * xz * d[12]
        gx += c * (F(4) * zz - F(3) * xx - yy) * d[13] + f * F(2) * xz * d[14] + a * F(3) * (xx - yy) * d[15]
        gy += a * F(3) * (xx - yy) * d[9] + b * xz * d[10] + c * (F(4) * zz - xx - F(3) * yy) * d[11]
        gy += -e * F(6) * yz * d[12] - c * F(2) * xy * d[13] - f * F(2) * yz * d[14] - a * F(6) * xy * d[15]
        gz += b * xy * d[10] + c * F(8) * (yz * d[11] + xz * d[13]) + e * F(3) * (F(2) * zz - xx - yy) * d[12]
        gz += f * (xx - yy) * d[14]
    return gx, gy, gz


@njit(**INLINE)
@no_type_check
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**INLINE)
@no_type_check
def _row_times(u, M):
    """A row times a matrix."""
    return (
        u[0] * M[0] + u[1] * M[3] + u[2] * M[6],
        u[0] * M[1] + u[1] * M[4] + u[2] * M[7],
        u[0] * M[2] + u[1] * M[5] + u[2] * M[8],
    )


@njit(**MERGED)
@no_type_check
def _to_camera(W, T, c, x, y, z):
    return (
        W[c, 0, 0] * x + W[c, 0, 1] * y + W[c, 0, 2] * z + T[c, 0],
        W[c, 1, 0] * x + W[c, 1, 1] * y + W[c, 1, 2] * z + T[c, 1],
        W[c, 2, 0] * x + W[c, 2, 1] * y + W[c, 2, 2] * z + T[c, 2],
    )


@njit(**MERGED)
@no_type_check
def _affine(t, W, K, c, width, height, ortho):
    """The rows of U = J W, the affine map from world to screen around ``t`` in the camera; whether its slopes are inside."""
    fx, fy, cx, cy = K[c, 0, 0], K[c, 1, 1], K[c, 0, 2], K[c, 1, 2]
    z = F(1) if ortho else t[2]
    x, y = t[0] / z, t[1] / z
    right, left = (width - cx) / fx + F(0.15) * width / fx, -cx / fx - F(0.15) * width / fx
    bottom, top = (height - cy) / fy + F(0.15) * height / fy, -cy / fy - F(0.15) * height / fy
    sx, sy = min(max(x, left), right), min(max(y, top), bottom)
    free_x, free_y = sx == x, sy == y
    if ortho:
        sx, sy, free_x, free_y = F(0), F(0), False, False
    gx, gy = fx / z, fy / z
    w0, w1, w2 = W[c, 2, 0], W[c, 2, 1], W[c, 2, 2]
    u = (gx * (W[c, 0, 0] - sx * w0), gx * (W[c, 0, 1] - sx * w1), gx * (W[c, 0, 2] - sx * w2))
    v = (gy * (W[c, 1, 0] - sy * w0), gy * (W[c, 1, 1] - sy * w1), gy * (W[c, 1, 2] - sy * w2))
    return u, v, free_x, free_y


@njit(**INLINE)
@no_type_check
def _covariance(p, q, eps2d):
    """The 2D covariance P P^T + eps2d of the rows p and q of P, its determinant (a sum of squares), and that without eps2d."""
    xx, xy, yy = _dot(p, p), _dot(p, q), _dot(q, q)
    m0, m1, m2 = p[0] * q[1] - p[1] * q[0], p[0] * q[2] - p[2] * q[0], p[1] * q[2] - p[2] * q[1]
    sharp = m0 * m0 + m1 * m1 + m2 * m2
    return xx + eps2d, xy, yy + eps2d, sharp + eps2d * (xx + yy) + eps2d * eps2d, sharp


@njit(**INLINE)
@no_type_check
def _shortest(R, scale):
    """The axis of the least scale."""
    if scale[0] <= scale[1] and scale[0] <= scale[2]:
        return 0, (R[0], R[3], R[6])
    if scale[1] <= scale[2]:
        return 1, (R[1], R[4], R[7])
    return 2, (R[2], R[5], R[8])


@njit(**MERGED)
@no_type_check
def _finite(g, means, quats, scales, opacities, colors):
    total = opacities[g]
    for j in range(3):
        total += abs(means[g, j]) + abs(scales[g, j])
    for w in range(colors.shape[0]):
        for k in range(colors.shape[2]):
            for channel in range(colors.shape[3]):
                total += abs(colors[w, g, k, channel])
    length = abs(quats[g, 0]) + abs(quats[g, 1]) + abs(quats[g, 2]) + abs(quats[g, 3])
    return total - total == F(0) and length - length == F(0) and length > F(1e-18) and length < F(1e18)


@njit(**MERGED)
@no_type_check
def _shade(harmonics, colors, own, g, c, x, y, z, Y, features):
    """Fill colours: values as they are, or ``harmonics`` coefficients seen along a unit direction."""
    if harmonics == 0:
        for channel in range(colors.shape[3]):
            features[c, g, channel] = colors[own, g, 0, channel]
        return
    _basis(harmonics, x, y, z, Y)
    for channel in range(3):
        value = F(0.5)
        for j in range(harmonics):
            value += Y[j] * colors[own, g, j, channel]
        features[c, g, channel] = max(value, F(0))


@njit(**STRICT)
@no_type_check
def _project_some(begin, end, gaussians, cameras, lens, Y, means2d, depths, conics, alphas, radii, features):
    means, quats, scales, opacities, colors = gaussians
    W, T, centers, K = cameras
    width, height, eps2d, near, far, clip, antialiased, ortho, harmonics, with_depth, with_normals = lens
    for g in range(begin, end):
        sane = _finite(g, means, quats, scales, opacities, colors)
        qw, qx, qy, qz, _ = _unit(quats, g)
        R = _rotation(qw, qx, qy, qz)
        s = (scales[g, 0], scales[g, 1], scales[g, 2])
        M = (
            R[0] * s[0],
            R[1] * s[1],
            R[2] * s[2],
            R[3] * s[0],
            R[4] * s[1],
            R[5] * s[2],
            R[6] * s[0],
            R[7] * s[1],
            R[8] * s[2],
        )
        for c in range(len(depths)):
            seen = False
            t = _to_camera(W, T, c, means[g, 0], means[g, 1], means[g, 2])
            if sane and t[2] >= near and t[2] <= far:
                u, v, _, _ = _affine(t, W, K, c, width, height, ortho)
                xx, xy, yy, det, sharp = _covariance(_row_times(u, M), _row_times(v, M), eps2d)
                alpha = opacities[g] * (F(math.sqrt(sharp / det)) if antialiased else F(1))
                if det > F(0) and det < F(1e30) and alpha >= MIN_ALPHA:
                    reach = F(math.sqrt(F(2) * F(math.log(max(alpha * F(255), F(1))))))
                    rx, ry = math.ceil(reach * F(math.sqrt(xx))), math.ceil(reach * F(math.sqrt(yy)))
                    z = F(1) if ortho else t[2]
                    x, y = K[c, 0, 0] * t[0] / z + K[c, 0, 2], K[c, 1, 1] * t[1] / z + K[c, 1, 2]
                    seen = (rx > clip or ry > clip) and x + rx > 0 and x - rx < width and y + ry > 0 and y - ry < height
            if not seen:
                means2d[c, g, 0], means2d[c, g, 1] = F(0), F(0)
                conics[c, g, 0], conics[c, g, 1], conics[c, g, 2] = F(0), F(0), F(0)
                alphas[c, g], depths[c, g], radii[c, g, 0], radii[c, g, 1] = F(0), F(0), 0, 0
                for channel in range(features.shape[2]):
                    features[c, g, channel] = F(0)
                continue
            means2d[c, g, 0], means2d[c, g, 1] = x, y
            conics[c, g, 0], conics[c, g, 1], conics[c, g, 2] = yy / det, -xy / det, xx / det
            alphas[c, g], depths[c, g] = alpha, t[2]
            radii[c, g, 0], radii[c, g, 1] = int(min(rx, F(2**30))), int(min(ry, F(2**30)))
            ray = (means[g, 0] - centers[c, 0], means[g, 1] - centers[c, 1], means[g, 2] - centers[c, 2])
            length = F(math.sqrt(_dot(ray, ray)))
            own = c if colors.shape[0] > 1 else 0
            _shade(harmonics, colors, own, g, c, ray[0] / length, ray[1] / length, ray[2] / length, Y, features)
            at = colors.shape[3]
            if with_depth:
                features[c, g, at] = t[2]
                at += 1
            if with_normals:
                _, axis = _shortest(R, s)
                sign = F(-1) if _dot(ray, axis) > F(0) else F(1)
                features[c, g, at], features[c, g, at + 1], features[c, g, at + 2] = (
                    sign * axis[0],
                    sign * axis[1],
                    sign * axis[2],
                )
                at += 3
            for channel in range(at, features.shape[2]):
                features[c, g, channel] = F(0)


@njit(**PARALLEL)
@no_type_check
def project(gaussians, cameras, lens, means2d, depths, conics, alphas, radii, features):
    """Project and shade every Gaussian for every camera.

    ``gaussians`` is (means, quats, scales, opacities, colors [v or 1, n, k, c]), ``cameras`` (rotations, translations, centres,
    intrinsics), ``lens`` (width, height, eps2d, near, far, radius_clip, antialiased, ortho, number of harmonics or 0, with
    depth, with normals). Outputs are filled; what is not seen has zeros everywhere. Features are colours, depth, normals, and
    zeros.
    """
    n = len(gaussians[0])
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        Y = np.empty(16, np.float32)
        begin, end = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        _project_some(begin, end, gaussians, cameras, lens, Y, means2d, depths, conics, alphas, radii, features)


@njit(**MERGED)
@no_type_check
def _unshade(harmonics, colors, own, g, c, features, d, x, y, z, Y, dY, d_colors):
    """Add the gradients of colours, and give that of the direction, from ``d``, that of the shaded colours."""
    if harmonics == 0:
        for channel in range(colors.shape[3]):
            d_colors[own, g, 0, channel] += d[c, g, channel]
        return F(0), F(0), F(0)
    _basis(harmonics, x, y, z, Y)
    d0 = d[c, g, 0] if features[c, g, 0] > F(0) else F(0)
    d1 = d[c, g, 1] if features[c, g, 1] > F(0) else F(0)
    d2 = d[c, g, 2] if features[c, g, 2] > F(0) else F(0)
    for j in range(harmonics):
        d_colors[own, g, j, 0] += Y[j] * d0
        d_colors[own, g, j, 1] += Y[j] * d1
        d_colors[own, g, j, 2] += Y[j] * d2
        dY[j] = colors[own, g, j, 0] * d0 + colors[own, g, j, 1] * d1 + colors[own, g, j, 2] * d2
    if harmonics == 1:
        return F(0), F(0), F(0)
    return _basis_gradient(harmonics, x, y, z, dY)


@njit(**STRICT)
@no_type_check
def _unproject_some(begin, end, gaussians, cameras, lens, Y, dY, conics, radii, features, upstream, grads):
    means, quats, scales, opacities, colors = gaussians
    W, T, centers, K = cameras
    width, height, eps2d, _, _, _, antialiased, ortho, harmonics, with_depth, with_normals = lens
    d_means2d, d_depths, d_conics, d_alphas, d_features = upstream
    d_means, d_quats, d_scales, d_opacities, d_colors = grads
    for g in range(begin, end):
        zero = F(0)
        m0, m1, m2, opacity = zero, zero, zero, zero
        g00, g01, g02, g10, g11, g12, g20, g21, g22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        n0, n1, n2, any_seen = zero, zero, zero, False
        qw, qx, qy, qz, length = _unit(quats, g)
        R = _rotation(qw, qx, qy, qz)
        s = (scales[g, 0], scales[g, 1], scales[g, 2])
        M = (
            R[0] * s[0],
            R[1] * s[1],
            R[2] * s[2],
            R[3] * s[0],
            R[4] * s[1],
            R[5] * s[2],
            R[6] * s[0],
            R[7] * s[1],
            R[8] * s[2],
        )
        shortest, axis = _shortest(R, s)
        for c in range(len(radii)):
            if radii[c, g, 0] == 0 and radii[c, g, 1] == 0:
                continue
            any_seen = True
            t = _to_camera(W, T, c, means[g, 0], means[g, 1], means[g, 2])
            fx, fy = K[c, 0, 0], K[c, 1, 1]
            u, v, free_x, free_y = _affine(t, W, K, c, width, height, ortho)
            p, q = _row_times(u, M), _row_times(v, M)
            # Screen covariance: d cov = -conic d_conic conic, with d_conic symmetric.
            a, b, e = conics[c, g, 0], conics[c, g, 1], conics[c, g, 2]
            da, db, de = d_conics[c, g, 0], F(0.5) * d_conics[c, g, 1], d_conics[c, g, 2]
            pa, pb, pc, pd = a * da + b * db, a * db + b * de, b * da + e * db, b * db + e * de
            d_xx, d_xy, d_yy = -(pa * a + pb * b), -(pa * b + pb * e), -(pc * b + pd * e)
            if antialiased:
                xx, xy, yy, det, sharp = _covariance(p, q, eps2d)
                thinning = F(math.sqrt(sharp / det))
                opacity += d_alphas[c, g] * thinning
                if sharp > F(1e-20) * det:
                    half = F(0.5) * d_alphas[c, g] * opacities[g] * thinning
                    d_xx += half * ((yy - eps2d) / sharp - a)
                    d_yy += half * ((xx - eps2d) / sharp - e)
                    d_xy += half * (-xy / sharp - b)
            else:
                opacity += d_alphas[c, g]
            two = F(2)
            dp = (two * (d_xx * p[0] + d_xy * q[0]), two * (d_xx * p[1] + d_xy * q[1]), two * (d_xx * p[2] + d_xy * q[2]))
            dq = (two * (d_xy * p[0] + d_yy * q[0]), two * (d_xy * p[1] + d_yy * q[1]), two * (d_xy * p[2] + d_yy * q[2]))
            g00 += u[0] * dp[0] + v[0] * dq[0]
            g01 += u[0] * dp[1] + v[0] * dq[1]
            g02 += u[0] * dp[2] + v[0] * dq[2]
            g10 += u[1] * dp[0] + v[1] * dq[0]
            g11 += u[1] * dp[1] + v[1] * dq[1]
            g12 += u[1] * dp[2] + v[1] * dq[2]
            g20 += u[2] * dp[0] + v[2] * dq[0]
            g21 += u[2] * dp[1] + v[2] * dq[1]
            g22 += u[2] * dp[2] + v[2] * dq[2]
            # U = focal / z * (W_row - slope * W_z): back to depth and slopes.
            du = (_dot(dp, M[0:3]), _dot(dp, M[3:6]), _dot(dp, M[6:9]))
            dv = (_dot(dq, M[0:3]), _dot(dq, M[3:6]), _dot(dq, M[6:9]))
            wz = (W[c, 2, 0], W[c, 2, 1], W[c, 2, 2])
            z = F(1) if ortho else t[2]
            dt2 = d_depths[c, g]
            d_sx = fx * d_means2d[c, g, 0] - (fx / z * _dot(du, wz) if free_x else zero)
            d_sy = fy * d_means2d[c, g, 1] - (fy / z * _dot(dv, wz) if free_y else zero)
            dt0, dt1 = d_sx / z, d_sy / z
            if not ortho:
                dt2 -= (_dot(du, u) + _dot(dv, v)) / z + (d_sx * t[0] + d_sy * t[1]) / (z * z)
            own = c if colors.shape[0] > 1 else 0
            at = colors.shape[3]
            if with_depth:
                dt2 += d_features[c, g, at]
                at += 1
            m0 += W[c, 0, 0] * dt0 + W[c, 1, 0] * dt1 + W[c, 2, 0] * dt2
            m1 += W[c, 0, 1] * dt0 + W[c, 1, 1] * dt1 + W[c, 2, 1] * dt2
            m2 += W[c, 0, 2] * dt0 + W[c, 1, 2] * dt1 + W[c, 2, 2] * dt2
            ray = (means[g, 0] - centers[c, 0], means[g, 1] - centers[c, 1], means[g, 2] - centers[c, 2])
            if with_normals:
                sign = F(-1) if _dot(ray, axis) > zero else F(1)
                n0 += sign * d_features[c, g, at]
                n1 += sign * d_features[c, g, at + 1]
                n2 += sign * d_features[c, g, at + 2]
            far_off = F(math.sqrt(_dot(ray, ray)))
            x, y, z = ray[0] / far_off, ray[1] / far_off, ray[2] / far_off
            gx, gy, gz = _unshade(harmonics, colors, own, g, c, features, d_features, x, y, z, Y, dY, d_colors)
            if harmonics > 1:
                along = gx * x + gy * y + gz * z
                m0 += (gx - along * x) / far_off
                m1 += (gy - along * y) / far_off
                m2 += (gz - along * z) / far_off
        if any_seen:
            d_means[g, 0], d_means[g, 1], d_means[g, 2], d_opacities[g] = m0, m1, m2, opacity
            d_scales[g, 0] = R[0] * g00 + R[3] * g10 + R[6] * g20
            d_scales[g, 1] = R[1] * g01 + R[4] * g11 + R[7] * g21
            d_scales[g, 2] = R[2] * g02 + R[5] * g12 + R[8] * g22
            g00, g10, g20 = s[0] * g00, s[0] * g10, s[0] * g20
            g01, g11, g21 = s[1] * g01, s[1] * g11, s[1] * g21
            g02, g12, g22 = s[2] * g02, s[2] * g12, s[2] * g22
            if shortest == 0:
                g00, g10, g20 = g00 + n0, g10 + n1, g20 + n2
            elif shortest == 1:
                g01, g11, g21 = g01 + n0, g11 + n1, g21 + n2
            else:
                g02, g12, g22 = g02 + n0, g12 + n1, g22 + n2
            turn = (g00, g01, g02, g10, g11, g12, g20, g21, g22)
            d_quats[g, 0], d_quats[g, 1], d_quats[g, 2], d_quats[g, 3] = _rotation_gradient(qw, qx, qy, qz, length, turn)


@njit(**PARALLEL)
@no_type_check
def unproject(gaussians, cameras, lens, conics, radii, features, upstream, grads):
    """The backward of :func:`project`: fill ``grads``, those of the Gaussians, in order; they must be zero before.

    ``upstream`` holds the gradients of means2d, depths, conics, opacities and features.
    """
    n = len(gaussians[0])
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        Y, dY = np.empty(16, np.float32), np.empty(16, np.float32)
        begin, end = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        _unproject_some(begin, end, gaussians, cameras, lens, Y, dY, conics, radii, features, upstream, grads)
