"""How models want their pictures: resized with antialiasing, cropped or padded, on float tensors, so that gradients pass."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Fit = Literal["squash", "shortest", "longest"]
"""How pictures of another shape are made to fit: both sides resized; the shorter side resized and the rest cropped; the longer
side resized and the rest padded with black."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def fit(
    pixels: Float[Tensor, "n 3 h w"], size: tuple[int, int], mode: Fit = "squash", interpolation: str = "bicubic"
) -> Float[Tensor, "n 3 height width"]:
    """Bring pictures to ``size`` (height, width). Differentiable. Square ones come out alike in all modes."""
    h, w = pixels.shape[-2:]
    if (h, w) == size:
        return pixels
    wanted = size
    if mode != "squash":
        ratios = (size[0] / h, size[1] / w)
        ratio = max(ratios) if mode == "shortest" else min(ratios)
        wanted = (max(1, round(h * ratio)), max(1, round(w * ratio)))
    if wanted != (h, w):
        pixels = F.interpolate(pixels, wanted, mode=interpolation, antialias=True, align_corners=False)
    # What is missing is padded, what is too much is cropped: a negative pad.
    top, left = ((size[i] - wanted[i]) // 2 for i in (0, 1))
    return F.pad(pixels, (left, size[1] - wanted[1] - left, top, size[0] - wanted[0] - top))


def normalise(pixels: Float[Tensor, "n 3 h w"], mean: Tensor, std: Tensor) -> Float[Tensor, "n 3 h w"]:
    """Subtract the mean and divide by the standard deviation of each channel."""
    return (pixels - mean[:, None, None].to(pixels)) / std[:, None, None].to(pixels)


def opaque(pixels: Float[Tensor, "b v h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Views laid over a background, as models take pictures: one after another, channels first."""
    return torch.movedim(pixels.flatten(0, 1), -1, 1)
