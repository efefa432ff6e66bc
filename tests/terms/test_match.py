"""Matching drawn views: closed forms of its loss."""

from dataclasses import replace

import pytest
import torch

from rl3d.cameras import Orbit
from rl3d.geometry.points import ball
from rl3d.protocols import Situation, Step
from rl3d.representations.gaussians import GaussianSplats
from rl3d.terms.match import Match
from rl3d.types import Prompt, Views

CAMERAS = Orbit(views=3, size=8).cameras()


def views(rgba):
    return Views(rgba[..., :3], rgba[..., 3:], None, None, replace(CAMERAS, width=rgba.shape[3], height=rgba.shape[2]))


def matched(value: Match, error, *, drawn=None, progress=0.0):
    """The loss where renderings differ from what was drawn by ``error`` [1 v h w 4], and its gradient there."""
    drawn = torch.full((1, 3, 8, 8, 4), 0.25) if drawn is None else drawn
    rng = torch.Generator().manual_seed(0)
    signal = value.build(Situation(Prompt("a mug"), None, views(drawn), rng, torch.device("cpu")))
    signal.cameras(CAMERAS, rng)
    error = error.clone().requires_grad_()
    scene = GaussianSplats.from_splats(ball(2, rng, radius=0.5))
    loss = signal.losses(Step(views(0.25 + error), scene, None, Prompt("a mug"), progress, rng))["pixels"]
    (gradient,) = torch.autograd.grad(loss, error)
    return float(loss.detach()), gradient


def test_it_is_half_the_squared_error_of_a_view():
    error = torch.randn(1, 3, 8, 8, 4, generator=torch.Generator().manual_seed(1)) / 10
    loss, gradient = matched(Match(views=3), error)
    assert loss == pytest.approx(0.5 * float(error.square().sum()) / 3, rel=1e-5)
    torch.testing.assert_close(gradient, error / 3)


def test_it_fades_over_the_last_quarter_before_its_end():
    error = torch.ones(1, 3, 8, 8, 4)
    whole, half, over = (matched(Match(views=3, until=0.5), error, progress=p)[0] for p in (0.3, 0.4375, 0.5))
    assert half == pytest.approx(whole / 2)
    assert over == 0
    assert not Match(until=0.5).over(0.49)
    assert Match(until=0.5).over(0.5)


@pytest.mark.parametrize("pool", [1, 2, 4, 8, 100])
def test_an_error_that_all_pixels_share_counts_the_same_in_squares_of_any_size(pool):
    loss, gradient = matched(Match(views=3, pool=pool), torch.full((1, 3, 8, 8, 4), 0.1))
    assert loss == pytest.approx(0.5 * 0.01 * 8 * 8 * 4, rel=1e-5)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 0.1 / 3))


def test_squares_see_no_details():
    checkers = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    error = 0.1 * checkers[None, None, :, :, None].expand(1, 3, 8, 8, 4)
    assert matched(Match(views=3), error)[0] > 0.1
    loss, gradient = matched(Match(views=3, pool=2), error)
    assert loss == pytest.approx(0, abs=1e-9)
    assert gradient.abs().max() < 1e-6


def test_drawn_views_are_resized_to_what_is_rendered():
    loss, _ = matched(Match(views=3), torch.zeros(1, 3, 8, 8, 4), drawn=torch.full((1, 3, 32, 32, 4), 0.25))
    assert loss == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("wrong", [{"views": 0}, {"pool": 0}, {"until": 0.0}, {"until": 1.5}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Match(**wrong)


def test_it_needs_drawn_views():
    with pytest.raises(ValueError, match="needs views drawn"):
        Match().build(Situation(Prompt("a mug"), None, None, torch.Generator(), torch.device("cpu")))
