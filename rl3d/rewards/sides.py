"""Which side of an object a view shows: for guards against Janus, whose face is on every side."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.hub import find_model
from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judged, look
from rl3d.rewards.clip import GRAY, Background, Clip, ClipReward, opaque
from rl3d.rewards.weights import linear_stack, read_weights
from rl3d.types import Prompt, Score, Views

HEAD, ENCODER = "head.safetensors", "encoder.txt"


@dataclass(frozen=True)
class Sides:
    """Whether views look like the sides that they are, by a head on the embedded encoder's features.

    The head tells the direction that a view is seen from, as a vector in the plane: shorter the less it can tell, since it was
    trained for least squares. A view's value is that vector along the camera's true direction: 1 is a sure and right answer, 0
    none, -1 the opposite side. An object with its face on every side has 0 on average over a ring of views; so has one that
    looks alike from everywhere: compare what has a front.
    """

    folder: str = "sides"

    def build(self, device: torch.device | str = "cpu") -> SidesReward:
        """Load the head and the encoder.

        Raises:
            ValueError: if weights are missing, or the head was trained on another encoder.
        """
        folder = find_model(self.folder)
        mark = folder / ENCODER
        if not mark.is_file() or mark.read_text().strip() != fingerprint(find_model("encoder")):
            raise ValueError(
                f"{folder} was not trained on the present encoder: train it anew by `python -m rl3d.train.sides --data DIR`"
            )
        head = linear_stack(read_weights(folder / HEAD), relu=True, ends=2)
        return SidesReward(Clip().build_signal(device), head).to(device)


def fingerprint(folder: Path) -> str:
    """Of an encoder's weights."""
    return hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()[:16]


class SidesReward(nn.Module):
    """See :class:`Sides`. Differentiable in the pixels; blind to prompts."""

    def __init__(self, clip: ClipReward, head: nn.Sequential):
        super().__init__()
        weights = "rl3d/weights/sides on rl3d/weights/encoder"
        source = "least squares on renders of the toybox"
        self.info = RewardInfo("sides", "pixels", (-torch.inf, torch.inf), weights, "Apache-2.0", source, background=True)
        self.clip, self.head = clip, head.requires_grad_(False)
        self.eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        views = look(self.info, shown, prompts).views
        pixels = self.clip.laid(views, background)
        seen = features(self.clip, opaque(pixels)).unflatten(0, pixels.shape[:2])
        told = self.head(seen.to(next(self.head.parameters()).dtype))
        return judged((told * directions(views.cameras.azimuths_deg.to(told))).sum(-1))


def features(clip: ClipReward, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """What the encoder's network sees in pictures, before it is made comparable with texts, which say nothing of sides."""
    visual: Any = clip.model.visual
    return visual.trunk(clip.prepare(pixels))


def directions(azimuths_deg: Float[Tensor, "*n"]) -> Float[Tensor, "*n 2"]:
    """Where views are seen from, as unit vectors in the plane."""
    radians = torch.deg2rad(azimuths_deg)
    return torch.stack([radians.cos(), radians.sin()], -1)
