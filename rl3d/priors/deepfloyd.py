"""DeepFloyd-IF, stage 1: pixels of 64 x 64 without an autoencoder, after Saharia et al. 2022, "Imagen", arXiv 2205.11487.

It predicts noise, with a variance beside it that is not used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl3d.priors.family import Family, Frame, Half, Read, Told
from rl3d.priors.loading import load_pipeline


def load(folder: Path, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load it without its filters and its watermark, which are for pictures that leave the machine."""
    return load_pipeline(folder, dtype, halves, without=("safety_checker", "feature_extractor", "watermarker"))


def read(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """Words of T5, in lower case as the pipeline has it."""
    words, _ = pipe.encode_prompt(texts, False, device=device)
    return [Read(one.float()) for one in words]


def ask(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask for the noise alone."""
    return net(noisy, time, encoder_hidden_states=told.text, return_dict=False)[0][:, : noisy.shape[1]]


FAMILY = Family(load, read, ask)
