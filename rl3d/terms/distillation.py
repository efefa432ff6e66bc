"""Score distillation: the prior says how a noised rendering should look, and the scene follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl3d.math import Level, level_at
from rl3d.priors.sampling import step_ddim
from rl3d.protocols import Prior, Signal, Situation, Step
from rl3d.terms.denoising import Form, Latents, check_times, draw_time, noised, passes, predict, pull, scale
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Distill:
    """Pull renderings towards what the prior makes of them when they are noised.

    The gradient on the clean latents is that of :func:`rl3d.terms.denoising.scale`. The noise time is drawn from a range that
    shrinks from [t_min, t_max] to [t_min, t_end] as the run goes on. A prompt's negative takes the place of the empty prompt in
    guidance (priors without negative prompts refuse it), unless ``perp_neg`` is set.
    """

    form: Form = "x0"
    guidance: float = 3.0
    """Classifier-free guidance; 1 is none."""
    rescale: float = 0.5
    """How far the guided prediction's contrast is pulled back to the unguided one's (Lin et al. 2023, eq. 15-16)."""
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25
    perp_neg: float = 0.0
    """The weight of a negative prompt where it does not contradict the prompt (Armandpour et al. 2023, "Perp-Neg")."""

    def __post_init__(self):
        check_times(self)

    @property
    def passes(self) -> float:
        """Network passes a step."""
        return passes(1, guided=self.guidance != 1, perp_neg=self.perp_neg)

    def build(self, situation: Situation) -> Signal:
        need_prior(situation)
        return _Distill(self)


def need_prior(situation: Situation) -> Prior:
    """The prior, or a ``ValueError`` where there is none."""
    if situation.prior is None:
        raise ValueError("score distillation needs a prior: give the recipe one, or drop this term")
    return situation.prior


class _Distill:
    def __init__(self, value: Distill):
        self.value = value

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, cameras = self.value, step.views.cameras
        assert step.prior is not None
        level = level_at(draw_time(v, step.progress, step.rng))
        clean = step.prior.encode(step.views)
        noisy = noised(clean, level, 1, step.rng)
        target = predict(
            step.prior, noisy, level, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale, perp_neg=v.perp_neg
        )
        step.predicted["target"] = target
        return {"pixels": 0.5 * scale(v.form, level) * (clean - target).square().sum() / clean.shape[1]}


@dataclass(frozen=True)
class Interval:
    """Interval score matching: the prior's guided score at a noised rendering against its own unguided one a little below.

    Liang et al. 2023, "LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching": the noisy
    latents x_s and x_t are on one path, found by inverting unguided DDIM from the rendering, and the gradient is
    w(t) (eps(x_t, t, prompt) - eps(x_s, s, no prompt)). So targets of one scene agree from step to step, where those of
    :class:`Distill` scatter with the noise. At s = 0, where no noise can be read off, the path starts from a drawn one.

    ``form`` gives w as in :class:`Distill`: sigma / alpha for "x0", sigma^2 for "noise".
    """

    form: Form = "x0"
    guidance: float = 3.0
    rescale: float = 0.5
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25
    interval: float = 0.05
    """Noise time between s and t: delta_T."""
    stride: float = 0.2
    """Noise time of each step of the inversion up to s: delta_S."""
    perp_neg: float = 0.0

    def __post_init__(self):
        check_times(self)
        if not 0 < self.interval < self.t_min or not self.stride > 0:
            raise ValueError(
                f"interval must lie between 0 and t_min, and stride above 0; got {self.interval} and {self.stride}, "
                f"with t_min {self.t_min}"
            )

    @property
    def passes(self) -> float:
        """Network passes in a step, on average over the run."""
        middle = 0.5 * (self.t_min + 0.5 * (self.t_max + self.t_end)) - self.interval
        return max(1.0, middle / self.stride) + passes(1, guided=self.guidance != 1, perp_neg=self.perp_neg)

    def build(self, situation: Situation) -> Signal:
        need_prior(situation)
        return _Interval(self)


class _Interval:
    def __init__(self, value: Interval):
        self.value = value

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, cameras, prior = self.value, step.views.cameras, step.prior
        assert prior is not None
        t = draw_time(v, step.progress, step.rng)
        clean, s = prior.encode(step.views), t - v.interval
        count = max(1, round(s / v.stride))
        path = [level_at(s * (i + 1) / count) for i in range(count)]
        noisy = noised(clean, path[0], 1, step.rng)
        unguided, upper = torch.zeros_like(noisy), level_at(t)
        # What is not wanted, or no prompt at all: guidance's other branch.
        unnamed = Prompt(step.prompt.negative)
        for here, above in zip(path, [*path[1:], upper], strict=True):
            guess = predict(prior, noisy, here, unnamed, cameras)
            unguided, noisy = noise_in(noisy, guess, here), step_ddim(noisy, guess, here, above)
        guess = predict(prior, noisy, upper, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale, perp_neg=v.perp_neg)
        step.predicted["target"] = guess
        guided = noise_in(noisy, guess, upper)
        gradient = scale(v.form, upper) * upper.sigma / upper.alpha * (guided - unguided)
        return {"pixels": pull(clean, gradient)}


def noise_in(noisy: Latents, clean: Latents, level: Level) -> Latents:
    """The noise that noisy latents hold, if these are the clean ones."""
    return (noisy - level.alpha * clean) / level.sigma
