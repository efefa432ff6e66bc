"""Variational score distillation: the prior against a copy of it that has learned how this scene looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rl3d.math import level_at
from rl3d.priors.lora import Lora, Using
from rl3d.protocols import Actor, Signal, Situation, Step
from rl3d.terms.denoising import Form, check_times, draw_time, noised, passes, predict, pull, scale
from rl3d.terms.distillation import need_prior
from rl3d.terms.learner import Learner
from rl3d.types import Cameras

ADAPTER = "vsd"


@dataclass(frozen=True)
class Variational:
    """Pull renderings from what an adapted prior makes of them to what the prior itself does.

    Wang et al. 2023, "ProlificDreamer", with one particle: the gradient is w(t) (eps_prior - eps_adapted), here on clean
    latents, adapted minus prior, scaled as in :class:`rl3d.terms.distillation.Distill`. The adapter learns to predict the
    scene's own renderings, a step of its own optimiser at each step; it is told cameras and prompt as the prior
    is. With an adapter that has learned nothing the gradient is that of guidance alone; where it knows the renderings, it is
    that of ``Distill`` without the noise's scatter.
    """

    form: Form = "x0"
    guidance: float = 3.0
    """Of the prior; the adapted one has none."""
    rescale: float = 0.5
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25
    lora: Lora = field(default_factory=lambda: Lora(dtype="loaded"))
    """The adapter. No ratios are taken, so the network may compute in what it was loaded in."""
    rate: float = 1e-2
    """The adapter's learning rate."""

    def __post_init__(self):
        check_times(self)

    @property
    def passes(self) -> float:
        """Network passes a step; one back through the network counts as two."""
        return passes(1, guided=self.guidance != 1) + 1 + 3

    def build(self, situation: Situation) -> Signal:
        prior: Any = need_prior(situation)
        if isinstance(prior, Using):
            raise ValueError("this prior is taught, and has weights that learn already: leave out `teach`, or this term")
        if not isinstance(prior, nn.Module):
            raise ValueError(
                "this prior is shared by several scenes, and one adapter cannot know them all: leave out the recipe's search"
            )
        if any(name.endswith("base_layer") for name, _ in prior.named_modules()):
            raise ValueError("this prior already has an adapter: a recipe can hold one Variational term")
        return _Variational(self, situation)


class _Variational(nn.Module):
    """State: the adapter's weights and its optimiser's, in :class:`~rl3d.terms.learner.Learner`."""

    def __init__(self, value: Variational, situation: Situation):
        super().__init__()
        self.value = value
        actor = value.lora.build(need_prior(situation), (ADAPTER,), situation.rng)
        self.learner = Learner(list(actor.weights(ADAPTER).values()), value.rate)
        self._actor: list[Actor] = [actor]  # in a list, so that no checkpoint holds the frozen prior

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, cameras, prior = self.value, step.views.cameras, step.prior
        assert prior is not None
        adapted = self._actor[0].using(ADAPTER)
        level = level_at(draw_time(v, step.progress, step.rng))
        clean = prior.encode(step.views)
        noisy = noised(clean, level, 1, step.rng)
        wanted = predict(prior, noisy, level, step.prompt, cameras, guidance=v.guidance, rescale=v.rescale)
        own = predict(adapted, noisy, level, step.prompt, cameras)
        step.predicted.update(target=wanted, adapted=own)
        self._learn(adapted, clean.detach(), step)
        return {"pixels": pull(clean, scale(v.form, level) * (own - wanted))}

    def _learn(self, adapted: Any, clean: Tensor, step: Step) -> None:
        """Teach the adapter the rendering, at a noise time of its own from the whole range."""
        v = self.value
        level = level_at(v.t_min + (v.t_max - v.t_min) * torch.rand((), generator=step.rng).item())
        noisy = noised(clean, level, 1, step.rng)
        with torch.enable_grad():
            guess = adapted.predict(noisy, level, adapted.embed([step.prompt], step.views.cameras))
            self.learner.step((guess - clean).square().mean())
