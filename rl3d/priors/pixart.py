"""PixArt-alpha and PixArt-Sigma: transformers that read T5 and predict noise, with a variance beside it that is not used here.

Chen et al. 2023, "PixArt-alpha", arXiv 2310.00426; Chen et al. 2024, "PixArt-Sigma", arXiv 2403.04692.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rl3d.priors.family import Family, Frame, Read, Told, shape_of_transformer
from rl3d.priors.stable_diffusion import load_whole

WORDS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""How many words of T5 each was trained with."""


def read(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words of T5 (in lower case, as the pipelines have it), and which of them are there."""
    count = WORDS[type(pipe).__name__]
    words, mask, _, _ = pipe.encode_prompt(texts, False, device=device, max_sequence_length=count)
    return [Read(one.float(), None, there) for one, there in zip(words, mask, strict=True)]


def ask(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask for the noise alone; the large PixArt-alpha is told of the picture's size and shape, too."""
    more: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if net.use_additional_conditions:
        sizes = torch.tensor([frame.side, frame.side]).to(noisy).expand(len(noisy), -1)
        more = {"resolution": sizes, "aspect_ratio": torch.ones_like(sizes[:, :1])}
    said = net(
        noisy,
        encoder_hidden_states=told.text,
        encoder_attention_mask=told.mask,
        timestep=time,
        added_cond_kwargs=more,
        return_dict=False,
    )[0]
    return said[:, : noisy.shape[1]]


FAMILY = Family(load_whole, read, ask, shape=shape_of_transformer)
