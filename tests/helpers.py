"""Analytic scenes that several tests look at."""

import torch

from rl3d.types import Cameras, Views


def rays(cameras: Cameras):
    """Centres [b v 1 1 3], unit directions [b v h w 3] and the depth along z of a unit step."""
    y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], -1)
    local = torch.einsum("bvij,hwj->bvhwi", torch.linalg.inv(cameras.intrinsics), pixel)
    world = torch.einsum("bvji,bvhwj->bvhwi", cameras.cam_from_world[..., :3, :3], local)
    length = world.norm(dim=-1, keepdim=True)
    return cameras.centers[:, :, None, None], world / length, 1 / length


def sphere_views(cameras: Cameras, radius: float = 0.6, center=(0.0, 0.0, 0.0)) -> Views:
    """A sphere whose colour is 0.5 + its normal / 2, ray-traced: hard silhouettes, exact depth and normals."""
    origin, direction, z = rays(cameras)
    origin = origin - torch.tensor(center)
    along = (origin * direction).sum(-1, keepdim=True)
    root = along.square() - origin.square().sum(-1, keepdim=True) + radius**2
    alpha = (root > 0).float()
    distance = -along - root.clamp(min=0).sqrt()
    normals = (origin + distance * direction) / radius
    return Views(alpha * (0.5 + normals / 2), alpha, alpha * distance * z, alpha * normals, cameras)
