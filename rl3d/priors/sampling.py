"""From noise to views: guidance, levels, and steps of the sampler, once for every prior."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.math import Level, level_at
from rl3d.protocols import Prior
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b v c h w"]
START = 0.98
"""The noise time that samplers start at: higher ones are hardly trained, and the clean part is already 3 % of the whole."""


def guide(conditional: Latents, unconditional: Latents, guidance: float, rescale: float = 0.0) -> Latents:
    """Extrapolate from the unconditional prediction through the conditional one, and pull the contrast back.

    Ho & Salimans 2022, "Classifier-Free Diffusion Guidance"; ``rescale`` in [0, 1] is Lin et al. 2023, "Common Diffusion Noise
    Schedules and Sample Steps Are Flawed", eq. 15-16, here on clean predictions, with one standard deviation for each sample's
    whole group of views: so views of one object keep their contrasts to each other. Differentiable.
    """
    guided = unconditional + guidance * (conditional - unconditional)
    if rescale == 0:
        return guided
    ratio = conditional.std((1, 2, 3, 4), keepdim=True) / guided.std((1, 2, 3, 4), keepdim=True).clamp_min(1e-6)
    return guided * (1 + rescale * (ratio - 1))


def levels(steps: int, start: float = START) -> list[Level]:
    """The ``steps + 1`` levels of a sampler, evenly spaced in noise time from ``start`` down to no noise at all."""
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {steps}")
    return [level_at(start * (1 - i / steps)) for i in range(steps + 1)]


def step_ddim(
    noisy: Latents, clean: Latents, level: Level, to: Level, *, noise: Latents | None = None, eta: float = 0.0
) -> Latents:
    """Step to a lower level, given the clean prediction: Song et al. 2021, "DDIM", eq. 12 and 16.

    ``eta`` 0 follows the probability-flow ODE, 1 is ancestral sampling; above 0 it needs ``noise``.
    """
    predicted_noise = (noisy - level.alpha * clean) / level.sigma
    fresh = eta * to.sigma / level.sigma * math.sqrt(max(0.0, 1 - (level.alpha / to.alpha) ** 2))
    stepped = to.alpha * clean + math.sqrt(max(0.0, to.sigma**2 - fresh**2)) * predicted_noise
    return stepped if noise is None else stepped + fresh * noise


def step_multistep(noisy: Latents, clean: Latents, before: tuple[Latents, Level] | None, level: Level, to: Level) -> Latents:
    """Step to a lower level with the help of the previous prediction: Lu et al. 2022, "DPM-Solver++", algorithm 2 (2M).

    Second order; with no previous prediction, and for the step to no noise, it is DDIM.
    """
    if before is None or to.sigma < 1e-6:
        return step_ddim(noisy, clean, level, to)
    step, last_step = _log_snr(to) - _log_snr(level), _log_snr(level) - _log_snr(before[1])
    ahead = step / (2 * last_step)
    return step_ddim(noisy, clean + ahead * (clean - before[0]), level, to)


def _log_snr(level: Level) -> float:
    return math.log(max(level.alpha, 1e-12) / level.sigma)


def walk(
    predict: Callable[[Latents, Level], Latents],
    noisy: Latents,
    schedule: Sequence[Level],
    *,
    solver: Literal["ddim", "multistep"] = "multistep",
    eta: float = 0.0,
    rng: torch.Generator | None = None,
    before: tuple[Latents, Level] | None = None,
) -> Iterator[tuple[Latents, Latents]]:
    """Walk down the levels of a schedule: after each step, where it stands and the clean prediction that led there.

    ``eta`` above 0 (DDIM only) draws noise from ``rng``. A walk that goes on from the middle of a schedule takes ``before``,
    the last clean prediction and its level. Differentiable.
    """
    if eta and solver != "ddim":
        raise ValueError(f'eta {eta} needs the solver "ddim": the multistep solver is deterministic')
    for level, to in pairwise(schedule):
        clean = predict(noisy, level)
        if solver == "ddim":
            noise = draw_noise(noisy.shape, rng, noisy.device) if eta else None
            noisy = step_ddim(noisy, clean, level, to, noise=noise, eta=eta)
        else:
            noisy = step_multistep(noisy, clean, before, level, to)
        before = clean, level
        yield noisy, clean


def denoise(predict: Callable[[Latents, Level], Latents], noisy: Latents, schedule: Sequence[Level], **options: Any) -> Latents:
    """Where a :func:`walk` ends, with its options."""
    for stands, _ in walk(predict, noisy, schedule, **options):
        noisy = stands
    return noisy


class Streams(torch.Generator):
    """Randomness in which each sample has a stream of its own, so that it is drawn alike in whatever batch it stands.

    Whoever draws noise for a batch of ``len(slots) * n`` rows through :func:`draw_noise` gets row ``i`` from stream
    ``(slots[i // n], i % n)``; as a generator it is what the batch shares, and starts from the first slot.

    Args:
        key: Whatever tells one draw from another, such as a seed and a step.
        slots: The number of each of the batch's prompts, in a count that goes over all batches and processes.
    """

    def __new__(cls, key: Sequence[int], slots: Sequence[int]):
        return super().__new__(cls)

    def __init__(self, key: Sequence[int], slots: Sequence[int]):
        super().__init__()
        self.key, self.slots = tuple(key), tuple(slots)
        self._streams: dict[tuple[int, int], torch.Generator] = {}
        self.manual_seed(seed_from(*self.key, self.slots[0]))

    def rows(self, count: int) -> list[torch.Generator]:
        """The streams of so many rows; rows that are not as many for each slot are counted from the first one on."""
        each = count // len(self.slots) if count % len(self.slots) == 0 else 0
        names = [(self.slots[i // each], i % each) if each else (self.slots[0], i) for i in range(count)]
        for name in names:
            if name not in self._streams:
                self._streams[name] = torch.Generator().manual_seed(seed_from(*self.key, *name))
        return [self._streams[name] for name in names]


def seed_from(*numbers: int) -> int:
    """A seed in [0, 2^63) that depends on all of these numbers and on their order."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw_noise(shape: Sequence[int], rng: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw standard normal noise on the generator's device, then move it; row by row where each has its own stream."""
    if isinstance(rng, Streams):
        return torch.stack([torch.randn(tuple(shape[1:]), generator=one) for one in rng.rows(shape[0])]).to(device)
    return torch.randn(tuple(shape), generator=rng, device=rng.device if rng else "cpu").to(device)


def for_each(prompts: Sequence[Prompt], cameras: Cameras) -> Cameras:
    """Cameras of each prompt: ``[1 v]`` ones are repeated, ``[b v]`` ones stay."""
    if cameras.cam_from_world.shape[0] != 1:
        return cameras
    wide = (len(prompts), -1, -1, -1)
    return replace(cameras, cam_from_world=cameras.cam_from_world.expand(wide), intrinsics=cameras.intrinsics.expand(wide))


@dataclass(frozen=True)
class Climb:
    """A pull of clean predictions up the gradient of a score, on the way of a sampler.

    He et al. 2024, "Manifold Preserving Guided Diffusion", arXiv 2311.16424, in its form without projection: the gradient is
    taken at the clean prediction itself, so the prior is asked no more often, and what it finds odd it mends in the steps that
    follow. Their code sets the length of the step by the noise or by the guidance; here it is the same for every sample and
    level.
    """

    score: Callable[[Views, list[Prompt]], Float[Tensor, "b"]]
    """Of each sample, differentiable in its views."""
    length: float = 0.3
    """Root mean square of the step over a sample's latents."""
    begin: float = 0.0
    end: float = 1.0
    """The part of the steps that is pulled."""

    def __call__(self, prior: Prior, clean: Latents, prompts: list[Prompt], cameras: Cameras) -> Latents:
        """Clean latents one step up; those whose score has no slope, or none that is finite, stay."""
        with torch.enable_grad():
            x = clean.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.score(shown(prior, x, cameras), prompts).sum(), x)
        steepness = slope.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        usable = steepness.isfinite() & (steepness > 0)
        return clean + torch.where(usable, self.length * slope / steepness, 0.0)


@torch.no_grad()
def sample_views(
    prior: Prior,
    prompts: list[Prompt],
    cameras: Cameras,
    *,
    steps: int = 16,
    guidance: float = 3.0,
    rescale: float = 0.5,
    guided: float = 1.0,
    climb: Climb | None = None,
    solver: Literal["ddim", "multistep"] = "multistep",
    eta: float = 0.0,
    rng: torch.Generator | None = None,
) -> Views:
    """Draw views of each prompt from a prior, all views of one prompt jointly.

    ``cameras`` are ``[b v]``, or ``[1 v]`` for all prompts. Alpha is clamped to [0, 1], and colour to [0, alpha]. ``guided`` is
    the part of the steps, from the first on, that guidance is for: later ones cost half without it, and look cleaner
    (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval", who leave it off at the highest levels, too).
    ``climb`` pulls the predictions up a score on the way.
    """
    cameras = for_each(prompts, cameras)
    noise = _noise(prior, prompts, cameras, rng)
    predict = asked(prior, prompts, cameras, guidance, rescale, guided, climb)
    return shown(prior, denoise(predict, noise, levels(steps), solver=solver, eta=eta, rng=rng), cameras)


@torch.no_grad()
def sample_best(
    prior: Prior,
    prompts: list[Prompt],
    cameras: Cameras,
    score: Callable[[Views, list[Prompt]], Float[Tensor, "b"]],
    *,
    candidates: int,
    after: int = 4,
    steps: int = 16,
    guidance: float = 3.0,
    rescale: float = 0.5,
    guided: float = 1.0,
    climb: Climb | None = None,
    rng: torch.Generator | None = None,
    batch: int = 8,
) -> Views:
    """Begin several sets of views of each prompt, and finish the one whose clean prediction scores best after some steps.

    What a sample will be is settled early: the first predictions are blurred, but rank samples nearly as what becomes of them
    does (``docs/results.md``). With ``after`` at ``steps`` or above, all are finished, and what they have become is scored.
    ``batch`` bounds how many are drawn at once, and with that the memory; else as :func:`sample_views`.
    """
    if candidates < 1 or after < 1:
        raise ValueError(f"it takes at least 1 candidate and 1 step to choose, got {candidates} and {after}")
    ask = partial(asked, prior, guidance=guidance, rescale=rescale, guided=guided, climb=climb)
    cameras, schedule = for_each(prompts, cameras), levels(steps)
    after = min(after, steps)
    many = [prompt for prompt in prompts for _ in range(candidates)]
    owner = torch.arange(len(prompts)).repeat_interleave(candidates)
    noise = _noise(prior, many, _rows(cameras, owner), rng)
    noisy, clean, liked = [], [], []
    for rows in torch.arange(len(many)).split(batch):
        some, own = [many[i] for i in rows.tolist()], _rows(cameras, owner[rows])
        *_, (stands, predicted) = walk(ask(some, own), noise[rows], schedule[: after + 1])
        noisy.append(stands)
        clean.append(predicted)
        liked.append(score(shown(prior, predicted, own), some))
    best = torch.cat(liked).view(-1, candidates).argmax(1).cpu() + candidates * torch.arange(len(prompts))
    noisy, clean, finished = torch.cat(noisy)[best], torch.cat(clean)[best], []
    for rows in torch.arange(len(prompts)).split(batch):
        some, own = [prompts[i] for i in rows.tolist()], _rows(cameras, rows)
        before = clean[rows], schedule[after - 1]
        finished.append(denoise(ask(some, own), noisy[rows], schedule[after:], before=before))
    return shown(prior, torch.cat(finished), cameras)


def _rows(cameras: Cameras, index: Int[Tensor, "n"]) -> Cameras:
    return replace(cameras, cam_from_world=cameras.cam_from_world[index], intrinsics=cameras.intrinsics[index])


def _noise(prior: Prior, prompts: Sequence[Prompt], cameras: Cameras, rng: torch.Generator | None) -> Latents:
    info = prior.info
    shape = (len(prompts), cameras.views, info.channels, info.size, info.size)
    return draw_noise(shape, rng, cameras.cam_from_world.device)


def asked(
    prior: Prior,
    prompts: list[Prompt],
    cameras: Cameras,
    guidance: float,
    rescale: float,
    guided: float,
    climb: Climb | None = None,
) -> Callable[[Latents, Level], Latents]:
    """The prior's clean prediction for these prompts, with guidance and pulls as :func:`sample_views` has them."""
    condition = prior.embed(prompts, cameras)

    def predict(noisy: Latents, level: Level) -> Latents:
        at = _progress(level)
        some = guidance if at < guided else 1.0
        clean = prior.predict(noisy, level, condition, guidance=some, rescale=rescale)
        return climb(prior, clean, prompts, cameras) if climb and climb.begin <= at < climb.end else clean

    return predict


def _progress(level: Level) -> float:
    """How far down a sampler's levels this one is: 0 at the first, 1 at no noise, and evenly spaced between."""
    return round(1 - 2 / math.pi * math.atan2(level.sigma, level.alpha) / START, 6)


def shown(prior: Prior, clean: Latents, cameras: Cameras) -> Views:
    """The views of clean latents, with alpha in [0, 1] and colour in [0, alpha]."""
    views = prior.decode(clean, cameras)
    alpha = views.alpha.clamp(0, 1)
    return replace(views, alpha=alpha, rgb=views.rgb.clamp_min(0).minimum(alpha))
