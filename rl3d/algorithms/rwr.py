"""Reward-weighted regression: the baseline of Black et al. 2023, "DDPO", sec. 4.2; Peters & Schaal 2007."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.algorithms.common import Panel, Samples, noise_like, seen
from rl3d.algorithms.matching import Weighting, draw_level, error_weight, judged_samples, predict_at, squared_error
from rl3d.estimators import Advantages, groups_of, mean_used
from rl3d.priors.parametrisations import add_noise
from rl3d.priors.rollout import Ddim, Reduction, Sampling
from rl3d.protocols import Actor
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class Rwr:
    """Train on the samples as a diffusion model does, each weighed by exp(R / temperature).

    With samples ``draw_from`` the reference, it learns the denoiser of p_ref exp(R / temperature). From the policy itself, each
    round tilts what the last one left, towards the maximum of the reward; but a sampler of few steps also loses some variance
    each round, so at high temperatures the policy collapses before it arrives. Weights have the mean 1 among the
    samples of a prompt, so that no prompt counts more for being easy. ``keep`` is the sparse form: the best part of each
    prompt's samples with weight 1, the rest with 0, as plain fine-tuning on a selection.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    temperature: float = 1.0
    keep: float | None = None
    group: int = 8
    draw_from: Literal["policy", "reference"] = "policy"
    weighting: Weighting = "clean"
    reduction: Reduction = "mean"
    draws: int = 1

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Samples:
        drawn = judged_samples(actor, panel, prompts, cameras, self.sampling, rng, group=self.group, draw_from=self.draw_from)
        return self.judged(drawn, panel)

    def judged(self, samples: Samples, panel: Panel) -> Samples:
        """Fill in the weights of samples from anywhere."""
        return replace(samples, advantages=self.weights(panel.sum(samples.scores), groups_of(samples.prompts)))

    def weights(self, score: Score, groups: Int[Tensor, "b"]) -> Advantages:
        """The weight of each sample, of mean 1 within its group; 0 where it could not be judged."""
        value = torch.zeros_like(score.value)
        for group in groups.unique().tolist():
            among = ((groups == group).to(value.device) & score.valid).nonzero()[:, 0]
            if len(among):
                value[among] = self._within(score.value[among].detach())
        return Advantages(value, score.valid)

    def _within(self, reward: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        if self.keep is None:
            return len(reward) * (reward / self.temperature).softmax(0)
        best = reward.topk(max(1, round(self.keep * len(reward)))).indices
        chosen = torch.zeros_like(reward)
        chosen[best] = 1.0
        return chosen * len(reward) / len(best)

    def loss(
        self, actor: Actor, panel: Panel, batch: Samples, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        policy, (weight, used) = actor.using("policy"), batch.advantages
        condition = policy.embed(list(batch.prompts), batch.cameras)
        losses = []
        for _ in range(self.draws):
            level = draw_level(self.sampling, rng)
            noisy = add_noise(batch.clean, noise_like(batch.clean, rng), level)
            error = squared_error(batch.clean, predict_at(policy, noisy, level, condition), self.reduction)
            losses.append(error_weight(level, self.weighting) * mean_used(weight * error, used))
        size = (weight.sum().square() / weight.square().sum().clamp_min(1e-12)).item()
        return torch.stack(losses).mean(), seen(batch.scores) | {"effective_samples": size}

    def after(self, actor: Actor, batch: Samples, state: nn.Module) -> None:
        """Nothing follows."""
