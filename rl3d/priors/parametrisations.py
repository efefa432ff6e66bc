"""What networks predict, as clean latents: the one form that samplers and algorithms see.

All hold at ``noisy = alpha * clean + sigma * noise``, for levels of either kind unless said otherwise, in float32, and are
differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import Level

Latents = Float[Tensor, "b v c h w"]


def clean_from_noise(noisy: Latents, noise: Latents, level: Level) -> Latents:
    """Read an eps-prediction, the noise itself: Ho et al. 2020, "DDPM", eq. 15. Ill-conditioned where alpha is near 0."""
    return (noisy.float() - level.sigma * noise.float()) / level.alpha


def noise_from_clean(noisy: Latents, clean: Latents, level: Level) -> Latents:
    """Find the noise that goes with clean latents; ``sigma`` must not be 0."""
    return (noisy.float() - level.alpha * clean.float()) / level.sigma


def clean_from_velocity(noisy: Latents, velocity: Latents, level: Level) -> Latents:
    """Read a v-prediction, alpha * noise - sigma * clean: Salimans & Ho 2022, "Progressive Distillation", app. D.

    At variance-preserving levels this is alpha * noisy - sigma * v; the scale is divided out at others.
    """
    scale = level.alpha**2 + level.sigma**2
    return (level.alpha * noisy.float() - level.sigma * velocity.float()) / scale


def velocity_from_clean(noisy: Latents, clean: Latents, level: Level) -> Latents:
    """Undo :func:`clean_from_velocity`; ``sigma`` must not be 0."""
    return level.alpha * noise_from_clean(noisy, clean, level) - level.sigma * clean.float()


def clean_from_flow(noisy: Latents, flow: Latents, level: Level) -> Latents:
    """Read a flow-prediction, noise - clean: Lipman et al. 2023, "Flow Matching", on straight paths.

    At the levels of flows this is noisy - sigma * flow; the scale is divided out at others.
    """
    return (noisy.float() - level.sigma * flow.float()) / (level.alpha + level.sigma)


def flow_from_clean(noisy: Latents, clean: Latents, level: Level) -> Latents:
    """Undo :func:`clean_from_flow`; ``sigma`` must not be 0."""
    return noise_from_clean(noisy, clean, level) - clean.float()


def add_noise(clean: Latents, noise: Latents, level: Level) -> Latents:
    """Noise clean latents to a level."""
    return level.alpha * clean + level.sigma * noise


CLEAN: dict[str, Callable[[Latents, Latents, Level], Latents]] = {
    "epsilon": clean_from_noise,
    "v_prediction": clean_from_velocity,
    "sample": lambda noisy, clean, level: clean.float(),
}
"""By what schedulers of diffusers call a prediction."""


class Clock:
    """When a network of discrete steps was trained at which level, as a scheduler of diffusers says it."""

    def __init__(self, config: Any):
        from diffusers import DDIMScheduler

        self.predicts: str = config.prediction_type
        """One of :data:`CLEAN`."""
        if self.predicts not in CLEAN:
            raise ValueError(f"its scheduler says prediction_type {self.predicts!r}; known are {', '.join(CLEAN)}")
        clean = DDIMScheduler.from_config(config).alphas_cumprod.double().clamp(1e-12, 1 - 1e-12).numpy()
        self._log_snr = np.log(clean / (1 - clean)) / 2

    def time_of(self, level: Level) -> float:
        """The step at a level, between two of them if need be."""
        log_snr = math.log(max(level.alpha, 1e-6) / max(level.sigma, 1e-6))
        return float(np.interp(-log_snr, -self._log_snr, np.arange(len(self._log_snr))))


@dataclass(frozen=True)
class Threshold:
    """How clean pixels are kept in range: at a quantile of their own magnitudes, or at a fixed one.

    Saharia et al. 2022, "Imagen", arXiv 2205.11487, as static and dynamic thresholding: strong guidance leaves the range of
    pixels, and clipping alone saturates colours.
    """

    quantile: float | None
    """Of each picture's magnitudes; None cuts at ``most``."""
    most: float
    """The quantile counts up to this; below 1 it counts as 1."""

    @classmethod
    def of(cls, config: Any) -> Threshold | None:
        """What a scheduler of diffusers does; None if nothing."""
        if config.get("thresholding"):
            return cls(config.dynamic_thresholding_ratio, config.sample_max_value)
        return cls(None, config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None

    def __call__(self, clean: Latents) -> Latents:
        """Clean pixels in range: in [-1, 1], or in [-most, most] where no quantile is taken."""
        if self.quantile is None:
            return clean.clamp(-self.most, self.most)
        at = clean.flatten(2).abs().quantile(self.quantile, dim=2).clamp(1, self.most)[..., None, None, None]
        return torch.minimum(torch.maximum(clean, -at), at) / at
