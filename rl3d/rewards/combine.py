"""Several rewards as one: a combination is a value, and what is summed are advantages within a group, never raw scores."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tyro.conf import arg

from rl3d.protocols import Reward, RewardInfo, RewardPart, Shown
from rl3d.rewards.base import look, pick, shown
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Schedule:
    """A number that changes with progress: straight lines between ``(progress, value)`` points, level beyond them."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self):
        places = [place for place, _ in self.points]
        if not places or places != sorted(set(places)):
            raise ValueError(f"a schedule needs points of growing progress, got {self.points}")

    def at(self, progress: float) -> float:
        if progress <= self.points[0][0]:
            return self.points[0][1]
        for (left, low), (right, high) in zip(self.points, self.points[1:], strict=False):
            if progress <= right:
                return low + (high - low) * (progress - left) / (right - left)
        return self.points[-1][1]


Weight = float | Schedule


def weigh(weight: Weight, progress: float) -> float:
    """A weight at this progress in [0, 1]."""
    return weight.at(progress) if isinstance(weight, Schedule) else float(weight)


def advantages(value: Float[Tensor, "b"], valid: Bool[Tensor, "b"], groups: Sequence[object]) -> Float[Tensor, "b"]:
    """Standardise within each group, over its valid members: (x - mean) / std (Shao et al. 2024, "DeepSeekMath", sec. 4.1.2).

    Zero for what is not valid, for a group with fewer than two valid members, and where all are alike up to rounding: there
    is nothing to prefer. Detached.

    Args:
        value: Rewards; those that are not valid may be anything.
        valid: Which count.
        groups: What a sample is compared within: for instance its prompt.
    """
    value = value.detach()
    out = torch.zeros_like(value)
    for group in dict.fromkeys(groups):
        members = torch.tensor([g == group for g in groups], device=value.device) & valid
        if members.sum() < 2:
            continue
        x = value[members]
        spread = x.std(correction=0)
        # Relative, since rewards have no common scale; float32 rounds at 1e-7 of the size.
        if spread > 1e-6 * x.abs().max():
            out[members] = (x - x.mean()) / spread
    return out


@dataclass(frozen=True)
class Part:
    """One reward of a combination."""

    reward: RewardPart
    weight: Annotated[float | Schedule, arg(constructor=float)] = 1.0
    """On a command line a number."""
    every: int = 1
    """It is asked in every so many steps only; in between it says nothing."""
    center: float = 0.0
    """Its mean over some reference: what its value is standardised by where there is no group."""
    scale: float = 1.0
    """Its standard deviation over that reference."""

    def __post_init__(self):
        if self.every < 1 or self.scale <= 0:
            raise ValueError(f"`every` must be at least 1 and `scale` above 0, got {self.every} and {self.scale}")


@dataclass(frozen=True)
class Combine:
    """Several rewards, by name."""

    parts: dict[str, Part]

    def __post_init__(self):
        if not self.parts:
            raise ValueError("a combination needs at least one reward")

    def build(self, device: torch.device | str = "cpu") -> Combined:
        return Combined(self, {name: part.reward.build(device) for name, part in self.parts.items()})


@dataclass(frozen=True)
class Verdict:
    """What a combination says of a batch."""

    advantage: Float[Tensor, "b"]
    """The weighted sum of each part's advantages within the group, detached."""
    valid: Bool[Tensor, "b"]
    """Where at least one part has judged."""
    raw: dict[str, Score]
    """What each part that was asked said."""
    normalised: dict[str, Tensor]
    """Each one's advantages, before its weight."""


class Combined(nn.Module):
    """Live rewards and how they are weighed. As a reward itself it is the weighted sum of standardised values."""

    def __init__(self, value: Combine, rewards: Mapping[str, Reward]):
        super().__init__()
        self.value, self.rewards = value, dict(rewards)
        for name, reward in self.rewards.items():
            if isinstance(reward, nn.Module):
                self.add_module(f"part_{name}", reward)
        self.eval()

    @property
    def info(self) -> RewardInfo:
        """The bounds hold for constant weights, and for schedules at the largest of their points."""
        infos = {name: reward.info for name, reward in self.rewards.items()}
        low = high = 0.0
        for name, part in self.value.parts.items():
            ends = [(x - part.center) / part.scale for x in infos[name].range]
            weights = [w for _, w in part.weight.points] if isinstance(part.weight, Schedule) else [part.weight]
            spread = [0.0 if w == 0 else w * end for w in weights for end in ends]
            low, high = low + min(spread), high + max(spread)
        grades = {info.differentiable for info in infos.values()}
        return RewardInfo(
            name=" + ".join(infos),
            differentiable="pixels" if "pixels" in grades else "scene" if "scene" in grades else "no",
            range=(low, high),
            weights="; ".join(sorted({info.weights for info in infos.values()} - {""})),
            licence="; ".join(sorted({info.licence for info in infos.values()})),
            source="; ".join(sorted({info.source for info in infos.values()})),
            needs=frozenset().union(*(info.needs for info in infos.values())),
            # Whoever lays views over a background makes them opaque, which is right only if no part looks at alpha itself.
            background=all(info.background for info in infos.values()),
        )

    def score(self, shown: Shown | Views, prompts: list[Prompt], *, progress: float = 1.0, step: int = 0) -> Score:
        """Sum ``weight * (value - center) / scale``: for one sample, which has no group. Valid where every part asked is.

        Gradients flow through the parts that have any; a sum of raw scores lets the one of the largest scale win, so give
        each part its ``center`` and ``scale``.
        """
        return self.total(self.ask(shown, prompts, step), progress)

    def total(self, raw: Mapping[str, Score], progress: float) -> Score:
        """Sum what the parts that were asked said, as :meth:`score` has it."""
        scores = [(self.value.parts[name], score, self.standardised(name, score)) for name, score in raw.items()]
        total = torch.stack([weigh(part.weight, progress) * value for part, _, value in scores]).sum(0)
        return Score(total, None, torch.stack([score.valid for _, score, _ in scores]).all(0))

    def standardised(self, name: str, score: Score) -> Float[Tensor, "b"]:
        """A part's values in its own standard deviations: (value - center) / scale."""
        part = self.value.parts[name]
        return (score.value - part.center) / part.scale

    @torch.no_grad()
    def judge(
        self,
        shown: Shown | Views,
        prompts: list[Prompt],
        *,
        groups: Sequence[object] | None = None,
        progress: float = 1.0,
        step: int = 0,
    ) -> Verdict:
        """Judge a batch of groups: each part's values are standardised within the group, then weighed and summed.

        Args:
            shown: ``b`` samples.
            prompts: One each.
            groups: What each sample is compared within; its prompt if not given.
            progress: Of the run, in [0, 1], for schedules.
            step: Of the run, for parts that are not asked every time.
        """
        raw = self.ask(shown, prompts, step)
        groups = list(prompts) if groups is None else groups
        normalised = {name: advantages(score.value, score.valid, groups) for name, score in raw.items()}
        weighed = [weigh(self.value.parts[name].weight, progress) * x for name, x in normalised.items()]
        return Verdict(torch.stack(weighed).sum(0), torch.stack([s.valid for s in raw.values()]).any(0), raw, normalised)

    def ask(self, shown: Shown | Views, prompts: list[Prompt], step: int = 0) -> dict[str, Score]:
        """What each part says whose turn it is at this step of the run."""
        seen = look(self.info, shown, prompts)
        asked = {name: r for name, r in self.rewards.items() if step % self.value.parts[name].every == 0}
        if not asked:
            rates = {name: part.every for name, part in self.value.parts.items()}
            raise ValueError(f"no reward is asked at step {step} ({rates}): let one of them have every=1")
        return {name: reward.score(seen, prompts) for name, reward in asked.items()}


@dataclass(frozen=True)
class Ensemble:
    """The mean of several rewards minus ``k`` standard deviations: what they disagree on does not pay (Coste et al. 2023,
    "Reward Model Ensembles Help Mitigate Overoptimization", with the deviation in place of the variance).
    """

    parts: dict[str, Part]
    """Members, with the ``center`` and ``scale`` that make them comparable; weights and ``every`` are not used."""
    k: float = 1.0

    def __post_init__(self):
        if len(self.parts) < 2:
            raise ValueError(f"an ensemble needs at least two members, got {len(self.parts)}")

    def build(self, device: torch.device | str = "cpu") -> EnsembleReward:
        return EnsembleReward(self, {name: part.reward.build(device) for name, part in self.parts.items()})


class EnsembleReward(nn.Module):
    """Live members of an ensemble. A sample is valid where at least two members have judged it."""

    def __init__(self, value: Ensemble, rewards: Mapping[str, Reward]):
        super().__init__()
        self.value = value
        self.together = Combined(Combine({name: replace(part, weight=1.0) for name, part in value.parts.items()}), rewards)
        self.eval()

    @property
    def info(self) -> RewardInfo:
        parts, infos = self.value.parts, {name: reward.info for name, reward in self.together.rewards.items()}
        ends = [[(x - part.center) / part.scale for x in infos[name].range] for name, part in parts.items()]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        # The standard deviation of numbers in an interval is at most half its length.
        name = f"mean - {self.value.k:g} std of ({self.together.info.name})"
        return replace(self.together.info, name=name, range=(low - self.value.k * (high - low) / 2, high))

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        seen = look(self.info, shown, prompts)
        scores = [
            ((s.value - part.center) / part.scale, s.valid)
            for part, s in ((p, self.together.rewards[name].score(seen, prompts)) for name, p in self.value.parts.items())
        ]
        valid = torch.stack([v for _, v in scores])
        value = torch.where(valid, torch.stack([x for x, _ in scores]), 0.0)
        count = valid.sum(0)
        mean = value.sum(0) / count.clamp(min=1)
        variance = torch.where(valid, value - mean, 0.0).square().sum(0) / count.clamp(min=1)
        # Where all agree the root's slope is infinite; the clamp makes it zero.
        return Score(mean - self.value.k * variance.clamp(min=1e-12).sqrt(), None, count >= 2)


@dataclass(frozen=True)
class Cached:
    """A black box whose answers are kept: what was judged before, to the last bit, is not judged again."""

    reward: RewardPart
    size: int = 10_000
    """Answers kept; the one used longest ago goes first."""

    def build(self, device: torch.device | str = "cpu") -> CachedReward:
        return CachedReward(self.reward.build(device), self.size)


@dataclass
class CachedReward:
    """A reward with a memory of its valid answers. Its values have no gradient."""

    reward: Reward
    size: int = 10_000
    known: OrderedDict[str, tuple[Tensor, Tensor | None]] = field(default_factory=OrderedDict)

    @property
    def info(self) -> RewardInfo:
        return replace(self.reward.info, differentiable="no")

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        seen = look(self.info, shown, prompts)
        keys = [_digest(seen, i, prompt, self.info) for i, prompt in enumerate(prompts)]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.known}
        fresh: dict[str, tuple[Tensor, Tensor | None]] = {}
        if first:
            new = sorted(first.values())
            found = self.reward.score(pick(seen, new), [prompts[i] for i in new])
            for row, i in enumerate(new):
                answer = (found.value[row], None if found.per_view is None else found.per_view[row])
                fresh[keys[i]] = answer
                if found.valid[row]:
                    self.known[keys[i]] = answer
        answers = []
        for key in keys:
            if key in self.known:
                self.known.move_to_end(key)
            answers.append(self.known.get(key) or fresh[key])
        valid = torch.tensor([key in self.known for key in keys], device=seen.views.rgb.device)
        while len(self.known) > self.size:
            self.known.popitem(last=False)
        per_view = [p for _, p in answers if p is not None]
        return Score(
            torch.stack([value for value, _ in answers]),
            torch.stack(per_view) if len(per_view) == len(answers) else None,
            valid,
        )


def _digest(seen: Shown, index: int, prompt: Prompt, info: RewardInfo) -> str:
    """A name for all that a reward may look at of one sample."""
    one = shown(pick(seen, [index]))
    cameras = one.views.cameras
    tensors = [*one.views.tensors(), cameras.cam_from_world, cameras.intrinsics]
    if "splats" in info.needs:
        tensors += one.scenes[0].splats().tensors().values()
    if "mesh" in info.needs:
        mesh = one.scenes[0].mesh()
        tensors += [torch.as_tensor(mesh.vertices.copy()), torch.as_tensor(mesh.faces.copy())]
    digest = hashlib.sha256(repr(prompt).encode())
    for x in tensors:
        digest.update(str((tuple(x.shape), x.dtype)).encode())
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
