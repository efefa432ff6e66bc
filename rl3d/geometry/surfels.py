"""Gaussians on surfaces."""

from __future__ import annotations

import math

import numpy as np
import torch
import trimesh

from rl3d.geometry.points import from_points
from rl3d.render.textured import colours_of
from rl3d.types import Splats


def on_surface(mesh: trimesh.Trimesh, count: int, rng: torch.Generator) -> Splats:
    """Spread so many Gaussians evenly over a mesh, in its colours."""
    corners = torch.from_numpy(np.asarray(mesh.triangles, np.float32).copy())
    shares = torch.from_numpy((mesh.area_faces / mesh.area).astype(np.float32))
    face = torch.multinomial(shares, count, replacement=True, generator=rng)
    # Uniform on a triangle: Osada et al. 2002, "Shape Distributions".
    root, along = torch.rand(count, generator=rng).sqrt(), torch.rand(count, generator=rng)
    weight = torch.stack([1 - root, root * (1 - along), root * along], 1)
    points = (weight[..., None] * corners[face]).sum(1)
    spacing = math.sqrt(mesh.area / count)
    return from_points(points, colours_of(mesh)(face, weight), 0.6 * spacing, opacity=0.9)
