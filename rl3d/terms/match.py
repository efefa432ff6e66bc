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
    pool: int = 1
    """Compare means over squares of so many pixels a side: drawn views agree on colours and the rough shape, not on details."""

    def __post_init__(self):
        if self.views < 1 or self.pool < 1 or not 0 < self.until <= 1:
            got = f"views {self.views}, until {self.until}, pool {self.pool}"
            raise ValueError(f"matching needs at least 1 view, squares of at least 1 pixel, and until in (0, 1]; got {got}")

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
        shown = step.views.rgba[0].movedim(-1, 1)
        target = self.drawn.select(self.chosen).rgba[0].movedim(-1, 1)
        if target.shape[2:] != shown.shape[2:]:
            target = F.interpolate(target, shown.shape[2:], mode="bilinear", antialias=True, align_corners=False)
        # A mean counts as its pixels would if all had its error.
        pool = min(self.value.pool, *shown.shape[2:])
        error = pool * F.avg_pool2d(shown - target, pool)
        return {"pixels": 0.5 * left * error.square().sum() / len(target)}
