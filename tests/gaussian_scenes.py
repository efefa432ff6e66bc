"""Gaussians to rasterize, easy and hard, and what a backend makes of them."""

from typing import NamedTuple

import torch

from rl3d.render import _gaussians_numba, _gaussians_torch
from rl3d.render._gaussians_torch import Projected, Settings
from rl3d.types import Cameras

KINDS = ("plain", "needles", "huge", "tiny", "overlapping", "edge", "behind", "opaque", "faint", "crowd", "mixed", "broken")


def scene(seed: int, n: int, kind: str, k: int) -> list[torch.Tensor]:
    """Means, quats, scales, opacities and sh, in float64 but exact in float32."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    means, scales, opacities = normal(n, 3) * 0.4, (normal(n, 3) * 0.5).exp() * 0.06, torch.sigmoid(2 * normal(n))
    quats, sh = normal(n, 4), 0.4 * normal(n, k, 3)
    if kind == "needles":
        scales = torch.tensor([0.002, 0.002, 0.3]) * (0.3 * normal(n, 3)).exp()
    elif kind == "huge":
        scales = scales * 20
    elif kind == "tiny":
        scales = scales * 1e-3
    elif kind == "overlapping":
        means, scales = means * 0.02, scales * 0.5
    elif kind == "edge":
        means = means * torch.tensor([0.5, 4.0, 4.0])
    elif kind == "behind":
        means = means * 8
    elif kind == "opaque":
        opacities = 1 - opacities * 1e-4
    elif kind == "faint":
        opacities = opacities * 0.02
    elif kind == "crowd":
        means, scales, opacities = means * 1e-3, scales * 0.1, opacities * 0.2
    elif kind == "mixed":
        scales = scales * (2 * normal(n, 1)).exp().clamp(0.01, 30)
    elif kind == "broken":
        means[::7, 0], scales[1::7], quats[2::7], sh[3::7, 0, 1] = float("nan"), 0.0, 0.0, float("inf")
    else:
        assert kind == "plain"
    return [x.double() for x in (means, quats, scales, opacities, sh)]


class Seen(NamedTuple):
    pixels: torch.Tensor
    """The features and alpha, [v h w c]."""
    grads: list[torch.Tensor] | None
    """Of all inputs and of screen positions."""
    projected: Projected


def run(backend, inputs, cameras: Cameras, settings: Settings, cotangent=None, dtype=None) -> Seen:
    """Rasterize, and take the gradients of a cotangent of the pixels; the oracle works in float64 if not told otherwise."""
    dtype = dtype or (torch.float32 if backend is _gaussians_numba else torch.float64)
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    view, K = cameras.cam_from_world[0].to(dtype), cameras.intrinsics[0].to(dtype)
    image, alpha, projected = backend.rasterize(*inputs, view, K, settings)
    c = inputs[4].shape[-1] + settings.depth + 3 * settings.normals
    pixels = torch.cat([image[..., :c], alpha], -1)
    if cotangent is None:
        return Seen(pixels.detach(), None, projected)
    grads = torch.autograd.grad(pixels, [*inputs, projected.means2d], cotangent.to(dtype))
    return Seen(pixels.detach(), list(grads), projected)


def cutoff_pixels(inputs, cameras: Cameras, settings: Settings) -> torch.Tensor:
    """The pixels that the oracle calls unsure, [v h w]."""
    view, K = cameras.cam_from_world[0].double(), cameras.intrinsics[0].double()
    projected = _gaussians_torch.project(*inputs, view, K, settings)
    return _gaussians_torch.cutoff_pixels(projected, settings)
