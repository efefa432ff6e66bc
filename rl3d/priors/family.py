"""What published diffusion models differ in, beside their weights: how they are loaded, read a prompt, and are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Half = Literal["network", "texts"]
"""Of a pipeline: the network and the autoencoder, or what reads prompts."""


class Read(NamedTuple):
    """What text encoders make of one text, in float32."""

    words: Float[Tensor, "t d"]
    pooled: Float[Tensor, "p"] | None = None
    """Of the whole text, where the network wants it."""
    mask: Int[Tensor, "t"] | None = None
    """1 where there is a word, where the network asks for that."""


@dataclass(frozen=True)
class Told:
    """What a network is told of views on one side of guidance: with the prompt, or with what is not wanted."""

    text: Float[Tensor, "*n t d"]
    pooled: Float[Tensor, "*n p"] | None = None
    mask: Int[Tensor, "*n t"] | None = None
    cameras: Float[Tensor, "*n 16"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Told:
        """The same with every tensor changed."""
        return Told(*(None if x is None else change(x) for x in (self.text, self.pooled, self.mask, self.cameras)))  # pyright: ignore

    def beside(self, other: Told) -> Told:
        """Both, one batch after the other."""
        pairs = ((self.text, other.text), (self.pooled, other.pooled), (self.mask, other.mask), (self.cameras, other.cameras))
        return Told(*(None if x is None or y is None else torch.cat([x, y]) for x, y in pairs))  # pyright: ignore


@dataclass(frozen=True)
class Frame:
    """What else a network is told."""

    views: int
    """Views of one object, which stand in a row."""
    side: int
    """Pixels along a side of a picture."""
    distilled_guidance: float
    """For networks that were distilled from guided ones."""


class Shape(NamedTuple):
    """Of one view's latents."""

    channels: int
    size: int
    """Height and width."""
    multiple: int
    """What the size must be a multiple of."""


def shape_of_unet(config: Any) -> Shape:
    """The latents of a UNet of diffusers."""
    size = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    return Shape(config.in_channels, size, 2 ** (len(config.block_out_channels) - 1))


def shape_of_transformer(config: Any) -> Shape:
    """The latents of a transformer of diffusers that cuts them into patches itself."""
    return Shape(config.in_channels, config.sample_size, config.patch_size)


@dataclass(frozen=True)
class Family:
    """A kind of published model, as what :class:`~rl3d.priors.pretrained.PretrainedPrior` asks of it."""

    load: Callable[[Path, torch.dtype, tuple[Half, ...]], Any]
    """A pipeline of diffusers from a folder, or half of it."""
    read: Callable[[Any, list[str], torch.device], list[Read]]
    """What a pipeline's text encoders make of texts."""
    ask: Callable[[Any, Float[Tensor, "n c h w"], Float[Tensor, "n"], Told, Frame], Float[Tensor, "n c h w"]]
    """The network's answer about noisy latents at a time in [0, 1000], in its own parametrisation."""
    shape: Callable[[Any], Shape] = shape_of_unet
    """The latents, by the network's configuration."""
    flow: bool = False
    """Whether it was trained on straight paths; else its scheduler says what it predicts."""
    cameras: bool = False
    """Whether it is told of cameras, and shows four views that see each other."""
    suffix: str = ""
    """What its prompts ended with in its training."""
    blank: Callable[[Path, torch.dtype], Any] | None = None
    """Its pipeline on the "meta" device; None for :func:`~rl3d.priors.loading.blank_pipeline`."""
