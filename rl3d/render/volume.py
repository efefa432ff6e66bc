"""Volume rendering: rays of cameras, samples along them, and their blending (Mildenhall et al. 2020, "NeRF", eq. 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rl3d.render import _march_numba
from rl3d.types import Cameras


class Rays(NamedTuple):
    """Lines of sight through pixel centres, row by row and view by view."""

    origins: Float[Tensor, "r 3"]
    directions: Float[Tensor, "r 3"]
    """Of length 1, in world space."""
    slant: Float[Tensor, "r"]
    """Depth along the camera's z axis for each unit of distance along the ray."""


def camera_rays(cameras: Cameras) -> Rays:
    """The rays of ``[1 v]`` pinhole cameras."""
    h, w = cameras.height, cameras.width
    where = cameras.intrinsics
    y, x = torch.meshgrid(torch.arange(h).to(where) + 0.5, torch.arange(w).to(where) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1)
    local = pixels @ torch.linalg.inv(where[0]).mT
    world = local @ cameras.cam_from_world[0, :, :3, :3]
    length = world.norm(dim=-1)
    origins = cameras.centers[0, :, None].expand_as(world)
    return Rays(origins.flatten(0, 1), (world / length[..., None]).flatten(0, 1), (1 / length).flatten())


def sphere_span(rays: Rays, radius: float = 1.0) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
    """Where rays enter and leave a sphere around the origin, as distances; both equal where they miss it."""
    along = -(rays.origins * rays.directions).sum(-1)
    nearest = rays.origins + along[:, None] * rays.directions
    half = (radius**2 - nearest.square().sum(-1)).clamp(min=0).sqrt()
    return (along - half).clamp(min=0), (along + half).clamp(min=0)


class Blended(NamedTuple):
    """What rays see."""

    features: Float[Tensor, "r c"]
    """Premultiplied."""
    alpha: Float[Tensor, "r"]
    distance: Float[Tensor, "r"]
    """Expected distance times alpha."""


def blend(
    density: Float[Tensor, "r s"], features: Float[Tensor, "r s c"], distances: Float[Tensor, "r s"], step: Float[Tensor, "r 1"]
) -> Blended:
    """Blend samples front to back. Differentiable in density and features.

    With optical depths d = density * step, a sample's weight is exp(-sum of the d before it) times (1 - exp(-d)): Max 1995,
    "Optical Models for Direct Volume Rendering".
    """
    depth = density * step
    before = torch.exp(-(depth.cumsum(1) - depth))
    weights = before * -torch.expm1(-depth)
    return Blended((weights[..., None] * features).sum(1), weights.sum(1), (weights * distances).sum(1))


class Cells(NamedTuple):
    """What is known of space beforehand: grids over the cube [-1, 1]^3."""

    occupied: Bool[Tensor, "n n n"]
    """Whether a cell may hold anything."""
    solid: Float[Tensor, "n n n"]
    """The density that it has at least, in 1 / world units."""


DARK = 7.0
"""The optical depth behind which nothing is looked at: what is there shows by exp(-7) at most."""

Samples = tuple[Int[Tensor, "k"], Int[Tensor, "k"], Float[Tensor, "k 3"]]


def march(rays: Rays, first: Float[Tensor, "r"], step: Float[Tensor, "r"], samples: int, cells: Cells) -> Samples:
    """Find the samples that matter, of those at distances first, first + step, ... along each ray.

    They lie in occupied cells, and before the ray has come through an optical depth of ``DARK`` in solid ones. Outside of the
    cube, and on rays whose step is 0, there are none.

    Returns each one's ray, its number along the ray, and its place, in the order of rays and then of distance. On a CPU and in
    float32 by compiled loops; not differentiable.
    """
    if cells.occupied.device.type == "cpu" and first.dtype == torch.float32:
        return _march_numba.march(rays.origins, rays.directions, first, step, samples, *cells, DARK)
    return march_slowly(rays, first, step, samples, cells)


def march_slowly(rays: Rays, first: Float[Tensor, "r"], step: Float[Tensor, "r"], samples: int, cells: Cells) -> Samples:
    """What :func:`march` gives, in plain torch."""
    size = len(cells.occupied)
    distances = first[:, None] + torch.arange(samples, device=first.device) * step[:, None]
    points = rays.origins[:, None] + distances[..., None] * rays.directions[:, None]
    cell = ((points + 1) * (size / 2)).floor().long()
    inside = ((cell >= 0) & (cell < size)).all(-1) & (step > 0)[:, None]
    x, y, z = cell.clamp(0, size - 1).unbind(-1)
    depth = torch.where(inside, cells.solid[x, y, z], 0) * step[:, None]
    light = depth.cumsum(1) - depth <= DARK
    ray, sample = torch.nonzero(cells.occupied[x, y, z] & inside & light, as_tuple=True)
    return ray, sample, points[ray, sample]
