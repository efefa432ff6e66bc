"""Compiled loops of the CPU rasterizer: projection and shading of Gaussians, and their backward.

All of it is float32, one Gaussian after another: each Gaussian's gradient is summed over the views in order, so that results
do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

STRICT = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
PARALLEL = {**STRICT, "parallel": True}
F = np.float32
MIN_ALPHA = F(1 / 255)


@njit(**STRICT)
@no_type_check
def _rotation(quat, R):
    """Fill a rotation matrix from a quaternion of any length, and return the length."""
    length = math.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    two, one = F(2), F(1)
    R[0, 0], R[0, 1], R[0, 2] = one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)
    R[1, 0], R[1, 1], R[1, 2] = two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)
    R[2, 0], R[2, 1], R[2, 2] = two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)
    return length


@njit(**STRICT)
@no_type_check
def _rotation_gradient(quat, length, d, d_quat):
    """Fill the gradient of a quaternion from ``d``, that of its rotation matrix."""
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    two = F(2)
    dw = two * (x * (d[2, 1] - d[1, 2]) + y * (d[0, 2] - d[2, 0]) + z * (d[1, 0] - d[0, 1]))
    dx = two * (w * (d[2, 1] - d[1, 2]) + y * (d[0, 1] + d[1, 0]) + z * (d[0, 2] + d[2, 0]) - two * x * (d[1, 1] + d[2, 2]))
    dy = two * (w * (d[0, 2] - d[2, 0]) + x * (d[0, 1] + d[1, 0]) + z * (d[1, 2] + d[2, 1]) - two * y * (d[0, 0] + d[2, 2]))
    dz = two * (w * (d[1, 0] - d[0, 1]) + x * (d[0, 2] + d[2, 0]) + y * (d[1, 2] + d[2, 1]) - two * z * (d[0, 0] + d[1, 1]))
    along = dw * w + dx * x + dy * y + dz * z
    d_quat[0], d_quat[1] = (dw - along * w) / length, (dx - along * x) / length
    d_quat[2], d_quat[3] = (dy - along * y) / length, (dz - along * z) / length


@njit(**STRICT)
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


@njit(**STRICT)
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


@njit(**STRICT)
@no_type_check
def _affine(t, W, fx, fy, cx, cy, width, height, U):
    """Fill U = J W, the affine map from world to screen around ``t`` in the camera; return whether its slopes lie inside."""
    right, left = (width - cx) / fx + F(0.15) * width / fx, -cx / fx - F(0.15) * width / fx
    bottom, top = (height - cy) / fy + F(0.15) * height / fy, -cy / fy - F(0.15) * height / fy
    x, y = t[0] / t[2], t[1] / t[2]
    sx, sy = min(max(x, left), right), min(max(y, top), bottom)
    for j in range(3):
        U[0, j] = fx / t[2] * (W[0, j] - sx * W[2, j])
        U[1, j] = fy / t[2] * (W[1, j] - sy * W[2, j])
    return sx == x, sy == y


@njit(**STRICT)
@no_type_check
def _covariance(P, eps2d):
    """The 2D covariance P P^T + eps2d, its determinant (a sum of positive terms) and that without eps2d."""
    xx = P[0, 0] * P[0, 0] + P[0, 1] * P[0, 1] + P[0, 2] * P[0, 2]
    xy = P[0, 0] * P[1, 0] + P[0, 1] * P[1, 1] + P[0, 2] * P[1, 2]
    yy = P[1, 0] * P[1, 0] + P[1, 1] * P[1, 1] + P[1, 2] * P[1, 2]
    m0 = P[0, 0] * P[1, 1] - P[0, 1] * P[1, 0]
    m1 = P[0, 0] * P[1, 2] - P[0, 2] * P[1, 0]
    m2 = P[0, 1] * P[1, 2] - P[0, 2] * P[1, 1]
    sharp = m0 * m0 + m1 * m1 + m2 * m2
    return xx + eps2d, xy, yy + eps2d, sharp + eps2d * (xx + yy) + eps2d * eps2d, sharp


@njit(**STRICT)
@no_type_check
def _shortest(scale):
    return 0 if scale[0] <= scale[1] and scale[0] <= scale[2] else (1 if scale[1] <= scale[2] else 2)


@njit(**STRICT)
@no_type_check
def _finite(g, means, quats, scales, opacities, sh):
    total = opacities[g]
    for j in range(3):
        total += abs(means[g, j]) + abs(scales[g, j])
        for k in range(sh.shape[1]):
            total += abs(sh[g, k, j])
    length = abs(quats[g, 0]) + abs(quats[g, 1]) + abs(quats[g, 2]) + abs(quats[g, 3])
    return total - total == F(0) and length - length == F(0) and length > F(1e-18) and length < F(1e18)


@njit(**STRICT)
@no_type_check
def _project_one(g, gaussians, cameras, lens, means2d, conics, alphas, features, depths, radii):
    means, quats, scales, opacities, sh = gaussians
    W, T, centers, K = cameras
    width, height, eps2d, near, far, antialiased, with_depth, with_normals = lens
    sane = _finite(g, means, quats, scales, opacities, sh)
    R, M, U, P = np.empty((3, 3), F), np.empty((3, 3), F), np.empty((2, 3), F), np.empty((2, 3), F)
    t, Y = np.empty(3, F), np.empty(16, F)
    if sane:
        _rotation(quats[g], R)
        for i in range(3):
            for j in range(3):
                M[i, j] = R[i, j] * scales[g, j]
    axis = _shortest(scales[g])
    k = sh.shape[1]
    for c in range(len(depths)):
        means2d[c, g], conics[c, g], features[c, g] = F(0), F(0), F(0)
        alphas[c, g], depths[c, g], radii[c, g] = F(0), F(0), 0
        if not sane:
            continue
        for i in range(3):
            t[i] = W[c, i, 0] * means[g, 0] + W[c, i, 1] * means[g, 1] + W[c, i, 2] * means[g, 2] + T[c, i]
        if not (t[2] > near and t[2] < far):
            continue
        fx, fy, cx, cy = K[c, 0, 0], K[c, 1, 1], K[c, 0, 2], K[c, 1, 2]
        _affine(t, W[c], fx, fy, cx, cy, width, height, U)
        for i in range(2):
            for j in range(3):
                P[i, j] = U[i, 0] * M[0, j] + U[i, 1] * M[1, j] + U[i, 2] * M[2, j]
        xx, xy_, yy, det, sharp = _covariance(P, eps2d)
        if not (det > F(0) and det < F(1e30)):
            continue
        alpha = opacities[g] * (math.sqrt(sharp / det) if antialiased else F(1))
        if not alpha >= MIN_ALPHA:
            continue
        reach = F(math.sqrt(F(2) * math.log(alpha * F(255)) if alpha > MIN_ALPHA else F(0)))
        rx, ry = reach * math.sqrt(xx), reach * math.sqrt(yy)
        x, y = fx * t[0] / t[2] + cx, fy * t[1] / t[2] + cy
        if not (x + rx > F(0) and x - rx < width and y + ry > F(0) and y - ry < height):
            continue
        means2d[c, g, 0], means2d[c, g, 1] = x, y
        conics[c, g, 0], conics[c, g, 1], conics[c, g, 2] = yy / det, -xy_ / det, xx / det
        alphas[c, g], depths[c, g] = alpha, t[2]
        radii[c, g] = int(min(max(math.ceil(max(rx, ry)), F(1)), F(2**30)))
        rx, ry, rz = means[g, 0] - centers[c, 0], means[g, 1] - centers[c, 1], means[g, 2] - centers[c, 2]
        far_off = math.sqrt(rx * rx + ry * ry + rz * rz)
        _basis(k, rx / far_off, ry / far_off, rz / far_off, Y)
        f = features[c, g]
        f[0] = F(1)
        for channel in range(3):
            color = F(0.5)
            for j in range(k):
                color += Y[j] * sh[g, j, channel]
            f[1 + channel] = max(color, F(0))
        if with_depth:
            f[4] = t[2]
        if with_normals:
            sign = F(-1) if rx * R[0, axis] + ry * R[1, axis] + rz * R[2, axis] > 0 else F(1)
            at = 5 if with_depth else 4
            f[at], f[at + 1], f[at + 2] = sign * R[0, axis], sign * R[1, axis], sign * R[2, axis]


@njit(**PARALLEL)
@no_type_check
def project(gaussians, cameras, lens, means2d, conics, alphas, features, depths, radii):
    """Project and shade every Gaussian for every camera.

    ``gaussians`` is (means, quats, scales, opacities, sh), ``cameras`` (rotations, translations, centres, intrinsics), ``lens``
    (width, height, eps2d, near, far, antialiased, with depth, with normals). Outputs are filled; what is not seen has radius 0
    and zeros everywhere.
    """
    for g in prange(len(gaussians[0])):
        _project_one(g, gaussians, cameras, lens, means2d, conics, alphas, features, depths, radii)


@njit(**STRICT)
@no_type_check
def _unproject_one(g, gaussians, cameras, lens, conics, features, radii, upstream, grads):
    means, quats, scales, opacities, sh = gaussians
    W, T, centers, K = cameras
    width, height, eps2d, _, _, antialiased, with_depth, with_normals = lens
    d_means2d, d_conics, d_alphas, d_features = upstream
    d_means, d_quats, d_scales, d_opacities, d_sh = grads
    R, M, U, P = np.empty((3, 3), F), np.empty((3, 3), F), np.empty((2, 3), F), np.empty((2, 3), F)
    dR, dM, dP, t, dt = np.zeros((3, 3), F), np.zeros((3, 3), F), np.empty((2, 3), F), np.empty(3, F), np.empty(3, F)
    Y, dY = np.empty(16, F), np.empty(16, F)
    length = F(0)
    axis = _shortest(scales[g])
    k = sh.shape[1]
    for c in range(len(radii)):
        if radii[c, g] == 0:
            continue
        if length == F(0):
            length = _rotation(quats[g], R)
            for i in range(3):
                for j in range(3):
                    M[i, j] = R[i, j] * scales[g, j]
        for i in range(3):
            t[i] = W[c, i, 0] * means[g, 0] + W[c, i, 1] * means[g, 1] + W[c, i, 2] * means[g, 2] + T[c, i]
            dt[i] = F(0)
        fx, fy = K[c, 0, 0], K[c, 1, 1]
        free_x, free_y = _affine(t, W[c], fx, fy, K[c, 0, 2], K[c, 1, 2], width, height, U)
        for i in range(2):
            for j in range(3):
                P[i, j] = U[i, 0] * M[0, j] + U[i, 1] * M[1, j] + U[i, 2] * M[2, j]
        # Screen covariance: d cov = -conic d_conic conic, with d_conic symmetric.
        a, b, e = conics[c, g, 0], conics[c, g, 1], conics[c, g, 2]
        da, db, de = d_conics[c, g, 0], F(0.5) * d_conics[c, g, 1], d_conics[c, g, 2]
        pa, pb, pc, pd = a * da + b * db, a * db + b * de, b * da + e * db, b * db + e * de
        d_xx, d_xy_, d_yy = -(pa * a + pb * b), -(pa * b + pb * e), -(pc * b + pd * e)
        if antialiased:
            xx, xy_, yy, det, sharp = _covariance(P, eps2d)
            thinning = math.sqrt(sharp / det)
            d_opacities[g] += d_alphas[c, g] * thinning
            if sharp > F(1e-20) * det:
                half = F(0.5) * d_alphas[c, g] * opacities[g] * thinning
                d_xx += half * ((yy - eps2d) / sharp - a)
                d_yy += half * ((xx - eps2d) / sharp - e)
                d_xy_ += half * (-xy_ / sharp - b)
        else:
            d_opacities[g] += d_alphas[c, g]
        for j in range(3):
            dP[0, j] = F(2) * (d_xx * P[0, j] + d_xy_ * P[1, j])
            dP[1, j] = F(2) * (d_xy_ * P[0, j] + d_yy * P[1, j])
        for i in range(3):
            for j in range(3):
                dM[i, j] += U[0, i] * dP[0, j] + U[1, i] * dP[1, j]
        # U = focal / z * (W_row - slope * W_z): back to depth and slopes.
        d_sx, d_sy, scaled = F(0), F(0), F(0)
        for j in range(3):
            du0 = dP[0, 0] * M[j, 0] + dP[0, 1] * M[j, 1] + dP[0, 2] * M[j, 2]
            du1 = dP[1, 0] * M[j, 0] + dP[1, 1] * M[j, 1] + dP[1, 2] * M[j, 2]
            scaled += du0 * U[0, j] + du1 * U[1, j]
            d_sx -= du0 * W[c, 2, j]
            d_sy -= du1 * W[c, 2, j]
        z = t[2]
        dt[2] -= scaled / z
        d_sx = fx / z * d_sx if free_x else F(0)
        d_sy = fy / z * d_sy if free_y else F(0)
        d_sx += fx * d_means2d[c, g, 0]
        d_sy += fy * d_means2d[c, g, 1]
        dt[0] += d_sx / z
        dt[1] += d_sy / z
        dt[2] -= (d_sx * t[0] + d_sy * t[1]) / (z * z)
        d = d_features[c, g]
        if with_depth:
            dt[2] += d[4]
        for j in range(3):
            d_means[g, j] += W[c, 0, j] * dt[0] + W[c, 1, j] * dt[1] + W[c, 2, j] * dt[2]
        rx, ry, rz = means[g, 0] - centers[c, 0], means[g, 1] - centers[c, 1], means[g, 2] - centers[c, 2]
        if with_normals:
            sign = F(-1) if rx * R[0, axis] + ry * R[1, axis] + rz * R[2, axis] > 0 else F(1)
            at = 5 if with_depth else 4
            for i in range(3):
                dR[i, axis] += sign * d[at + i]
        far_off = math.sqrt(rx * rx + ry * ry + rz * rz)
        x, y, z = rx / far_off, ry / far_off, rz / far_off
        _basis(k, x, y, z, Y)
        d0 = d[1] if features[c, g, 1] > 0 else F(0)
        d1 = d[2] if features[c, g, 2] > 0 else F(0)
        d2 = d[3] if features[c, g, 3] > 0 else F(0)
        for j in range(k):
            d_sh[g, j, 0] += Y[j] * d0
            d_sh[g, j, 1] += Y[j] * d1
            d_sh[g, j, 2] += Y[j] * d2
            dY[j] = sh[g, j, 0] * d0 + sh[g, j, 1] * d1 + sh[g, j, 2] * d2
        if k > 1:
            gx, gy, gz = _basis_gradient(k, x, y, z, dY)
            along = gx * x + gy * y + gz * z
            d_means[g, 0] += (gx - along * x) / far_off
            d_means[g, 1] += (gy - along * y) / far_off
            d_means[g, 2] += (gz - along * z) / far_off
    if length > F(0):
        for i in range(3):
            for j in range(3):
                d_scales[g, j] += R[i, j] * dM[i, j]
                dR[i, j] += scales[g, j] * dM[i, j]
        _rotation_gradient(quats[g], length, dR, d_quats[g])


@njit(**PARALLEL)
@no_type_check
def unproject(gaussians, cameras, lens, conics, features, radii, upstream, grads):
    """The backward of :func:`project`: add to ``grads``, those of the Gaussians, in order.

    ``upstream`` holds the gradients of means2d, conics, alphas and features.
    """
    for g in prange(len(gaussians[0])):
        _unproject_one(g, gaussians, cameras, lens, conics, features, radii, upstream, grads)
