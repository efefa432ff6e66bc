"""Views as the latents of published models, and back: through an autoencoder, or as the pixels that they are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rl3d.types import Cameras, Views


def pixels_of(views: Views, background: float, side: int) -> Float[Tensor, "n 3 s s"]:
    """Views over a gray, resized to squares of ``side`` pixels by area. Differentiable."""
    pixels = views.over(background).movedim(-1, 2).flatten(0, 1)
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return pixels


def opaque_views(pixels: Float[Tensor, "b v 3 h w"], cameras: Cameras) -> Views:
    """Pictures that know no alpha, as views."""
    rgb = pixels.movedim(2, -1)
    return Views(rgb, torch.ones_like(rgb[..., :1]), None, None, cameras.resized(rgb.shape[-2], rgb.shape[-3]))


class Pixels:
    """In the place of an autoencoder: latents are pixels in [-1, 1]."""

    factor = 1

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels in [0, 1] as latents."""
        return 2 * pixels - 1

    def decode(self, latents: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Undo :meth:`encode`."""
        return latents / 2 + 0.5


class Autoencoded:
    """An ``AutoencoderKL`` of diffusers: latents in the scale that networks see, without noise. Differentiable both ways."""

    def __init__(self, vae: Any):
        self.vae = vae

    @property
    def factor(self) -> int:
        """Pixels along a side of a latent."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c y x"]:
        """Pixels in [0, 1] as latents."""
        config, mean = self.vae.config, self.vae.encode(2 * pixels - 1).latent_dist.mean
        return (mean - (config.shift_factor or 0.0)) * config.scaling_factor

    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "n 3 h w"]:
        """Latents as pixels, not clamped."""
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0.0)).sample / 2 + 0.5
