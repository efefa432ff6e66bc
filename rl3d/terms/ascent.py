"""Reward ascent: the gradient of a reward with respect to the pixels or to the scene, carried into the scene."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rl3d.math import level_at
from rl3d.protocols import Reward, RewardPart, Shown, Signal, Situation, Step
from rl3d.rewards.base import SplatScene
from rl3d.rewards.clip import Clip
from rl3d.terms.denoising import check_times, draw_time, noised, passes, predict, seen
from rl3d.terms.distillation import need_prior
from rl3d.terms.rewarded import VIEWS, ask, build_reward, gaussians_of, instead, need_prior_views, total_value
from rl3d.types import Cameras, Views


@dataclass(frozen=True)
class Ascend:
    """Climb a differentiable reward of the step's views or of the scene itself.

    Rewards that lay views over a background get them over random colours, so that none is exploited; those that look at views
    alone get them shifted and zoomed at random. What a reward of Gaussians says goes to the scene directly.

    ``on="denoised"`` shows the reward what the prior makes of the views at a noise time in [t_min, t_max], and carries the
    gradient at those pixels to the rendering as if it were they (straight-through: Ye et al. 2024, "DreamReward", whose code
    does so at low noise): rewards trained on clean pictures judge a clean picture.

    Its weight is best said as a ratio of gradient norms (:attr:`rl3d.recipe.Recipe.ratios`), since rewards have no common
    scale.
    """

    reward: RewardPart = field(default_factory=Clip)
    backgrounds: int = 2
    """Random backgrounds that each view is judged on."""
    start: float = 0.3
    """Progress in [0, 1) before which the scene is left alone."""
    jitter: float = 0.06
    """Random shift and zoom of the views, as a fraction of their size: patterns that depend on the pixel grid do not pay."""
    on: Literal["render", "denoised"] = "render"
    guidance: float = 3.0
    rescale: float = 0.5
    t_min: float = 0.1
    t_max: float = 0.3

    def __post_init__(self):
        check_times(self)

    @property
    def t_end(self) -> float:
        """The range of noise times does not shrink."""
        return self.t_max

    @property
    def passes(self) -> float:
        """Network passes in a step, on average over the run."""
        return (1 - self.start) * passes(1, guided=self.guidance != 1) if self.on == "denoised" else 0.0

    def build(self, situation: Situation) -> Signal:
        reward = build_reward(self.reward, situation.device)
        info = reward.info
        if info.differentiable == "no":
            raise ValueError(f"{info.name} has no gradient: use {instead(info, but='Ascend')}, or keep it as a guard")
        if "splats" in info.needs and situation.scene is not None:
            gaussians_of(situation.scene, f"ascent of {info.name}")
        if self.on == "denoised":
            need_prior(situation)
            need_prior_views(reward, "Ascend")
        return _Ascend(self, reward)


class _Ascend:
    def __init__(self, value: Ascend, reward: Reward):
        self.value, self.reward = value, reward

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        if step.progress < self.value.start:
            return {}
        info = self.reward.info
        views = self._denoised(step) if self.value.on == "denoised" else step.views
        scenes = (SplatScene(gaussians_of(step.scene, info.name).fields()),) if "splats" in info.needs else ()
        times = self.value.backgrounds if info.background else 1
        total = torch.zeros((), device=views.rgb.device)
        for _ in range(times):
            # Cameras no longer hold once pixels have moved, so only what looks at colours alone is shown that.
            shown = _jitter(views, self.value.jitter, step.rng) if info.needs == VIEWS else views
            if info.background:
                colour = torch.rand(3, generator=step.rng).to(shown.rgb)
                shown = replace(shown, rgb=shown.over(colour), alpha=torch.ones_like(shown.alpha))
            total = total - total_value(ask(self.reward, Shown(shown, scenes), [step.prompt], step))
        reached = {"pixels": True, "scene": bool(scenes)} if "views" in info.needs or "depth" in info.needs else {"scene": True}
        return {what: total / times for what, there in reached.items() if there}

    def _denoised(self, step: Step) -> Views:
        """What the prior makes of the views, as values that change one to one with the views."""
        v, cameras, prior = self.value, step.views.cameras, step.prior
        assert prior is not None
        with torch.no_grad():
            level = level_at(draw_time(v, step.progress, step.rng))
            noisy = noised(prior.encode(step.views), level, 1, step.rng)
            guess = predict(prior, noisy, level, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale)
            step.predicted["judged"] = guess
            made = seen(prior, guess, cameras).rgba
        rgba = step.views.rgba
        if made.shape != rgba.shape:
            small = F.interpolate(made[0].movedim(-1, 1), rgba.shape[2:4], mode="bilinear", antialias=True)
            made = small.movedim(1, -1)[None]
        through = made + (rgba - rgba.detach())
        return Views(through[..., :3], through[..., 3:], None, None, cameras)


def _jitter(views: Views, amount: float, rng: torch.Generator) -> Views:
    """Shift and zoom all views alike, bilinearly."""
    if amount == 0:
        return views
    zoom, dx, dy = (1 + amount * (2 * torch.rand(3, generator=rng) - 1) * torch.tensor([1.0, 2.0, 2.0])).tolist()
    theta = torch.tensor([[zoom, 0, dx - 1], [0, zoom, dy - 1]]).to(views.rgb)
    pixels = views.rgba[0].movedim(-1, 1)
    grid = F.affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, align_corners=False).movedim(1, -1)[None]
    return Views(moved[..., :3], moved[..., 3:], None, None, views.cameras)
