"""Reward backpropagation: the reward's own gradient, through the clean latents and some of the steps that made them.

- Clark et al. 2024, "Directly Fine-Tuning Diffusion Models on Differentiable Rewards" (DRaFT), arXiv 2309.17400.
- Prabhudesai et al. 2023, "Aligning Text-to-Image Diffusion Models with Reward Backpropagation" (AlignProp), arXiv 2310.03739.
- Xu et al. 2023, "ImageReward" (ReFL), arXiv 2304.05977, algorithm 1.

Fast, and the first to exploit what the reward overlooks: stop early, judge by another reward, augment what the reward sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rl3d.algorithms.common import Latents, Panel, draw_index, noise_like, seen, where_valid
from rl3d.estimators import mean_used
from rl3d.priors.parametrisations import add_noise
from rl3d.priors.rollout import Ddim, Sampling, ode_step, select_cameras
from rl3d.priors.sampling import draw_noise, for_each
from rl3d.protocols import Actor, Prior
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Partial:
    """Latents on their way, detached, at the step from which on gradients will flow."""

    latents: Latents
    step: int
    """The steps that were done."""
    prompts: tuple[Prompt, ...]
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.latents)

    def select(self, samples: Int[Tensor, "n"]) -> Partial:
        """The samples at these indices, with all that belongs to them."""
        return replace(
            self,
            latents=self.latents[samples],
            prompts=tuple(self.prompts[i] for i in samples.tolist()),
            cameras=select_cameras(self.cameras, samples),
        )


ODE = Sampling(stepper=Ddim(0.0))


@dataclass(frozen=True)
class Draft:
    """Maximise R(x_0), by its gradient through the last ``last`` steps of an ODE sampler (DRaFT-K); all earlier ones are cut.

    ``last=None`` draws their number for each batch, from 1 to ``last_most``: AlignProp's randomised truncation. (Its code cuts
    the predictions of earlier steps out of the graph but lets latents through; as only predictions depend on the weights, that
    is the same gradient.) ``copies`` above 1 is DRaFT-LV: one step only, from as many renoised copies of the sample, whose
    gradients are averaged, against the variance of a single draw. Its maximum is that of the reward: nothing anchors it.
    """

    sampling: Sampling = ODE
    last: int | None = 1
    last_most: int = 16
    copies: int = 1
    margin: float | None = None
    """With a margin the loss is relu(margin - R): samples that are good enough are left alone."""
    remember_less: bool = False
    """Compute steps anew in the backward pass rather than remember them: memory of one step for twice the time."""

    def __post_init__(self):
        most = self.last_most if self.last is None else self.last
        if not 1 <= most <= self.sampling.steps:
            raise ValueError(
                f"gradients flow through 1 to {self.sampling.steps} steps, got {most}; change last or the sampling"
            )
        if self.copies > 1 and self.last != 1:
            raise ValueError(f"copies are of the last step alone (DRaFT-LV), got last {self.last}; set last to 1")

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_be_differentiable()

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Partial:
        """Sample, without gradients, up to the steps through which they will flow."""
        self.check(panel)
        last = 1 + draw_index(self.last_most, rng) if self.last is None else self.last
        return walk(actor.using("policy"), prompts, cameras, self.sampling, self.sampling.steps - last, rng)

    def loss(
        self, actor: Actor, panel: Panel, batch: Partial, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        prior = actor.using("policy")
        condition = prior.embed(list(batch.prompts), batch.cameras)

        def step(x: Latents, i: int) -> Latents:
            return ode_step(prior, x, i, condition, self.sampling)

        x = batch.latents
        for i in range(batch.step, self.sampling.steps):
            x = checkpoint(step, x, i, use_reentrant=False) if self.remember_less else step(x, i)
        if self.copies == 1:
            return reward_loss(prior, panel, x, batch, self.margin)
        clean, level, losses, told = x.detach(), self.sampling.levels()[-2], [], {}
        for _ in range(self.copies):
            again = step(add_noise(clean, noise_like(clean, rng), level), self.sampling.steps - 1)
            loss, told = reward_loss(prior, panel, again, batch, self.margin)
            losses.append(loss)
        return torch.stack(losses).mean(), told

    def after(self, actor: Actor, batch: Partial, state: nn.Module) -> None:
        """Nothing follows."""


def align_prop(sampling: Sampling = ODE, most: int | None = None) -> Draft:
    """AlignProp: DRaFT with a number of steps that is drawn anew for each batch, up to ``most`` (all unless given)."""
    return Draft(sampling, last=None, last_most=most or sampling.steps)


def draft_lv(sampling: Sampling = ODE, copies: int = 2) -> Draft:
    """DRaFT-LV, with two copies."""
    return Draft(sampling, last=1, copies=copies)


@dataclass(frozen=True)
class Refl:
    """Score the clean prediction at a late step that is drawn at random: relu(margin - R(x_0_hat(x_t))) (ReFL).

    The step is among those with index ``first`` to ``last``, as fractions of all; before it nothing is differentiated. The
    paper adds its pretraining loss to hold on to the data; here LoRA and early stopping must do.
    """

    sampling: Sampling = ODE
    first: float = 0.75
    last: float = 0.975
    margin: float | None = 2.0
    """For a reward of mean 0 and deviation 1, as ImageReward; None is the plain -R."""
    weight: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.first <= self.last <= 1:
            raise ValueError(f"0 <= first <= last <= 1 must hold; got {self.first} and {self.last}")

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_be_differentiable()

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Partial:
        """Sample, without gradients, down to a late level."""
        self.check(panel)
        n = self.sampling.steps
        low, high = min(round(self.first * n), n - 1), min(round(self.last * n), n - 1)
        return walk(actor.using("policy"), prompts, cameras, self.sampling, low + draw_index(high - low + 1, rng), rng)

    def loss(
        self, actor: Actor, panel: Panel, batch: Partial, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        prior, s = actor.using("policy"), self.sampling
        condition = prior.embed(list(batch.prompts), batch.cameras)
        level = s.levels()[batch.step]
        clean = prior.predict(batch.latents, level, condition, guidance=s.guidance, rescale=s.rescale)
        loss, told = reward_loss(prior, panel, clean, batch, self.margin)
        return self.weight * loss, told | {"step": float(batch.step)}

    def after(self, actor: Actor, batch: Partial, state: nn.Module) -> None:
        """Nothing follows."""


@torch.no_grad()
def walk(
    prior: Prior, prompts: Sequence[Prompt], cameras: Cameras, sampling: Sampling, steps: int, rng: torch.Generator
) -> Partial:
    """Follow the sampler from noise through so many steps; they draw where its stepper does."""
    cameras, info, schedule = for_each(prompts, cameras), prior.info, sampling.levels()
    condition = prior.embed(list(prompts), cameras)
    shape = (len(prompts), cameras.views, info.channels, info.size, info.size)
    x = draw_noise(shape, rng, cameras.cam_from_world.device)
    for level, to in list(pairwise(schedule))[:steps]:
        clean = prior.predict(x, level, condition, guidance=sampling.guidance, rescale=sampling.rescale)
        mean, std = sampling.stepper.transition(x, clean, level, to)
        x = mean if std == 0 else mean + std * noise_like(x, rng)
    return Partial(x, steps, tuple(prompts), cameras)


def reward_loss(
    prior: Prior, panel: Panel, clean: Latents, batch: Partial, margin: float | None
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The mean of -R, or of relu(margin - R), over the samples that could be judged."""
    scores = panel.scores(prior, clean, batch.prompts, batch.cameras)
    score = panel.sum(scores)
    if clean.requires_grad:
        clean.register_hook(lambda gradient: where_valid(gradient, score.valid))
    each = -score.value if margin is None else torch.relu(margin - score.value)
    return mean_used(each, score.valid), seen(scores)
