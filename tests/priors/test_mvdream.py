"""MVDream, on a tiny random model that is written as its own code names it."""

import math

import torch
from family_checks import PROMPTS, Checks, noise
from tiny_pipelines import mv_network, mv_weights, write_mvdream

from rl3d.cameras import Orbit
from rl3d.math import level_at


class TestMVDream(Checks):
    writers = (("mvdream", write_mvdream),)

    def test_mvdream_is_its_original_network(self, made):
        prior = made.prior
        cameras, x, level = Orbit(4, 15.0).cameras(), noise(prior), level_at(0.5)
        condition = prior.embed(PROMPTS, cameras)
        clean = prior.predict(x, level, condition)
        # Cameras on the unit sphere: those of the original, whose azimuth 90 looks at the front along -x.
        pose = condition.wanted.cameras[0].unflatten(-1, (4, 4))
        a, e = torch.deg2rad(cameras.azimuths_deg[0]), math.radians(15.0)
        torch.testing.assert_close(
            pose[:, :3, 3], torch.stack([a.cos() * math.cos(e), a.sin() * math.cos(e), a * 0 + math.sin(e)], 1)
        )
        torch.testing.assert_close(pose[:, :3, 2], pose[:, :3, 3])  # OpenGL's z points backwards, away from the object
        torch.testing.assert_close(pose[:, 2, 0], torch.zeros(4), atol=1e-6, rtol=0)  # x is level
        assert (pose[:, 2, 1] > 0.9).all()  # y is up
        time = torch.tensor(prior.time_of(level))
        text, poses = condition.wanted.text.flatten(0, 1), condition.wanted.cameras.flatten(0, 1)
        said = mv_network(mv_weights(), x.flatten(0, 1), time, text, poses, 4)
        expected = (x - level.sigma * said.unflatten(0, (2, 4))) / level.alpha
        torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-3)

    def test_views_of_mvdream_see_each_other_and_those_of_other_objects_do_not(self, made):
        prior = made.prior
        condition, x = prior.embed(PROMPTS, Orbit(4).cameras()), noise(prior)
        before = prior.predict(x, level_at(0.5), condition)
        x[0, 3] += 1
        change = (prior.predict(x, level_at(0.5), condition) - before).abs().amax((2, 3, 4))
        assert (change[0] > 1e-4).all()
        assert change[1].max() == 0
