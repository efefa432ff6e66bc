"""Reward ascent: the gradient of a reward with respect to the pixels, carried into the scene."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl3d.protocols import Signal, Situation, Step
from rl3d.rewards.clip import Clip
from rl3d.types import Cameras, Views


@dataclass(frozen=True)
class Ascend:
    """Climb a differentiable reward of the step's views, composited over random colours so that no background is exploited.

    Its weight is best said as a ratio of gradient norms (:attr:`rl3d.recipe.Recipe.ratios`), since rewards have no common
    scale.
    """

    reward: Clip = field(default_factory=Clip)
    backgrounds: int = 2
    """Random backgrounds that each view is judged on."""
    start: float = 0.3
    """Progress in [0, 1) before which the scene is left alone."""
    jitter: float = 0.06
    """Random shift and zoom of the views, as a fraction of their size: patterns that depend on the pixel grid do not pay."""

    def build(self, situation: Situation) -> Signal:
        reward = self.reward.build_signal(situation.device)
        if reward.info.differentiable != "pixels":
            raise ValueError(f"{reward.info.name} has no gradient in the pixels: use it to rank seeds or as a guard instead")
        return _Ascend(self, reward)


class _Ascend:
    def __init__(self, value: Ascend, reward):
        self.value, self.reward = value, reward

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        if step.progress < self.value.start:
            return {}
        total = torch.zeros((), device=step.views.rgb.device)
        for _ in range(self.value.backgrounds):
            shown = _jitter(step.views, self.value.jitter, step.rng)
            colour = torch.rand(3, generator=step.rng).to(shown.rgb)
            opaque = Views(shown.over(colour), torch.ones_like(shown.alpha), None, None, shown.cameras)
            score = self.reward.score(opaque, [step.prompt])
            total = total - score.value[score.valid].sum()
        return {"pixels": total / self.value.backgrounds}


def _jitter(views: Views, amount: float, rng: torch.Generator) -> Views:
    """Shift and zoom all views alike, bilinearly."""
    if amount == 0:
        return views
    zoom, dx, dy = (1 + amount * (2 * torch.rand(3, generator=rng) - 1) * torch.tensor([1.0, 2.0, 2.0])).tolist()
    theta = torch.tensor([[zoom, 0, dx - 1], [0, zoom, dy - 1]]).to(views.rgb)
    pixels = views.rgba[0].movedim(-1, 1)
    grid = torch.nn.functional.affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(pixels, grid, align_corners=False).movedim(1, -1)[None]
    return Views(moved[..., :3], moved[..., 3:], None, None, views.cameras)
