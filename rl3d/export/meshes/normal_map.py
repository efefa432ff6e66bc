"""Normals of a finer surface in the tangent space of a coarser one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numpy import ndarray


def tangent_space(
    normals: Float32[ndarray, "*n 3"],
    smooth: Float32[ndarray, "*n 3"],
    tangents: Float32[ndarray, "*n 3"],
    bitangents: Float32[ndarray, "*n 3"],
) -> Float32[ndarray, "*n 3"]:
    """Unit normals in the frame (tangent, bitangent, normal) of a surface: x along u, y along v (OpenGL's), z outwards.

    The tangent is made perpendicular to the normal (Gram and Schmidt), and the bitangent is their cross product on the side
    where v grows, as glTF 2.0 (sec. 3.7.2.1) builds it. Normals that point into the surface, or are none, are taken as the
    surface's own.

    Args:
        normals: Of the fine surface, in the world.
        smooth: Of the coarse one, interpolated.
        tangents: In which direction u grows; any length.
        bitangents: In which direction v grows; any length.
    """
    n = _unit(smooth)
    t = _unit(tangents - (tangents * n).sum(-1, keepdims=True) * n)
    b = np.cross(n, t)
    b *= np.where((b * bitangents).sum(-1, keepdims=True) < 0, -1, 1)
    fine = _unit(normals)
    local = np.stack([(fine * axis).sum(-1) for axis in (t, b, n)], -1)
    known = (local[..., 2:] > 0.1) & (np.linalg.norm(t, axis=-1, keepdims=True) > 0.5)
    return np.where(known, local, np.array([0, 0, 1], np.float32)).astype(np.float32)


def directions(
    corners: Float32[ndarray, "m 3 3"], uv: Float32[ndarray, "m 3 2"]
) -> tuple[Float32[ndarray, "m 3"], Float32[ndarray, "m 3"]]:
    """In which directions of the world u and v grow on each face; zero for faces without area in the texture."""
    p1, p2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (u1, v1), (u2, v2) = ((uv[:, i] - uv[:, 0]).T[..., None] for i in (1, 2))
    area = u1 * v2 - u2 * v1
    inverse = np.where(np.abs(area) > 1e-20, 1 / np.where(area == 0, 1, area), 0)
    return ((v2 * p1 - v1 * p2) * inverse).astype(np.float32), ((u1 * p2 - u2 * p1) * inverse).astype(np.float32)


def _unit(x: Float32[ndarray, "*n 3"]) -> Float32[ndarray, "*n 3"]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
