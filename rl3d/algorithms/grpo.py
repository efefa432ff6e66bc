"""Group-relative policy optimisation of diffusion and flow models.

Liu et al. 2025, "Flow-GRPO", arXiv 2505.05470; Xue et al. 2025, "DanceGRPO", arXiv 2505.07818; Li et al. 2025, "MixGRPO",
arXiv 2507.21802; Wang & Yu 2025, "Coefficients-Preserving Sampling", arXiv 2509.05952. One algorithm, four ways to sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rl3d.algorithms.common import Batches, Panel, Rollouts
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, policy_loss, rollouts
from rl3d.estimators import advantages, groups_of
from rl3d.priors.rollout import Ddim, FlowSde, Preserving, Sampling
from rl3d.protocols import Actor
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Window:
    """Only some consecutive steps draw; they move down the noise levels as training goes on, and start over (MixGRPO)."""

    size: int = 4
    shift: int = 1
    every: int = 25
    """Batches between shifts."""

    def steps(self, batches: int, steps: int) -> range:
        """The steps that draw after this many batches; the step to no noise never does."""
        last = max(1, steps - self.size)
        first = batches // self.every * self.shift % last
        return range(first, min(first + self.size, steps - 1))


@dataclass(frozen=True)
class Grpo:
    """Compare the samples of a prompt with each other, and prefer the better ones.

    The advantage is (R - mean) / std within the group, reward by reward, then summed. ``spread="batch"`` divides by one
    deviation for the batch, as Flow-GRPO's code does where its paper has the group's. The KL is exactly that of the steps'
    normal distributions, which Flow-GRPO's paper has too; its code leaves the step size dt out of the variance, so its beta .04
    at 10 steps is .004 here. A group whose samples all got the same is dropped (Yu et al. 2025, "DAPO").
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(steps=10, stepper=Ddim(1.0)))
    group: int = 12
    clip: float | None = 1e-4
    clip_advantage: float | None = 5.0
    kl: float = 0.0
    """beta, the weight of KL(policy || reference)."""
    spread: Literal["group", "batch", "none"] = "group"
    fraction: float = 1.0
    """Of the steps that draw, to learn from."""
    shared_noise: bool = False
    """Start all samples of a prompt from one noise: less varied, but what differs is the steps' own doing."""
    window: Window | None = None

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> Batches:
        return Batches()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Rollouts:
        assert isinstance(state, Batches)
        among = None if self.window is None else self.window.steps(int(state.done), self.sampling.steps)
        trajectory, scores = judged_rollouts(
            actor,
            panel,
            prompts,
            cameras,
            self.sampling,
            rng,
            group=self.group,
            among=among,
            shared_noise=self.shared_noise,
        )
        compared = advantages(
            scores, groups_of(trajectory.prompts), weights=panel.weights, spread=self.spread, clip=self.clip_advantage
        )
        return rollouts(trajectory, scores, compared, self.fraction, rng)

    def loss(
        self, actor: Actor, panel: Panel, batch: Rollouts, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        return policy_loss(actor, batch, clip=self.clip, kl=self.kl)

    def after(self, actor: Actor, batch: Rollouts, state: nn.Module) -> None:
        """Count the batch: the window moves by that."""
        assert isinstance(state, Batches)
        state.done += 1


def flow_grpo(steps: int = 10, noise: float = 0.7, kl: float = 0.004, group: int = 24) -> Grpo:
    """Flow-GRPO: the flow's SDE with noise that grows towards the start, and a KL; sec. 4 and its published settings."""
    return Grpo(Sampling(steps, FlowSde(noise), path="flow"), group=group, kl=kl, spread="batch")


def flow_cps(steps: int = 10, eta: float = 0.7, kl: float = 0.004, group: int = 24) -> Grpo:
    """Flow-GRPO with coefficient-preserving steps: samples stay as clean as the ODE's, so rewards judge what is meant."""
    return Grpo(Sampling(steps, Preserving(eta), path="flow"), group=group, kl=kl, spread="batch")


def dance_grpo(steps: int = 16, noise: float = 0.3, group: int = 12) -> Grpo:
    """DanceGRPO: constant noise, shared starts, 60 % of the steps, no KL; its published settings for flows."""
    return Grpo(Sampling(steps, FlowSde(noise, "dance_grpo"), path="flow"), group=group, fraction=0.6, shared_noise=True)


def mix_grpo(steps: int = 25, noise: float = 0.7, group: int = 12, window: Window | None = None) -> Grpo:
    """MixGRPO: SDE steps in a sliding window of 4 of 25, ODE steps elsewhere."""
    return Grpo(Sampling(steps, FlowSde(noise), path="flow"), group=group, window=window or Window())
