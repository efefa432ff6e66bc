import math

import pytest
import torch

from rl3d.cameras import Orbit, RandomOrbit, look_at_origin
from rl3d.geometry.hull import project


@pytest.mark.parametrize("elevation", [-90.0, -20.0, 0.0, 35.0, 90.0])
def test_cameras_are_rigid_look_at_the_origin_and_keep_up_up(elevation):
    cameras = look_at_origin(torch.tensor([[0.0, 100.0, -170.0]]), torch.full((1, 3), elevation), distance=2.5)
    rotation = cameras.cam_from_world[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(1, 3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(1, 3))
    pixels, depth = project(torch.tensor([[0.0, 0, 0], [0, 0, 0.1]]), cameras)
    torch.testing.assert_close(pixels[:, 0], torch.full((3, 2), 32.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(depth[:, 0], torch.full((3,), 2.5))
    if abs(elevation) < 90:
        assert (pixels[:, 1, 1] < 32).all()
        torch.testing.assert_close(pixels[:, 1, 0], torch.full((3,), 32.0), atol=1e-4, rtol=0)


def test_azimuth_zero_sees_the_front_with_its_left_on_the_right():
    cameras = Orbit(views=4, elevation_deg=0.0, size=100).cameras()
    torch.testing.assert_close(cameras.centers[0, 0], torch.tensor([3.0, 0, 0]), atol=1e-6, rtol=0)
    pixels, _ = project(torch.tensor([[0.0, 0.5, 0.0]]), cameras)
    assert pixels[0, 0, 0] > 50


def test_angles_come_back():
    azimuth, elevation = torch.tensor([[10.0, -95.0, 170.0]]), torch.tensor([[-30.0, 0.0, 60.0]])
    cameras = look_at_origin(azimuth, elevation)
    torch.testing.assert_close(cameras.azimuths_deg, azimuth, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(cameras.elevations_deg, elevation, atol=1e-4, rtol=1e-5)


def test_the_unit_sphere_fits_the_default_frame():
    cameras = Orbit(views=1).cameras()
    half = math.atan(32 / cameras.intrinsics[0, 0, 1, 1].item())
    assert math.asin(1 / 3) < half < math.asin(1 / 2.9)


def test_resized_cameras_see_the_same_directions():
    cameras = Orbit(views=2).cameras()
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    small, _ = project(points, cameras)
    large, _ = project(points, cameras.resized(128, 256))
    torch.testing.assert_close(large, small * torch.tensor([2.0, 4.0]), atol=1e-3, rtol=1e-5)


def test_random_orbits_stay_in_range_and_follow_the_generator():
    rig = RandomOrbit(views=4, elevation_min_deg=5.0, elevation_max_deg=15.0)
    rng = torch.Generator().manual_seed(3)
    drawn = [rig.cameras(rng) for _ in range(50)]
    elevation = torch.cat([c.elevations_deg for c in drawn])
    assert elevation.min() > 4.99
    assert elevation.max() < 15.01
    assert elevation.std() > 2
    again = rig.cameras(torch.Generator().manual_seed(3))
    assert torch.equal(again.cam_from_world, drawn[0].cam_from_world)
