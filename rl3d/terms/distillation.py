"""Score distillation: the prior says how a noised rendering should look, and the scene follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rl3d.math import level_at
from rl3d.protocols import Signal, Situation, Step
from rl3d.types import Cameras


@dataclass(frozen=True)
class Distill:
    """Pull renderings towards what the prior makes of them when they are noised.

    With clean latents x, their prediction y from ``alpha x + sigma eps``, and noise time t in [0, 1], the gradient on x is

    - ``form="x0"``: x - y (Shi et al. 2023, "MVDream", eq. 3): plain, well scaled at every level;
    - ``form="noise"``: alpha sigma (x - y), which is sigma^2 (eps_hat - eps): Poole et al. 2022, "DreamFusion", eq. 3 with
      w(t) = sigma^2, since eps_hat - eps = alpha / sigma (x - y).

    The noise time is drawn from a range that shrinks from [t_min, t_max] to [t_min, t_end] as the run goes on.
    """

    form: Literal["x0", "noise"] = "x0"
    guidance: float = 3.0
    """Classifier-free guidance; 1 is none."""
    rescale: float = 0.5
    """How far the guided prediction's contrast is pulled back to the unguided one's (Lin et al. 2023, eq. 15-16)."""
    t_max: float = 0.98
    t_end: float = 0.45
    t_min: float = 0.25

    def __post_init__(self):
        if not 0 < self.t_min <= self.t_end <= self.t_max < 1:
            got = f"t_min {self.t_min}, t_end {self.t_end}, t_max {self.t_max}"
            raise ValueError(f"noise times must satisfy 0 < t_min <= t_end <= t_max < 1; got {got}")

    def build(self, situation: Situation) -> Signal:
        if situation.prior is None:
            raise ValueError("score distillation needs a prior: give the recipe one, or drop this term")
        return _Distill(self, situation)


class _Distill:
    def __init__(self, value: Distill, situation: Situation):
        self.value, self.prompt = value, situation.prompt

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v = self.value
        assert step.prior is not None
        top = v.t_max + (v.t_end - v.t_max) * step.progress
        t = v.t_min + (top - v.t_min) * torch.rand((), generator=step.rng).item()
        level = level_at(t)
        clean = step.prior.encode(step.views)
        with torch.no_grad():
            noise = torch.randn(clean.shape, generator=step.rng).to(clean)
            condition = step.prior.embed([step.prompt], step.views.cameras)
            noisy = level.alpha * clean + level.sigma * noise
            target = step.prior.predict(noisy, level, condition, guidance=v.guidance, rescale=v.rescale)
        weight = 1.0 if v.form == "x0" else level.alpha * level.sigma
        return {"pixels": 0.5 * weight * (clean - target).square().sum() / clean.shape[1]}
