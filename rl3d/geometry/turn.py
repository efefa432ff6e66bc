"""Gaussians turned as a whole: their places, their axes, and the colours that depend on the side."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import multiply_quats, rotation_from_quat
from rl3d.render._gaussians_torch import spherical_harmonics
from rl3d.types import Splats

UPRIGHT = (0.5, 0.5, 0.5, 0.5)
"""The rotation (wxyz) from y up and z to the front, as in glTF, to our z up and x to the front: (x, y, z) to (z, x, y)."""


def turned(splats: Splats, quat: tuple[float, float, float, float]) -> Splats:
    """Rotate Gaussians around the origin by a wxyz quaternion; seen by cameras that turn along, they look as before."""
    by = splats.quats.new_tensor(quat)
    rotation = rotation_from_quat(by)
    return replace(
        splats,
        means=splats.means @ rotation.T,
        quats=multiply_quats(by.expand_as(splats.quats), splats.quats),
        sh=torch.einsum("ij,njc->nic", harmonics_turned(rotation, splats.sh.shape[1]), splats.sh),
    )


def harmonics_turned(rotation: Float[Tensor, "3 3"], k: int) -> Float[Tensor, "k k"]:
    """The matrix that turns k = 1, 4, 9 or 16 coefficients of spherical harmonics along with space.

    A turned function at a turned direction has the value that it had before: ``Y(R d) c' = Y(d) c`` for all d. Harmonics of
    one degree span a space that rotations keep, so that a few directions settle the matrix exactly (Wigner's D-matrix).
    """
    # A spiral over the sphere, with twice the directions that are needed.
    i = torch.arange(32, dtype=torch.float64)
    z, angle = 1 - (2 * i + 1) / 32, 2.399963 * i
    directions = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], 1)
    before, after = _basis(directions, k), _basis(directions @ rotation.double().cpu().T, k)
    return torch.linalg.lstsq(after, before).solution.to(rotation)


def _basis(directions: Float[Tensor, "m 3"], k: int) -> Float[Tensor, "m k"]:
    each = torch.eye(k, dtype=directions.dtype)[:, None, :, None].expand(k, len(directions), k, 3)
    return spherical_harmonics(each, directions.expand(k, -1, 3))[..., 0].T
