import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from trimesh.creation import box, cone, cylinder
from world import mesh_shown, splat_shown, splats_of

from rl3d.rewards.base import SplatScene
from rl3d.rewards.physics import Drop, Stands, convex_pieces, solid_center, standing, support_margin, tipping_angle
from rl3d.types import Prompt

P = [Prompt("a")]
SQUARE = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.5, 0.0]])


def value(reward, shown):
    score = reward.score(shown, P)
    assert score.valid[0]
    return float(score.value[0])


@pytest.mark.parametrize(
    ("x", "y", "margin"), [(0.5, 0.5, 0.5), (0.1, 0.4, 0.1), (1.3, 0.5, -0.3), (1.3, 1.4, -0.5), (0.5, 1.0, 0.0)]
)
def test_margins_of_a_square(x, y, margin):
    assert float(support_margin(torch.tensor([x, y]), SQUARE)) == pytest.approx(margin, abs=1e-6)


def test_points_and_lines_support_nothing():
    center = torch.tensor([0.5, 0.3])
    assert float(support_margin(center, torch.tensor([[0.5, 0.0]]))) == pytest.approx(-0.3)
    line = torch.tensor([[0.0, 0], [0.5, 0], [1, 0]])
    assert float(support_margin(center, line)) == pytest.approx(-0.3)


@pytest.mark.parametrize("start", [(0.3, 0.4), (1.5, 0.2), (1.5, 1.7)])
def test_margins_are_differentiable(start):
    center = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(support_margin, (center, SQUARE.double().requires_grad_()))


def test_the_centre_of_a_solid():
    mesh = cone(0.5, 1.2, sections=64)
    mesh.apply_translation((0.3, -0.2, 0.1))
    vertices = torch.from_numpy(np.array(mesh.vertices)).requires_grad_()
    center = solid_center(vertices, torch.from_numpy(np.array(mesh.faces)))
    torch.testing.assert_close(center.detach(), torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64))
    (found,) = torch.autograd.grad(center[2], vertices)
    # Shifting all vertices shifts the centre.
    torch.testing.assert_close(found[:, 2].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_block_falls_when_its_centre_passes_its_edge():
    points = torch.from_numpy(np.array(box((0.4, 0.6, 1.0)).vertices))
    angle = tipping_angle(points, torch.zeros(3, dtype=torch.float64))
    assert float(angle) == pytest.approx(math.atan(0.2 / 0.5))
    assert float(tipping_angle(points, torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64))) < 0


def leaning() -> trimesh.Trimesh:
    """A column whose head hangs far over its foot."""
    head = box((0.8, 0.3, 0.3))
    head.apply_translation((0.45, 0, 0.75))
    return trimesh.util.concatenate([box((0.2, 0.3, 1.2)), head])


def test_a_broad_block_stands_firmer_than_a_slim_one_and_a_leaning_one_falls():
    shown = [mesh_shown(mesh) for mesh in (box((1, 1, 0.5)), box((0.3, 0.3, 1.2)), leaning())]
    broad, slim, falls = (value(Stands("mesh"), one) for one in shown)
    assert broad == pytest.approx(math.degrees(math.atan(0.5 / 0.25)))
    assert slim == pytest.approx(math.degrees(math.atan(0.15 / 0.6)))
    assert falls < 0


def test_gaussians_agree_with_the_mesh_that_they_cover():
    for mesh in (box((1, 1, 0.5)), box((0.3, 0.3, 1.2)), leaning()):
        shown = splat_shown(splats_of(mesh, 1500, scale=0.02))
        by_mesh, by_splats = value(Stands("mesh"), mesh_shown(mesh)), value(Stands(), shown)
        assert (by_mesh > 0) == (by_splats > 0)
        assert abs(by_mesh - by_splats) < 8


def test_climbing_it_makes_a_leaning_object_stand():
    """By how the object is sheared: one number, so that the optimiser cannot do it by noise."""
    splats = splats_of(leaning(), 400, scale=0.03)
    shear = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([shear], lr=0.03)
    shown = splat_shown(splats)
    first = value(Stands(), shown)
    score = None
    for _ in range(40):
        up = splats.means[:, 2] - splats.means[:, 2].min()
        means = splats.means + shear * torch.stack([up, 0 * up, 0 * up], 1)
        score = Stands().score(replace(shown, scenes=(SplatScene(replace(splats, means=means)),)), P)
        optimizer.zero_grad()
        (-score.value.sum()).backward()
        optimizer.step()
    assert score is not None
    assert first < 0 < float(score.value.detach())


def test_the_drop_test():
    pytest.importorskip("mujoco")
    hull = Drop("hull", seconds=1.5).build()
    slim = box((0.1, 0.1, 1.2))
    slim.apply_transform(trimesh.transformations.rotation_matrix(math.radians(15), (0, 1, 0)))
    shown = [mesh_shown(mesh) for mesh in (box((0.5, 0.5, 0.5)), cylinder(0.3, 0.6), slim)]
    scores = [hull.score(one, P) for one in shown]
    assert [bool(standing(score)[0]) for score in scores] == [True, True, False]
    assert float(scores[0].value[0]) > 0.99


def table() -> trimesh.Trimesh:
    """A top on one leg off the middle: it falls, but its hull would stand."""
    top, leg, foot = box((1.2, 0.8, 0.1)), box((0.1, 0.5, 0.9)), box((0.25, 0.5, 0.1))
    top.apply_translation((0.5, 0, 0.9))
    leg.apply_translation((0, 0, 0.5))
    foot.apply_translation((0, 0, 0.05))
    return trimesh.util.concatenate([top, leg, foot])


def test_convex_pieces_keep_what_a_hull_fills():
    pytest.importorskip("coacd")
    pytest.importorskip("mujoco")
    pieces = convex_pieces(table(), "coacd", 0.08)
    assert len(pieces) > 1
    volume = sum(trimesh.Trimesh(*piece).volume for piece in pieces)
    assert volume < 0.6 * table().convex_hull.volume
    fallen = Drop(seconds=2.0).build().score(mesh_shown(table()), P)
    assert not standing(fallen)[0]
    assert fallen.valid[0]


def test_what_cannot_be_dropped_is_not_valid():
    pytest.importorskip("mujoco")
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    score = Drop("hull", seconds=0.1).build().score(mesh_shown(flat), P)
    assert not score.valid[0]
    assert not standing(score)[0]
    assert not Stands("mesh").score(mesh_shown(flat), P).valid[0]


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    with pytest.raises(ValueError, match=r"rl3d\[physics\]"):
        Drop().build()
