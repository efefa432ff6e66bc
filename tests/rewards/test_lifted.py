"""Rewards of the object that views make."""

import torch
from helpers import sphere_views

from rl3d.cameras import Orbit
from rl3d.protocols import RewardInfo
from rl3d.rewards.base import FromCallable, together
from rl3d.rewards.guards import Area
from rl3d.rewards.lifted import Lifted
from rl3d.types import Prompt

QUICK = {"steps": 8, "resolution": 24, "limit": 800}


def test_a_sphere_is_seen_from_new_sides_about_as_large_as_it_is():
    views = sphere_views(Orbit(4, 20.0, size=32).cameras())
    live = Lifted(Area(), **QUICK).build()
    score = live.score(views, [Prompt("a ball")])
    assert score.valid.all()
    # A hull holds the object, and bulges between the sides that carved it: 4 cones leave 27 % more area there, with this fit.
    area = float(views.alpha.mean())
    assert 0.95 * area < float(score.value[0]) < 1.4 * area
    new = live.cameras(views.cameras)
    turned = (new.azimuths_deg[0, 0] - views.cameras.azimuths_deg[0, 0]) % 360
    assert abs(float(turned) - 45.0) < 1e-3
    torch.testing.assert_close(new.intrinsics[0, 0], views.cameras.intrinsics[0, 0], rtol=1e-4, atol=1e-3)


def test_what_cannot_be_lifted_is_not_valid_and_the_rest_is_judged_with_its_scene():
    views = sphere_views(Orbit(4, 20.0, size=32).cameras())
    nothing = sphere_views(Orbit(4, 20.0, size=32).cameras(), radius=1e-6)
    both = together([nothing, views]).views
    info = RewardInfo("count", "no", (0.0, float("inf")), "", "", "", frozenset({"splats"}))
    count = FromCallable(lambda shown, prompts: [float(len(s.splats())) for s in shown.scenes], info)
    score = Lifted(count, **QUICK).build().score(both, [Prompt("a"), Prompt("b")])
    assert score.valid.tolist() == [False, True]
    assert float(score.value[1]) > 0
