"""Matching the gradients of flows.

Liu et al. 2025, "Efficient Diversity-Preserving Diffusion Alignment via Gradient-Informed GFlowNets" (Nabla-GFlowNet),
arXiv 2412.07775; Liu et al. 2025, "Nabla-R2D3", arXiv 2506.15684, which has the forward-only form.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from rl3d.algorithms.common import Latents, Panel, seen, select_scores, where_valid
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, some_steps
from rl3d.estimators import mean_used, valid_in_all
from rl3d.math import Level
from rl3d.priors.rollout import Ddim, Sampling, Trajectory, transition_at
from rl3d.protocols import REFERENCE, Actor, Prior
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class Transitions:
    """Trajectories, and the guess of the gradient of the log-flow at each of their noisy states, detached."""

    trajectory: Trajectory
    guesses: Float[Tensor, "s b v c h w"]
    """Before each step: strength times the gradient of R(x_0_hat(x))."""
    used: Bool[Tensor, "b"]
    scores: dict[str, Score]
    steps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.trajectory)

    def select(self, samples: Int[Tensor, "n"]) -> Transitions:
        """The samples at these indices, with all that belongs to them."""
        return replace(
            self,
            trajectory=self.trajectory.select(samples),
            guesses=self.guesses[:, samples],
            used=self.used[samples],
            scores=select_scores(self.scores, samples),
        )


@dataclass(frozen=True)
class Nabla:
    """Sample p_ref exp(strength R) by matching gradients, step by step, to a flow that grows towards it.

    With F the flow over that of the reference, detailed balance of a step from x to y, in gradients and relative to the
    reference (the residual form), asks for

    - forward: grad_y [log p_theta(y | x) - log p_ref(y | x)] = grad log F(y),
    - reverse: grad_x [log p_theta(y | x) - log p_ref(y | x)] = -grad log F(x),
    - at the end: grad log F(x_0) = strength grad R(x_0).

    grad log F(x) is taken as a guess, alpha^gamma strength grad_x R(x_0_hat(x)), plus a learned correction g(x). The last step
    goes straight to x_0_hat, so there the untempered guess is exact, and g is what alpha^gamma took from it: 0 if gamma is 0.

    ``correction=False`` is the forward-only form: no g, no reverse loss, no second derivatives. Its target is exact for rewards
    that are linear in the clean latents, and off otherwise, since log E[exp R] is not R(E[x]): on normal data with a quadratic
    reward of curvature k, by the factor 1 + strength k Var(x_0 | x). Residuals are multiplied by the step's std, which makes
    them those of the standardised step. The published regulariser towards the previous iterate is left out; LoRA's step size
    does its work.

    The plain loss (``joint``) squares both residuals at the drawn y and lets gradients into both sides. With steps of a fixed
    variance no policy makes them vanish for every y, and what is left of y's noise is paid for like an error: slopes are held
    back, more so the more steps there are, and the optimum is missed. The default has the same roots without that cost: each
    side is regressed onto the other with the target held fixed (the policy onto the flow by the forward residual, the
    correction onto the policy by the reverse one), the latter in expectation over y, its value at the policy's mean.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    strength: float = 1.0
    """The inverse temperature, beta. Published ones are 1e3 to 1e4 for rewards of images."""
    correction: bool = True
    reverse: float = 1.0
    """Weight of the reverse residual."""
    end: float = 1.0
    """Weight of the squared error of the correction at the end."""
    joint: bool = False
    """Take the full gradient of both residuals, at the drawn step; needs second derivatives of the network."""
    gamma: float = 0.0
    """Above 0 the guess is trusted less where noise is high."""
    guess: Literal["reference", "policy"] = "reference"
    """Whose clean prediction is shown to the reward. The papers show the policy's; the flow is made of the reference's."""
    group: int = 1
    fraction: float = 1.0
    """Of the steps, to learn from."""

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_be_differentiable()
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        """The correction: a small network of noisy latents, one view at a time, that starts at 0."""
        return Correction(actor.using("policy").info.channels, rng=rng) if self.correction else nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Transitions:
        self.check(panel)
        trajectory, scores = judged_rollouts(actor, panel, prompts, cameras, self.sampling, rng, group=self.group)
        prior = actor.using(REFERENCE if self.guess == "reference" else "policy")
        condition = prior.embed(list(trajectory.prompts), trajectory.cameras)
        guesses = [
            self.guessed(prior, panel, trajectory.latents[i], level, condition, trajectory)
            for i, level in enumerate(trajectory.levels[:-1])
        ]
        steps = some_steps(trajectory, self.fraction, rng)
        return Transitions(trajectory, torch.stack(guesses), valid_in_all(scores), scores, steps)

    def guessed(self, prior: Prior, panel: Panel, x: Latents, level: Level, condition: Any, trajectory: Trajectory) -> Latents:
        """Guess grad log F(x) from what the reward thinks of the clean prediction."""
        s = self.sampling
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = prior.predict(x, level, condition, guidance=s.guidance, rescale=s.rescale)
            score = panel.total(prior, clean, trajectory.prompts, trajectory.cameras)
            gradient = torch.autograd.grad(score.value.sum(), x)[0]
        return self.strength * level.alpha**self.gamma * where_valid(gradient, score.valid)

    def loss(
        self, actor: Actor, panel: Panel, batch: Transitions, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        policy, reference, t = actor.using("policy"), actor.using(REFERENCE), batch.trajectory
        condition = policy.embed(list(t.prompts), t.cameras)
        forwards, reverses = [], []
        for i in batch.steps:
            x, y, std = t.latents[i], t.latents[i + 1], self._std(t, i)
            if not self.correction:
                mean = transition_at(policy, x, i, condition, self.sampling).mean
                with torch.no_grad():
                    before = transition_at(reference, x, i, condition, self.sampling).mean
                forwards.append(_square((mean - before) / std - std * batch.guesses[i + 1], batch.used))
                continue
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                mean = transition_at(policy, x if self.joint else x.detach(), i, condition, self.sampling).mean
                before = transition_at(reference, x, i, condition, self.sampling).mean
                if self.joint:
                    log_ratio = 0.5 / std**2 * ((y - before).square() - (y - mean).square()).sum()
                    backwards = torch.autograd.grad(log_ratio, x, create_graph=True)[0]
                else:
                    backwards = -torch.autograd.grad(before, x, (mean - before).detach() / std**2)[0]
            log_flow_y = batch.guesses[i + 1] + state(y, t.levels[i + 1])
            log_flow_x = batch.guesses[i] + state(x.detach(), t.levels[i])
            wanted = log_flow_y if self.joint else log_flow_y.detach()
            forwards.append(_square((mean - before.detach()) / std - std * wanted, batch.used))
            reverses.append(_square(std * (backwards + log_flow_x), batch.used))
        loss = torch.stack(forwards).mean()
        told = {"forward": loss.item()} | seen(batch.scores)
        if self.correction:
            last = len(t.levels) - 2
            missing = (t.levels[last].alpha ** -self.gamma - 1) * batch.guesses[last]
            reverse, end = torch.stack(reverses).mean(), _square(state(t.latents[last], t.levels[last]) - missing, batch.used)
            loss = loss + self.reverse * reverse + self.end * end
            told |= {"reverse": reverse.item(), "end": end.item()}
        return loss, told

    def _std(self, t: Trajectory, step: int) -> float:
        return self.sampling.stepper.transition(t.latents[step], t.latents[step], t.levels[step], t.levels[step + 1]).std

    def after(self, actor: Actor, batch: Transitions, state: nn.Module) -> None:
        """Nothing follows."""


def nabla_r2d3(strength: float = 1.0, sampling: Sampling | None = None, fraction: float = 0.4) -> Nabla:
    """The forward-only form, learning from 40 % of the steps of a trajectory."""
    return Nabla(sampling or Sampling(20, Ddim(1.0)), strength, correction=False, fraction=fraction)


class Correction(nn.Module):
    """The learned part of grad log F: three convolutions over each view's noisy latents, told the noise level."""

    def __init__(self, channels: int, hidden: int = 32, rng: torch.Generator | None = None):
        super().__init__()
        self.enter = nn.Conv2d(channels + 2, hidden, 3, padding=1)
        self.between = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.leave = nn.Conv2d(hidden, channels, 3, padding=1)
        for layer in (self.enter, self.between, self.leave):
            nn.init.kaiming_uniform_(layer.weight, generator=rng)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.leave.weight)

    def forward(self, noisy: Latents, level: Level) -> Latents:
        b, v = noisy.shape[:2]
        x = noisy.flatten(0, 1)
        told = torch.tensor(level).to(x)[None, :, None, None].expand(len(x), 2, *x.shape[-2:])
        x = silu(self.enter(torch.cat([x, told], 1)))
        return self.leave(silu(self.between(x))).unflatten(0, (b, v))


def _square(residual: Latents, used: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    return mean_used(residual.square().flatten(1).mean(1), used)
