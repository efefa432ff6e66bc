"""What all algorithms share: their interface, the panel of rewards, and the batches that pass from ``collect`` to ``loss``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rl3d.estimators import Advantages, total, weight_of
from rl3d.priors.rollout import Trajectory, select_cameras
from rl3d.priors.sampling import draw_noise, for_each
from rl3d.protocols import Actor, Prior, Reward
from rl3d.rewards.base import Tournament
from rl3d.types import Cameras, Prompt, Score

Latents = Float[Tensor, "b v c h w"]


@dataclass(frozen=True)
class Panel:
    """The rewards that judge, with their weights: 1 unless given."""

    rewards: Mapping[str, Reward]
    weights: Mapping[str, float] | None = None

    def __post_init__(self):
        if not self.rewards:
            raise ValueError("a panel needs at least one reward, got none")

    def scores(self, prior: Prior, latents: Latents, prompts: Sequence[Prompt], cameras: Cameras) -> dict[str, Score]:
        """Show latents to every reward. Differentiable where the rewards are."""
        views = prior.decode(latents, cameras)
        return {name: reward.score(views, list(prompts)) for name, reward in self.rewards.items()}

    def total(self, prior: Prior, latents: Latents, prompts: Sequence[Prompt], cameras: Cameras) -> Score:
        """Show latents to every reward, and sum."""
        return self.sum(self.scores(prior, latents, prompts, cameras))

    def sum(self, scores: Mapping[str, Score]) -> Score:
        """The weighted sum of judgements, valid where all are."""
        return total(scores, self.weights)

    def gradient(self, prior: Prior, latents: Latents, prompts: Sequence[Prompt], cameras: Cameras) -> Latents:
        """The gradient of the total with respect to clean latents, detached; 0 for samples that could not be judged."""
        with torch.enable_grad():
            x = latents.detach().requires_grad_()
            score = self.total(prior, x, prompts, cameras)
            return where_valid(torch.autograd.grad(score.value.sum(), x)[0], score.valid)

    def must_be_differentiable(self) -> None:
        """Refuse rewards without a gradient in the pixels (``ValueError``)."""
        odd = [name for name, r in self.rewards.items() if r.info.differentiable != "pixels" and weight_of(name, self.weights)]
        if odd:
            raise ValueError(
                f"{', '.join(odd)} has no gradient in the pixels: take DDPO, GRPO, NFT or DPO, which need values only"
            )

    def must_have_company(self, count: int) -> None:
        """Refuse judges of pairs where a prompt's samples are judged ``count`` at a time, and that is one (``ValueError``)."""
        odd = [name for name, r in self.rewards.items() if isinstance(r, Tournament) and weight_of(name, self.weights)]
        if odd and count < 2:
            raise ValueError(
                f"{', '.join(odd)} judges pairs, and this algorithm shows it {count} sample of a prompt at a time: "
                "take DDPO, GRPO, NFT or DPO with a group of 2 or more"
            )


@runtime_checkable
class Algorithm(Protocol):
    """One way to teach the prior: a frozen dataclass without an optimiser, whose methods change nothing unless they say so.

    ``state`` is a module for what an algorithm remembers or learns beside the policy. How samples are drawn is said by a field,
    ``sampling``; the interface has methods only, so that tyro can tell which algorithm a recipe's field holds.
    """

    def adapters(self) -> tuple[str, ...]:
        """The sets of weights that it needs, the policy first; the actor is built with these names."""
        ...

    def check(self, panel: Panel) -> None:
        """Refuse what can teach nothing, before anything is drawn: rewards that it cannot follow, steps that do not draw.

        Raises:
            ValueError: which says what to take instead.
        """
        ...

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        """Make its state; parameters in it are drawn from ``rng`` and trained along with the policy."""
        ...

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Any:
        """Draw samples for different prompts, judge them, and say what there is to learn: a batch, detached."""
        ...

    def loss(
        self, actor: Actor, panel: Panel, batch: Any, rng: torch.Generator, state: nn.Module
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss of a batch, or of a selection from it, with what people may want to see; differentiable in the policy."""
        ...

    def after(self, actor: Actor, batch: Any, state: nn.Module) -> None:
        """Let what follows the policy follow, once the optimiser has stepped through a whole batch."""
        ...


@runtime_checkable
class FromSamples(Protocol):
    """An algorithm that learns from clean samples of any source, once they were judged: a sampler's, or renders of scenes."""

    def judged(self, samples: Samples, panel: Panel) -> Any:
        """Make its batch of samples with their scores, each compared with those of the same prompt."""
        ...


@dataclass(frozen=True)
class Rollouts:
    """Trajectories, what was thought of them, and which of their steps to learn from."""

    trajectory: Trajectory
    scores: dict[str, Score]
    advantages: Advantages
    steps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.trajectory)

    def select(self, samples: Int[Tensor, "n"]) -> Rollouts:
        """The samples at these indices, with all that belongs to them."""
        return replace(
            self,
            trajectory=self.trajectory.select(samples),
            scores=select_scores(self.scores, samples),
            advantages=Advantages(*(x[samples] for x in self.advantages)),
        )


@dataclass(frozen=True)
class Samples:
    """Clean latents, from wherever (a sampler, renders of scenes), and what was thought of them."""

    clean: Latents
    prompts: tuple[Prompt, ...]
    cameras: Cameras
    scores: dict[str, Score]
    advantages: Advantages

    def __len__(self) -> int:
        return len(self.clean)

    def select(self, samples: Int[Tensor, "n"]) -> Samples:
        """The samples at these indices, with all that belongs to them."""
        return Samples(
            self.clean[samples],
            tuple(self.prompts[i] for i in samples.tolist()),
            select_cameras(self.cameras, samples),
            select_scores(self.scores, samples),
            Advantages(*(x[samples] for x in self.advantages)),
        )


class Batches(nn.Module):
    """How many batches were done."""

    done: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("done", torch.zeros((), dtype=torch.long))


def select_scores(scores: Mapping[str, Score], samples: Int[Tensor, "n"]) -> dict[str, Score]:
    """Judgements of the samples at these indices."""
    return {
        name: Score(s.value[samples], None if s.per_view is None else s.per_view[samples], s.valid[samples])
        for name, s in scores.items()
    }


def where_valid(x: Latents, valid: Bool[Tensor, "b"]) -> Latents:
    """Put 0 where a sample was not judged: a reward that failed may have a gradient that is not finite."""
    return torch.where(valid[:, None, None, None, None], x, torch.zeros_like(x))


def in_groups(prompts: Sequence[Prompt], cameras: Cameras, group: int) -> tuple[list[Prompt], Cameras]:
    """Repeat each prompt and its cameras ``group`` times in a row."""
    cameras = for_each(prompts, cameras)
    index = torch.arange(len(prompts)).repeat_interleave(group)
    return [prompts[i] for i in index.tolist()], select_cameras(cameras, index)


def noise_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal noise in the shape of a tensor."""
    return draw_noise(x.shape, rng, x.device)


def draw_index(count: int, rng: torch.Generator) -> int:
    """An index below ``count``, uniformly."""
    return int(torch.randint(count, (), generator=rng, device=rng.device))


def seen(scores: Mapping[str, Score]) -> dict[str, float]:
    """Mean of each reward over what it could judge, and how much that was."""
    means = {f"reward/{name}": s.value[s.valid].mean().item() for name, s in scores.items() if s.valid.any()}
    return means | {f"valid/{name}": s.valid.float().mean().item() for name, s in scores.items()}
