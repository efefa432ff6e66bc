"""FLUX.1 dev and schnell (Black Forest Labs 2024): a flow over latents in patches of 2 x 2.

It reads words of T5 and CLIP's pooled text. No paper was followed: what holds here is diffusers' pipeline.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.priors.family import Family, Frame, Read, Shape, Told
from rl3d.priors.stable_diffusion import load_whole


def shape(config: Any) -> Shape:
    """A token holds a square of four latents. No size is written down: pipelines take it for 1024 pixels."""
    return Shape(config.in_channels // 4, 128, 2)


def read(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words of T5, as many as it was trained with (512 in dev, 256 in schnell), and CLIP's pooled text."""
    count = 512 if pipe.transformer.config.guidance_embeds else 256
    words, pooled, _ = pipe.encode_prompt(texts, texts, device=device, max_sequence_length=count)
    return [Read(one.float(), whole.float()) for one, whole in zip(words, pooled, strict=True)]


def pack(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t d"]:
    """Squares of 2 x 2 as tokens, row by row: of each, channels before rows before columns."""
    n, c, h, w = latents.shape
    return latents.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(tokens: Float[Tensor, "n t d"], height: int) -> Float[Tensor, "n c h w"]:
    """Undo :func:`pack`."""
    n, t, d = tokens.shape
    h, w = height // 2, 2 * t // height
    return tokens.reshape(n, h, w, d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, d // 4, 2 * h, 2 * w)


def ask(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask it; dev was distilled from guided predictions, and is told how strong guidance should be."""
    h, w = noisy.shape[-2] // 2, noisy.shape[-1] // 2
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(h).float(), torch.arange(w).float())
    guidance = torch.full_like(time, frame.distilled_guidance) if net.config.guidance_embeds else None
    said = net(
        hidden_states=pack(noisy),
        timestep=time / 1000,
        guidance=guidance,
        pooled_projections=told.pooled,
        encoder_hidden_states=told.text,
        txt_ids=torch.zeros(told.text.shape[1], 3).to(noisy),
        img_ids=places.to(noisy),
        return_dict=False,
    )[0]
    return unpack(said, noisy.shape[-2])


FAMILY = Family(load_whole, read, ask, shape=shape, flow=True)
