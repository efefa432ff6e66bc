"""Compiled loops of the fusion of depth: silhouettes as distances, and voxels that look at all views."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
F = np.float32


@njit(parallel=True, **COMPILED)
@no_type_check
def contour_distances(alpha, reach, out):
    """Write each pixel's signed distance in pixels to where alpha is one half: positive outside, at most ``reach`` away.

    The contour is the segments of marching squares, so it lies between pixels. ``alpha`` and ``out`` are ``[v h w]``.
    """
    views, height, width = alpha.shape
    near = math.ceil(reach)
    for v in prange(views):
        a, best = alpha[v], out[v]
        best[:] = reach
        xs, ys = np.empty(4, F), np.empty(4, F)
        for i in range(height - 1):
            for j in range(width - 1):
                count = 0
                for side in range(4):  # around the cell: top, right, bottom, left
                    i0, j0 = i + (side == 2 or side == 3), j + (side == 1 or side == 2)
                    i1, j1 = i + (side == 1 or side == 2), j + (side == 0 or side == 1)
                    p, q = a[i0, j0] - F(0.5), a[i1, j1] - F(0.5)
                    if (p >= 0) != (q >= 0):
                        t = p / (p - q)
                        xs[count], ys[count] = j0 + t * (j1 - j0), i0 + t * (i1 - i0)
                        count += 1
                for s in range(0, count, 2):
                    x0, y0, dx, dy = xs[s], ys[s], xs[s + 1] - xs[s], ys[s + 1] - ys[s]
                    squared = dx * dx + dy * dy
                    for row in range(max(0, i - near), min(height, i + near + 2)):
                        for column in range(max(0, j - near), min(width, j + near + 2)):
                            t = F(0)
                            if squared > 0:
                                t = min(F(1), max(F(0), ((column - x0) * dx + (row - y0) * dy) / squared))
                            best[row, column] = min(best[row, column], math.hypot(column - x0 - t * dx, row - y0 - t * dy))
        for row in range(height):
            for column in range(width):
                if a[row, column] >= F(0.5):
                    best[row, column] = -best[row, column]


@njit(parallel=True, fastmath=True, **COMPILED)
@no_type_check
def integrate(images, project, focal, extent, truncation, reach, votes, field):
    """Fill a grid ``[x y z 3]`` with what depth says, times its weight, the weight, and the distance beside silhouettes.

    See :func:`rl3d.geometry.tsdf.fuse`. What depth says is within +-``reach``, the last within +-``truncation``.

    ``images`` is ``[v h w 3]``: a depth's weight, the depth times it, and the distance from the contour in pixels; they are
    read bilinearly. ``project`` takes points to pixels, ``[v 3 4]``; ``focal`` is ``[v]``, in pixels.
    """
    views, height, width, _ = images.shape
    size = field.shape[0]
    step = F(2 * extent / size)
    for xi in prange(size):
        beside = np.empty(votes, F)  # the largest distances from a contour, sorted
        x = (F(xi) + F(0.5)) * step - extent
        for yi in range(size):
            y = (F(yi) + F(0.5)) * step - extent
            for zi in range(size):
                z = (F(zi) + F(0.5)) * step - extent
                outside = math.sqrt(x * x + y * y + z * z) - extent
                if outside > truncation:
                    field[xi, yi, zi, 0], field[xi, yi, zi, 1], field[xi, yi, zi, 2] = F(0), F(0), truncation
                    continue
                beside[:] = -truncation
                total, weight = F(0), F(0)
                for v in range(views):
                    p = project[v]
                    far = p[2, 0] * x + p[2, 1] * y + p[2, 2] * z + p[2, 3]
                    if far <= F(1e-3):
                        continue
                    near = F(1) / far
                    column = (p[0, 0] * x + p[0, 1] * y + p[0, 2] * z + p[0, 3]) * near - F(0.5)
                    row = (p[1, 0] * x + p[1, 1] * y + p[1, 2] * z + p[1, 3]) * near - F(0.5)
                    if column < 0 or row < 0 or column >= width - 1 or row >= height - 1:
                        continue
                    j, i = int(column), int(row)
                    right, down = column - F(j), row - F(i)
                    w00, w01 = (F(1) - right) * (F(1) - down), right * (F(1) - down)
                    w10, w11 = (F(1) - right) * down, right * down
                    a, b, c, d = images[v, i, j], images[v, i, j + 1], images[v, i + 1, j], images[v, i + 1, j + 1]
                    away = (w00 * a[2] + w01 * b[2] + w10 * c[2] + w11 * d[2]) * far / focal[v]
                    if away > beside[votes - 1]:
                        k = votes - 1
                        while k > 0 and beside[k - 1] < away:
                            beside[k] = beside[k - 1]
                            k -= 1
                        beside[k] = away
                        if beside[votes - 1] >= truncation:
                            break
                    share = w00 * a[0] + w01 * b[0] + w10 * c[0] + w11 * d[0]
                    if share > F(1e-4):
                        distance = (w00 * a[1] + w01 * b[1] + w10 * c[1] + w11 * d[1]) / share - far
                        if distance > -reach:
                            distance = min(distance, reach)
                            share *= F(1) + min(distance, F(0)) / reach
                            total += share * distance
                            weight += share
                field[xi, yi, zi, 0], field[xi, yi, zi, 1] = total, weight
                field[xi, yi, zi, 2] = min(max(beside[votes - 1], outside), truncation)
