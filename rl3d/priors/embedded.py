"""The prior that comes with the package: text to views of toys, in premultiplied RGBA, small enough for a laptop's CPU."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.hub import find_model
from rl3d.math import Level
from rl3d.priors.lora_files import lora_file, merge_lora
from rl3d.priors.multiview import MultiviewTransformer
from rl3d.priors.pictures import refuse_image
from rl3d.priors.sampling import guide
from rl3d.priors.words import Tokenizer
from rl3d.protocols import PriorInfo
from rl3d.types import Cameras, Prompt, Views

WEIGHTS = Path(__file__).parent.parent / "weights" / "prior"
"""Where the package's own weights are."""


@dataclass(frozen=True)
class Condition:
    """What the network is told: tokens of the prompts and of what is not wanted, and camera angles in radians."""

    tokens: Int[Tensor, "b t"]
    negative: Int[Tensor, "b t"]
    azimuth: Float[Tensor, "b v"]
    elevation: Float[Tensor, "b v"]


@dataclass(frozen=True)
class Embedded:
    """Which embedded prior: "prior" is the package's own; any other folder of the same form will do."""

    folder: str = "prior"
    allow_unknown: bool = False
    """Read words that it does not know as one unknown word, rather than refuse them."""
    dtype: Literal["fastest", "float32", "bfloat16"] = "fastest"
    """What it computes in: by default whichever of the two is faster on this machine."""
    lora: str = ""
    """A LoRA that `rl3d finetune` or diffusers saved, to add to its weights: the file, or its folder."""

    def build(self, device: torch.device | str = "cpu") -> EmbeddedPrior:
        """Load it, frozen."""
        dtype = fastest_dtype(torch.device(device).type) if self.dtype == "fastest" else getattr(torch, self.dtype)
        # Added to precise weights, and rounded once.
        first = torch.float32 if self.lora else dtype
        prior = EmbeddedPrior.load(find_model(self.folder), allow_unknown=self.allow_unknown, dtype=first)
        if self.lora:
            merge_lora(prior.net, self.lora)
            prior = prior.to(dtype)
        return prior.requires_grad_(False).to(device)

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that it cannot read (``ValueError``), without loading the network."""
        refuse_image(prompt, self.folder)
        if self.lora:
            lora_file(self.lora)
        tokenizer = Tokenizer.load(find_model(self.folder) / "tokenizer")
        tokenizer([prompt.text, prompt.negative], allow_unknown=self.allow_unknown)


class EmbeddedPrior(nn.Module):
    """A :class:`~rl3d.protocols.Prior` of toys; see :class:`~rl3d.priors.multiview.MultiviewTransformer`.

    Its latents are pixels: alpha as 2 alpha - 1, and colour over gray as 2 (colour + (1 - alpha) / 2) - 1, so that all are in
    [-1, 1] and the colour of empty background is 0. It computes in the type of its network's weights; results are float32.
    """

    info: PriorInfo

    def __init__(self, net: MultiviewTransformer, tokenizer: Tokenizer, *, allow_unknown: bool = False):
        super().__init__()
        self.net, self.tokenizer, self.allow_unknown = net, tokenizer, allow_unknown
        known = net.config
        self.info = PriorInfo(
            channels=known["channels"],
            size=known["size"],
            views=known["views"],
            elevation_deg=(known["elevation_min_deg"], known["elevation_max_deg"]),
            distance=known["distance"],
            fov_y_deg=known["fov_y_deg"],
            alpha=True,
            negative_prompts=True,
        )

    @classmethod
    def load(
        cls, folder: Path | str = WEIGHTS, *, allow_unknown: bool = False, dtype: torch.dtype | None = None
    ) -> EmbeddedPrior:
        """Load a folder that :meth:`save` wrote; the package's own by default.

        ``dtype`` is the type of the weights and so of the computation: None takes the faster of float32 and bfloat16 on this
        machine's CPU (:func:`fastest_dtype`).
        """
        folder = Path(folder)
        if not (folder / "transformer").is_dir():
            raise ValueError(
                f"no prior in {folder}: it lacks the folder transformer; train one with python -m rl3d.train.prior"
            )
        net = MultiviewTransformer.from_pretrained(folder / "transformer", torch_dtype=dtype or fastest_dtype())
        return cls(net.eval(), Tokenizer.load(folder / "tokenizer"), allow_unknown=allow_unknown)

    def save(self, folder: Path | str) -> None:
        """Write the network in float16, the tokenizer and the matching diffusers scheduler."""
        from diffusers import DDIMScheduler

        folder = Path(folder)
        # Without what diffusers notes beside it, such as where the network was loaded from.
        half = MultiviewTransformer.from_config({k: v for k, v in self.net.config.items() if not k.startswith("_")})
        half.load_state_dict(self.net.state_dict())
        half.half().save_pretrained(folder / "transformer")
        self.tokenizer.save(folder / "tokenizer")
        # Its timestep i has noise time ((i + 1) / 1000 + 0.008) / 1.008 of our schedule.
        DDIMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
        ).save_pretrained(folder / "scheduler")

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Condition:
        """Tokenize prompts and take the angles of ``[b v]`` (or ``[1 v]``) cameras.

        Cheap: the network reads the text anew at each prediction (2 % of its time), so a tuned text encoder is never stale.
        Unknown words raise ``ValueError`` unless ``allow_unknown``.
        """
        device = cameras.cam_from_world.device
        texts = [prompt.text for prompt in prompts], [prompt.negative for prompt in prompts]
        tokens, negative = (self.tokenizer(some, allow_unknown=self.allow_unknown).to(device) for some in texts)
        angles = (torch.deg2rad(a).expand(len(prompts), -1) for a in (cameras.azimuths_deg, cameras.elevations_deg))
        return Condition(tokens, negative, *angles)

    def encode(self, views: Views) -> Float[Tensor, "b v c h w"]:
        """Views as latents, resized to the prior's size by area. Differentiable."""
        pixels = views.rgba.movedim(-1, 2)
        if pixels.shape[-2:] != (self.info.size, self.info.size):
            small = F.interpolate(
                pixels.flatten(0, 1), (self.info.size, self.info.size), mode="bilinear", antialias=True, align_corners=False
            )
            pixels = small.unflatten(0, pixels.shape[:2])
        return latents_from_pixels(pixels)

    def decode(self, latents: Float[Tensor, "b v c h w"], cameras: Cameras) -> Views:
        """Latents as views, not clamped. Differentiable."""
        pixels = pixels_from_latents(latents).movedim(2, -1)
        cameras = cameras.resized(pixels.shape[-2], pixels.shape[-3])
        return Views(pixels[..., :3], pixels[..., 3:], None, None, cameras)

    def predict(
        self,
        noisy: Float[Tensor, "b v c h w"],
        level: Level,
        condition: Condition,
        *,
        guidance: float = 1.0,
        rescale: float = 0.0,
    ) -> Float[Tensor, "b v c h w"]:
        """The clean latents, in float32; ``guidance`` other than 1 doubles the work. Differentiable.

        Levels of any scale will do, those of flows among them: the network sees what has the same ratio of noise to clean
        latents and alpha^2 + sigma^2 = 1.
        """
        b, scale = len(noisy), math.hypot(level.alpha, level.sigma)
        if abs(scale - 1) > 1e-6:
            noisy = noisy / scale
        moment = torch.full((b,), 2 / math.pi * math.atan2(level.sigma, level.alpha)).to(noisy)
        if guidance == 1:
            return self.net(noisy, moment, condition.tokens, condition.azimuth, condition.elevation)
        noisy, moment, azimuth, elevation = (torch.cat([x, x]) for x in (noisy, moment, condition.azimuth, condition.elevation))
        both = self.net(noisy, moment, torch.cat([condition.tokens, condition.negative]), azimuth, elevation)
        return guide(*both.chunk(2), guidance, rescale)  # pyright: ignore[reportCallIssue]


def latents_from_pixels(rgba: Float[Tensor, "b v 4 h w"]) -> Float[Tensor, "b v 4 h w"]:
    """Map premultiplied RGBA in [0, 1] to [-1, 1]; the colour of empty background becomes 0."""
    rgb, alpha = rgba.split([3, 1], dim=2)
    return torch.cat([2 * rgb - alpha, 2 * alpha - 1], 2)


def pixels_from_latents(latents: Float[Tensor, "b v 4 h w"]) -> Float[Tensor, "b v 4 h w"]:
    """Undo :func:`latents_from_pixels`."""
    rgb, alpha = latents.split([3, 1], dim=2)
    alpha = (alpha + 1) / 2
    return torch.cat([(rgb + alpha) / 2, alpha], 2)


@cache
def fastest_dtype(device: str = "cpu", size: int = 512) -> torch.dtype:
    """Time a matrix product in float32 and in bfloat16, and name the faster type; a tie goes to float32.

    CPUs without AVX512-BF16 or AMX emulate bfloat16, some a hundred times slower. Takes some milliseconds, once a process.
    """

    def seconds(dtype: torch.dtype, n: int, times: int) -> float:
        a = torch.ones(n, n, dtype=dtype, device=device)
        best = math.inf
        for _ in range(times):
            start = time.perf_counter()
            (a @ a)[0, 0].item()
            best = min(best, time.perf_counter() - start)
        return best

    if seconds(torch.bfloat16, size // 4, 3) > 4 * seconds(torch.float32, size // 4, 3):
        return torch.float32
    return torch.bfloat16 if 1.5 * seconds(torch.bfloat16, size, 5) < seconds(torch.float32, size, 5) else torch.float32
