"""Points: first Gaussians from them, or from nothing; and what of them hangs together."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from rl3d.math import sh_from_rgb
from rl3d.types import Splats


def from_points(
    points: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], scale: float, *, opacity: float = 0.7, sh_degree: int = 0
) -> Splats:
    """Make round Gaussians of standard deviation ``scale``, of these colours (in [0, 1]) from every side."""
    n = len(points)
    sh = points.new_zeros(n, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = sh_from_rgb(colors)
    return Splats(
        means=points.clone(),
        log_scales=points.new_full((n, 3), math.log(scale)),
        quats=points.new_tensor([1.0, 0, 0, 0]).repeat(n, 1),
        opacity_logits=points.new_full((n,), math.log(opacity / (1 - opacity))),
        sh=sh,
    )


def ball(n: int, rng: torch.Generator, *, radius: float = 0.5, color: float = 0.5, opacity: float = 0.3) -> Splats:
    """Make Gaussians of one grey, spread evenly in a ball around the origin, as large as their mean spacing."""
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=-1)
    distances = radius * torch.rand(n, 1, generator=rng) ** (1 / 3)
    spacing = radius * (4 * math.pi / 3 / max(n, 1)) ** (1 / 3)
    return from_points(distances * directions, torch.full((n, 3), color), spacing, opacity=opacity)


def pieces(points: Float[ndarray, "n 3"], reach: float) -> Int[ndarray, "n"]:
    """The number of the piece that each belongs to: points within reach of each other, and of others that are."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    i, j = cKDTree(points).query_pairs(reach, output_type="ndarray").T
    graph = coo_matrix((np.ones(len(i), bool), (i, j)), shape=(len(points),) * 2)
    return connected_components(graph, directed=False)[1]
