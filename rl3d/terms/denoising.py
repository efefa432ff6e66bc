"""What signals that ask the prior about a noised rendering share: noise times, guided predictions, and how a wish for the clean
latents becomes a loss of the pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import Level
from rl3d.priors.sampling import draw_noise, for_each, guide
from rl3d.protocols import Prior
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b v c h w"]
Form = Literal["x0", "noise"]
"""How a pull on clean latents is scaled: see :func:`scale`."""


@runtime_checkable
class Times(Protocol):
    """Noise times in (0, 1), drawn from a range that shrinks from [t_min, t_max] to [t_min, t_end] as the run goes on."""

    @property
    def t_min(self) -> float: ...

    @property
    def t_end(self) -> float: ...

    @property
    def t_max(self) -> float: ...


def check_times(v: Times) -> None:
    """Refuse noise times that are not in order (``ValueError``)."""
    if not 0 < v.t_min <= v.t_end <= v.t_max < 1:
        got = f"t_min {v.t_min}, t_end {v.t_end}, t_max {v.t_max}"
        raise ValueError(f"noise times must satisfy 0 < t_min <= t_end <= t_max < 1; got {got}")


def draw_time(v: Times, progress: float, rng: torch.Generator) -> float:
    """Draw a noise time for this progress in [0, 1)."""
    top = v.t_max + (v.t_end - v.t_max) * progress
    return v.t_min + (top - v.t_min) * torch.rand((), generator=rng).item()


def scale(form: Form, level: Level) -> float:
    """The factor on ``clean - prediction`` that makes it a gradient.

    - ``"x0"``: 1 (Shi et al. 2023, "MVDream", sec. 3.2): well scaled at every level;
    - ``"noise"``: alpha sigma, which makes sigma^2 (eps_hat - eps): Poole et al. 2022, "DreamFusion", eq. 3 with w(t) =
      sigma^2, since eps_hat - eps = alpha / sigma (clean - prediction).
    """
    return 1.0 if form == "x0" else level.alpha * level.sigma


def noised(clean: Float[Tensor, "1 v c h w"], level: Level, count: int, rng: torch.Generator) -> Float[Tensor, "k v c h w"]:
    """One sample's clean latents under ``count`` noises, as so many samples, detached."""
    noise = draw_noise((count, *clean.shape[1:]), rng, clean.device)
    return level.alpha * clean.detach() + level.sigma * noise


@torch.no_grad()
def predict(
    prior: Prior,
    noisy: Latents,
    level: Level,
    prompt: Prompt,
    cameras: Cameras,
    *,
    guidance: float = 1.0,
    rescale: float = 0.0,
    perp_neg: float = 0.0,
) -> Latents:
    """Predict the clean latents of ``k`` samples of one prompt, seen by the same ``[1 v]`` cameras.

    The negative prompt takes the place of no prompt at all in guidance, or with a weight ``perp_neg`` above 0 pushes where it
    does not contradict the prompt (:func:`perpendicular`), which costs a third network pass; priors without negative prompts
    can do that too.
    """
    k = len(noisy)
    if perp_neg == 0 or not prompt.negative:
        condition = prior.embed([prompt] * k, cameras)
        return prior.predict(noisy, level, condition, guidance=guidance, rescale=rescale)
    asked = Prompt(""), Prompt(prompt.text, image=prompt.image), Prompt(prompt.negative, image=prompt.image)
    said = [one for one in asked for _ in range(k)]
    all_three = prior.predict(noisy.repeat(3, 1, 1, 1, 1), level, prior.embed(said, cameras))
    plain, wanted, unwanted = all_three.chunk(3)
    return guide(wanted - perp_neg * perpendicular(unwanted - plain, wanted - plain), plain, guidance, rescale)


def perpendicular(unwanted: Latents, wanted: Latents) -> Latents:
    """The part of one direction that is perpendicular to another, over all views of each sample.

    Armandpour et al. 2023, "Re-imagine the Negative Prompt Algorithm" (Perp-Neg), on clean predictions, which are
    affine in those of noise. Zero where the two are parallel, so that a negative prompt never undoes the prompt.
    """
    axes = (1, 2, 3, 4)
    along = (unwanted * wanted).sum(axes, keepdim=True) / wanted.square().sum(axes, keepdim=True).clamp_min(1e-12)
    return unwanted - along * wanted


def passes(samples: float, *, guided: bool = True, perp_neg: float = 0.0) -> float:
    """Network passes, of one set of views each, that predictions of so many samples take."""
    return samples * (3 if perp_neg else 2 if guided else 1)


def pull(clean: Latents, gradient: Latents) -> Float[Tensor, ""]:
    """The loss, half a squared norm, whose gradient on one sample's ``clean`` is ``gradient`` over the number of views."""
    target = (clean - gradient).detach()
    return 0.5 * (clean - target).square().sum() / clean.shape[1]


def seen(prior: Prior, latents: Latents, cameras: Cameras) -> Views:
    """Latents of ``k`` samples as views to be judged: alpha in [0, 1], colour in [0, alpha]; all seen by the same cameras."""
    views = prior.decode(latents, for_each([Prompt("")] * len(latents), cameras))
    alpha = views.alpha.clamp(0, 1)
    return replace(views, alpha=alpha, rgb=views.rgb.clamp_min(0).minimum(alpha))
