"""Stable Diffusion 1.5, XL and 3, on tiny random models."""

import pytest
import torch
from family_checks import PROMPTS, ChecksBesideDiffusers, noise
from tiny_pipelines import write_sd, write_sd3, write_xl

from rl3d.cameras import Orbit
from rl3d.math import flow_level_at


class TestStableDiffusion(ChecksBesideDiffusers):
    writers = (
        ("sd", write_sd),
        ("xl", write_xl),
    )


class TestStableDiffusion3(ChecksBesideDiffusers):
    writers = (("sd3", write_sd3),)

    def test_a_flow_takes_straight_levels(self, made):
        prior = made.prior
        condition, x, level = prior.embed(PROMPTS, Orbit(4).cameras()), noise(prior), flow_level_at(0.3)
        flow = (x - prior.predict(x, level, condition)) / level.sigma
        near = flow_level_at(0.3)
        assert prior.time_of(near) == pytest.approx(300)
        said = prior.net(
            x.flatten(0, 1),
            encoder_hidden_states=condition.wanted.text.flatten(0, 1),
            pooled_projections=condition.wanted.pooled.flatten(0, 1),
            timestep=torch.full((8,), 300.0),
        ).sample
        torch.testing.assert_close(flow.flatten(0, 1), said, rtol=1e-4, atol=1e-4)
