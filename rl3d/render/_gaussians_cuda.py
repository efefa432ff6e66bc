"""Rasterize Gaussians on CUDA: gsplat behind the call of the other backends."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.render._gaussians_torch import Projected, Raster, Settings, median_gaussian, shade, without_insane

__all__ = ["gsplat", "median_gaussian", "rasterize"]

REMEDY = (
    "Install it with `pip install 'rl3d[cuda]'`; it compiles its kernels at first use, for which it needs CUDA's compiler "
    "(nvcc) of the version that torch was built for. Or render elsewhere: backend='numba' with tensors on the CPU, or "
    "backend='torch' for a small scene on any device."
)


def gsplat() -> Any:
    """The module of that name, whose kernels work.

    Raises:
        RuntimeError: If gsplat or its kernels are missing.
    """
    try:
        import gsplat  # pyright: ignore[reportMissingImports]
        from gsplat.cuda._backend import _C  # pyright: ignore[reportMissingImports]
    except Exception as error:
        raise RuntimeError(f"gsplat could not be loaded: {error}. {REMEDY}") from error
    if _C is None:
        raise RuntimeError(f"gsplat's CUDA kernels could not be compiled here (no nvcc?). {REMEDY}")
    return gsplat


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    colors: Float[Tensor, "..."],
    viewmats: Float[Tensor, "v 4 4"],
    Ks: Float[Tensor, "v 3 3"],
    settings: Settings,
) -> Raster:
    """Draw Gaussians as cameras see them; see :func:`rl3d.render._gaussians_torch.rasterize`.

    Raises:
        RuntimeError: If gsplat or its kernels are missing, or the tensors are not on a CUDA device.
    """
    library = gsplat()
    if not means.is_cuda:
        raise RuntimeError(f"gsplat renders on CUDA, and the Gaussians are on {means.device}. {REMEDY}")
    means, quats, scales, opacities, colors = without_insane(means, quats, scales, opacities, colors, settings)
    depths = viewmats[:, 2, :3] @ means.T + viewmats[:, 2, 3:]
    features = shade(means, quats, scales, colors, viewmats, depths, settings)
    image, alpha, info = library.rasterization(
        means,
        quats,
        scales,
        opacities,
        features,
        viewmats,
        Ks,
        settings.width,
        settings.height,
        near_plane=settings.near,
        far_plane=settings.far,
        radius_clip=settings.radius_clip,
        eps2d=settings.eps2d,
        packed=False,
        absgrad=settings.absgrad,
        rasterize_mode="antialiased" if settings.antialiased else "classic",
        camera_model="ortho" if settings.ortho else "pinhole",
    )
    seen = (info["radii"] > 0).any(-1)
    projected = Projected(
        info["means2d"],
        info["depths"],
        info["conics"],
        info["opacities"],
        info["radii"],
        torch.where(seen[..., None], features, 0.0),
    )
    return Raster(image, alpha, projected)
