"""Wallace et al. 2024, "Diffusion Model Alignment Using Direct Preference Optimization", arXiv 2311.12908; and it online."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rl3d.algorithms.common import Batches, Latents, Panel, Samples, noise_like, seen, select_scores
from rl3d.algorithms.matching import Weighting, draw_level, error_weight, judged_samples, predict_at, squared_error
from rl3d.estimators import best_and_worst, groups_of
from rl3d.priors.lora import blend
from rl3d.priors.parametrisations import add_noise
from rl3d.priors.rollout import Ddim, Reduction, Sampling, select_cameras
from rl3d.protocols import REFERENCE, Actor
from rl3d.types import Cameras, Prompt, Score


@dataclass(frozen=True)
class Pairs:
    """Pairs of clean latents for one prompt each, of which the first was preferred: drawn, or from a data set."""

    winners: Latents
    losers: Latents
    prompts: tuple[Prompt, ...]
    cameras: Cameras
    scores: dict[str, Score]
    """Of the winners, where they were judged by rewards; for people."""

    def __len__(self) -> int:
        return len(self.winners)

    def select(self, pairs: Int[Tensor, "n"]) -> Pairs:
        """The pairs at these indices, with all that belongs to them."""
        return Pairs(
            self.winners[pairs],
            self.losers[pairs],
            tuple(self.prompts[i] for i in pairs.tolist()),
            select_cameras(self.cameras, pairs),
            select_scores(self.scores, pairs),
        )


@dataclass(frozen=True)
class DiffusionDpo:
    """Make winners likelier than losers, against a reference (eq. 14).

    -log sigmoid(-beta / 2 [(e_w - e_w^ref) - (e_l - e_l^ref)]), with e the weighted squared errors of predictions at one noise
    level and with one noise for both of a pair. It starts at log 2, where the policy is the reference. The constant T and the
    weight of the level are part of beta, as in the published code: 5000 for means over elements and errors of the noise, 100 to
    500 for flows. The sigmoid is of each pair; the mean comes after it (diffusers once had it the other way round).

    Offline: give ``loss`` pairs from anywhere. Online: ``collect`` draws groups and pairs the best of each with its worst;
    with ``refresh`` the reference is ``old``, a copy of the policy made anew after so many batches, so that there is no end
    to how far the policy may go.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    beta: float = 5000.0
    weighting: Weighting = "noise"
    reduction: Reduction = "mean"
    draws: int = 1
    """Levels and noises for each loss."""
    group: int = 2
    least: float = 0.0
    """Pairs whose rewards differ by less are left out."""
    refresh: int | None = None

    def adapters(self) -> tuple[str, ...]:
        return ("policy",) if self.refresh is None else ("policy", "old")

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return Batches()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Pairs:
        """Pair the best with the worst of each prompt; prompts without a pair are left out, so there may be none."""
        return self.judged(judged_samples(actor, panel, prompts, cameras, self.sampling, rng, group=self.group), panel)

    def judged(self, samples: Samples, panel: Panel) -> Pairs:
        """Pair samples from anywhere; those of one prompt share their cameras."""
        best, worst = best_and_worst(panel.sum(samples.scores), groups_of(samples.prompts), self.least)
        winners = samples.select(best)
        return Pairs(winners.clean, samples.clean[worst], winners.prompts, winners.cameras, winners.scores)

    def loss(
        self, actor: Actor, panel: Panel, batch: Pairs, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        if not len(batch):
            raise ValueError("there are no pairs to learn from: draw larger groups, or set least lower")
        policy, reference = actor.using("policy"), actor.using(REFERENCE if self.refresh is None else "old")
        # Winners and losers in one batch, so that both see the same kernels.
        clean = torch.cat([batch.winners, batch.losers])
        cameras = select_cameras(batch.cameras, torch.arange(len(batch)).repeat(2))
        condition = policy.embed([*batch.prompts, *batch.prompts], cameras)
        losses, margins = [], []
        for _ in range(self.draws):
            level, noise = draw_level(self.sampling, rng), noise_like(batch.winners, rng)
            noisy = add_noise(clean, torch.cat([noise, noise]), level)
            error = squared_error(clean, predict_at(policy, noisy, level, condition), self.reduction)
            with torch.no_grad():
                before = squared_error(clean, predict_at(reference, noisy, level, condition), self.reduction)
            winner, loser = (error_weight(level, self.weighting) * (error - before)).chunk(2)
            margins.append(-0.5 * self.beta * (winner - loser))
            losses.append(-logsigmoid(margins[-1]).mean())
        margin = torch.cat(margins).detach()
        told = {"accuracy": (margin > 0).float().mean().item(), "margin": margin.mean().item(), "pairs": float(len(batch))}
        return torch.stack(losses).mean(), told | seen(batch.scores)

    def after(self, actor: Actor, batch: Pairs, state: nn.Module) -> None:
        """Count the batch, and copy the policy to ``old`` when it is time."""
        assert isinstance(state, Batches)
        state.done += 1
        if self.refresh is not None and int(state.done) % self.refresh == 0:
            blend(actor, "policy", "old")


def online_dpo(beta: float = 5000.0, group: int = 4, refresh: int = 40, sampling: Sampling | None = None) -> DiffusionDpo:
    """Diffusion-DPO on its own samples, with a reference that is renewed."""
    return DiffusionDpo(sampling or Sampling(stepper=Ddim(1.0)), beta=beta, group=group, refresh=refresh)
