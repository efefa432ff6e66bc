"""Priors as policies: stochastic steps whose log-probabilities are known, and the trajectories that they make.

A step from one noise level to a lower one is a draw from a normal distribution, ``N(mean, std^2)``, whose mean depends on the
clean latents that the prior predicts. That makes sampling a Markov decision process: the state is the noisy latents, the action
the less noisy ones (Black et al. 2023, "DDPO", sec. 4.3). The step to no noise at all never draws: its noise would be seen in
the sample, and be all that the reward can blame on it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.math import Level, flow_level_at
from rl3d.priors.sampling import START, draw_noise, for_each, levels
from rl3d.protocols import Prior
from rl3d.types import Cameras, Prompt

Latents = Float[Tensor, "b v c h w"]
Reduction = Literal["sum", "mean"]
"""Over the elements of a sample. The sum is the log-probability; the mean is what most published clips (1e-4) are made for."""


class Transition(NamedTuple):
    """The normal distribution of the next, less noisy latents; ``std`` 0 is a deterministic step."""

    mean: Latents
    std: float


@dataclass(frozen=True)
class Ddim:
    """Song et al. 2021, "DDIM", eq. 12 and 16, at levels of either kind; ``eta`` 1 is ancestral sampling, 0 the ODE.

    The ancestral form draws from the exact posterior q(next | noisy, clean), so its marginals have exactly the noise of their
    level. It is also the memoryless schedule that adjoint matching asks for, in discrete time.
    """

    eta: float = 1.0

    def transition(self, noisy: Latents, clean: Latents, level: Level, to: Level) -> Transition:
        left = level.alpha * to.sigma / (level.sigma * to.alpha)
        return _towards(noisy, clean, level, to, self.eta * to.sigma * math.sqrt(max(0.0, 1 - left**2)))


@dataclass(frozen=True)
class Preserving:
    """Wang & Yu 2025, "Coefficients-Preserving Sampling": fresh noise is sin(pi eta / 2) of the noise of the next level.

    ``eta`` is in [0, 1]. The published code leaves 2 std^2 out of this step's log-probability; here it is in.
    """

    eta: float = 0.7

    def transition(self, noisy: Latents, clean: Latents, level: Level, to: Level) -> Transition:
        return _towards(noisy, clean, level, to, to.sigma * math.sin(math.pi / 2 * self.eta))


@dataclass(frozen=True)
class FlowSde:
    """Euler-Maruyama steps of the SDE with the marginals of a flow's ODE; only at the levels of flows.

    With time t from 1 (noise) down to 0: dx = [v + s^2 / (2 t) (x + (1 - t) v)] dt + s dw. ``form="flow_grpo"`` has
    s = noise sqrt(t / (1 - t)) (Liu et al. 2025, "Flow-GRPO", eq. 9), ``form="dance_grpo"`` has s = noise (Xue et al. 2025,
    "DanceGRPO"). Its marginals have errors of first order in the step: at few steps they are noisier than their levels.
    """

    noise: float = 0.7
    form: Literal["flow_grpo", "dance_grpo"] = "flow_grpo"

    def transition(self, noisy: Latents, clean: Latents, level: Level, to: Level) -> Transition:
        t, dt = level.sigma, level.sigma - to.sigma
        if abs(level.alpha + level.sigma - 1) > 1e-5:
            raise ValueError(f'the flow SDE steps between levels with alpha + sigma = 1, got {level}; set path="flow"')
        capped = t if t < 1 else to.sigma  # the coefficient is infinite at pure noise
        s = self.noise * (math.sqrt(capped / (1 - capped)) if self.form == "flow_grpo" else 1.0)
        v = (noisy - clean) / t
        drift = v + s**2 / (2 * t) * (noisy + (1 - t) * v)
        return Transition(noisy - dt * drift, s * math.sqrt(dt))


def _towards(noisy: Latents, clean: Latents, level: Level, to: Level, fresh: float) -> Transition:
    """Keep the clean latents and the size of the noise, of which ``fresh`` is drawn anew."""
    noise = (noisy - level.alpha * clean) / level.sigma
    return Transition(to.alpha * clean + math.sqrt(max(0.0, to.sigma**2 - fresh**2)) * noise, fresh)


def flow_levels(steps: int, start: float = 1.0, shift: float = 1.0) -> list[Level]:
    """The ``steps + 1`` levels of a flow, from time ``start`` to 0; ``shift`` above 1 spends more steps at high noise.

    The shift is that of Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 23.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {steps}")
    times = (start * (1 - i / steps) for i in range(steps + 1))
    return [flow_level_at(shift * t / (1 + (shift - 1) * t)) for t in times]


@dataclass(frozen=True)
class Sampling:
    """How a policy draws samples; recorded with each trajectory, since log-probabilities mean nothing without it."""

    steps: int = 16
    stepper: Ddim | Preserving | FlowSde = field(default_factory=Ddim)
    path: Literal["cosine", "flow"] = "cosine"
    """The levels: the cosine schedule, or the straight path of flows."""
    start: float = START
    """The noise time of the first level."""
    shift: float = 1.0
    """Of the levels of flows."""
    guidance: float = 1.0
    """Classifier-free guidance, of the policy that acts and of the one that learns."""
    rescale: float = 0.0
    reduction: Reduction = "mean"
    """Of log-probabilities and KL divergences over the elements of a sample."""

    def levels(self) -> tuple[Level, ...]:
        """From the start down to no noise, ``steps + 1`` of them."""
        if self.path == "cosine":
            return tuple(levels(self.steps, self.start))
        return tuple(flow_levels(self.steps, self.start, self.shift))


@dataclass(frozen=True)
class Trajectory:
    """What sampling went through, detached and in float32. Whatever belongs to one sample is selected together."""

    latents: Float[Tensor, "k b v c h w"]
    """Before the first step, and after each."""
    levels: tuple[Level, ...]
    log_probs: Float[Tensor, "s b"]
    """Of each step when it was drawn, reduced as ``sampling`` says; 0 where a step did not draw."""
    stochastic: tuple[int, ...]
    """The steps that drew."""
    prompts: tuple[Prompt, ...]
    cameras: Cameras
    sampling: Sampling

    def __len__(self) -> int:
        return self.latents.shape[1]

    @property
    def clean(self) -> Latents:
        """The samples themselves."""
        return self.latents[-1]

    def select(self, samples: Int[Tensor, "n"]) -> Trajectory:
        """The samples at these indices, with their prompts and cameras."""
        return replace(
            self,
            latents=self.latents[:, samples],
            log_probs=self.log_probs[:, samples],
            prompts=tuple(self.prompts[i] for i in samples.tolist()),
            cameras=select_cameras(self.cameras, samples),
        )


def select_cameras(cameras: Cameras, samples: Int[Tensor, "n"]) -> Cameras:
    """Cameras of the samples at these indices."""
    return replace(cameras, cam_from_world=cameras.cam_from_world[samples], intrinsics=cameras.intrinsics[samples])


def log_prob(x: Latents, transition: Transition, reduction: Reduction = "mean") -> Float[Tensor, "b"]:
    """The log-density of the next latents under a transition, in float32. Differentiable in the mean."""
    mean, std = transition
    per_element = -0.5 * ((x.float() - mean.float()) / std).square() - math.log(std) - 0.5 * math.log(2 * math.pi)
    return _reduce(per_element, reduction)


def kl_divergence(p: Transition, q: Transition, reduction: Reduction = "mean") -> Float[Tensor, "b"]:
    """KL(p || q) of two transitions with one std: the squared distance of their means over 2 std^2. Differentiable."""
    assert p.std == q.std
    return _reduce(0.5 * ((p.mean.float() - q.mean.float()) / p.std).square(), reduction)


def _reduce(per_element: Latents, reduction: Reduction) -> Float[Tensor, "b"]:
    flat = per_element.flatten(1)
    return flat.sum(1) if reduction == "sum" else flat.mean(1)


def transition_at(prior: Prior, noisy: Latents, step: int, condition: Any, sampling: Sampling) -> Transition:
    """The transition that a prior makes of latents at the level of a step. Differentiable."""
    schedule = sampling.levels()
    level, to = schedule[step], schedule[step + 1]
    clean = prior.predict(noisy, level, condition, guidance=sampling.guidance, rescale=sampling.rescale)
    return sampling.stepper.transition(noisy, clean, level, to)


def ode_step(prior: Prior, noisy: Latents, step: int, condition: Any, sampling: Sampling) -> Latents:
    """Take a step without noise (DDIM). Differentiable."""
    schedule = sampling.levels()
    level, to = schedule[step], schedule[step + 1]
    clean = prior.predict(noisy, level, condition, guidance=sampling.guidance, rescale=sampling.rescale)
    return Ddim(0.0).transition(noisy, clean, level, to).mean


def stochastic_steps(sampling: Sampling, among: Collection[int] | None = None) -> tuple[int, ...]:
    """The steps that draw: all (or those ``among``) but the one to no noise; none where the stepper is an ODE."""
    if not isinstance(sampling.stepper, FlowSde) and sampling.stepper.eta == 0:
        return ()
    return tuple(i for i in range(sampling.steps - 1) if among is None or i in among)


@torch.no_grad()
def roll_out(
    prior: Prior,
    prompts: Sequence[Prompt],
    cameras: Cameras,
    sampling: Sampling,
    rng: torch.Generator,
    *,
    among: Collection[int] | None = None,
    noise: Latents | None = None,
) -> Trajectory:
    """Draw a sample for each prompt and record how.

    ``cameras`` are ``[b v]``, or ``[1 v]`` for all. ``among`` restricts which steps draw, the others follow the ODE (Li et al.
    2025, "MixGRPO"). ``noise`` is what to start from; drawn if None.
    """
    cameras, info, schedule = for_each(prompts, cameras), prior.info, sampling.levels()
    condition = prior.embed(list(prompts), cameras)
    device = cameras.cam_from_world.device
    shape = (len(prompts), cameras.views, info.channels, info.size, info.size)
    x = draw_noise(shape, rng, device) if noise is None else noise.float()
    drawn = stochastic_steps(sampling, among)
    path, log_probs = [x], []
    for step in range(len(schedule) - 1):
        if step in drawn:
            transition = transition_at(prior, x, step, condition, sampling)
            x = transition.mean + transition.std * draw_noise(shape, rng, device)
            log_probs.append(log_prob(x, transition, sampling.reduction))
        else:
            x = ode_step(prior, x, step, condition, sampling)
            log_probs.append(torch.zeros(len(prompts), device=device))
        path.append(x)
    return Trajectory(torch.stack(path), schedule, torch.stack(log_probs), drawn, tuple(prompts), cameras, sampling)
