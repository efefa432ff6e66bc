"""Cameras of others show the same point on the same pixel."""

import pytest
import torch

from rl3d.cameras import RandomOrbit
from rl3d.interop import from_opengl, from_pytorch3d, to_opengl, to_pytorch3d


def ours(cameras, points):
    """Pixels and depths of world points, ``[v n 3]``."""
    pose, matrix = cameras.cam_from_world[0], cameras.intrinsics[0]
    local = points @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
    image = local @ matrix.mT
    return torch.cat([image[..., :2] / image[..., 2:], local[..., 2:]], -1)


def theirs(R, T, focal_length, principal_point, image_size, points):
    """The same by what pytorch3d's notes say of its spaces."""
    local = points @ R + T[:, None]
    ndc = focal_length[:, None] * local[..., :2] / local[..., 2:] + principal_point[:, None]
    height, width = image_size[0]
    short = min(width, height)
    pixels = torch.stack([width / 2 - ndc[..., 0] * short / 2, height / 2 - ndc[..., 1] * short / 2], -1)
    return torch.cat([pixels, local[..., 2:]], -1)


@pytest.fixture
def cameras():
    drawn = RandomOrbit(views=5, size=64).cameras(torch.Generator().manual_seed(0)).resized(96, 64)
    drawn.intrinsics[..., 0, 2] += 3.5
    return drawn


@pytest.fixture
def points():
    return 0.5 * torch.randn(20, 3)


def test_points_fall_on_the_same_pixels(cameras, points):
    torch.testing.assert_close(theirs(**to_pytorch3d(cameras), points=points), ours(cameras, points), rtol=1e-4, atol=1e-3)


def test_there_and_back(cameras):
    back = from_pytorch3d(**to_pytorch3d(cameras))
    assert (back.width, back.height) == (96, 64)
    torch.testing.assert_close(back.cam_from_world, cameras.cam_from_world)
    torch.testing.assert_close(back.intrinsics, cameras.intrinsics)


def test_pictures_of_different_sizes_are_refused(cameras):
    said = to_pytorch3d(cameras)
    with pytest.raises(ValueError, match="one size"):
        from_pytorch3d(**said | {"image_size": said["image_size"] + torch.arange(5.0)[:, None]})


def test_pytorch3d_agrees(cameras, points):
    renderer = pytest.importorskip("pytorch3d.renderer", reason="pytorch3d is not installed")
    found = renderer.PerspectiveCameras(**to_pytorch3d(cameras)).transform_points_screen(points.expand(5, -1, -1))
    torch.testing.assert_close(found[..., :2], ours(cameras, points)[..., :2], rtol=1e-4, atol=1e-3)


def test_opengl_cameras_see_the_point_where_ours_do(cameras, points):
    matrices = to_opengl(cameras)[0]
    local = (points - matrices[:, None, :3, 3]) @ matrices[:, :3, :3]  # x right, y up, z backward
    k = cameras.intrinsics[0]
    across = k[:, None, 0, 0] * local[..., 0] / -local[..., 2] + k[:, None, 0, 2]
    down = k[:, None, 1, 1] * -local[..., 1] / -local[..., 2] + k[:, None, 1, 2]
    seen = torch.stack([across, down, -local[..., 2]], -1)
    torch.testing.assert_close(seen, ours(cameras, points), atol=1e-3, rtol=1e-4)


def test_there_and_back_to_opengl_is_the_same_camera(cameras):
    for rows in (3, 4):
        back = from_opengl(to_opengl(cameras)[0, :, :rows], cameras.intrinsics[0], cameras.width, cameras.height)
        torch.testing.assert_close(back.cam_from_world, cameras.cam_from_world, atol=1e-5, rtol=0)
        torch.testing.assert_close(back.intrinsics, cameras.intrinsics)
        assert (back.width, back.height) == (cameras.width, cameras.height)
