"""Visual hulls: from silhouettes to a coloured point cloud of the surface that they allow."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.types import Cameras, Views


def project(points: Float[Tensor, "n 3"], cameras: Cameras) -> tuple[Float[Tensor, "v n 2"], Float[Tensor, "v n"]]:
    """Project world points into each of ``[1 v]`` cameras: pixel positions and depths. Differentiable in the points."""
    rotation, translation = cameras.cam_from_world[0, :, :3, :3], cameras.cam_from_world[0, :, :3, 3]
    local = points @ rotation.mT + translation[:, None]
    depth = local[..., 2]
    pixels = (local @ cameras.intrinsics[0].mT)[..., :2] / depth[..., None]
    return pixels, depth


def sample_pixels(images: Float[Tensor, "v h w c"], pixels: Float[Tensor, "v n 2"]) -> Float[Tensor, "v n c"]:
    """Read images at pixel positions, bilinearly; zero outside."""
    _, h, w, _ = images.shape
    grid = 2 * pixels / torch.tensor([w, h]).to(pixels) - 1
    found = F.grid_sample(images.movedim(-1, 1), grid[:, :, None], align_corners=False)
    return found[..., 0].mT


def visual_hull(
    views: Views, *, resolution: int = 64, threshold: float = 0.5, extent: float = 1.0, agreement: float = 1.0
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Carve a grid of voxels by the views' silhouettes; return its surface's points and colours.

    A voxel stays where the alpha of every view is at least ``threshold``; if nothing stays (views that disagree), the threshold
    falls until something does. Views that were drawn and not taken disagree a little, and a thin leg is lost where one of them
    shows it a pixel aside: what two views or more show and nothing explains comes back where enough views agree on it.
    A surface voxel has an empty neighbour. Its colour is the mean over the views that see it foremost, or over all views where
    none does.

    Args:
        views: ``[1 v h w]``, with alpha.
        resolution: Voxels along each side of the cube of half-width ``extent``.
        threshold: Alpha in (0, 1).
        extent: World units.
        agreement: The share of the views, in (0, 1], that must show what would be lost otherwise.
    """
    alpha, cameras = views.alpha[0].detach(), views.cameras
    step = 2 * extent / resolution
    axis = (torch.arange(resolution, device=alpha.device) + 0.5) * step - extent
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    pixels, _ = project(grid.reshape(-1, 3), cameras)
    shown = sample_pixels(alpha, pixels)[..., 0]
    least = shown.amin(0)
    threshold = min(threshold, 0.9 * least.max().item())
    solid = least > threshold
    enough = math.ceil(round(agreement * len(shown), 6))
    if enough < len(shown):
        missed = _unexplained(solid, alpha[..., 0] > 0.5, pixels, _footprint(cameras, step))
        solid |= ((shown > threshold).sum(0) >= enough) & (missed.sum(0) >= 2)
    points = grid[_surface(solid.reshape(grid.shape[:3]))]
    return points, _colours(points, views, step)


def _footprint(cameras: Cameras, step: float) -> float:
    """How many pixels a voxel is wide, at the middle of the world."""
    distance = cameras.cam_from_world[0, 0, :3, 3].norm().item()
    return cameras.intrinsics[0, 0, 0, 0].item() * step / distance


def _unexplained(
    solid: Bool[Tensor, "n"], shown: Bool[Tensor, "v h w"], pixels: Float[Tensor, "v n 2"], footprint: float
) -> Bool[Tensor, "v n"]:
    """Which voxels fall, in each view, on a pixel that shows something but no solid voxel, nor one nearby."""
    v, h, w = shown.shape
    column, row = pixels.floor().long().unbind(-1)
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    index = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
    covered = torch.zeros(v, h * w, device=solid.device).scatter_reduce(1, index, (inside & solid).float(), "amax")
    reach = max(1, round(footprint))
    covered = F.max_pool2d(covered.reshape(v, 1, h, w), 2 * reach + 1, 1, reach).reshape(v, -1) > 0
    return inside & (shown.flatten(1) & ~covered).gather(1, index)


def _surface(solid: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Solid voxels with an empty face neighbour."""
    padded = F.pad(solid, (1, 1, 1, 1, 1, 1))
    core = slice(1, -1)
    buried = torch.ones_like(solid)
    for dim in range(3):
        for side in (slice(0, -2), slice(2, None)):
            buried &= padded[tuple(side if axis == dim else core for axis in range(3))]
    return solid & ~buried


def _colours(points: Float[Tensor, "n 3"], views: Views, step: float) -> Float[Tensor, "n 3"]:
    """Mean straight colour over the views in which a point lies within two voxels of the foremost one."""
    rgba = views.rgba[0].detach()
    v, h, w, _ = rgba.shape
    pixels, depth = project(points, views.cameras)
    # A depth buffer with cells about as large as a voxel's footprint, so that points close holes.
    cell = max(1.0, _footprint(views.cameras, step))
    columns, rows = int(w / cell) + 1, int(h / cell) + 1
    xy = (pixels / cell).long()
    index = xy[..., 1].clamp(0, rows - 1) * columns + xy[..., 0].clamp(0, columns - 1)
    nearest = torch.full((v, rows * columns), torch.inf, device=depth.device).scatter_reduce(1, index, depth, "amin")
    seen = depth < nearest.gather(1, index) + 2 * step
    found = sample_pixels(rgba, pixels)
    weight = torch.where(seen.any(0), seen.float(), 1.0)[..., None] * found[..., 3:]
    straight = found[..., :3] / found[..., 3:].clamp(min=1e-3)
    return ((weight * straight).sum(0) / weight.sum(0).clamp(min=1e-6)).clamp(0, 1)
