"""Draw surfaces: exact views of real objects in varied light, and their albedo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from rl3d.render import mesh
from rl3d.render.mesh import TriangleMesh
from rl3d.types import Cameras
from rl3d.world.shading import Light, shade
from rl3d.world.surface import Surface, join

CREASE_DEG = 40.0


def triangles(surface: Surface, normals: Float32[ndarray, "m 3 3"] | None = None) -> TriangleMesh:
    """Take a surface's triangles, with normals smoothed over edges below 40 degrees."""
    if normals is None:
        normals = mesh.corner_normals(surface.vertices, surface.faces, CREASE_DEG)
    return TriangleMesh(surface.vertices, surface.faces, normals, surface.labels)


def render_many(
    surfaces: Sequence[Surface], cameras: Cameras, lights: Sequence[Light], *, samples: int = 2
) -> tuple[UInt8[ndarray, "b v h w 4"], UInt8[ndarray, "b v h w 3"]]:
    """Draw many surfaces, the ``b``-th from the cameras of scene ``b`` in light ``b``: premultiplied sRGB and alpha, and
    premultiplied sRGB albedo, both in 8 bits.
    """
    b, v = cameras.cam_from_world.shape[:2]
    if not len(surfaces) == len(lights) == b:
        raise ValueError(f"{len(surfaces)} surfaces and {len(lights)} lights for {b} scenes of cameras; give one for each")
    shape = (b, v, cameras.height, cameras.width)
    rgba, albedo = np.empty((*shape, 4), np.uint8), np.empty((*shape, 3), np.uint8)
    step = max(1, 2_000_000 // (v * cameras.height * cameras.width * samples**2))  # few enough that buffers are reused
    for start in range(0, b, step):
        some = slice(start, start + step)
        drawn, spans = mesh.join([triangles(surface) for surface in surfaces[some]])
        seen = replace(cameras, cam_from_world=cameras.cam_from_world[some], intrinsics=cameras.intrinsics[some])
        fragments = mesh.rasterize(drawn, seen, spans, samples=samples)
        for out, image in zip((rgba, albedo), shade(fragments, drawn, join(surfaces[some]), seen, lights[some]), strict=True):
            np.add(mesh.box_filter(image, samples) * 255, 0.5, out=out[some], casting="unsafe")
    return rgba, albedo
