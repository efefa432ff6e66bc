"""Rasterize Gaussians on CUDA: gsplat behind the call of the other backends."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.render._gaussians_torch import Raster, Settings, shade, split, without_insane

REMEDY = (
    "Install it with `pip install 'rl3d[cuda]'`; it compiles its kernels at first use, for which it needs CUDA's compiler "
    "(nvcc) of the version that torch was built for. Or render elsewhere: backend='numba' with tensors on the CPU, or "
    "backend='torch' for a small scene on any device."
)


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    sh: Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "v 4 4"],
    Ks: Float[Tensor, "v 3 3"],
    settings: Settings,
) -> Raster:
    """Draw Gaussians as pinhole cameras see them. Differentiable in everything.

    Raises:
        RuntimeError: If gsplat or its kernels are missing, or the tensors are not on a CUDA device.
    """
    try:
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]
        from gsplat.cuda._backend import _C  # pyright: ignore[reportMissingImports]
    except Exception as error:
        raise RuntimeError(f"gsplat could not be loaded: {error}. {REMEDY}") from error
    if _C is None:
        raise RuntimeError(f"gsplat's CUDA kernels could not be compiled here (no nvcc?). {REMEDY}")
    if not means.is_cuda:
        raise RuntimeError(f"gsplat renders on CUDA, and the Gaussians are on {means.device}. {REMEDY}")
    means, quats, scales, opacities, sh = without_insane(means, quats, scales, opacities, sh)
    depths = viewmats[:, 2, :3] @ means.T + viewmats[:, 2, 3:]
    features = shade(means, quats, scales, sh, viewmats, depths, settings)
    image, alpha, info = rasterization(
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
        eps2d=settings.eps2d,
        packed=False,
        rasterize_mode="antialiased" if settings.antialiased else "classic",
    )
    return Raster(*split(torch.cat([alpha, image], -1), settings), info["means2d"], info["radii"].amax(-1))
