import math

import pytest
import torch

from rl3d.math import draw, level_at, multiply_quats, relocated, rgb_from_sh, rotation_from_quat, sh_from_rgb


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


def test_shared_light_is_one_and_a_copy_of_one_is_itself():
    opacities, scales = torch.tensor([0.3, 0.9, 0.99, 0.5]), torch.rand(4, 3) + 0.1
    alone = relocated(opacities, scales, torch.ones(4))
    torch.testing.assert_close(alone[0], opacities)
    torch.testing.assert_close(alone[1], scales)
    copies = torch.tensor([2.0, 3, 51, 1])
    shared, smaller = relocated(opacities, scales, copies)
    torch.testing.assert_close(1 - (1 - shared) ** copies, opacities)
    assert (smaller[:3] < scales[:3]).all()


def test_copies_have_the_mass_of_the_one_along_a_line():
    """Equation 9 of Kheradmand et al. keeps the integral of alpha along a line through the middle."""
    opacity, copies = torch.tensor([0.8]), torch.tensor([4.0])
    shared, scale = relocated(opacity, torch.ones(1, 3), copies)
    x = torch.linspace(-8, 8, 4001)
    one = (opacity * torch.exp(-(x**2) / 2)).sum()
    four = (1 - (1 - shared * torch.exp(-((x / scale[0, 0]) ** 2) / 2)) ** 4).sum()
    torch.testing.assert_close(four, one, rtol=1e-4, atol=0)


def test_draws_follow_their_weights():
    weights = torch.tensor([1.0, 0.0, 3.0])
    found = torch.bincount(draw(weights, 8000, torch.Generator().manual_seed(0)), minlength=3) / 8000
    torch.testing.assert_close(found, weights / 4, atol=0.02, rtol=0)
    assert found[1] == 0
