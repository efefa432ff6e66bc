"""Turned Gaussians look as before to cameras that turn along."""

from dataclasses import replace

import pytest
import torch

from rl3d.cameras import look_at_origin
from rl3d.geometry.turn import UPRIGHT, harmonics_turned, turned
from rl3d.math import rotation_from_quat
from rl3d.render.gaussians import look_at
from rl3d.types import Splats


def splats(k):
    rng = torch.Generator().manual_seed(k)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    return Splats(0.3 * draw(30, 3), 0.3 * draw(30, 3) - 2, draw(30, 4), draw(30) + 1, 0.4 * draw(30, k, 3))


@pytest.mark.parametrize("k", [1, 4, 9, 16])
@pytest.mark.parametrize("quat", [UPRIGHT, (0.3, -0.7, 0.2, 0.5)])
def test_it_looks_as_before_to_cameras_that_turn_along(k, quat):
    cameras = look_at_origin(torch.tensor([[20.0, 140, 250]]), torch.tensor([[10.0, -30, 60]]), width=32, height=32)
    rotation = torch.eye(4)
    rotation[:3, :3] = rotation_from_quat(torch.tensor(quat))
    along = replace(cameras, cam_from_world=cameras.cam_from_world @ rotation.T)
    before, after = look_at(splats(k))(cameras), look_at(turned(splats(k), quat))(along)
    assert before.alpha.max() > 0.9
    torch.testing.assert_close(after.rgb, before.rgb, atol=2e-4, rtol=0)


def test_upright_makes_y_up_z_up_and_turns_without_rounding():
    found = turned(splats(4), UPRIGHT)
    assert torch.equal(found.means, splats(4).means[:, [2, 0, 1]])
    back = turned(found, (0.5, -0.5, -0.5, -0.5))
    assert torch.equal(back.means, splats(4).means)
    torch.testing.assert_close(back.sh, splats(4).sh, atol=1e-6, rtol=0)


def test_harmonics_turn_by_an_orthogonal_matrix_within_each_degree():
    matrix = harmonics_turned(rotation_from_quat(torch.tensor([0.1, 0.5, -0.3, 0.8], dtype=torch.float64)), 16)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(16).double(), atol=1e-12, rtol=0)
    degree = torch.tensor([0, *[1] * 3, *[2] * 5, *[3] * 7])
    assert matrix[degree[:, None] != degree].abs().max() < 1e-12
