"""Rasterize Gaussians on the CPU, with compiled loops and a hand-written backward.

Results and gradients are float32 and bitwise the same for any number of threads and from run to run. Cameras get no gradient.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Float
from numba.core import event
from torch import Tensor
from torch.autograd.function import once_differentiable

from rl3d.render import _numba_blend, _numba_project
from rl3d.render._gaussians_torch import Raster, Settings, split
from rl3d.render._threads import follow_torch

log = logging.getLogger("rl3d.render")


class _Announce(event.Listener):
    """Say once that code is being compiled; code from the cache on disk passes in silence."""

    def __init__(self):
        self.said = False

    def on_start(self, event):
        if not self.said:
            log.warning("compiling the CPU rasterizer (once; it is cached on disk) ...")
        self.said = True

    def on_end(self, event):
        pass


_announce = _Announce()


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
    """Draw Gaussians as pinhole cameras see them. Differentiable in everything but the cameras."""
    follow_torch()
    with event.install_listener("numba:compile", _announce):
        means2d, conics, alphas, features, depths, radii = _Project.apply(
            means, quats, scales, opacities, sh, viewmats, Ks, settings
        )
        image = _Blend.apply(means2d, conics, alphas, features, depths, radii, settings)
    return Raster(*split(image, settings), means2d, radii)


def _features(settings: Settings) -> int:
    return 4 + settings.depth + 3 * settings.normals


def _arrays(*tensors: Tensor):
    return tuple(x.detach().float().contiguous().numpy() for x in tensors)


class _Project(torch.autograd.Function):
    """Gaussians to ellipses and features on the screen of each camera; feature 0 is alpha's and always 1."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, sh, viewmats, Ks, settings):
        v, n = len(viewmats), len(means)
        rotations, translations = viewmats[:, :3, :3], viewmats[:, :3, 3]
        centers = -(rotations.mT @ translations[..., None])[..., 0]
        gaussians, cameras = _arrays(means, quats, scales, opacities, sh), _arrays(rotations, translations, centers, Ks)
        s = settings
        numbers = (s.width, s.height, s.eps2d, s.near, s.far)
        lens = (*map(np.float32, numbers), s.antialiased, s.depth, s.normals)
        channels = (_features(s) + 3) // 4 * 4
        floats = [torch.empty(v, n, *shape) for shape in ((2,), (3,), (), (channels,), ())]
        radii = torch.empty(v, n, dtype=torch.int32)
        _numba_project.project(gaussians, cameras, lens, *(x.numpy() for x in floats), radii.numpy())  # pyright: ignore[reportCallIssue]
        means2d, conics, alphas, features, depths = floats
        ctx.mark_non_differentiable(depths, radii)
        ctx.known = (gaussians, cameras, lens, conics.numpy(), features.numpy(), radii.numpy())
        return means2d, conics, alphas, features, depths, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, d_means2d, d_conics, d_alphas, d_features, *_):
        grads = [torch.zeros(x.shape) for x in ctx.known[0]]
        with event.install_listener("numba:compile", _announce):
            upstream, found = _arrays(d_means2d, d_conics, d_alphas, d_features), tuple(x.numpy() for x in grads)
            _numba_project.unproject(*ctx.known, upstream, found)  # pyright: ignore[reportCallIssue]
        return *grads, None, None, None


class _Blend(torch.autograd.Function):
    """Ellipses and their features to images [v h w c], alpha first."""

    @staticmethod
    def forward(ctx, means2d, conics, alphas, features, depths, radii, settings):
        means2d, conics, alphas, features, depths = _arrays(means2d, conics, alphas, features, depths)
        starts, pairs, slots = _numba_blend.bin_pairs(
            means2d, conics, alphas, depths, radii.numpy(), settings.width, settings.height
        )
        out = torch.empty(len(depths), settings.height, settings.width, _features(settings))
        _numba_blend.blend(starts, pairs, means2d, conics, alphas, features, out.numpy())
        ctx.known = (starts, pairs, slots, means2d, conics, alphas, features, out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        with event.install_listener("numba:compile", _announce):
            grads = _numba_blend.unblend(*ctx.known, *_arrays(d_out))
        return *map(torch.from_numpy, grads), None, None, None
