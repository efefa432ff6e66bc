"""Draw triangle meshes: a z-buffer on the CPU, parallel over views, that answers the same bytes with any number of threads.

Shading is deferred: :func:`rasterize` finds what every sample sees (:class:`Fragments`), whoever colours objects turns
fragments into values per sample, and :func:`box_filter` averages the samples of a pixel.

Triangles are scan-converted in homogeneous coordinates (Olano and Greer, "Triangle scan conversion using 2D homogeneous
coordinates", 1997): barycentrics are perspective correct, and triangles that cross the camera's plane need no clipping.
Surfaces have two sides. Edges that triangles share leave no cracks: both sides evaluate them to exactly opposite values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float32, Int32
from numba import njit, prange
from numpy import ndarray

from rl3d.render._threads import follow_torch
from rl3d.types import Cameras


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles in world space, with what shading needs. Outward faces are counter-clockwise; the mesh may be open."""

    vertices: Float32[ndarray, "n 3"]
    faces: Int32[ndarray, "m 3"]
    normals: Float32[ndarray, "m 3 3"]
    """Unit normals at each corner of each face (:func:`corner_normals`)."""
    labels: Int32[ndarray, "m"]
    """Which part each face belongs to, counted from 0."""


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at each sample; ``h w`` count samples. Where there is none, everything is 0 and ``face`` -1."""

    face: Int32[ndarray, "b v h w"]
    """Index into the mesh's faces."""
    barycentrics: Float32[ndarray, "b v h w 2"]
    """Weights of the face's second and third corner, perspective correct; the first has the rest."""
    inverse_depth: Float32[ndarray, "b v h w"]
    """One over the depth along the camera's z axis."""


def corner_normals(
    vertices: Float32[ndarray, "n 3"], faces: Int32[ndarray, "m 3"], crease_deg: float = 40.0
) -> Float32[ndarray, "m 3 3"]:
    """Average the normals of the faces around each corner, weighed by their angles there.

    Faces that meet the corner's own face at more than ``crease_deg`` do not count; 0 gives flat shading. Faces without area
    get the normal of their neighbours, or zero.
    """
    return _corner_normals(vertices, faces, np.cos(np.radians(max(crease_deg, 0.01))))


def join(meshes: Sequence[TriangleMesh]) -> tuple[TriangleMesh, Int32[ndarray, "b 2"]]:
    """Put meshes into one for :func:`rasterize`; also return the range of faces of each. Labels are counted on."""
    sizes = np.array([(len(m.vertices), len(m.faces), 1 + m.labels.max(initial=-1)) for m in meshes], np.int32)
    starts = np.cumsum(sizes, axis=0, dtype=np.int32) - sizes
    joined = TriangleMesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts[:, 0], strict=True)]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.labels + start for m, start in zip(meshes, starts[:, 2], strict=True)]),
    )
    return joined, np.stack([starts[:, 1], starts[:, 1] + sizes[:, 1]], 1)


def rasterize(
    mesh: TriangleMesh,
    cameras: Cameras,
    spans: Int32[ndarray, "b 2"] | None = None,
    *,
    samples: int = 2,
    near: float = 0.01,
) -> Fragments:
    """Find the nearest face at ``samples`` x ``samples`` points of every pixel, at depths beyond ``near``.

    Scene ``b`` consists of the faces from ``spans[b, 0]`` to ``spans[b, 1]``; without spans, all faces are in every scene.
    """
    b, v = cameras.cam_from_world.shape[:2]
    if spans is None:
        spans = np.tile(np.array([[0, len(mesh.faces)]], np.int32), (b, 1))
    if len(spans) != b:
        raise ValueError(f"{len(spans)} ranges of faces for {b} scenes of cameras; give one for each")
    project = (cameras.intrinsics.double() @ cameras.cam_from_world[..., :3, :].double()).cpu().numpy()
    shape = (b, v, cameras.height * samples, cameras.width * samples)
    face, inverse_depth = np.empty(shape, np.int32), np.empty(shape, np.float32)
    barycentrics = np.empty((*shape, 2), np.float32)
    follow_torch()
    _rasterize(mesh.vertices, mesh.faces, spans, project, samples, 1 / near, face, barycentrics, inverse_depth)
    return Fragments(face, barycentrics, inverse_depth)


def depth_and_normals(
    fragments: Fragments, mesh: TriangleMesh, cameras: Cameras
) -> tuple[Float32[ndarray, "b v h w 1"], Float32[ndarray, "b v h w 3"]]:
    """Compute each sample's depth and its world-space normal, turned to face the camera."""
    centers = np.ascontiguousarray(cameras.centers.cpu().numpy(), np.float32)
    depth = np.zeros((*fragments.face.shape, 1), np.float32)
    normals = np.zeros((*fragments.face.shape, 3), np.float32)
    _depth_and_normals(
        *(fragments.face, fragments.barycentrics, fragments.inverse_depth),
        *(mesh.vertices, mesh.faces, mesh.normals, centers, depth, normals),
    )
    return depth, normals


def box_filter(image: Float32[ndarray, "b v h w c"], samples: int) -> Float32[ndarray, "b v h2 w2 c"]:
    """Average blocks of ``samples`` x ``samples``, which divides the height and the width."""
    b, v, h, w, c = image.shape
    if samples == 1:
        return image
    out = np.empty((b, v, h // samples, w // samples, c), np.float32)
    _box_filter(image, samples, out)
    return out


def tensor(image: Float32[ndarray, "*shape"]) -> Float32[torch.Tensor, "*shape"]:
    """See an array as a tensor, without a copy."""
    return torch.from_numpy(image)


@njit(parallel=True, cache=True)
@no_type_check
def _rasterize(vertices, faces, spans, project, samples, max_inverse_depth, face, barycentrics, inverse_depth):
    b, v = face.shape[:2]
    for view in prange(b * v):
        i, j = view // v, view % v
        face[i, j] = -1
        barycentrics[i, j] = 0
        inverse_depth[i, j] = 0
        _draw(
            *(vertices, faces, spans[i, 0], spans[i, 1], project[i, j], samples, max_inverse_depth),
            *(face[i, j], barycentrics[i, j], inverse_depth[i, j]),
        )


@njit(cache=True)
@no_type_check
def _draw(vertices, faces, first, last, project, samples, max_inverse_depth, face, barycentrics, inverse_depth):
    """Draw faces ``first`` to ``last`` into one view. In float64, because small triangles are differences of large numbers."""
    if first == last:
        return
    height, width = face.shape
    low, high = faces[first:last].min(), faces[first:last].max()
    points = np.empty((high + 1 - low, 3), np.float64)
    for n in range(low, high + 1):
        x, y, z = np.float64(vertices[n, 0]), np.float64(vertices[n, 1]), np.float64(vertices[n, 2])
        for k in range(3):
            points[n - low, k] = project[k, 0] * x + project[k, 1] * y + project[k, 2] * z + project[k, 3]
    near = 1 / max_inverse_depth
    step = 1.0 / samples
    for f in range(first, last):
        i, j, k = faces[f, 0] - low, faces[f, 1] - low, faces[f, 2] - low
        x0, y0, z0 = points[i, 0], points[i, 1], points[i, 2]
        x1, y1, z1 = points[j, 0], points[j, 1], points[j, 2]
        x2, y2, z2 = points[k, 0], points[k, 1], points[k, 2]
        if z0 <= near and z1 <= near and z2 <= near:
            continue
        left, right, top, bottom = 0, width - 1, 0, height - 1
        if z0 > near and z1 > near and z2 > near:  # else the projection is unbounded: try the whole image
            u0, u1, u2 = x0 / z0, x1 / z1, x2 / z2
            v0, v1, v2 = y0 / z0, y1 / z1, y2 / z2
            u_min, u_max = min(u0, u1, u2) * samples - 0.5, max(u0, u1, u2) * samples - 0.5
            v_min, v_max = min(v0, v1, v2) * samples - 0.5, max(v0, v1, v2) * samples - 0.5
            if u_max < 0 or v_max < 0 or u_min > right or v_min > bottom:
                continue
            left, right = max(left, int(np.ceil(u_min))), min(right, int(np.floor(u_max)))
            top, bottom = max(top, int(np.ceil(v_min))), min(bottom, int(np.floor(v_max)))
            if left > right or top > bottom:
                continue
        # The edge opposite to each corner: its value at a point of the image is the corner's weight, but for a factor.
        a0, b0, c0 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        a1, b1, c1 = y2 * z0 - z2 * y0, z2 * x0 - x2 * z0, x2 * y0 - y2 * x0
        a2, b2, c2 = y0 * z1 - z0 * y1, z0 * x1 - x0 * z1, x0 * y1 - y0 * x1
        volume = a0 * x0 + b0 * y0 + c0 * z0
        if volume == 0:
            continue
        if volume < 0:  # seen from behind
            a0, b0, c0, a1, b1, c1 = -a0, -b0, -c0, -a1, -b1, -c1
            a2, b2, c2, volume = -a2, -b2, -c2, -volume
        inverse_volume = 1 / volume
        for row in range(top, bottom + 1):
            y = (row + 0.5) * step
            r0, r1, r2 = b0 * y + c0, b1 * y + c1, b2 * y + c2
            for column in range(left, right + 1):
                x = (column + 0.5) * step
                w0, w1, w2 = a0 * x + r0, a1 * x + r1, a2 * x + r2
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    total = w0 + w1 + w2
                    nearness = np.float32(total * inverse_volume)
                    if nearness > inverse_depth[row, column] and nearness <= max_inverse_depth:
                        inverse_depth[row, column] = nearness
                        face[row, column] = f
                        scale = 1 / total
                        barycentrics[row, column, 0] = w1 * scale
                        barycentrics[row, column, 1] = w2 * scale


@njit(parallel=True, cache=True)
@no_type_check
def _depth_and_normals(face, barycentrics, inverse_depth, vertices, faces, normals, centers, depth, out):
    b, v, h, w = face.shape
    for view in prange(b * v):
        i, j = view // v, view % v
        for row in range(h):
            for column in range(w):
                f = face[i, j, row, column]
                if f < 0:
                    continue
                depth[i, j, row, column, 0] = 1 / inverse_depth[i, j, row, column]
                w1, w2 = barycentrics[i, j, row, column]
                n = (1 - w1 - w2) * normals[f, 0] + w1 * normals[f, 1] + w2 * normals[f, 2]
                p = (1 - w1 - w2) * vertices[faces[f, 0]] + w1 * vertices[faces[f, 1]] + w2 * vertices[faces[f, 2]]
                length = np.sqrt((n * n).sum())
                if length > 0:
                    side = 1 if (n * (centers[i, j] - p)).sum() >= 0 else -1
                    out[i, j, row, column] = n * (side / length)


@njit(parallel=True, cache=True, fastmath=True)
@no_type_check
def _box_filter(image, samples, out):
    b, v, h, w, channels = out.shape
    scale = np.float32(1 / (samples * samples))
    for view in prange(b * v):
        i, j = view // v, view % v
        for row in range(h):
            for column in range(w):
                for c in range(channels):
                    total = np.float32(0)
                    for y in range(row * samples, (row + 1) * samples):
                        for x in range(column * samples, (column + 1) * samples):
                            total += image[i, j, y, x, c]
                    out[i, j, row, column, c] = total * scale


@njit(cache=True)
@no_type_check
def _corner_normals(vertices, faces, min_cosine):
    m = len(faces)
    flat, angles = np.zeros((m, 3), np.float32), np.zeros((m, 3), np.float32)
    first = np.zeros(len(vertices) + 1, np.int64)  # faces around vertex n: around[first[n]:first[n + 1]]
    for f in range(m):
        p = np.empty((3, 3))
        for k in range(3):
            first[faces[f, k] + 1] += 1
            for d in range(3):
                p[k, d] = vertices[faces[f, k], d]
        u, v = p[1] - p[0], p[2] - p[0]
        n = np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])
        size = np.sqrt((n * n).sum())
        if size == 0:
            continue
        for d in range(3):
            flat[f, d] = n[d] / size
        for k in range(3):
            u, v = p[(k + 1) % 3] - p[k], p[(k + 2) % 3] - p[k]
            angles[f, k] = np.arctan2(size, (u * v).sum())
    first = np.cumsum(first)
    around, fill = np.empty(3 * m, np.int64), first.copy()
    for f in range(m):
        for k in range(3):
            around[fill[faces[f, k]]] = 3 * f + k
            fill[faces[f, k]] += 1
    out = np.zeros((m, 3, 3), np.float32)
    for f in range(m):
        lost = flat[f, 0] == 0 and flat[f, 1] == 0 and flat[f, 2] == 0
        for k in range(3):
            x, y, z = np.float32(0), np.float32(0), np.float32(0)
            for slot in range(first[faces[f, k]], first[faces[f, k] + 1]):
                g, corner = around[slot] // 3, around[slot] % 3
                cosine = flat[f, 0] * flat[g, 0] + flat[f, 1] * flat[g, 1] + flat[f, 2] * flat[g, 2]
                if lost or g == f or cosine >= min_cosine:
                    x += angles[g, corner] * flat[g, 0]
                    y += angles[g, corner] * flat[g, 1]
                    z += angles[g, corner] * flat[g, 2]
            length = np.sqrt(x * x + y * y + z * z)
            if length > 0:
                out[f, k, 0], out[f, k, 1], out[f, k, 2] = x / length, y / length, z / length
    return out
