"""Small closed forms: quaternions, spherical harmonics, noise levels, intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SH_C0 = 0.28209479177387814
"""The constant real spherical harmonic, 1 / (2 sqrt(pi))."""


def rotation_from_quat(quat: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3 3"]:
    """Turn wxyz quaternions of any non-zero length into rotation matrices. Differentiable."""
    w, x, y, z = torch.nn.functional.normalize(quat, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def multiply_quats(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*n 4"]:
    """Compose rotations, ``b`` first, as Hamilton's product of wxyz quaternions. Differentiable."""
    w, v, s, u = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    v, u = torch.broadcast_tensors(v, u)
    real = w * s - (v * u).sum(-1, keepdim=True)
    return torch.cat([real, w * u + s * v + torch.linalg.cross(v, u)], -1)


def sh_from_rgb(rgb: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """The degree-0 coefficient that shows this colour from everywhere."""
    return (rgb - 0.5) / SH_C0


def rgb_from_sh(sh0: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """The colour that a degree-0 coefficient shows."""
    return 0.5 + SH_C0 * sh0


class Level(NamedTuple):
    """A noise level: ``noisy = alpha * clean + sigma * noise``.

    Variance-preserving levels have alpha^2 + sigma^2 = 1, those of flows alpha + sigma = 1.
    """

    alpha: float
    sigma: float


def flow_level_at(t: float) -> Level:
    """The straight path of flow matching: alpha = 1 - t, sigma = t, for a time t in [0, 1] that grows with the noise."""
    return Level(1 - t, t)


def level_at(t: float) -> Level:
    """The cosine schedule: alpha = cos(pi t / 2), sigma = sin(pi t / 2), for a noise time t in [0, 1]."""
    return Level(math.cos(math.pi * t / 2), math.sin(math.pi * t / 2))


def relocated(
    opacities: Float[Tensor, "n"], scales: Float[Tensor, "n 3"], copies: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Opacities and standard deviations with which so many copies of a Gaussian look like it alone.

    Kheradmand et al. (2024), "3D Gaussian Splatting as Markov Chain Monte Carlo", eq. 9, whose double sum is, by the
    hockey-stick identity, the sum of C(N, j) (-1)^(j - 1) o^j / sqrt(j) over j = 1 ... N. ``copies`` counts the Gaussian
    itself; at most 51 count.
    """
    most = 51
    n = copies.double().clamp(1, most)
    own = opacities.double()
    shared = -torch.expm1(torch.log1p(-own.clamp(max=1 - 1e-7)) / n)
    j = torch.arange(1, most + 1, dtype=torch.float64, device=own.device)
    binomials = torch.exp(torch.lgamma(n + 1)[:, None] - torch.lgamma(j + 1) - torch.lgamma((n[:, None] - j).clamp(min=0) + 1))
    signs = 1 - 2 * ((j - 1) % 2)
    terms = torch.where(j <= n[:, None], binomials * signs * shared[:, None] ** j / j.sqrt(), 0.0)
    return shared.to(opacities), (scales.double() * (own / terms.sum(1))[:, None]).to(scales)


def exploration(
    quats: Float[Tensor, "n 4"], scales: Float[Tensor, "n 3"], opacities: Float[Tensor, "n"], noise: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Standard normal noise as steps of Gaussians' centres: along their extent, and only where they are nearly transparent.

    As Kheradmand et al. (2024) have it in their code: covariance times noise times sigmoid(-100 (opacity - 0.005)).
    """
    rotation = rotation_from_quat(quats)
    along = scales.square() * (rotation.mT @ noise[..., None])[..., 0]
    return torch.sigmoid(-100 * (opacities - 0.005))[:, None] * (rotation @ along[..., None])[..., 0]


def draw(weights: Float[Tensor, "n"], count: int, rng: torch.Generator | None = None) -> Int[Tensor, "count"]:
    """Draw indices in proportion to non-negative weights, with replacement; any number of them may be weighed."""
    below = weights.double().cumsum(0)
    at = torch.rand(count, generator=rng, dtype=torch.float64).to(below) * below[-1]
    return torch.searchsorted(below, at, right=True).clamp(max=len(weights) - 1)


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share that was found among ``count`` (Wilson 1927); 95 % of them hold the true one where z = 1.96."""
    if not count or math.isnan(share):
        return 0.0, 1.0
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # Rounding alone can pass 0 and 1.
    return max(0.0, middle - half), min(1.0, middle + half)
