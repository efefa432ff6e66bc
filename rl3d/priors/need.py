"""How much memory a published prior takes in a step, computed from its configuration: no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rl3d.cards import CARDS
from rl3d.hub import cached
from rl3d.math import Level
from rl3d.memory import peak_bytes
from rl3d.priors.loading import blank_pipeline
from rl3d.priors.pretrained import Condition, Pretrained, PretrainedPrior, family_of, loading
from rl3d.types import Cameras, Prompt, Views

GB = 1e9


@dataclass(frozen=True)
class Need:
    """Gigabytes (1e9 bytes), without what a driver and a renderer take."""

    weights: float
    """The network and the autoencoder."""
    encoders: float
    """What reads prompts."""
    step: float
    """What a step makes at its fullest moment."""
    apart: bool
    """Whether encoders leave before the network comes."""

    @property
    def total(self) -> float:
        """At the fullest moment."""
        return max(self.encoders, self.weights + self.step) if self.apart else self.encoders + self.weights + self.step

    def __str__(self) -> str:
        reads = "before" if self.apart else "beside"
        return (
            f"about {self.total:.1f} GB: {self.weights:.1f} of weights, {self.step:.1f} in a step, "
            f"{self.encoders:.1f} of text encoders {reads} them"
        )


def need_here(value: object, cameras: Cameras) -> Need | None:
    """:func:`need_of` a prior whose files are on this machine; None of others, and of priors of other kinds."""
    if not isinstance(value, Pretrained):
        return None
    folder = Path(value.folder)
    if not folder.is_dir():
        here = cached(value.folder) if value.folder in CARDS else None
        if here is None:
            return None
        folder = here
    return loading(folder, lambda: need_of(value, folder, cameras))


def need_of(value: Pretrained, folder: Path, cameras: Cameras) -> Need:
    """What distillation takes in a step of these cameras: views are encoded, with what their gradient needs; the network
    predicts clean latents with guidance, without gradients; and the difference goes back to the pixels.

    Args:
        value: The prior.
        folder: Where its configuration is; the weights need not be.
        cameras: ``[1 v]``.
    """
    family, dtype = family_of(folder), getattr(torch, value.dtype)
    prior = PretrainedPrior((family.blank or blank_pipeline)(folder, dtype), family, value).requires_grad_(False)
    encoders = _bytes(prior.readers)
    # What is read is small; how long and how wide it is the encoders say themselves.
    told = prior.embed([Prompt("")], cameras)
    condition = Condition(*(side.each(lambda x: x.to("meta")) for side in (told.wanted, told.unwanted)))
    shape = (1, cameras.views, cameras.height, cameras.width)

    def step() -> None:
        rgb, alpha = (torch.zeros(*shape, c, device="meta", requires_grad=True) for c in (3, 1))
        latents = prior.encode(Views(rgb, alpha, None, None, cameras))
        with torch.no_grad():
            clean = prior.predict(latents.detach(), Level(0.7, 0.7), condition, guidance=7.5)
        (latents * clean).sum().backward()

    return Need((_bytes(prior) - encoders) / GB, encoders / GB, peak_bytes(step) / GB, value.low_memory)


def _bytes(module: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in (*module.parameters(), *module.buffers()))
