"""Photometric fitting: the scene should look like the views that were drawn from the prior at the start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rl3d.protocols import Signal, Situation, Step
from rl3d.types import Cameras, Views


@dataclass(frozen=True)
class Match:
    """Fit the drawn views, a few of them a step."""

    views: int = 4
    """How many of the drawn views to look at in a step."""
    until: float = 1.0
    """The progress, in (0, 1], at which this term fades to nothing; it falls linearly over the last quarter before."""

    def over(self, progress: float) -> bool:
        """Whether nothing is left of it."""
        return progress >= self.until

    def build(self, situation: Situation) -> Signal:
        if situation.drawn is None:
            raise ValueError("matching needs views drawn from a prior: set the recipe's `draw`, or drop this term")
        return _Match(self, situation.drawn)


class _Match:
    def __init__(self, value: Match, drawn: Views):
        self.value, self.drawn = value, drawn
        self.chosen: Tensor | None = None

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        count = self.drawn.cameras.views
        self.chosen = torch.randperm(count, generator=rng)[: self.value.views].sort().values
        return self.drawn.cameras.select(self.chosen).resized(shared.width, shared.height)

    def losses(self, step: Step) -> dict[str, Tensor]:
        left = min(1.0, max(0.0, 4 * (1 - step.progress / self.value.until)))
        target = self.drawn.select(self.chosen).rgba
        size = step.views.rgba.shape[2:4]
        if target.shape[2:4] != size:
            pixels = target[0].movedim(-1, 1)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
            target = pixels.movedim(1, -1)[None]
        return {"pixels": 0.5 * left * (step.views.rgba - target).square().sum() / target.shape[1]}
