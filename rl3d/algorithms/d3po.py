"""Yang et al. 2024, "Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model" (D3PO), arXiv 2311.13231."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rl3d.algorithms.common import Latents, Panel, seen, select_scores
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, some_steps
from rl3d.estimators import best_and_worst, groups_of
from rl3d.priors.rollout import Ddim, Sampling, Trajectory, log_prob, transition_at
from rl3d.protocols import REFERENCE, Actor, Prior
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class PairedRollouts:
    """Trajectories for the same prompts, of which the first led to what was preferred."""

    winners: Trajectory
    losers: Trajectory
    scores: dict[str, Score]
    """Of the winners."""
    steps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.winners)

    def select(self, pairs: Int[Tensor, "n"]) -> PairedRollouts:
        """The pairs at these indices, with all that belongs to them."""
        scores = select_scores(self.scores, pairs)
        return PairedRollouts(self.winners.select(pairs), self.losers.select(pairs), scores, self.steps)


@dataclass(frozen=True)
class D3po:
    """Direct preference optimisation of every step: what was preferred in the end was preferred all the way.

    -log sigmoid(beta log rho_w - beta log rho_l) at each step, with rho = p_theta / p_ref of that step. The published code
    clips rho to 1 +- .1; with its beta of .1 the loss then stays within .683 to .703 and cannot learn. The default has no clip.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0), reduction="sum"))
    beta: float = 0.1
    clip: float | None = None
    group: int = 2
    least: float = 0.0
    fraction: float = 1.0

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> PairedRollouts:
        """Pair the best with the worst of each prompt; prompts without a pair are left out, so there may be none."""
        trajectory, scores = judged_rollouts(actor, panel, prompts, cameras, self.sampling, rng, group=self.group)
        best, worst = best_and_worst(panel.sum(scores), groups_of(trajectory.prompts), self.least)
        steps = some_steps(trajectory, self.fraction, rng)
        return PairedRollouts(trajectory.select(best), trajectory.select(worst), select_scores(scores, best), steps)

    def loss(
        self, actor: Actor, panel: Panel, batch: PairedRollouts, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        if not len(batch):
            raise ValueError("there are no pairs to learn from: draw larger groups, or set least lower")
        policy, reference = actor.using("policy"), actor.using(REFERENCE)
        one, other = batch.winners, batch.losers
        both = [*one.prompts, *other.prompts]
        cameras = Cameras(
            torch.cat([one.cameras.cam_from_world, other.cameras.cam_from_world]),
            torch.cat([one.cameras.intrinsics, other.cameras.intrinsics]),
            one.cameras.width,
            one.cameras.height,
        )
        condition = policy.embed(both, cameras)
        margins = []
        for step in batch.steps:
            x, following = (torch.cat([one.latents[i], other.latents[i]]) for i in (step, step + 1))
            rho = log_ratio(policy, reference, x, following, step, condition, self.sampling, self.clip)
            winner, loser = rho.chunk(2)
            margins.append(self.beta * (winner - loser))
        loss = -logsigmoid(torch.stack(margins)).mean()
        accuracy = (torch.stack(margins).detach() > 0).float().mean().item()
        return loss, {"accuracy": accuracy, "pairs": float(len(batch))} | seen(batch.scores)

    def after(self, actor: Actor, batch: PairedRollouts, state: nn.Module) -> None:
        """Nothing follows."""


def log_ratio(
    policy: Prior,
    reference: Prior,
    x: Latents,
    following: Latents,
    step: int,
    condition: Any,
    sampling: Sampling,
    clip: float | None,
) -> Float[Tensor, "b"]:
    """Log p_theta(following | x) - log p_ref(following | x), the ratio clipped to 1 +- clip; differentiable in the policy."""
    now = log_prob(following, transition_at(policy, x, step, condition, sampling), sampling.reduction)
    with torch.no_grad():
        before = log_prob(following, transition_at(reference, x, step, condition, sampling), sampling.reduction)
    return now - before if clip is None else (now - before).clamp(math.log(1 - clip), math.log(1 + clip))
