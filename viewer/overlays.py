"""Pictures of what is not a picture: gradients over renders, depth, normals."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from rl3d.types import Views

HEAT = ((255, 255, 255), (255, 221, 119), (246, 130, 40), (190, 20, 40), (70, 0, 60))
"""Colours of 0 to 1."""
SIGNED = ((20, 60, 170), (90, 150, 240), (245, 245, 245), (240, 130, 90), (165, 20, 30))
"""Colours of -1 to 1."""
FADE = 0.35
"""How much of a render is seen through what is laid over it."""


def ramp(x: Float[Tensor, "*s"], colours: tuple[tuple[int, int, int], ...]) -> Float[Tensor, "*s 3"]:
    """Colours for numbers in [0, 1], linearly between these."""
    anchors = torch.tensor(colours, dtype=torch.float32) / 255
    place = x.clamp(0, 1) * (len(colours) - 1)
    low = place.floor().clamp(max=len(colours) - 2).long()
    return torch.lerp(anchors[low], anchors[low + 1], (place - low)[..., None])


def sizes(gradient: Views) -> Float[Tensor, "b v h w"]:
    """How strongly each pixel is pulled: the norm over colour and alpha."""
    return gradient.rgba.square().sum(-1).sqrt()


def limit_of(x: Float[Tensor, "*s"]) -> float:
    """A scale for pictures: nearly the largest size, so that one pixel alone does not hide all others; 0 if all are 0."""
    found = x.abs().flatten()
    found = found[found > 0]
    return float(found.kthvalue(max(1, int(0.995 * len(found)))).values) if len(found) else 0.0


def over(views: Views, colour: Float[Tensor, "b v h w 3"], weight: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w 3"]:
    """Colours over pale grey renders, each as strong as its weight in [0, 1]."""
    grey = (1 - FADE) + FADE * views.over(1.0).mean(-1, keepdim=True).clamp(0, 1)
    return torch.lerp(grey.expand_as(colour), colour, weight[..., None].clamp(0, 1))


def strength(views: Views, gradient: Views, limit: float) -> Float[Tensor, "b v h w 3"]:
    """Where a term pulls, and how strongly: heat over the render."""
    x = (sizes(gradient) / max(limit, 1e-20)).clamp(0, 1)
    return over(views, ramp(x, HEAT), x.sqrt())


def signed(views: Views, wish: Float[Tensor, "b v h w"], limit: float) -> Float[Tensor, "b v h w 3"]:
    """What a term wishes more of (red) or less (blue), over the render."""
    x = (wish / max(limit, 1e-20)).clamp(-1, 1)
    return over(views, ramp((x + 1) / 2, SIGNED), x.abs().sqrt())


def brighter(gradient: Views) -> Float[Tensor, "b v h w"]:
    """By how much a descent makes each pixel brighter, against the gradient; negative: darker."""
    return -gradient.rgb.mean(-1)


def denser(gradient: Views) -> Float[Tensor, "b v h w"]:
    """By how much a descent makes each pixel more opaque; negative: less."""
    return -gradient.alpha[..., 0]


def depth_picture(views: Views) -> Float[Tensor, "b v h w 3"]:
    """Depth in grey, near bright and far dark; white where nothing is. All views share the scale."""
    assert views.depth is not None
    solid = views.alpha > 0.5
    seen = views.depth[solid]
    near, far = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    grey = 0.9 - 0.8 * ((views.depth - near) / max(far - near, 1e-6)).clamp(0, 1)
    return torch.where(solid, grey, torch.ones_like(grey)).expand(*grey.shape[:-1], 3)


def normal_picture(views: Views) -> Float[Tensor, "b v h w 3"]:
    """World-space normals as colours, x y z in red green blue; white where nothing is."""
    assert views.normals is not None
    return torch.where(views.alpha > 0.5, (views.normals + 1) / 2, torch.ones_like(views.normals))


def pixels(pictures: Float[Tensor, "1 v h w 3"]) -> UInt8[ndarray, "v h w 3"]:
    """As 8 bits."""
    return (255 * pictures[0].clamp(0, 1)).round().byte().numpy()


def gradient_css(colours: tuple[tuple[int, int, int], ...]) -> str:
    """The colours of a ramp as a CSS image, for legends."""
    return f"linear-gradient(90deg,{','.join('rgb({},{},{})'.format(*c) for c in colours)})"


def upscaled(picture: UInt8[ndarray, "h w 3"], least: int) -> UInt8[ndarray, "h2 w2 3"]:
    """Each pixel as a square, so that small pictures have about as many as ``least`` across, and stay sharp."""
    times = max(1, round(least / picture.shape[1]))
    return np.repeat(np.repeat(picture, times, 0), times, 1)
