"""Zheng et al. 2025, "DiffusionNFT: Online Diffusion Reinforcement with Forward Process", arXiv 2509.16117."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.algorithms.common import Batches, Latents, Panel, Samples, noise_like, seen
from rl3d.algorithms.matching import Weighting, draw_level, error_weight, judged_samples, predict_at, squared_error
from rl3d.estimators import advantages, groups_of, mean_used
from rl3d.priors.lora import blend
from rl3d.priors.parametrisations import add_noise
from rl3d.priors.rollout import Ddim, Reduction, Sampling
from rl3d.protocols import REFERENCE, Actor
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Nft:
    """Learn from good samples what to predict, and from bad ones what not to; no likelihoods, any sampler.

    With x_old what ``old`` predicts, two implicit policies predict x+ = (1 - beta) x_old + beta x_theta and
    x- = (1 + beta) x_old - beta x_theta. The loss is r |x+ - x_0|^2 + (1 - r) |x- - x_0|^2, over beta, where r in [0, 1] is how
    likely a sample is good: 1/2 + A / (2 ``limit``), clipped, of its advantage A. Predictions of clean latents, noise and flow
    are linear in each other at one level, so the mixtures are the same in all of them.

    Its fixed point for one ``old`` is x_theta = x_old + 2 / beta Cov(r, x_0 | x_t): a step along what the paper calls
    reinforcement guidance. ``old`` follows the policy, so steps add up, without an end but for ``anchor``, the weight of
    |x_theta - x_ref|^2. With ``adaptive``, each square is over the sample's mean absolute error, as in the paper's
    experiments: it needs no weights of levels, but bends the fixed point, because small errors count more.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(steps=10, stepper=Ddim(0.0)))
    group: int = 24
    beta: float = 1.0
    limit: float = 5.0
    """The advantage that makes a sample surely good; its negative makes it surely bad."""
    spread: Literal["group", "batch", "none"] = "group"
    anchor: float = 1e-4
    adaptive: bool = True
    weighting: Weighting = "flow"
    """Of squared errors where they are not adaptive, and of the anchor."""
    reduction: Reduction = "mean"
    draws: int = 1
    follow: float = 0.001
    """After n batches ``old`` keeps min(follow n, follow_most) of itself, and takes the rest from the policy."""
    follow_most: float = 0.5

    def __post_init__(self):
        if self.beta <= 0 or self.limit <= 0:
            raise ValueError(f"beta and limit must be positive, got {self.beta} and {self.limit}")

    def adapters(self) -> tuple[str, ...]:
        return ("policy", "old")

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> Batches:
        return Batches()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Samples:
        """Draw with ``old`` and compare within groups. Samples from elsewhere do as well: :meth:`judged`."""
        drawn = judged_samples(actor, panel, prompts, cameras, self.sampling, rng, group=self.group, draw_from="old")
        return self.judged(drawn, panel)

    def judged(self, samples: Samples, panel: Panel) -> Samples:
        """Fill in the advantages of samples, each compared with those of the same prompt."""
        compared = advantages(
            samples.scores, groups_of(samples.prompts), weights=panel.weights, spread=self.spread, clip=self.limit
        )
        return replace(samples, advantages=compared)

    def loss(
        self, actor: Actor, panel: Panel, batch: Samples, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        policy, old, reference = (actor.using(name) for name in ("policy", "old", REFERENCE))
        advantage, used = batch.advantages
        r = (0.5 + advantage / (2 * self.limit)).clamp(0, 1)
        condition = policy.embed(list(batch.prompts), batch.cameras)
        losses, deviations = [], []
        for _ in range(self.draws):
            level = draw_level(self.sampling, rng)
            noisy = add_noise(batch.clean, noise_like(batch.clean, rng), level)
            now = predict_at(policy, noisy, level, condition)
            with torch.no_grad():
                before = predict_at(old, noisy, level, condition)
            good = self._error((1 - self.beta) * before + self.beta * now, batch.clean)
            bad = self._error((1 + self.beta) * before - self.beta * now, batch.clean)
            loss = mean_used(r * good + (1 - r) * bad, used) / self.beta
            weight = error_weight(level, self.weighting)
            loss = loss if self.adaptive else weight * loss
            if self.anchor:
                with torch.no_grad():
                    first = predict_at(reference, noisy, level, condition)
                loss = loss + self.anchor * weight * squared_error(now, first, self.reduction).mean()
            losses.append(loss)
            deviations.append((now.detach() - before).square().mean().sqrt())
        told = {"deviation_from_old": torch.stack(deviations).mean().item(), "used": used.float().mean().item()}
        return torch.stack(losses).mean(), told | seen(batch.scores)

    def _error(self, predicted: Latents, clean: Latents) -> Float[Tensor, "b"]:
        error = squared_error(predicted, clean, self.reduction)
        if not self.adaptive:
            return error
        return error / (predicted - clean).detach().abs().flatten(1).mean(1).clamp_min(1e-5)

    def after(self, actor: Actor, batch: Samples, state: nn.Module) -> None:
        """Let ``old`` follow."""
        assert isinstance(state, Batches)
        blend(actor, "policy", "old", keep=min(self.follow * int(state.done), self.follow_most))
        state.done += 1
