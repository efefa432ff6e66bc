"""What signals that follow a reward share: building it, asking it in its own way, and refusing what it cannot be used for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.estimators import Advantages, advantages
from rl3d.protocols import Heard, Need, Reward, RewardInfo, RewardPart, Shown, Step
from rl3d.representations.gaussians import GaussianSplats
from rl3d.rewards.base import SplatScene, Tournament, together
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combined
from rl3d.types import Cameras, Prompt, Score, Splats, Views

VIEWS: frozenset[Need] = frozenset({"views"})


def build_reward(part: RewardPart, device: torch.device) -> Reward:
    """Build a reward that will shape the scene; judges of pairs become tournaments.

    Raises:
        ValueError: if the judge is anywhere in it: what is optimised once can never again be a second opinion.
    """
    for inner in _within(part):
        if isinstance(inner, Clip) and inner.model == "judge":
            raise ValueError("the judge is only ever reported, never optimised nor chosen by: use the encoder, Clip()")
    live: Any = part.build(device)
    return live if hasattr(live, "score") else Tournament(live)


def _within(value: object) -> Iterator[object]:
    """A value and all values in it."""
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner: Sequence[object] = [getattr(value, f.name) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        inner = list(value.values())
    else:
        inner = list(value) if isinstance(value, (tuple, list)) else []
    for one in inner:
        yield from _within(one)


def instead(info: RewardInfo, *, but: str) -> str:
    """Which signals can carry a reward, beside one that cannot: for error messages."""
    able = []
    if info.differentiable != "no":
        able.append("Ascend")
    if info.needs == VIEWS:
        able += ["SearchNoise", "Prefer"]
    if "views" in info.needs:
        able.append("PixelPolicy")
    able += ["Evolve", "KeepOrDrop"]
    return " or ".join(name for name in able if name != but)


def need_prior_views(reward: Reward, signal: str) -> None:
    """Refuse a reward that wants more than views, for a signal that shows it what the prior predicts."""
    if reward.info.needs != VIEWS:
        more = ", ".join(sorted(reward.info.needs - VIEWS)) or "a scene alone"
        raise ValueError(
            f"{signal} shows a reward what the prior predicts, which is views alone, and {reward.info.name} needs {more}: "
            f"use {instead(reward.info, but=signal)}"
        )


def gaussians_of(scene: object, signal: str) -> GaussianSplats:
    """The scene, if it is made of Gaussians; else a ``ValueError`` that says so."""
    if not isinstance(scene, GaussianSplats):
        got = type(scene).__name__
        raise ValueError(f"{signal} looks at Gaussians, and the scene is a {got}: set the recipe's scene to Gaussians()")
    return scene


def ask(reward: Reward, shown: Shown, prompts: list[Prompt], step: Step) -> Score:
    """Judge, telling a combination how far the run is. Differentiable where the reward is."""
    if isinstance(reward, Combined):
        raw = reward.ask(shown, prompts, step.number)
        for name, score in raw.items():
            _note(step, name, score, reward.standardised(name, score))
        return reward.total(raw, step.progress)
    score = reward.score(shown, prompts)
    _note(step, reward.info.name, score, score.value)
    return score


@torch.no_grad()
def compare(reward: Reward, shown: Shown, step: Step) -> Score:
    """Judge samples of the step's prompt against each other: for a combination, its parts' advantages are summed."""
    prompts = [step.prompt] * len(shown.views.rgb)
    if isinstance(reward, Combined):
        verdict = reward.judge(shown, prompts, progress=step.progress, step=step.number)
        for name, score in verdict.raw.items():
            _note(step, name, score, verdict.normalised[name])
        return Score(verdict.advantage, None, verdict.valid)
    score = reward.score(shown, prompts)
    _note(step, reward.info.name, score, in_group(score).value)
    return score


def _note(step: Step, name: str, score: Score, normalised: Tensor) -> None:
    """Note what a reward said, after what it said before in the same step."""
    heard = step.heard.setdefault(name, Heard([], []))
    for notes, values in zip(heard, (score.value, normalised), strict=True):
        rows = zip(values.detach().tolist(), score.valid.tolist(), strict=True)
        notes += [round(value, 6) if valid and math.isfinite(value) else None for value, valid in rows]


def in_group(score: Score) -> Advantages:
    """Each sample's advantage among all of them, in standard deviations."""
    return advantages({"": score}, torch.zeros(len(score.value), dtype=torch.long))


@torch.no_grad()
def render_each(like: GaussianSplats, samples: Sequence[Splats], cameras: Cameras) -> Shown:
    """Several sets of Gaussians as scenes with their views, rendered as ``like`` is."""
    views = [GaussianSplats(splats, like.settings).render(cameras)[0] for splats in samples]
    return together([Shown(v, (SplatScene(splats),)) for v, splats in zip(views, samples, strict=True)])


def repeated(views: Views, count: int) -> Views:
    """One sample's views, so many times."""
    return together([views] * count).views


def total_value(score: Score) -> Float[Tensor, ""]:
    """The sum of the valid values, with a gradient of 0 where none is."""
    return torch.where(score.valid, score.value, torch.zeros_like(score.value)).sum()
