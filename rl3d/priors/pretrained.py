"""Published text-to-image models from folders in diffusers' layout, as priors.

What a folder holds is read from its ``model_index.json``. All become one :class:`PretrainedPrior`; what they differ in is their
:class:`~rl3d.priors.family.Family`, a module each. MVDream shows four views at once and is told their cameras; the others see
one picture at a time, and read from which side it shows the object in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.cameras import worded
from rl3d.hub import find_model
from rl3d.math import Level
from rl3d.priors import deepfloyd, flux, mvdream, pixart, stable_diffusion
from rl3d.priors.family import Family, Frame, Told
from rl3d.priors.loading import index_of
from rl3d.priors.parametrisations import CLEAN, Clock, Threshold, clean_from_flow
from rl3d.priors.pictures import refuse_image
from rl3d.priors.pixels import Autoencoded, Pixels, opaque_views, pixels_of
from rl3d.priors.reading import Kept, Memory
from rl3d.priors.sampling import guide
from rl3d.protocols import PriorInfo
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b v c h w"]

FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": stable_diffusion.FIRST,
    "StableDiffusionXLPipeline": stable_diffusion.XL,
    "StableDiffusion3Pipeline": stable_diffusion.THIRD,
    "PixArtAlphaPipeline": pixart.FAMILY,
    "PixArtSigmaPipeline": pixart.FAMILY,
    "IFPipeline": deepfloyd.FAMILY,
    "FluxPipeline": flux.FAMILY,
    "MVDreamPipeline": mvdream.FAMILY,
}
"""By the pipeline that a folder names."""


@dataclass(frozen=True)
class Pretrained:
    """A prior from a folder of published weights: Stable Diffusion, PixArt, DeepFloyd-IF, FLUX or MVDream (docs/priors.md)."""

    folder: str
    """A folder, or a published model by its name (`rl3d weights list`), which is downloaded if it is not here."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network and the text encoders compute in; the autoencoder always takes float32."""
    sides: bool = True
    """Tell priors that know no cameras in words from where the object is seen."""
    suffix: str | None = None
    """Put behind every prompt; None takes ", 3d asset" for MVDream, which was trained with it, and nothing for others."""
    low_memory: bool = False
    """Take less memory and more time: text encoders are loaded for prompts that were never read, and leave at once (what they
    made of them is kept on disk); the autoencoder takes one picture at a time; gradients through the network compute again
    what lies within its blocks.
    """
    pixels: int = 0
    """Pixels along a side of its pictures; 0 takes what it was trained with."""
    distilled_guidance: float = 3.5
    """What FLUX.1 dev is told of guidance, at no cost; the guidance of terms and samplers is on top, and 1 there is none."""
    background: float = 0.5
    """The gray that views are laid over, since these priors know no alpha."""
    distance: float = 3.2
    fov_y_deg: float = 40.0

    def check(self, prompt: Prompt) -> None:
        """Refuse a folder that holds no prior of a known kind, or a prompt that is a picture (``ValueError``)."""
        refuse_image(prompt, self.folder)
        family_of(find_model(self.folder))

    def build(self, device: torch.device | str = "cpu") -> PretrainedPrior:
        """Load it, frozen."""
        folder = find_model(self.folder)
        family, dtype = family_of(folder), getattr(torch, self.dtype)

        def loaded(*halves: Literal["network", "texts"]) -> Any:
            return loading(folder, lambda: family.load(folder, dtype, halves))

        pipe = loaded("network") if self.low_memory else loaded("network", "texts")
        alone = torch.device("cpu")
        kept = Kept(folder, lambda new: family.read(loaded("texts"), new, alone)) if self.low_memory else None
        return PretrainedPrior(pipe, family, self, kept).requires_grad_(False).eval().to(device)


def loading(folder: Path, load: Callable[[], Any]) -> Any:
    """What ``load`` makes of a folder; whatever may be wrong with the folder becomes a ``ValueError``."""
    try:
        return load()
    except (OSError, KeyError, RuntimeError, ValueError, ImportError) as error:
        said = f"{type(error).__name__}: {error}"
        fix = "it needs what diffusers' save_pretrained writes, as safetensors"
        # Tried in this order; the last one's complaint is what is heard.
        if any(name in said for name in ("sentencepiece", "protobuf", "tiktoken")):
            fix = "its tokenizer's file, spiece.model, needs more to be read: pip install 'rl3d[t5]'"
        raise ValueError(f"cannot load {folder} as {index_of(folder).get('_class_name')}: {said}; {fix}") from error


def family_of(folder: Path) -> Family:
    """The family that a folder's pipeline belongs to; a ``ValueError`` if it is none of :data:`FAMILIES`."""
    kind = index_of(folder).get("_class_name")
    if kind not in FAMILIES:
        raise ValueError(f"{folder} holds a {kind}, which is not among the known kinds: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


@dataclass(frozen=True)
class Condition:
    """What the network is told of each view, with and without the prompt: ``[b v ...]``."""

    wanted: Told
    unwanted: Told


class PretrainedPrior(nn.Module):
    """A :class:`~rl3d.protocols.Prior` around the parts of a diffusers pipeline.

    Its latents are those of the autoencoder, or pixels in [-1, 1] where there is none.
    """

    info: PriorInfo

    def __init__(self, pipe: Any, family: Family, value: Pretrained, kept: Kept | None = None):
        """``kept`` reads texts where the pipeline has no text encoders."""
        super().__init__()
        self.family, self.value = family, value
        self.net: nn.Module = pipe.transformer if hasattr(pipe, "transformer") else pipe.unet
        self.vae = pipe.vae.float() if hasattr(pipe, "vae") else None
        self.coder = Pixels() if self.vae is None else Autoencoded(self.vae)
        parts = ("text_encoder", "text_encoder_2", "text_encoder_3")
        self.readers = nn.ModuleDict({name: getattr(pipe, name) for name in parts if getattr(pipe, name, None) is not None})
        own = [pipe]  # in a list, so that nothing is registered twice
        self._memory = Memory(kept.read if kept else lambda new: family.read(own[0], new, self.device))
        self.clock = None if family.flow else Clock(pipe.scheduler.config)
        self.threshold = Threshold.of(pipe.scheduler.config) if self.vae is None else None
        if value.low_memory:
            if self.vae is not None:
                self.vae.enable_slicing()
            self.net.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        shape = family.shape(self.net.config)
        size = value.pixels // self.coder.factor or shape.size
        if not size or size % shape.multiple or value.pixels % self.coder.factor:
            needed = shape.multiple * self.coder.factor
            raise ValueError(f"its pictures are squares of a multiple of {needed} pixels, got {value.pixels}: set `pixels`")
        self.info = PriorInfo(
            channels=shape.channels,
            size=size,
            views=4 if family.cameras else 1,
            elevation_deg=(0.0, 30.0) if family.cameras else (-10.0, 60.0),
            distance=value.distance,
            fov_y_deg=value.fov_y_deg,
            alpha=False,
            negative_prompts=True,
        )

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Condition:
        """Read prompts, and the cameras of their views: as matrices, or as words in the prompts."""
        b, v = len(prompts), cameras.views
        for prompt in prompts:
            refuse_image(prompt, self.value.folder)
        suffix = self.family.suffix if self.value.suffix is None else self.value.suffix
        say = self.value.sides and not self.family.cameras
        azimuths, elevations = (a.expand(b, -1).tolist() for a in (cameras.azimuths_deg, cameras.elevations_deg))
        texts = [
            worded(prompt.text + suffix, azimuths[i][j], elevations[i][j]) if say else prompt.text + suffix
            for i, prompt in enumerate(prompts)
            for j in range(v)
        ]
        negatives = [prompt.negative for prompt in prompts for _ in range(v)]
        poses = mvdream.poses_of(cameras).expand(b, -1, -1) if self.family.cameras else None

        def told(some: list[str]) -> Told:
            found = self._memory.tell(some, self.device).each(lambda x: x.unflatten(0, (b, v)))
            return Told(found.text, found.pooled, found.mask, poses)

        return Condition(told(texts), told(negatives))

    def encode(self, views: Views) -> Latents:
        """Lay views over the background, resize them, and encode them, without noise. Differentiable."""
        pixels = pixels_of(views, self.value.background, self.info.size * self.coder.factor)
        return self.coder.encode(pixels).unflatten(0, views.rgb.shape[:2])

    def decode(self, latents: Latents, cameras: Cameras) -> Views:
        """Decode latents to views, not clamped; they are opaque. Differentiable."""
        return opaque_views(self.coder.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]), cameras)

    def predict(
        self, noisy: Latents, level: Level, condition: Condition, *, guidance: float = 1.0, rescale: float = 0.0
    ) -> Latents:
        """The clean latents, in float32; ``guidance`` other than 1 doubles the work. Differentiable.

        The network sees noisy latents on its own path (variance-preserving, or straight) at the time of the same ratio of
        noise to clean latents, between the trained steps if need be. In pixel space the prediction is kept within range as
        the model's scheduler has it.
        """
        scale = level.alpha + level.sigma if self.clock is None else math.hypot(level.alpha, level.sigma)
        noisy, level = noisy / scale, Level(level.alpha / scale, level.sigma / scale)
        if guidance == 1:
            clean = self._clean(noisy, level, condition.wanted)
        else:
            two = self._clean(torch.cat([noisy, noisy]), level, condition.wanted.beside(condition.unwanted))
            clean = guide(*two.chunk(2), guidance, rescale)  # pyright: ignore[reportCallIssue]
        return clean if self.threshold is None else self.threshold(clean)

    def _clean(self, noisy: Latents, level: Level, told: Told) -> Latents:
        shape, dtype = noisy.shape[:2], next(self.net.parameters()).dtype
        flat = told.each(lambda x: x.flatten(0, 1)).each(lambda x: x.to(dtype) if x.is_floating_point() else x)
        x = noisy.flatten(0, 1).to(dtype)
        time = torch.full((len(x),), self.time_of(level), device=x.device)
        frame = Frame(shape[1], self.info.size * self.coder.factor, self.value.distilled_guidance)
        said = self.family.ask(self.net, x, time, flat, frame).unflatten(0, shape)
        if self.clock is None:
            return clean_from_flow(noisy, said, level)
        return CLEAN[self.clock.predicts](noisy, said, level)

    def time_of(self, level: Level) -> float:
        """The network's time at a level: in steps of its training, between two of them if need be."""
        if self.clock is None:
            return 1000 * level.sigma / (level.alpha + level.sigma)
        return self.clock.time_of(level)
