"""Render toys: exact views of the toybox's objects, and which part covers what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from rl3d.render import mesh
from rl3d.render.mesh import TriangleMesh
from rl3d.toybox.assemble import Toy
from rl3d.toybox.paints import PAINTS
from rl3d.toybox.shading import Finish, Light, shade
from rl3d.types import Cameras, Views


def triangles(toy: Toy) -> TriangleMesh:
    """Take a toy's triangles; labels count its parts."""
    meshes = []
    for part in toy.parts:
        vertices, faces = np.asarray(part.mesh.vertices, np.float32), np.asarray(part.mesh.faces, np.int32)
        normals = mesh.corner_normals(vertices, faces, 40.0 if part.smooth else 0.0)
        meshes.append(TriangleMesh(vertices, faces, normals, np.zeros(len(faces), np.int32)))
    return mesh.join(meshes)[0]


def finish(toys: Sequence[Toy]) -> Finish:
    """Look up the paints of all parts, toy after toy. A paint that the palette lacks is a ``KeyError``."""
    parts = [part for toy in toys for part in toy.parts]
    paints = [PAINTS[part.paint] for part in parts]
    extents = np.array([np.ptp(np.asarray(part.mesh.vertices), axis=0) for part in parts])
    return Finish(
        np.array([paint.colour for paint in paints], np.float32) ** 2,  # as shading encodes: a gamma of 2
        np.array([paint.second or paint.colour for paint in paints], np.float32) ** 2,
        np.array([paint.material for paint in paints], np.int32),
        np.argsort(-extents, axis=1).astype(np.int32),
    )


def render(toy: Toy, cameras: Cameras, *, light: Light | None = None, samples: int = 3) -> Views:
    """Render a toy from all cameras, with ``samples`` x ``samples`` samples a pixel. Depths and normals are means over what
    is covered of a pixel. Not differentiable.
    """
    surface = triangles(toy)
    fragments = mesh.rasterize(surface, cameras, samples=samples)
    rgba = mesh.box_filter(shade(fragments, surface, finish([toy]), light), samples)
    depth, normals = (mesh.box_filter(x, samples) for x in mesh.depth_and_normals(fragments, surface, cameras))
    depth /= np.maximum(rgba[..., 3:], 1e-6)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    rgba = mesh.tensor(rgba)
    return Views(rgba[..., :3], rgba[..., 3:], mesh.tensor(depth), mesh.tensor(normals), cameras)


def part_masks(toy: Toy, cameras: Cameras, *, samples: int = 3) -> Float[Tensor, "b v h w p"]:
    """Compute how much of each pixel each visible part covers; the sum over parts is alpha."""
    surface = triangles(toy)
    fragments = mesh.rasterize(surface, cameras, samples=samples)
    part = np.where(fragments.face < 0, -1, surface.labels[fragments.face])
    masks = (part[..., None] == np.arange(len(toy.parts))).astype(np.float32)
    return mesh.tensor(mesh.box_filter(masks, samples))


def render_many(
    toys: Sequence[Toy], cameras: Cameras, *, light: Light | Sequence[Light] | None = None, samples: int = 2
) -> UInt8[ndarray, "b v h w 4"]:
    """Render many toys at once, the ``b``-th from the cameras of scene ``b``, in one light or in light ``b``: premultiplied
    sRGB and alpha in 8 bits.
    """
    b, v = cameras.cam_from_world.shape[:2]
    out = np.empty((b, v, cameras.height, cameras.width, 4), np.uint8)
    step = max(1, 2_000_000 // (v * cameras.height * cameras.width * samples**2))  # few enough that buffers are reused
    for start in range(0, b, step):
        some = slice(start, start + step)
        surface, spans = mesh.join([triangles(toy) for toy in toys[some]])
        seen = replace(cameras, cam_from_world=cameras.cam_from_world[some], intrinsics=cameras.intrinsics[some])
        fragments = mesh.rasterize(surface, seen, spans, samples=samples)
        lights = light if light is None or isinstance(light, Light) else light[some]
        rgba = mesh.box_filter(shade(fragments, surface, finish(toys[some]), lights), samples)
        np.add(rgba * 255, 0.5, out=out[some], casting="unsafe")
    return out
