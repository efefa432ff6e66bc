"""Look at a mesh in its own colours, without light: what exporters measure themselves by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float32, Int, Shaped
from numpy import ndarray
from torch import Tensor

from rl3d.render import mesh as raster
from rl3d.types import Cameras, Look, Views

Colours = Callable[[Int[Tensor, "n"], Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]
"""From faces and places on them (weights of the three corners) to sRGB."""


def triangles_of(mesh: trimesh.Trimesh) -> raster.TriangleMesh:
    """A mesh as the rasterizer wants it; its normals are smooth but for creases."""
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    return raster.TriangleMesh(vertices, faces, raster.corner_normals(vertices, faces), np.zeros(len(faces), np.int32))


def look_at_mesh(mesh: trimesh.Trimesh, *, samples: int = 3) -> Look:
    """A mesh of the exporters as something to look at: its texture or its vertices' colours, both sRGB; grey without any."""
    return look_at_surface(triangles_of(mesh), colours_of(mesh), samples=samples)


def look_at_surface(triangles: raster.TriangleMesh, colours: Colours, *, samples: int = 3) -> Look:
    """Triangles in colours as something to look at, with ``samples`` squared samples a pixel."""

    def look_once(cameras: Cameras) -> Views:
        fragments = raster.rasterize(triangles, cameras, samples=samples)
        hit = fragments.face >= 0
        image = np.zeros((*hit.shape, 4), np.float32)
        image[hit, :3] = colours(*places(fragments)).numpy()
        image[..., 3] = hit
        rgba = raster.box_filter(image, samples)
        depth, normals = (raster.box_filter(x, samples) for x in raster.depth_and_normals(fragments, triangles, cameras))
        depth /= np.maximum(rgba[..., 3:], 1e-6)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        pixels = raster.tensor(rgba)
        return Views(pixels[..., :3], pixels[..., 3:], raster.tensor(depth), raster.tensor(normals), cameras)

    def look(cameras: Cameras) -> Views:
        # A few views at a time: samples take memory.
        parts = [look_once(cameras.select(slice(i, i + 8))) for i in range(0, cameras.views, 8)]
        rgb, alpha, depth, normals = (torch.cat(images, 1) for images in zip(*(part.tensors() for part in parts), strict=True))
        return Views(rgb, alpha, depth, normals, cameras)

    return look


def places(fragments: raster.Fragments) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Which faces the samples hit, and where: the weights of the three corners."""
    hit = fragments.face >= 0
    rest = fragments.barycentrics[hit]
    weight = np.concatenate([1 - rest.sum(1, keepdims=True), rest], 1)
    return torch.from_numpy(fragments.face[hit].astype(np.int64)), torch.from_numpy(weight)


def colours_of(mesh: trimesh.Trimesh) -> Colours:
    """The colours of a mesh that keeps the exporters' contract: sRGB in a texture, read bilinearly, or at vertices."""
    corners, visual = torch.from_numpy(np.asarray(mesh.faces, np.int64).copy()), mesh.visual
    texture = getattr(getattr(visual, "material", None), "baseColorTexture", None)
    if visual.kind == "texture" and texture is not None:
        picture = np.asarray(texture.convert("RGB"), np.float32) / 255
        return textured(corners, np.asarray(visual.uv, np.float32), picture)
    if visual.kind in ("vertex", "face"):
        colours = torch.from_numpy(np.asarray(visual.vertex_colors, np.float32)[:, :3] / 255)
        return lambda face, weight: (weight[..., None] * colours[corners[face]]).sum(1)
    return lambda face, weight: torch.full((len(face), 3), 0.5)


def textured(corners: Int[Tensor, "m 3"], uv: Float32[ndarray, "n 2"], picture: Float32[ndarray, "h w 3"]) -> Colours:
    """Colours from a picture in [0, 1] (:func:`texture_at`)."""
    places = torch.from_numpy(uv)

    def colours(face: Int[Tensor, "n"], weight: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        at = (weight[..., None] * places[corners[face]]).sum(1)
        return torch.from_numpy(texture_at(picture, at.numpy()))

    return colours


def texture_at(texels: Shaped[ndarray, "h w 3"], uv: Float[ndarray, "n 2"]) -> Float32[ndarray, "n 3"]:
    """Look places up in a picture: 0 to 1 to the right and up, repeated beyond (glTF 2.0,
    sec. 3.8.2), blended between texels' centres; in the picture's own range.
    """
    h, w, _ = texels.shape
    place = np.asarray(uv, np.float64)
    x, y = place[:, 0] * w - 0.5, (1 - place[:, 1]) * h - 0.5
    left, top = np.floor(x), np.floor(y)
    right, low = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    columns, rows = [((left + i) % w).astype(np.int64) for i in (0, 1)], [((top + i) % h).astype(np.int64) for i in (0, 1)]
    upper = (1 - right) * texels[rows[0], columns[0]] + right * texels[rows[0], columns[1]]
    lower = (1 - right) * texels[rows[1], columns[0]] + right * texels[rows[1], columns[1]]
    return (1 - low) * upper + low * lower
