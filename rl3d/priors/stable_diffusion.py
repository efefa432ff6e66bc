"""Stable Diffusion: 1.5 and 2.1 (Rombach et al. 2022), XL (Podell et al. 2023) and 3 (Esser et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl3d.priors.family import Family, Frame, Half, Read, Told, shape_of_transformer
from rl3d.priors.loading import load_pipeline

FILTERS = ("safety_checker", "feature_extractor")


def load(folder: Path, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load Stable Diffusion 1.5 or 2.1."""
    return load_pipeline(folder, dtype, halves, without=FILTERS)


def load_whole(folder: Path, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load a pipeline whose parts are all of use: XL, or 3."""
    return load_pipeline(folder, dtype, halves)


def read(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words, by CLIP."""
    words, _ = pipe.encode_prompt(texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    return [Read(one.float()) for one in words]


def read_xl(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words of two CLIPs, and the second one's pooled text; zeros for no text where the pipeline has it so."""
    words, _, pooled, _ = pipe.encode_prompt(texts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    if pipe.config.force_zeros_for_empty_prompt:
        empty = torch.tensor([text == "" for text in texts], device=device)
        words, pooled = words.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
    return [Read(one.float(), whole.float()) for one, whole in zip(words, pooled, strict=True)]


def read_3(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words of two CLIPs and of T5, which may be missing, and both CLIPs' pooled texts."""
    words, _, pooled, _ = pipe.encode_prompt(
        texts, None, None, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return [Read(one.float(), whole.float()) for one, whole in zip(words, pooled, strict=True)]


def ask(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask 1.5 or 2.1."""
    return net(noisy, time, encoder_hidden_states=told.text, return_dict=False)[0]


def ask_xl(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask XL, which is told of sizes, too: Podell et al. 2023, "SDXL", sec. 2.2."""
    side = frame.side
    sizes = torch.tensor([side, side, 0, 0, side, side]).to(noisy).expand(len(noisy), -1)
    more = {"text_embeds": told.pooled, "time_ids": sizes}
    return net(noisy, time, encoder_hidden_states=told.text, added_cond_kwargs=more, return_dict=False)[0]


def ask_3(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask 3: a flow."""
    return net(noisy, encoder_hidden_states=told.text, pooled_projections=told.pooled, timestep=time, return_dict=False)[0]


FIRST = Family(load, read, ask)
XL = Family(load_whole, read_xl, ask_xl)
THIRD = Family(load_whole, read_3, ask_3, shape=shape_of_transformer, flow=True)
