"""DeepFloyd-IF, on a tiny random model: latents that are pixels, and are kept in range."""

import pytest
import torch
from family_checks import PROMPTS, ChecksBesideDiffusers, noise
from tiny_families import pixel_schedule, write_if

from rl3d.cameras import Orbit
from rl3d.math import level_at
from rl3d.priors.parametrisations import Threshold


class TestDeepFloyd(ChecksBesideDiffusers):
    writers = (("if", write_if),)

    def test_it_lives_in_pixels(self, made):
        assert made.prior.vae is None
        assert made.prior.info.channels == 3
        assert made.prior.info.size == 16

    def test_guidance_goes_from_the_negative_prompt_through_the_prompt_and_stays_in_range(self, made):
        prior = made.value(sides=False).build()
        condition, x, level = prior.embed(PROMPTS, Orbit(4).cameras()), noise(prior), level_at(0.6)
        kept = prior.predict(x, level, condition, guidance=30.0)
        threshold, prior.threshold = prior.threshold, None
        wanted = prior.predict(x, level, condition)
        against = prior.predict(x, level, type(condition)(condition.unwanted, condition.wanted))
        guided = prior.predict(x, level, condition, guidance=30.0)
        torch.testing.assert_close(guided, against + 30 * (wanted - against), rtol=1e-3, atol=1e-2)
        assert guided.abs().max() > 1
        assert kept.abs().max() <= 1
        torch.testing.assert_close(kept, threshold(guided))


def test_pixels_are_kept_in_range_as_the_scheduler_does():
    clean = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 5.0]).view(
        1, 3, 1, 1, 1
    )
    scheduler = pixel_schedule()
    theirs = scheduler._threshold_sample(clean.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(Threshold.of(scheduler.config)(clean), theirs)
    assert Threshold.of({"thresholding": False, "clip_sample": False}) is None
    assert Threshold.of({"clip_sample": True, "clip_sample_range": 0.5})(clean).abs().max() == 0.5


def test_a_kept_prediction_is_differentiable():
    clean = (2 * torch.randn(1, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(Threshold(0.9, 1.5), clean, eps=1e-7)


@pytest.mark.parametrize("most", [1.5, 3.0])
def test_what_is_in_range_stays(most):
    clean = torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(Threshold(0.95, most)(clean), clean)
