"""Compiled march of rays through a grid of occupied cells. Rays are independent: the same for any number of threads."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit, prange
from torch import Tensor

from rl3d.render._threads import follow_torch

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
F = np.float32


def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    first: Float[Tensor, "r"],
    step: Float[Tensor, "r"],
    samples: int,
    occupancy: Bool[Tensor, "n n n"],
    solid: Float[Tensor, "n n n"],
    dark: float,
) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"], Float[Tensor, "k 3"]]:
    """Which of each ray's samples matter, ray by ray: see :func:`rl3d.render.volume.march`."""
    follow_torch()
    known = [x.contiguous().numpy() for x in (origins, directions, first, step)]
    grids = occupancy.contiguous().numpy(), solid.contiguous().numpy()
    counts = np.zeros(len(first) + 1, np.int64)
    _count(*known, samples, *grids, F(dark), counts)  # pyright: ignore
    total = int(counts.cumsum(out=counts)[-1])
    ray, sample, points = torch.empty(total, dtype=torch.long), torch.empty(total, dtype=torch.long), torch.empty(total, 3)
    _fill(*known, *grids, counts, ray.numpy(), sample.numpy(), points.numpy())  # pyright: ignore
    return ray, sample, points


@njit(inline="always", **COMPILED)
@no_type_check
def _cell(place):
    return np.int32(np.floor(place))


@njit(inline="always", **COMPILED)
@no_type_check
def _look(origins, directions, i, distance, occupancy, solid):
    """The point at a distance; whether its cell is occupied, and how dense it is at least."""
    size = len(occupancy)
    half = F(0.5) * F(size)  # cells to a unit
    x = origins[i, 0] + distance * directions[i, 0]
    y = origins[i, 1] + distance * directions[i, 1]
    z = origins[i, 2] + distance * directions[i, 2]
    a, b, c = _cell((x + F(1)) * half), _cell((y + F(1)) * half), _cell((z + F(1)) * half)
    if a < 0 or b < 0 or c < 0 or a >= size or b >= size or c >= size:
        return x, y, z, False, F(0)
    return x, y, z, occupancy[a, b, c], solid[a, b, c]


@njit(parallel=True, **COMPILED)
@no_type_check
def _count(origins, directions, first, step, samples, occupancy, solid, dark, counts):
    for i in prange(len(first)):
        n, depth = 0, F(0)
        if step[i] > 0:
            for s in range(samples):
                _, _, _, hit, density = _look(origins, directions, i, first[i] + F(s) * step[i], occupancy, solid)
                n += hit
                depth += density * step[i]
                if depth > dark:
                    break
        counts[i + 1] = n


@njit(parallel=True, **COMPILED)
@no_type_check
def _fill(origins, directions, first, step, occupancy, solid, starts, ray, sample, points):
    for i in prange(len(first)):
        k, end, s = starts[i], starts[i + 1], 0
        while k < end:
            x, y, z, hit, _ = _look(origins, directions, i, first[i] + F(s) * step[i], occupancy, solid)
            if hit:
                ray[k], sample[k] = i, s
                points[k, 0], points[k, 1], points[k, 2] = x, y, z
                k += 1
            s += 1
