"""From pixels with depth to points, and from there into other views."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.types import Cameras


def unproject(depth: Float[Tensor, "v h w 1"], cameras: Cameras) -> Float[Tensor, "v h w 3"]:
    """World points of the pixels of ``[1 v]`` cameras, whose depth is along the camera's z axis. Differentiable in depth."""
    h, w = depth.shape[1:3]
    y, x = torch.meshgrid(*(torch.arange(n, device=depth.device, dtype=depth.dtype) + 0.5 for n in (h, w)), indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    inverse = torch.linalg.inv(cameras.intrinsics[0].to(depth))
    local = depth * torch.einsum("vij,hwj->vhwi", inverse, rays)
    pose = cameras.cam_from_world[0].to(depth)
    return torch.einsum("vji,vhwj->vhwi", pose[:, :3, :3], local - pose[:, None, None, :3, 3])


def normals_from_depth(
    depth: Float[Tensor, "v h w 1"], cameras: Cameras
) -> tuple[Float[Tensor, "v h w 3"], Float[Tensor, "v h w 1"]]:
    """World normals of a depth map by central differences, turned to the camera; and by how far depth jumps between the
    neighbours that they are taken from (world units). Both are zero on the border. Differentiable in depth.
    """
    points = unproject(depth, cameras)
    right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    # In camera space x cross y looks along z, away from the camera.
    normals = F.pad(F.normalize(torch.linalg.cross(down, right), dim=-1), (0, 0, 1, 1, 1, 1))
    across = (depth[:, 1:-1, 2:] - depth[:, 1:-1, :-2]).abs()
    along = (depth[:, 2:, 1:-1] - depth[:, :-2, 1:-1]).abs()
    return normals, F.pad(torch.maximum(across, along), (0, 0, 1, 1, 1, 1))
