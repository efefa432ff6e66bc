"""Liang et al. 2024, "Aesthetic Post-Training Diffusion Models from Generic Preferences with Step-by-step Preference
Optimization" (SPO), arXiv 2406.04314.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rl3d.algorithms.common import Latents, Panel, draw_index, noise_like, seen, select_scores
from rl3d.algorithms.d3po import log_ratio
from rl3d.algorithms.policy_gradient import must_draw
from rl3d.estimators import valid_in_all
from rl3d.priors.rollout import Ddim, Sampling, ode_step, select_cameras, stochastic_steps, transition_at
from rl3d.priors.sampling import draw_noise, for_each
from rl3d.protocols import REFERENCE, Actor
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class Choices:
    """At each step that draws: where samples were, and the better and the worse of the ways on."""

    latents: Float[Tensor, "s b v c h w"]
    winners: Float[Tensor, "s b v c h w"]
    losers: Float[Tensor, "s b v c h w"]
    differ: Bool[Tensor, "s b"]
    """Where the two are far enough apart to learn from."""
    steps: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    cameras: Cameras
    scores: dict[str, Score]
    """Of the samples in the end."""

    def __len__(self) -> int:
        return self.latents.shape[1]

    def select(self, samples: Int[Tensor, "n"]) -> Choices:
        """The samples at these indices, with all that belongs to them."""
        return Choices(
            self.latents[:, samples],
            self.winners[:, samples],
            self.losers[:, samples],
            self.differ[:, samples],
            self.steps,
            tuple(self.prompts[i] for i in samples.tolist()),
            select_cameras(self.cameras, samples),
            select_scores(self.scores, samples),
        )


@dataclass(frozen=True)
class Spo:
    """At each step draw some ways on from one state, prefer the best to the worst, and go on from a random one.

    -log sigmoid(beta log rho_w - beta log rho_l), rho = p_theta / p_ref clipped to 1 +- ``clip``, where the two differ by more
    than ``least``. Since both start from one state, what is compared is the step alone, and no blame is passed down the
    trajectory. The paper scores noisy latents with a preference model of its own; here the panel scores the clean latents that
    the policy predicts from them, which any reward can do, at the price of one prediction and one judgement a candidate.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    candidates: int = 4
    beta: float = 10.0
    clip: float | None = 0.1
    """Fits log-probabilities that are means; take None for sums."""
    least: float = 0.0

    def __post_init__(self):
        if self.candidates < 2:
            raise ValueError(f"there must be at least 2 candidates to choose from, got {self.candidates}")

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(1)  # candidates are judged one after the other
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    @torch.no_grad()
    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Choices:
        self.check(panel)
        drawn = stochastic_steps(self.sampling)
        prior, cameras = actor.using("policy"), for_each(prompts, cameras)
        condition, info = prior.embed(prompts, cameras), prior.info
        shape = (len(prompts), cameras.views, info.channels, info.size, info.size)
        x = draw_noise(shape, rng, cameras.cam_from_world.device)
        froms, winners, losers, differ = [], [], [], []
        for step in range(self.sampling.steps):
            if step not in drawn:
                x = ode_step(prior, x, step, condition, self.sampling)
                continue
            mean, std = transition_at(prior, x, step, condition, self.sampling)
            ways = [mean + std * noise_like(x, rng) for _ in range(self.candidates)]
            best, worst, far = self._compare(panel, prior, ways, step, condition, prompts, cameras)
            froms.append(x)
            winners.append(best)
            losers.append(worst)
            differ.append(far)
            x = ways[draw_index(self.candidates, rng)]
        scores = panel.scores(prior, x, prompts, cameras)
        here, better, worse, far = (torch.stack(each) for each in (froms, winners, losers, differ))
        return Choices(here, better, worse, far, drawn, tuple(prompts), cameras, scores)

    def _compare(
        self, panel: Panel, prior: Any, ways: list[Latents], step: int, condition: Any, prompts: list[Prompt], cameras: Cameras
    ) -> tuple[Latents, Latents, Bool[Tensor, "b"]]:
        """Score where each candidate would lead, and take the best and the worst of each sample."""
        level, values, used, s = self.sampling.levels()[step + 1], [], [], self.sampling
        for way in ways:
            clean = prior.predict(way, level, condition, guidance=s.guidance, rescale=s.rescale)
            scores = panel.scores(prior, clean, prompts, cameras)
            values.append(panel.sum(scores).value)
            used.append(valid_in_all(scores))
        value, valid = torch.stack(values), torch.stack(used)
        high = value.masked_fill(~valid, -torch.inf).max(0)
        low = value.masked_fill(~valid, torch.inf).min(0)
        stack, each = torch.stack(ways), torch.arange(len(prompts), device=value.device)
        return stack[high.indices, each], stack[low.indices, each], high.values - low.values > self.least

    def loss(
        self, actor: Actor, panel: Panel, batch: Choices, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        if not batch.differ.any():
            raise ValueError("there are no pairs to learn from: draw more candidates, or set least lower")
        policy, reference = actor.using("policy"), actor.using(REFERENCE)
        twice = torch.arange(len(batch)).repeat(2)
        condition = policy.embed([*batch.prompts, *batch.prompts], select_cameras(batch.cameras, twice))
        margins = []
        for i, step in enumerate(batch.steps):
            x, following = torch.cat([batch.latents[i]] * 2), torch.cat([batch.winners[i], batch.losers[i]])
            rho = log_ratio(policy, reference, x, following, step, condition, self.sampling, self.clip)
            winner, loser = rho.chunk(2)
            margins.append(self.beta * (winner - loser))
        margin = torch.stack(margins)[batch.differ]
        told = {"accuracy": (margin.detach() > 0).float().mean().item(), "pairs": float(len(margin))}
        return -logsigmoid(margin).mean(), told | seen(batch.scores)

    def after(self, actor: Actor, batch: Choices, state: nn.Module) -> None:
        """Nothing follows."""
