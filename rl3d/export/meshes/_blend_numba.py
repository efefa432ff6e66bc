"""The inner loop of baking: what all views show at points of a surface."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32
from numba import njit, prange
from numpy import ndarray

from rl3d.render._threads import follow_torch


def blend(
    points: Float32[ndarray, "n 3"],
    normals: Float32[ndarray, "n 3"],
    project: Float[ndarray, "v 3 4"],
    centers: Float32[ndarray, "v 3"],
    inverse_depth: Float32[ndarray, "v h w"],
    images: Float32[ndarray, "v h w 4"],
    *,
    sharpness: float = 4.0,
) -> tuple[Float32[ndarray, "n 3"], Float32[ndarray, "n"]]:
    """Average the views at points, and say how much weight each point got, 0 where no view sees it.

    A view counts by the cosine of its angle to the normal, to the power of ``sharpness``, and by its alpha there, from 0 at one
    half to 1 at one. It does not count where the mesh itself comes between, within a pixel of the point, nor beyond its border.

    Args:
        points: On the surface.
        normals: Unit ones; those that point away from a camera are not seen by it.
        project: From the world to pixels, homogeneous.
        centers: Of the cameras, in the world.
        inverse_depth: Of the mesh, at the pixels' centres; 0 where it is not.
        images: Three channels and alpha, read bilinearly.
        sharpness: How much squarely seen is better; 0 takes all alike.
    """
    out, weight = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
    follow_torch()
    _blend(points, normals, project, centers, inverse_depth, images, sharpness, out, weight)
    return out, weight


@njit(parallel=True, cache=True)
@no_type_check
def _blend(points, normals, project, centers, inverse_depth, images, sharpness, out, weight):
    views, height, width = inverse_depth.shape
    for n in prange(len(points)):
        px, py, pz = np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2])
        total, red, green, blue = 0.0, 0.0, 0.0, 0.0
        for v in range(views):
            dx, dy, dz = centers[v, 0] - px, centers[v, 1] - py, centers[v, 2] - pz
            cosine = dx * normals[n, 0] + dy * normals[n, 1] + dz * normals[n, 2]
            if cosine <= 0:
                continue
            cosine /= np.sqrt(dx * dx + dy * dy + dz * dz)
            if cosine < 0.1:
                continue
            m = project[v]
            z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
            if z <= 0.01:
                continue
            x = (m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]) / z - 0.5
            y = (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]) / z - 0.5
            column, row = int(np.floor(x)), int(np.floor(y))
            if column < 1 or row < 1 or column + 2 >= width or row + 2 >= height:
                continue
            # A pixel's width on the surface: what its own slope may bring it nearer within the pixels around.
            slack = 4 * z / m[0, :3].dot(m[0, :3]) ** 0.5 / cosine
            nearest = 0.0
            for i in range(row, row + 2):
                for j in range(column, column + 2):
                    nearest = max(nearest, inverse_depth[v, i, j])
            if nearest * (z - slack) > 1:
                continue
            fx, fy = x - column, y - row
            share = cosine**sharpness
            a = b = c = alpha = 0.0
            for i in range(2):
                for j in range(2):
                    part = (fy if i else 1 - fy) * (fx if j else 1 - fx)
                    a += part * images[v, row + i, column + j, 0]
                    b += part * images[v, row + i, column + j, 1]
                    c += part * images[v, row + i, column + j, 2]
                    alpha += part * images[v, row + i, column + j, 3]
            share *= max(0.0, 2 * alpha - 1)
            total += share
            red += share * a
            green += share * b
            blue += share * c
        if total > 0:
            out[n, 0], out[n, 1], out[n, 2] = red / total, green / total, blue / total
            weight[n] = total
