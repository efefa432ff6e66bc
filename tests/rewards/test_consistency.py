from dataclasses import replace

import pytest
import torch
from helpers import sphere_views
from world import spec, toy_shown

from rl3d.cameras import Orbit
from rl3d.geometry.reproject import normals_from_depth, unproject
from rl3d.rewards.base import together
from rl3d.rewards.clip import Clip
from rl3d.rewards.consistency import Normals, Refit, Reprojection
from rl3d.types import Prompt

P = [Prompt("a red mug")]


def ball(views=8, size=48):
    return sphere_views(Orbit(views, 20.0, size=size).cameras())


def value(reward, views):
    score = reward.score(views, [P[0]] * len(views.rgb) if hasattr(views, "rgb") else P)
    assert score.valid.all()
    return float(score.value[0])


def test_pixels_become_the_points_that_they_show():
    views = ball(2)
    points = unproject(views.depth[0], views.cameras)[views.alpha[0, ..., 0] > 0]
    torch.testing.assert_close(points.norm(dim=-1), torch.full((len(points),), 0.6), rtol=1e-4, atol=1e-4)


def test_normals_of_a_sphere_from_its_depth():
    views = ball(2, 96)
    normals, jump = normals_from_depth(views.depth[0], views.cameras)
    inside = (views.alpha[0] > 0) & (jump < 0.05)
    facing = (normals * views.normals[0]).sum(-1, keepdim=True)[inside]
    assert facing.mean() > 0.99


def test_true_views_agree_and_repainted_ones_do_not():
    true = ball()
    assert value(Reprojection(), true) > -0.03
    odd = true.rgb.clone()
    odd[:, ::2] = true.alpha[:, ::2] * (1 - odd[:, ::2])
    assert value(Reprojection(), replace(true, rgb=odd)) < value(Reprojection(), true) - 0.1


def test_what_is_hidden_is_not_compared():
    """Two cameras on opposite sides share nothing but the rim: what they show there may differ as it likes."""
    cameras = Orbit(2, 0.0, size=48).cameras()
    true = sphere_views(cameras)
    rgb = true.rgb.clone()
    rgb[0, 0] = true.alpha[0, 0] * 0.1
    rgb[0, 1] = true.alpha[0, 1] * 0.9
    score = Reprojection(slack=0.02).score(replace(true, rgb=rgb), P)
    assert not score.valid[0]


def test_wrong_normals_are_noticed():
    true = ball()
    assert value(Normals(), true) > 0.97
    flipped = replace(true, normals=-true.normals)
    assert value(Normals(), flipped) == pytest.approx(-value(Normals(), true), abs=1e-5)


def test_a_refit_loses_what_views_disagree_on(clip_folder):
    true = toy_shown(spec("car", "red"), views=6, size=48).views
    mixed = true.rgb.clone()
    mixed[:, ::2] = true.rgb[:, ::2].flip(-1)
    batch = together([true, replace(true, rgb=mixed)]).views
    for reward in (Refit(steps=40).build(), Refit(Clip(str(clip_folder)), steps=40).build()):
        score = reward.score(batch, P * 2)
        assert score.value[0] > score.value[1]
    assert Refit(steps=40).build().score(batch, P * 2).value[0] > -0.05


def test_a_view_of_nothing_is_not_judged():
    empty = replace(ball(3), rgb=torch.zeros(1, 3, 48, 48, 3), alpha=torch.zeros(1, 3, 48, 48, 1))
    for reward in (Reprojection(), Normals(), Refit().build()):
        assert not reward.score(empty, P).valid[0]
