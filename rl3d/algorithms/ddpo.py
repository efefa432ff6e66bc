"""Black et al. 2023, "Training Diffusion Models with Reinforcement Learning" (DDPO), arXiv 2305.13301."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rl3d.algorithms.common import Panel, Rollouts
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, policy_loss, rollouts
from rl3d.estimators import PromptStatistics
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.protocols import Actor
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Ddpo:
    """Climb E[R] by policy gradient: sampling is a decision process of ``sampling.steps`` steps with the reward at its end.

    With a clip it is DDPO-IS, several updates from one batch (sec. 4.3); with ``clip=None`` and one update a batch it is
    DDPO-SF, the score function. Rewards are compared with those that a prompt had before. The default clip is for the default
    reduction, means over a sample's elements; for sums take one some thousand times larger. It has no anchor: its maximum is
    the reward's, and it must be stopped in time.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    group: int = 4
    """Samples for each prompt in a batch."""
    clip: float | None = 1e-4
    clip_advantage: float = 5.0
    fraction: float = 1.0
    """Of the steps, to learn from."""
    remember: int = 32
    """Rewards of a prompt that are remembered."""
    remember_least: int = 16
    """How many there must be before a prompt is compared with itself, not with the batch."""

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> PromptStatistics:
        return PromptStatistics(self.remember, self.remember_least)

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Rollouts:
        assert isinstance(state, PromptStatistics)
        trajectory, scores = judged_rollouts(actor, panel, prompts, cameras, self.sampling, rng, group=self.group)
        compared = state.advantages(scores, trajectory.prompts, weights=panel.weights, clip=self.clip_advantage)
        return rollouts(trajectory, scores, compared, self.fraction, rng)

    def loss(
        self, actor: Actor, panel: Panel, batch: Rollouts, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        return policy_loss(actor, batch, clip=self.clip)

    def after(self, actor: Actor, batch: Rollouts, state: nn.Module) -> None:
        """Remember the batch's rewards."""
        assert isinstance(state, PromptStatistics)
        state.remember(batch.scores, batch.trajectory.prompts)
