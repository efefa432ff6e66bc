"""Render Gaussian splats: one call, three backends."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.render._gaussians_torch import Projected, Settings
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
    median_depth: Float[Tensor, "1 v h w 1"] | None = None
    """Depth of the Gaussian behind which half of the light or less is left, 0 where there is none; None if not asked for."""


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
    median_depth: bool = False,
    absgrad: bool = False,
    backend: Backend = "auto",
) -> tuple[Views, Trace]:
    """Render one scene as ``[1 v]`` cameras see it, differentiably in every field of the splats.

    Colour, depth and normals are blended in one pass. Colour comes premultiplied, on no background. Depth is the blended depth
    divided by alpha. The normal of a Gaussian is its shortest axis, turned to the camera; normals are blended, then scaled
    to unit length. Both are None where they are not asked for, and cost nothing then. The trace holds the median depth if that
    is asked for (Huang et al., "2D Gaussian Splatting", 2024), which is sharper at edges and differentiable in the Gaussian's
    place; :func:`rl3d.render.surface.normals_from_depth` makes normals of either depth.

    ``eps2d`` is the variance in pixels squared that widens every Gaussian on the screen; ``antialiased`` lowers its opacity in
    exchange. ``absgrad`` leaves the absolute screen gradients at ``trace.means2d.absgrad`` in the backward pass (AbsGS).
    ``backend="auto"`` takes gsplat on CUDA, numba for float32 on the CPU, and otherwise torch (any device and dtype, but
    dense: for small scenes only). All are differentiable in the cameras' poses too.

    Raises:
        ValueError: If the cameras are not those of one scene.
        RuntimeError: If gsplat is asked for and does not work here; the message says what to do.
    """
    if len(cameras.cam_from_world) != 1:
        raise ValueError(
            f"render_splats draws one scene, so it takes cameras [1 v]; got [{len(cameras.cam_from_world)} v]. "
            "Render several scenes one by one and concatenate their views."
        )
    module = implementation(splats.means, backend)
    settings = Settings(
        cameras.width,
        cameras.height,
        eps2d,
        antialiased,
        sh_degree=splats.sh_degree,
        depth=depth,
        normals=normals,
        absgrad=absgrad,
    )
    image, alpha, projected = module.rasterize(
        splats.means,
        splats.quats,
        splats.log_scales.exp(),
        splats.opacity_logits.sigmoid(),
        splats.sh,
        cameras.cam_from_world[0].to(splats.means),
        cameras.intrinsics[0].to(splats.means),
        settings,
    )
    used = 3 + depth + 3 * normals
    rgb, far, facing, _ = image.split([3, int(depth), 3 * normals, image.shape[-1] - used], -1)
    # Alpha is 0 or at least 1/255 (MIN_ALPHA), so that the floors below are met by empty pixels alone.
    far = (far / alpha.clamp(min=1e-3))[None] if depth else None
    facing = torch.nn.functional.normalize(facing, dim=-1, eps=1e-3)[None] if normals else None
    median = _median_depth(module, projected, settings) if median_depth else None
    trace = Trace(projected.means2d, projected.radii.amax(-1), (cameras.width, cameras.height), median)
    return Views(rgb[None], alpha[None], far, facing, cameras), trace


def _median_depth(module: ModuleType, projected: Projected, settings: Settings) -> Float[Tensor, "1 v h w 1"]:
    names = module.median_gaussian(projected, settings).long()
    depths = torch.nn.functional.pad(projected.depths, (0, 1))
    names = torch.where(names < 0, depths.shape[1] - 1, names)
    return depths.gather(1, names.flatten(1)).view(names.shape)[None, ..., None]


def implementation(means: Tensor, backend: str = "auto") -> ModuleType:
    """The module that rasterizes these Gaussians: what the backend says, or what suits their device and type."""
    if backend == "auto":
        fast = means.dtype == torch.float32
        backend = "gsplat" if means.is_cuda and fast else "numba" if means.device.type == "cpu" and fast else "torch"
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(map(repr, _BACKENDS))}, got {backend!r}")
    return importlib.import_module(_BACKENDS[backend])
