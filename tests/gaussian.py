"""A prior whose every answer is known: normal data, and one affine prediction for each noise level, which can be taught."""

from dataclasses import dataclass

import torch
from torch import nn

from rl3d.algorithms.common import Panel
from rl3d.math import Level
from rl3d.priors.lora import Full
from rl3d.priors.rollout import Sampling, ode_step, stochastic_steps, transition_at
from rl3d.protocols import PriorInfo, RewardInfo
from rl3d.types import Cameras, Prompt, Score, Views

MEAN, STD = 0.3, 0.6


def exact(level: Level, mean: float = MEAN, std: float = STD) -> tuple[float, float]:
    """Gain and offset of E[clean | noisy] for normal data."""
    gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
    return gain, (1 - gain * level.alpha) * mean


class Affine(nn.Module):
    """clean = gain noisy + offset, with a row for each level."""

    def __init__(self, levels, mean: float, std: float):
        super().__init__()
        rows = [exact(level, mean, std) for level in levels if level.sigma > 0]
        self.gain = nn.Parameter(torch.tensor([gain for gain, _ in rows]))
        self.offset = nn.Parameter(torch.tensor([offset for _, offset in rows]))

    def forward(self, noisy: torch.Tensor, row: int) -> torch.Tensor:
        return self.gain[row] * noisy + self.offset[row]


class GaussianPrior(nn.Module):
    """Its samples are four independent numbers: one view of one RGBA pixel."""

    info = PriorInfo(4, 1, 1, (-90.0, 90.0), 3.0, 40.0, True, False)

    def __init__(self, sampling: Sampling, mean: float = MEAN, std: float = STD):
        super().__init__()
        self.levels = sampling.levels()
        self.net = Affine(self.levels, mean, std)

    def embed(self, prompts, cameras):
        return len(prompts)

    def encode(self, views: Views) -> torch.Tensor:
        return views.rgba.movedim(-1, 2)

    def decode(self, latents: torch.Tensor, cameras: Cameras) -> Views:
        pixels = latents.movedim(2, -1)
        return Views(pixels[..., :3], pixels[..., 3:], None, None, cameras.resized(1, 1))

    def predict(self, noisy, level, condition, *, guidance=1.0, rescale=0.0):
        assert len(noisy) == condition, "a condition of another batch"
        return self.net(noisy, self.levels.index(level))


class Quadratic(nn.Module):
    """-k / 2 times the squared distance to a target, which a prompt may name; summed over the numbers of a sample."""

    def __init__(self, k: float = 1.0, target: float = 1.0, differentiable="pixels"):
        super().__init__()
        self.k, self.target = k, target
        self.info = RewardInfo("quadratic", differentiable, (float("-inf"), 0.0), "", "", "")

    def score(self, views: Views, prompts: list[Prompt]) -> Score:
        named = [float(p.text) if p.text else self.target for p in prompts]
        target = torch.tensor(named)[:, None, None, None, None]
        per_view = -0.5 * self.k * (views.rgba - target).square().sum((2, 3, 4))
        return Score(per_view.mean(1), per_view, torch.ones(len(prompts), dtype=torch.bool))


class Linear(nn.Module):
    """k times the sum of a sample's numbers."""

    def __init__(self, k: float = 1.0):
        super().__init__()
        self.k = k
        self.info = RewardInfo("linear", "pixels", (float("-inf"), float("inf")), "", "", "")

    def score(self, views: Views, prompts: list[Prompt]) -> Score:
        return Score(self.k * views.rgba.sum((1, 2, 3, 4)), None, torch.ones(len(prompts), dtype=torch.bool))


def affine_step(prior, step: int, sampling: Sampling) -> tuple[float, float, float]:
    """Slope, intercept and std of a step, read off its means at 0 and at 1."""
    x = torch.tensor([0.0, 1.0])[:, None, None, None, None].expand(2, 1, 4, 1, 1)
    cameras = one_camera(2)
    condition = prior.embed([Prompt("")] * 2, cameras)
    with torch.no_grad():
        if step in stochastic_steps(sampling):
            mean, std = transition_at(prior, x, step, condition, sampling)
        else:
            mean, std = ode_step(prior, x, step, condition, sampling), 0.0
    low, high = mean.flatten(1)[:, 0].tolist()
    return high - low, low, std


def moments(prior, sampling: Sampling, mean: float = 0.0, var: float = 1.0) -> tuple[float, float]:
    """The exact mean and std of what a Gaussian prior samples, from normal noise with this mean and variance."""
    for step in range(sampling.steps):
        slope, intercept, std = affine_step(prior, step, sampling)
        mean, var = slope * mean + intercept, slope**2 * var + std**2
    return mean, var**0.5


def one_camera(b: int = 1) -> Cameras:
    return Cameras(torch.eye(4).expand(b, 1, 4, 4), torch.eye(3).expand(b, 1, 3, 3), 1, 1)


@dataclass(frozen=True)
class Optimum:
    """Of E[R] - beta sum KL over affine policies whose steps keep the prior's variances: a linear-quadratic regulator."""

    mean: float
    std: float
    objective: float
    """Per number of a sample."""


def regulator(prior, sampling: Sampling, k: float, target: float, beta: float) -> Optimum:
    """Solve it exactly, by Riccati's recursion: what KL-regularised algorithms must find.

    Costs to go are p x^2 / 2 + q x. A step x' = a x + b + s (u + e) costs u^2 / 2.
    """
    p, q, plan = k / beta, -k * target / beta, []
    for step in reversed(range(sampling.steps)):
        a, b, s = affine_step(prior, step, sampling)
        shrink = 1 / (1 + s**2 * p)
        plan.append((a * shrink, (b - s**2 * q) * shrink, s, a, b))
        p, q = a**2 * p * shrink, a * (p * b + q) * shrink
    return _follow(reversed(plan), k, target, beta)


def _follow(plan, k: float, target: float, beta: float) -> Optimum:
    mean, var, kl = 0.0, 1.0, 0.0
    for slope, intercept, s, a, b in plan:
        if s:
            off, tilt = (intercept - b) / s, (slope - a) / s
            kl += 0.5 * ((off + tilt * mean) ** 2 + tilt**2 * var)
        mean, var = slope * mean + intercept, slope**2 * var + s**2
    return Optimum(mean, var**0.5, -0.5 * k * ((mean - target) ** 2 + var) - beta * kl)


def reached(policy, reference, sampling: Sampling, k: float, target: float, beta: float) -> Optimum:
    """The same of a policy as it is."""
    steps = range(sampling.steps)
    pairs = [(affine_step(policy, i, sampling), affine_step(reference, i, sampling)) for i in steps]
    return _follow([(p[0], p[1], p[2], r[0], r[1]) for p, r in pairs], k, target, beta)


def tilted(k: float, target: float, beta: float, mean: float = MEAN, std: float = STD) -> tuple[float, float]:
    """Mean and std of the data distribution times exp(R / beta)."""
    precision = 1 / std**2 + k / beta
    return (mean / std**2 + k * target / beta) / precision, precision**-0.5


def teach(
    algorithm,
    rewards,
    *,
    batches: int,
    lr: float = 0.03,
    prompts: int = 1,
    state=None,
    actor=None,
    seed: int = 0,
    updates: int = 1,
):
    """Teach a Gaussian prior with full weights; the step size falls to nothing. Returns the actor."""
    actor = actor or Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
    state = state or algorithm.state(actor)
    panel, rng = Panel(rewards), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*actor.weights("policy").values(), *state.parameters()], lr=lr, betas=(0.9, 0.99))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches * updates)
    for _ in range(batches):
        batch = algorithm.collect(actor, panel, [Prompt("")] * prompts, one_camera(), rng, state)
        for _ in range(updates):
            loss, told = algorithm.loss(actor, panel, batch, rng, state)
            assert all(isinstance(x, float) for x in told.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
        algorithm.after(actor, batch, state)
    return actor
