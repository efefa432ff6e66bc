"""Rasterize Gaussians on the CPU, with compiled loops and a hand-written backward.

Results and gradients are float32 and bitwise the same for any number of threads and from run to run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rl3d.render import _gaussians_torch, _numba_bins, _numba_blend, _numba_project, _numba_unblend
from rl3d.render._compile import announced
from rl3d.render._gaussians_torch import Projected, Raster, Settings, absgrad_of
from rl3d.render._threads import follow_torch


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
    """Draw Gaussians as cameras see them; see :func:`rl3d.render._gaussians_torch.rasterize`."""
    projected = project(means, quats, scales, opacities, colors, viewmats, Ks, settings)
    return Raster(*blend(projected, settings, absgrad_of(projected, settings)), projected)


def project(means, quats, scales, opacities, colors, viewmats, Ks, settings: Settings) -> Projected:
    """Project and shade Gaussians. Features are padded with zeros to three or a multiple of four, as blending wants them.

    Where cameras want gradients, the oracle's projection is used, which is differentiable in them too.
    """
    gaussians = (means, quats, scales, opacities, colors)
    if viewmats.requires_grad or Ks.requires_grad:
        projected = _gaussians_torch.project(*gaussians, viewmats, Ks, settings)
        missing = _padded(projected.features.shape[-1]) - projected.features.shape[-1]
        return projected._replace(features=torch.nn.functional.pad(projected.features, (0, missing)))
    follow_torch()
    with announced():
        return Projected(*_Project.apply(*gaussians, viewmats, Ks, settings))


def blend(
    projected: Projected, settings: Settings, absgrad: Callable[[Tensor], None] | None = None
) -> tuple[Float[Tensor, "v h w c"], Float[Tensor, "v h w 1"]]:
    """Blend features front to back: the image, its channels padded as they are, and alpha.

    ``absgrad`` is called in the backward pass with the absolute gradients of the centres [v n 2].
    """
    follow_torch()
    with announced():
        return _Blend.apply(*projected, settings, absgrad)  # pyright: ignore[reportReturnType]


def median_gaussian(projected: Projected, settings: Settings) -> Tensor:
    """See :func:`rl3d.render._gaussians_torch.median_gaussian`."""
    follow_torch()
    means2d, depths, conics, opacities = _arrays(*projected[:4])
    size = (settings.width, settings.height)
    found = torch.empty(len(depths), settings.height, settings.width, dtype=torch.int32)
    with announced():
        records = _numba_bins.ellipses(means2d, conics, opacities)
        starts, pairs = _numba_bins.bin_pairs(records, depths, projected.radii.numpy(), *size)
        _numba_blend.medians(starts, pairs, records, found.numpy())
    return found


def _padded(channels: int) -> int:
    return 3 if channels <= 3 else (channels + 3) // 4 * 4


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(x.detach().float().contiguous().numpy() for x in tensors)


class _Project(torch.autograd.Function):
    """Gaussians to ellipses and features on the screen of each camera."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, viewmats, Ks, settings):
        v, n, s = len(viewmats), len(means), settings
        rotations, translations = viewmats[:, :3, :3], viewmats[:, :3, 3]
        centers = -(rotations.mT @ translations[..., None])[..., 0]
        ctx.colors = colors.shape
        if s.sh_degree is None:
            colors, harmonics = colors[..., None, :], 0
        else:
            harmonics = (s.sh_degree + 1) ** 2
        colors = colors if colors.ndim == 4 else colors[None]
        gaussians = _arrays(means, quats, scales, opacities, colors)
        cameras = _arrays(rotations, translations, centers, Ks)
        numbers = (s.width, s.height, s.eps2d, s.near, s.far, s.radius_clip)
        lens = (*map(np.float32, numbers), s.antialiased, s.ortho, harmonics, s.depth, s.normals)
        channels = _padded(colors.shape[-1] + s.depth + 3 * s.normals)
        means2d, conics, features = (torch.empty(v, n, c) for c in (2, 3, channels))
        depths, alphas, radii = torch.empty(v, n), torch.empty(v, n), torch.empty(v, n, 2, dtype=torch.int32)
        found = tuple(x.numpy() for x in (means2d, depths, conics, alphas, radii, features))
        _numba_project.project(gaussians, cameras, lens, *found)  # pyright: ignore[reportCallIssue]
        ctx.mark_non_differentiable(radii)
        ctx.known = (gaussians, cameras, lens, conics.numpy(), radii.numpy(), features.numpy())
        return means2d, depths, conics, alphas, radii, features

    @staticmethod
    @once_differentiable
    def backward(ctx, d_means2d, d_depths, d_conics, d_alphas, _, d_features):
        grads = [torch.zeros(x.shape) for x in ctx.known[0]]
        with announced():
            upstream, found = _arrays(d_means2d, d_depths, d_conics, d_alphas, d_features), tuple(x.numpy() for x in grads)
            _numba_project.unproject(*ctx.known, upstream, found)  # pyright: ignore[reportCallIssue]
        return *grads[:4], grads[4].view(ctx.colors), None, None, None


class _Blend(torch.autograd.Function):
    """Ellipses and their features to images [v h w c] and alphas [v h w 1]."""

    @staticmethod
    def forward(ctx, means2d, depths, conics, opacities, radii, features, settings, absgrad):
        means2d, depths, conics, opacities, features = _arrays(means2d, depths, conics, opacities, features)
        size = (settings.width, settings.height)
        records = _numba_bins.ellipses(means2d, conics, opacities)
        starts, pairs = _numba_bins.bin_pairs(records, depths, radii.numpy(), *size)
        image = torch.empty(len(depths), settings.height, settings.width, features.shape[-1])
        alpha = torch.empty(*image.shape[:3], 1)
        kept, taken = _numba_blend.blend(starts, pairs, records, features, image.numpy(), alpha.numpy())
        ctx.known = (starts, kept, taken, conics, opacities, records, features, image.numpy(), alpha.numpy())
        ctx.absgrad = absgrad
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, d_image, d_alpha):
        with announced():
            upstream = _arrays(d_image, d_alpha)
            found = _numba_unblend.unblend(*ctx.known, *upstream, ctx.absgrad is not None)  # pyright: ignore[reportCallIssue]
        d_means2d, d_conics, d_opacities, d_features, absolute = map(torch.from_numpy, found)
        if ctx.absgrad is not None:
            ctx.absgrad(absolute)
        return d_means2d, None, d_conics, d_opacities, None, d_features, None, None
