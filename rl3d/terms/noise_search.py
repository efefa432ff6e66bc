"""Score distillation that chooses its noises by a reward: any black box that looks at views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import Level, level_at
from rl3d.priors.sampling import denoise
from rl3d.protocols import Reward, RewardPart, Shown, Signal, Situation, Step
from rl3d.rewards.clip import Clip
from rl3d.terms.denoising import Form, Latents, check_times, draw_time, noised, passes, predict, pull, scale, seen
from rl3d.terms.distillation import need_prior
from rl3d.terms.rewarded import build_reward, compare, in_group, need_prior_views
from rl3d.types import Cameras, Score

Strategy = Literal["minmax", "best", "softmax", "group"]


@dataclass(frozen=True)
class SearchNoise:
    """Noise the rendering several times at one level, judge what the prior makes of each, and weigh their pulls.

    The gradient on clean latents x is the sum over noises k of w_k (x - y_k), with y_k the prior's prediction from noise k and
    the scale of :class:`rl3d.terms.distillation.Distill`. The weights follow Chachy et al. 2025, "RewardSDS":

    - ``"minmax"``: 0.9 shared by the best ``few``, -0.1 by the worst (the paper's best strategy);
    - ``"best"``: 1 for the best;
    - ``"softmax"``: of the rewards in standard deviations over ``temperature``;

    and one is ours, the form of "minmax" that policy gradients know:

    - ``"group"``: ``distil`` / K + A_k / K with A_k the advantage in the group, in standard deviations. Without ``distil``
      the weights add up to nothing, so that only what distinguishes good predictions from bad ones moves the scene.

    Where nothing can be judged it is plain distillation.
    """

    reward: RewardPart = field(default_factory=Clip)
    noises: int = 4
    strategy: Strategy = "minmax"
    few: int = 2
    """For "minmax", how many are best, and how many worst; no more than half the noises."""
    temperature: float = 1.0
    """For "softmax", in standard deviations of the group."""
    distil: float = 1.0
    """For "group", the weight of plain distillation."""
    judged_after: int = 1
    """Sampling steps after which a noise is judged; its pull is the first prediction, whichever."""
    until: float = 0.7
    """Progress after which one noise is drawn and none judged."""
    form: Form = "x0"
    guidance: float = 3.0
    rescale: float = 0.5
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25
    perp_neg: float = 0.0

    def __post_init__(self):
        check_times(self)
        if self.noises < 2 or self.judged_after < 1 or self.temperature <= 0:
            got = f"noises {self.noises}, judged_after {self.judged_after}, temperature {self.temperature}"
            raise ValueError(f"noises must be at least 2, judged_after at least 1, and temperature above 0; got {got}")

    @property
    def passes(self) -> float:
        """Network passes in a step, on average over the run."""
        searched = min(1.0, self.until)
        samples = searched * self.noises * self.judged_after + 1 - searched
        return passes(samples, guided=self.guidance != 1, perp_neg=self.perp_neg)

    def build(self, situation: Situation) -> Signal:
        need_prior(situation)
        reward = build_reward(self.reward, situation.device)
        need_prior_views(reward, "SearchNoise")
        return _SearchNoise(self, reward)


class _SearchNoise:
    def __init__(self, value: SearchNoise, reward: Reward):
        self.value, self.reward = value, reward

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, cameras, prior = self.value, step.views.cameras, step.prior
        assert prior is not None
        t = draw_time(v, step.progress, step.rng)
        searching, level = step.progress < v.until, level_at(t)
        clean = prior.encode(step.views)
        noisy = noised(clean, level, v.noises if searching else 1, step.rng)
        first: list[Latents] = []

        def guess(x: Latents, at: Level) -> Latents:
            found = predict(prior, x, at, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale, perp_neg=v.perp_neg)
            first.append(found)
            return found

        down = [level_at(t * (1 - i / v.judged_after)) for i in range(v.judged_after + 1)]
        made = denoise(guess, noisy, down if searching else down[:1] + down[-1:], solver="ddim")
        weight = torch.ones(1)
        if searching:
            score = compare(self.reward, Shown(seen(prior, made, cameras)), step)
            weight = noise_weights(score, v.strategy, few=v.few, temperature=v.temperature, distil=v.distil)
        weighed = (weight.to(clean).view(-1, 1, 1, 1, 1) * (clean.detach() - first[0])).sum(0, keepdim=True)
        step.predicted["target"] = clean.detach() - weighed
        return {"pixels": pull(clean, scale(v.form, level) * weighed)}


def noise_weights(
    score: Score, strategy: Strategy, *, few: int = 2, temperature: float = 1.0, distil: float = 1.0
) -> Float[Tensor, "k"]:
    """The weight of each noise's pull; see :class:`SearchNoise`. Noises that could not be judged get none.

    All alike if fewer than two could be.
    """
    value, used = score.value.detach(), score.valid & score.value.isfinite()
    count, n = len(value), int(used.sum())
    if n < 2:
        return torch.full_like(value, 1 / count)
    if strategy == "group":
        return torch.where(used, distil / n + in_group(score).value.to(value) / n, 0.0)
    if strategy == "softmax":
        spread = value[used].std(correction=0).clamp_min(1e-6) * temperature
        return torch.where(used, value / spread, -torch.inf).softmax(0)
    order = torch.where(used, value, -torch.inf).argsort(descending=True, stable=True)[:n]
    weight = torch.zeros_like(value)
    if strategy == "best":
        weight[order[0]] = 1.0
        return weight
    some = max(1, min(few, n // 2))
    weight[order[:some]] = 0.9 / some
    weight[order[-some:]] = -0.1 / some
    return weight
