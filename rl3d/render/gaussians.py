"""Render Gaussian splats: one call, three backends."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.render._gaussians_torch import Settings
from rl3d.types import Cameras, Look, Splats, Views

_BACKENDS = {
    "numba": "rl3d.render._gaussians_numba",
    "torch": "rl3d.render._gaussians_torch",
    "gsplat": "rl3d.render._gaussians_cuda",
}
Backend = Literal["auto", "numba", "torch", "gsplat"]


@dataclass(frozen=True)
class Trace:
    """What a rendering leaves behind for densification."""

    means2d: Float[Tensor, "v n 2"]
    """Centres on the screen, in pixels. ``retain_grad()`` before the backward pass keeps their gradient."""
    radii: Int[Tensor, "v n"]
    """Half the larger side of each Gaussian's bounding box in pixels, rounded up; 0 where it is not seen."""
    size: tuple[int, int]
    """Width and height of the image."""


def look_at(splats: Splats) -> Look:
    """Splats as something to look at, without gradients."""

    @torch.no_grad()
    def look(cameras: Cameras) -> Views:
        return render_splats(splats, cameras)[0]

    return look


def render_splats(
    splats: Splats,
    cameras: Cameras,
    *,
    eps2d: float = 0.3,
    antialiased: bool = False,
    depth: bool = True,
    normals: bool = True,
    backend: Backend = "auto",
) -> tuple[Views, Trace]:
    """Render one scene as ``[1 v]`` cameras see it, differentiably in every field of the splats.

    Colour, depth and normals are blended in one pass. Colour comes premultiplied, on no background. Depth is the blended depth
    divided by alpha. The normal of a Gaussian is its shortest axis, turned to the camera; normals are blended, then scaled
    to unit length. Both are None where they are not asked for, and cost nothing then.

    ``eps2d`` is the variance in pixels squared that widens every Gaussian on the screen; ``antialiased`` lowers its opacity in
    exchange. ``backend="auto"`` takes gsplat on CUDA, numba for float32 on the CPU, and otherwise torch (any device and dtype,
    also differentiable in the cameras, but dense: for small scenes only).

    Raises:
        ValueError: If the cameras are not those of one scene.
        RuntimeError: If gsplat is asked for and does not work here; the message says what to do.
    """
    if len(cameras.cam_from_world) != 1:
        raise ValueError(
            f"render_splats draws one scene, so it takes cameras [1 v]; got [{len(cameras.cam_from_world)} v]. "
            "Render several scenes one by one and concatenate their views."
        )
    if backend == "auto":
        fast = splats.means.dtype == torch.float32
        backend = (
            "gsplat" if splats.means.is_cuda and fast else "numba" if splats.means.device.type == "cpu" and fast else "torch"
        )
    module = importlib.import_module(_BACKENDS[backend])
    settings = Settings(cameras.width, cameras.height, eps2d, antialiased, depth=depth, normals=normals)
    raster = module.rasterize(
        splats.means,
        splats.quats,
        splats.log_scales.exp(),
        splats.opacity_logits.sigmoid(),
        splats.sh,
        cameras.cam_from_world[0].to(splats.means),
        cameras.intrinsics[0].to(splats.means),
        settings,
    )
    # Alpha is 0 or at least 1/255 (MIN_ALPHA), so that the floors below are met by empty pixels alone.
    far = None if raster.depth is None else raster.depth / raster.alpha.clamp(min=1e-3)
    facing = None if raster.normals is None else torch.nn.functional.normalize(raster.normals, dim=-1, eps=1e-3)
    rgb, alpha, far, facing = (None if x is None else x[None] for x in (raster.rgb, raster.alpha, far, facing))
    return Views(rgb, alpha, far, facing, cameras), Trace(raster.means2d, raster.radii, (cameras.width, cameras.height))  # pyright: ignore[reportArgumentType]
