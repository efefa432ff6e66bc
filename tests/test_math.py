import math

import pytest
import torch

from rl3d.math import level_at, multiply_quats, rgb_from_sh, rotation_from_quat, sh_from_rgb


def test_quaternions_turn_as_they_should():
    half = math.radians(90) / 2
    about_z = rotation_from_quat(torch.tensor([math.cos(half), 0, 0, math.sin(half)]))
    torch.testing.assert_close(about_z @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


def test_any_quaternion_is_a_rotation_whatever_its_length_and_sign():
    quat = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).double()
    rotation = rotation_from_quat(quat)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20).double())
    torch.testing.assert_close(rotation_from_quat(-3 * quat), rotation)


def test_products_of_quaternions_turn_one_after_the_other():
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(rotation_from_quat(multiply_quats(a, b)), rotation_from_quat(a) @ rotation_from_quat(b))
    torch.testing.assert_close(multiply_quats(a[:1], b)[3], multiply_quats(a[0], b[3]))


def test_colours_come_back_from_harmonics():
    rgb = torch.rand(7, 3)
    torch.testing.assert_close(rgb_from_sh(sh_from_rgb(rgb)), rgb)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_levels_keep_variance(t):
    level = level_at(t)
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
    assert level_at(0.0) == (1, 0)
