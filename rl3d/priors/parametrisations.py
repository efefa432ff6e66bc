"""What networks predict, as clean latents: the one form that samplers and algorithms see.

All hold at ``noisy = alpha * clean + sigma * noise``, for levels of either kind unless said otherwise, in float32, and are
differentiable.
"""

from __future__ import annotations

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
