"""Truncated signed distance fields fused from depth views (Curless & Levoy 1996), and the surface in them."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from rl3d.geometry.hull import project, sample_pixels
from rl3d.types import Cameras, Views


def fuse(views: Views, *, resolution: int = 96, extent: float = 1.0, truncation: float = 4.0) -> Float[Tensor, "x y z"]:
    """Fuse rendered depth into a grid of signed distances in voxels, positive outside, within +-``truncation``.

    A voxel that any view shows to be empty (its ray passes beside the object) is outside; one that lies behind the surface
    in all views, so that nothing ever saw it, is inside: the surface is closed without guessing.

    Args:
        views: ``[1 v h w]`` with depth and alpha.
        resolution: Voxels along each side of the cube of half-width ``extent``.
        extent: World units.
        truncation: In voxels.
    """
    assert views.depth is not None
    alpha, depth = views.alpha[0].detach(), views.depth[0].detach()
    step = 2 * extent / resolution
    axis = (torch.arange(resolution, device=alpha.device) + 0.5) * step - extent
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    total, weight = torch.zeros(len(points)).to(alpha), torch.zeros(len(points)).to(alpha)
    empty = torch.zeros(len(points), dtype=torch.bool, device=alpha.device)
    for i in range(views.cameras.views):  # One view at a time: memory.
        pixels, z = project(points, views.cameras.select(slice(i, i + 1)))
        coverage, surface = sample_pixels(torch.cat([alpha[i : i + 1], alpha[i : i + 1] * depth[i : i + 1]], -1), pixels)[
            0
        ].unbind(-1)
        empty |= coverage < 0.4
        distance = (surface / coverage.clamp(min=1e-3) - z[0]) / step
        seen = (coverage >= 0.4) & (distance > -truncation)
        total += torch.where(seen, distance.clamp(max=truncation), 0.0)
        weight += seen
    field = torch.where(weight > 0, total / weight.clamp(min=1), -truncation)
    field = torch.where(empty, field.abs().clamp(min=0.5), field)
    return field.reshape(resolution, resolution, resolution)


def surface(field: Float[Tensor, "x y z"], *, extent: float = 1.0, smooth: int = 5, debris: float = 0.01) -> trimesh.Trimesh:
    """Extract the zero level of a signed distance grid as a closed mesh with outward faces.

    Args:
        field: Distances in voxels, positive outside.
        extent: Half-width of the grid's cube, in world units.
        smooth: Rounds of Taubin smoothing, which keeps the volume.
        debris: Components with less than this fraction of the largest one's area are dropped.

    Raises:
        ValueError: if nothing is inside.
    """
    from skimage.measure import marching_cubes

    resolution = field.shape[0]
    # A shell of outside, so that what touches the border is closed.
    grid = np.pad(field.cpu().numpy(), 1, constant_values=float(field.abs().max()))
    if not (grid < 0).any():
        raise ValueError("there is no surface to mesh: the object is empty, or too faint; look at its renders")
    vertices, faces, _, _ = marching_cubes(grid, 0.0, gradient_direction="ascent")
    mesh = trimesh.Trimesh((vertices - 0.5) * (2 * extent / resolution) - extent, faces, process=False)
    parts = mesh.split(only_watertight=False)
    if len(parts) > 1:
        largest = max(part.area for part in parts)
        mesh = trimesh.util.concatenate([part for part in parts if part.area >= debris * largest])
    if mesh.volume < 0:
        mesh.invert()
    trimesh.smoothing.filter_taubin(mesh, iterations=2 * smooth)
    return mesh  # pyright: ignore[reportReturnType]


def paint(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], views: Views, *, slack: float = 0.05
) -> Float[Tensor, "n 3"]:
    """Colours of surface points: the mean of the views that see them, weighted by how squarely; all views where none does."""
    assert views.depth is not None
    total, weight = torch.zeros_like(points), torch.full_like(points[:, :1], 1e-6)
    for i in range(views.cameras.views):
        camera = views.cameras.select(slice(i, i + 1))
        pixels, z = project(points, camera)
        rgba = sample_pixels(views.rgba[0, i : i + 1].detach(), pixels)[0]
        depth = sample_pixels(views.alpha[0, i : i + 1] * views.depth[0, i : i + 1], pixels)[0, :, 0] / rgba[:, 3].clamp(
            min=1e-3
        )
        towards = torch.nn.functional.normalize(camera.centers[0] - points, dim=-1)
        facing = (towards * normals).sum(-1).clamp(min=0)
        share = torch.where((z[0] < depth + slack) & (rgba[:, 3] > 0.5), facing.square(), 0.0)[:, None] + 1e-5 * rgba[:, 3:]
        total += share * rgba[:, :3] / rgba[:, 3:].clamp(min=1e-3)
        weight += share
    return (total / weight).clamp(0, 1)


def orbit_cameras(views: int, elevations_deg: tuple[float, ...], size: int) -> Cameras:
    """Rings of cameras all around, for fusing and painting."""
    from rl3d.cameras import look_at_origin

    azimuth = torch.arange(views) * (360 / views)
    rings = [azimuth + (180 / views if i % 2 else 0) for i in range(len(elevations_deg))]
    elevation = torch.tensor(elevations_deg).repeat_interleave(views)
    return look_at_origin(torch.cat(rings)[None], elevation[None], width=size, height=size)
