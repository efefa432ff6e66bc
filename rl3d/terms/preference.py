"""Preference between two noises: the prior's better prediction pulls, the worse one pushes; for any black box of views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rl3d.math import level_at
from rl3d.protocols import Reward, RewardPart, Shown, Signal, Situation, Step
from rl3d.rewards.clip import Clip
from rl3d.terms.denoising import Form, check_times, draw_time, noised, passes, predict, pull, scale, seen
from rl3d.terms.distillation import need_prior
from rl3d.terms.rewarded import build_reward, compare, need_prior_views
from rl3d.types import Cameras


@dataclass(frozen=True)
class Prefer:
    """Noise the rendering twice at one level; follow the prediction that is preferred, away from the other.

    Zhou et al. 2025, "DreamDPO: Aligning Text-to-3D Generation with Human Preferences via Direct Preference Optimization". With
    y_w and y_l the clean predictions of winner and loser, the gradient on the clean latents x is

    - (x - y_w) - (x - y_l) = y_l - y_w, where the rewards differ by ``gap`` or more;
    - x - y_w, plain distillation of the winner, where they do not, or could not both be judged.

    The loser is predicted without guidance, as in the paper's code: of the guidance, which both have alike, the winner's
    remains. Both branches hold the noise that was drawn (x - y is eps_hat - eps): the code leaves it out of the second one,
    which has the same mean and a far larger variance.
    """

    reward: RewardPart = field(default_factory=Clip)
    """Or a judge of pairs, whose gap is in probability."""
    gap: float = 0.01
    """In units of the reward: what is less is no preference."""
    per: Literal["group", "view"] = "group"
    """What wins and loses: all views together, or each for itself (as the paper's code has it)."""
    loser_guidance: float = 1.0
    start: float = 0.0
    """Progress before which it distils the first of the two alone."""
    form: Form = "x0"
    guidance: float = 3.0
    rescale: float = 0.5
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25

    def __post_init__(self):
        check_times(self)
        if self.gap < 0:
            raise ValueError(f"gap must be 0 or more, got {self.gap}")

    @property
    def passes(self) -> float:
        """Network passes in a step, on average over the run."""
        losers = 2 if self.per == "view" else 1
        pairs = passes(2, guided=self.guidance != 1) + passes(losers, guided=self.loser_guidance != 1)
        return (1 - self.start) * pairs + self.start * passes(1, guided=self.guidance != 1)

    def build(self, situation: Situation) -> Signal:
        need_prior(situation)
        reward = build_reward(self.reward, situation.device)
        need_prior_views(reward, "Prefer")
        return _Prefer(self, reward)


class _Prefer:
    def __init__(self, value: Prefer, reward: Reward):
        self.value, self.reward = value, reward

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, cameras, prior = self.value, step.views.cameras, step.prior
        assert prior is not None
        level = level_at(draw_time(v, step.progress, step.rng))
        clean = prior.encode(step.views)
        x, factor = clean.detach(), scale(v.form, level)
        pair = step.progress >= v.start
        noisy = noised(clean, level, 2 if pair else 1, step.rng)
        guesses = predict(prior, noisy, level, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale)
        if not pair:
            step.predicted["target"] = guesses
            return {"pixels": pull(clean, factor * (x - guesses))}
        value, valid = self._judge(seen(prior, guesses, cameras), step)
        # [v] booleans: whether the second wins, and whether the gap is wide enough to say so.
        second, clear = value[1] > value[0], valid & ((value[1] - value[0]).abs() >= v.gap)
        here = (1, -1, 1, 1, 1)
        chosen = second.view(here)
        winner = torch.where(chosen, guesses[1:], guesses[:1])
        gradient = x - winner
        step.predicted["winner"] = winner
        if clear.any():
            both = noisy if v.per == "view" else noisy[:1] if second[0] else noisy[1:]
            lost = predict(prior, both, level, step.prompt, cameras, guidance=v.loser_guidance, rescale=v.rescale)
            loser = torch.where(chosen, lost[:1], lost[-1:])
            gradient = torch.where(clear.view(here), loser - winner, gradient)
            step.predicted["loser"] = loser
        return {"pixels": pull(clean, factor * gradient)}

    def _judge(self, shown, step: Step) -> tuple[Tensor, Tensor]:
        """The two values of each view ``[2 v]``, and whether both could be had."""
        score = compare(self.reward, Shown(shown), step)
        views = shown.rgb.shape[1]
        if self.value.per == "view":
            if score.per_view is None:
                raise ValueError(f'{self.reward.info.name} does not judge view by view: set per="group"')
            value = score.per_view
        else:
            value = score.value[:, None].expand(2, views)
        return value, (score.valid[:, None] & value.isfinite()).all(0)
