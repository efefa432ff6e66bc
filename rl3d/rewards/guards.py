"""Guards: what is logged of a run and never optimised, and when it says that the reward is being hacked."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import closed_form, judged, look
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Area:
    """How much of the views the object covers: the mean of alpha, in [0, 1]. Differentiable in the pixels."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("guard:area", "pixels", (0.0, 1.0), "the mean of alpha")

    def build(self, device: torch.device | str = "cpu") -> Area:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views
        per_view = views.alpha.mean((2, 3, 4))
        # Colours are not looked at, yet what is broken is not judged.
        return judged(torch.where(_finite(views), per_view, torch.nan))


@dataclass(frozen=True)
class Sharpness:
    """How much detail the object shows: the root mean square of the luminance's differences between neighbouring pixels that
    are both covered, in [0, 1]. Differentiable in the pixels. Blur lowers it, noise raises it.
    """

    @property
    def info(self) -> RewardInfo:
        return closed_form("guard:sharpness", "pixels", (0.0, 1.0), "differences of neighbouring pixels")

    def build(self, device: torch.device | str = "cpu") -> Sharpness:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views
        light, alpha = _luminance(views), views.alpha[..., 0]
        total, weight = 0.0, 0.0
        for dim in (2, 3):
            a, b = (x.narrow(dim, 0, x.shape[dim] - 1) for x in (light, alpha))
            c, d = (x.narrow(dim, 1, x.shape[dim] - 1) for x in (light, alpha))
            both = b * d
            total = total + (both * (a - c).square()).sum((2, 3))
            weight = weight + both.sum((2, 3))
        # A view of nothing shows no detail.
        return judged((total / torch.as_tensor(weight).clamp(min=1e-6)).clamp(min=1e-12).sqrt())


@dataclass(frozen=True)
class ColourEntropy:
    """How many colours the object shows: the entropy in bits of the histogram of its covered pixels. A black box."""

    bins: int = 6
    """Along each of the three channels."""

    @property
    def info(self) -> RewardInfo:
        top = 3 * math.log2(self.bins)
        return closed_form("guard:colour entropy", "no", (0.0, top), "Shannon's entropy of a histogram")

    def build(self, device: torch.device | str = "cpu") -> ColourEntropy:
        return self

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views
        cells = (straight(views) * self.bins).nan_to_num().long().clamp(0, self.bins - 1)
        index = (cells[..., 0] * self.bins + cells[..., 1]) * self.bins + cells[..., 2]
        counts = views.rgb.new_zeros(*views.rgb.shape[:2], self.bins**3)
        counts.scatter_add_(2, index.flatten(2), (views.alpha[..., 0] > 0.5).to(counts).flatten(2))
        share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
        entropy = -torch.special.xlogy(share, share).sum(-1) / math.log(2)
        return judged(torch.where(_finite(views), entropy, torch.nan))


def straight(views: Views) -> Float[Tensor, "b v h w 3"]:
    """Colours without alpha in them; 0 where nothing is."""
    return views.rgb / views.alpha.clamp(min=1e-3)


def _luminance(views: Views) -> Float[Tensor, "b v h w"]:
    return (straight(views) * views.rgb.new_tensor([0.299, 0.587, 0.114])).sum(-1)


def _finite(views: Views) -> Tensor:
    return (views.rgb.isfinite().all(-1) & views.alpha.isfinite().all(-1)).all(3).all(2)


@dataclass(frozen=True)
class Alarm:
    """The reward rises while guards fall."""

    guards: dict[str, float]
    """By how much each fallen guard has fallen since its best, in its own units."""
    since: int
    """Where in the histories the first of them was at its best: the place to go back to."""
    gain: float
    """By how much the reward has risen since then."""


def alarm(
    reward: Sequence[float],
    guards: Mapping[str, Sequence[float]],
    *,
    window: int = 5,
    certainty: float = 3.0,
    least: float = 0.0,
) -> Alarm | None:
    """Say whether a reward rises while guards fall, from what was logged so far; None if all is well.

    Each history is averaged over ``window`` entries. A guard has fallen if its latest average lies below its best earlier one
    by ``certainty`` standard errors of such a difference, and the alarm is given if the reward has risen as surely since that
    time. The noise is taken from differences of neighbouring entries, so that a trend is not mistaken for it.

    Args:
        reward: What is optimised, at the same times as the guards; higher is better.
        guards: By name. Entries that are not finite (judgements that could not be had) are left out.
        window: Entries in an average; nothing is said of histories shorter than two.
        certainty: In standard errors.
        least: A guard that falls by less than this fraction of its best has not fallen, however surely.
    """
    if window < 1:
        raise ValueError(f"the window must hold at least 1 entry, got {window}")
    fallen, places = {}, []
    for name, history in guards.items():
        if len(history) != len(reward):
            raise ValueError(f"the guard {name!r} has {len(history)} entries and the reward {len(reward)}: log them together")
        kept = [i for i, pair in enumerate(zip(reward, history, strict=True)) if all(map(math.isfinite, pair))]
        values, rewards = [history[i] for i in kept], [reward[i] for i in kept]
        if len(kept) < 2 * window:
            continue
        smooth, climbed = _averages(values, window), _averages(rewards, window)
        # The latest average shares no entry with those it is compared to.
        best = max(range(len(smooth) - window), key=smooth.__getitem__)
        drop, gain = smooth[best] - smooth[-1], climbed[-1] - climbed[best]
        certain = max(certainty * _error(values, window), least * abs(smooth[best]))
        if drop > certain and gain > certainty * _error(rewards, window):
            fallen[name] = drop
            places.append((kept[best + window - 1], gain))
    return Alarm(fallen, *min(places)) if fallen else None


def _averages(values: Sequence[float], window: int) -> list[float]:
    return [statistics.fmean(values[i : i + window]) for i in range(len(values) - window + 1)]


def _error(values: Sequence[float], window: int) -> float:
    """The standard error of the difference of two averages; a hair above zero, so that rounding is no trend."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    noise = statistics.pstdev(steps) / math.sqrt(2) if len(steps) > 1 else 0.0
    return math.sqrt(2 / window) * noise + 1e-9 * max(map(abs, values))
