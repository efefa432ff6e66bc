"""Our cameras in conventions of others, and back. No library of theirs is needed.

OpenGL's camera has x to the right, y up and z backward; whoever has it (nerfstudio, Blender) keeps matrices from the camera
to the world.

pytorch3d's view space has x to the left, y up and z forward; its matrices stand on the right (``p_view = p_world @ R + T``).
Lengths on the image are in units of half the shorter side, from the centre, to the left and up ("NDC"):
https://github.com/facebookresearch/pytorch3d/blob/main/docs/notes/cameras.md.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.types import Cameras

OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1, -1, 1]))


def to_opengl(cameras: Cameras) -> Float[Tensor, "b v 4 4"]:
    """Matrices from OpenGL's camera to the world."""
    return torch.linalg.inv(cameras.cam_from_world) @ OPENGL_FROM_OPENCV.to(cameras.cam_from_world)


def from_opengl(world_from_cam: Float[Tensor, "n _ 4"], intrinsics: Float[Tensor, "n 3 3"], width: int, height: int) -> Cameras:
    """Cameras of one scene, from rigid matrices of 3 or 4 rows that lead from OpenGL's camera to the world.

    Args:
        world_from_cam: The matrices.
        intrinsics: Focal lengths and principal points in pixels, y downward, pixel centres at half-integers.
        width: Of the pictures, in pixels.
        height: Of the pictures, in pixels.
    """
    rotation = world_from_cam[:, :3, :3] @ OPENGL_FROM_OPENCV[:3, :3].to(world_from_cam)
    pose = torch.eye(4).to(world_from_cam).repeat(len(world_from_cam), 1, 1)
    pose[:, :3, :3] = rotation.mT
    pose[:, :3, 3] = -(rotation.mT @ world_from_cam[:, :3, 3:])[..., 0]
    return Cameras(pose[None], intrinsics[None], width, height)


def to_pytorch3d(cameras: Cameras) -> dict[str, Tensor]:
    """What ``pytorch3d.renderer.PerspectiveCameras(**...)`` takes, for all cameras in a row.

    Returns:
        ``R`` ``[b v 3 3]`` and ``T`` ``[b v 3]``, ``focal_length`` and ``principal_point`` ``[b v 2]`` in NDC, ``image_size``
        ``[b v 2]`` as height and width, each with the first two axes as one.
    """
    pose = (_turned(cameras.cam_from_world) @ cameras.cam_from_world).flatten(0, 1)
    matrix = cameras.intrinsics.flatten(0, 1)
    half = min(cameras.width, cameras.height) / 2
    centre = matrix.new_tensor([cameras.width / 2, cameras.height / 2])
    return {
        "R": pose[:, :3, :3].mT,
        "T": pose[:, :3, 3],
        "focal_length": torch.stack([matrix[:, 0, 0], matrix[:, 1, 1]], -1) / half,
        "principal_point": (centre - matrix[:, :2, 2]) / half,
        "image_size": matrix.new_tensor([[cameras.height, cameras.width]]).expand(len(matrix), -1),
    }


def from_pytorch3d(
    R: Float[Tensor, "n 3 3"],
    T: Float[Tensor, "n 3"],
    focal_length: Float[Tensor, "n 2"],
    principal_point: Float[Tensor, "n 2"],
    image_size: Float[Tensor, "n 2"],
) -> Cameras:
    """Cameras of one scene from the fields of a ``PerspectiveCameras`` in NDC, by the names it gives them.

    Raises:
        ValueError: if their pictures are of different sizes.
    """
    if not (image_size == image_size[:1]).all():
        raise ValueError(f"cameras of one scene have pictures of one size; got {image_size.tolist()}")
    height, width = (int(side) for side in image_size[0])
    pose = torch.eye(4).to(R).repeat(len(R), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = R.mT, T
    half = min(width, height) / 2
    matrix = torch.eye(3).to(R).repeat(len(R), 1, 1)
    matrix[:, 0, 0], matrix[:, 1, 1] = half * focal_length[:, 0], half * focal_length[:, 1]
    matrix[:, :2, 2] = R.new_tensor([width / 2, height / 2]) - half * principal_point
    return Cameras((_turned(pose) @ pose)[None], matrix[None], width, height)


def _turned(pose: Tensor) -> Tensor:
    """A half turn about z, which carries either view space to the other."""
    return torch.diag(pose.new_tensor([-1.0, -1.0, 1.0, 1.0]))
