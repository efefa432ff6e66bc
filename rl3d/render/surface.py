"""What depth says of the surface."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.types import Cameras


def points_from_depth(depth: Float[Tensor, "b v h w 1"], cameras: Cameras) -> Float[Tensor, "b v h w 3"]:
    """The world-space points that pixel centres show at this depth along the camera's z axis. Differentiable."""
    y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).to(depth)
    rotation, intrinsics = cameras.cam_from_world[..., :3, :3].to(depth), cameras.intrinsics.to(depth)
    in_camera = torch.einsum("bvij,hwj->bvhwi", torch.linalg.inv(intrinsics), pixels) * depth
    return torch.einsum("bvji,bvhwj->bvhwi", rotation, in_camera) + cameras.centers.to(depth)[:, :, None, None]


def normals_from_depth(depth: Float[Tensor, "b v h w 1"], cameras: Cameras) -> Float[Tensor, "b v h w 3"]:
    """World-space unit normals of the surface that depth draws, facing the camera; 0 where depth or a neighbour's is 0.

    They are the cross product of the differences of neighbouring points (Huang et al. 2024, "2D Gaussian Splatting", eq. 15),
    central ones but for the image's edge. Differentiable.
    """
    points = points_from_depth(depth, cameras)
    across, known_across = _difference(points, depth > 0, 3)
    down, known_down = _difference(points, depth > 0, 2)
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1, eps=1e-12)
    return torch.where(known_across & known_down, normals, 0.0)


def _difference(points: Tensor, known: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The difference of the neighbours along an axis, and where both are known."""
    size = points.shape[axis]
    after, before = (torch.arange(size, device=points.device).add(step).clamp(0, size - 1) for step in (1, -1))
    both = known & known.index_select(axis, after) & known.index_select(axis, before)
    return points.index_select(axis, after) - points.index_select(axis, before), both
