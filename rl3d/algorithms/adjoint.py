"""Domingo-Enrich et al. 2025, "Adjoint Matching: Fine-tuning Flow and Diffusion Generative Models with Memoryless Stochastic
Optimal Control", arXiv 2409.08861.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rl3d.algorithms.common import Panel, seen, select_scores
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, some_steps
from rl3d.estimators import mean_used, valid_in_all
from rl3d.priors.rollout import Ddim, Sampling, Trajectory, ode_step, transition_at
from rl3d.protocols import REFERENCE, Actor
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class Adjoints:
    """Trajectories, and the lean adjoint at each of their states, detached."""

    trajectory: Trajectory
    adjoints: Float[Tensor, "k b v c h w"]
    used: Bool[Tensor, "b"]
    scores: dict[str, Score]
    steps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.trajectory)

    def select(self, samples: Int[Tensor, "n"]) -> Adjoints:
        """The samples at these indices, with all that belongs to them."""
        return replace(
            self,
            trajectory=self.trajectory.select(samples),
            adjoints=self.adjoints[:, samples],
            used=self.used[samples],
            scores=select_scores(self.scores, samples),
        )


@dataclass(frozen=True)
class AdjointMatching:
    """Regress the policy's change of each step onto what optimal control says it should be, without likelihoods.

    The lean adjoint starts at a = -strength grad R(x_0) and is carried back through the reference's steps alone,
    a(x) = (d mean_ref(x) / dx)^T a(next). With the control u = (mean_theta - mean_ref) / std of a step, the loss is
    |u + std a(next)|^2: its fixed point is the optimum of strength E[R] - sum KL, exactly and for any number of steps where
    rewards are quadratic and steps linear. (The paper's loss is the limit of small steps, with a at the same time as u.)

    Steps must be memoryless, or the samples would be tilted by what the initial noise already decides (value function bias):
    ancestral sampling, ``Ddim(eta=1)``, is, at the levels of diffusion and of flows.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    strength: float = 1.0
    """lambda, the inverse temperature."""
    group: int = 1
    fraction: float = 1.0
    """Of the steps, to learn from."""
    trim: float = 1.0
    """The part of the samples whose loss counts: the largest losses beyond it are left out of each step.

    Microsoft's soc-fine-tuning-sd has .9, of the losses' roots.
    """

    def __post_init__(self):
        if self.sampling.stepper != Ddim(1.0):
            raise ValueError(f"adjoint matching needs memoryless steps, got {self.sampling.stepper}: take Ddim(eta=1.0)")
        if not 0 < self.trim <= 1:
            raise ValueError(f"trim is the part that counts, in (0, 1]; got {self.trim}")

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_be_differentiable()
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Adjoints:
        self.check(panel)
        trajectory, scores = judged_rollouts(actor, panel, prompts, cameras, self.sampling, rng, group=self.group)
        reference = actor.using(REFERENCE)
        condition = reference.embed(list(trajectory.prompts), trajectory.cameras)
        a = -self.strength * panel.gradient(reference, trajectory.clean, trajectory.prompts, trajectory.cameras)
        adjoints = [a]
        for i in reversed(range(self.sampling.steps)):
            with torch.enable_grad():
                x = trajectory.latents[i].detach().requires_grad_()
                if i in trajectory.stochastic:
                    mean = transition_at(reference, x, i, condition, self.sampling).mean
                else:
                    mean = ode_step(reference, x, i, condition, self.sampling)
                a = torch.autograd.grad(mean, x, a)[0]
            adjoints.append(a)
        steps = some_steps(trajectory, self.fraction, rng)
        return Adjoints(trajectory, torch.stack(adjoints[::-1]), valid_in_all(scores), scores, steps)

    def loss(
        self, actor: Actor, panel: Panel, batch: Adjoints, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        policy, reference, t = actor.using("policy"), actor.using(REFERENCE), batch.trajectory
        condition = policy.embed(list(t.prompts), t.cameras)
        losses, controls = [], []
        for i in batch.steps:
            mean, std = transition_at(policy, t.latents[i], i, condition, self.sampling)
            with torch.no_grad():
                before = transition_at(reference, t.latents[i], i, condition, self.sampling).mean
            u = (mean - before) / std
            each = (u + std * batch.adjoints[i + 1]).square().flatten(1).mean(1)
            counts = batch.used
            if self.trim < 1 and counts.any():
                counts = counts & (each.detach() <= each.detach()[counts].quantile(self.trim))
            losses.append(mean_used(each, counts))
            controls.append(u.detach().square().mean())
        told = {"control": torch.stack(controls).mean().item()}
        return torch.stack(losses).mean(), told | seen(batch.scores)

    def after(self, actor: Actor, batch: Adjoints, state: nn.Module) -> None:
        """Nothing follows."""
