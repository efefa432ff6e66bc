from dataclasses import dataclass, replace

import pytest
import torch
from fake_prior import (
    RED,
    Fake,
    GaussianViews,
    Hold,
    blob,
    pixel_gradient,
    redness,
    reward,
    run,
    situation,
    step,
    tiny_recipe,
    views,
)

from rl3d.optimize import advance, begin
from rl3d.representations.nerf import Nerf
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combine, Part, Schedule
from rl3d.rewards.physics import Drop, Stands
from rl3d.rewards.shape import Decided
from rl3d.terms.ascent import Ascend

SOFT = reward(redness, "pixels")


def test_a_plain_rewards_gradient_is_that_of_finite_differences():
    signal = Ascend(SOFT, jitter=0.0).build(situation())
    found = pixel_gradient(signal, step(views()))
    seen = views((0.3, 0.5, 0.6))
    one = step(seen)
    found = pixel_gradient(signal, one)
    up, down = (replace(seen, rgb=seen.rgb + e * torch.eye(3)[0]) for e in (1e-2, -1e-2))
    slope = (SOFT.score(up, [RED]).value - SOFT.score(down, [RED]).value) / 2e-2
    assert -found[..., 0].sum().item() == pytest.approx(slope.item(), rel=1e-3)


def test_straight_through_judges_what_the_prior_makes_and_moves_the_rendering():
    prior, seen = GaussianViews(std=0.01), views((0.0, 1.0, 0.0))
    values = []

    def watch(shown, prompts):
        values.append(shown.views.rgb.detach().mean((0, 1, 2, 3)))
        return redness(shown, prompts)

    term = Ascend(reward(watch, "pixels"), jitter=0.0, on="denoised", guidance=1.0, rescale=0.0)
    found = pixel_gradient(term.build(situation(prior)), step(seen, prior))
    # A prior that is certain makes red of green, and that is what is judged; the gradient is that at red.
    torch.testing.assert_close(values[0], torch.tensor([1.0, 0.0, 0.0]), atol=0.05, rtol=0)
    leaf = views((1.0, 0.0, 0.0)).leaves()
    wanted = torch.autograd.grad(-redness(type("S", (), {"views": leaf}), None).mean(), leaf.rgb)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)
    assert prior.asked == 1


def test_costs_are_what_the_network_is_asked():
    prior, term = GaussianViews(), Ascend(SOFT, on="denoised", start=0.4)
    signal = term.build(situation(prior))
    for i in range(100):
        signal.losses(step(views(), prior, progress=i / 100))
    assert prior.asked / 100 == pytest.approx(term.passes)


def test_rewards_of_gaussians_reach_the_scene():
    r = tiny_recipe(prior=None, terms={"hold": Hold(), "decide": Ascend(Decided(), start=0.0)}, steps=40)
    o = begin(r, RED)
    before = Decided().score(shown_of(o), [RED]).value.item()
    assert Decided().score(shown_of(run(o)), [RED]).value.item() > before + 0.15


def shown_of(o):
    from rl3d.terms.rewarded import render_each

    return render_each(o.scene, [o.scene.splats()], views().cameras)


def test_a_combination_of_pixels_and_scene_reaches_both():
    both = Combine({"red": Part(SOFT), "decided": Part(Decided(), weight=2.0)})
    scene = blob()
    signal = Ascend(both, jitter=0.0).build(situation(scene=scene))
    one = step(views(), scene=scene)
    losses = signal.losses(one)
    assert losses.keys() == {"pixels", "scene"}
    red = torch.autograd.grad(losses["pixels"], one.views.rgb, retain_graph=True)[0]
    assert red.abs().max() > 0
    assert torch.autograd.grad(losses["scene"], scene.opacity_logits)[0].abs().max() > 0
    o = begin(tiny_recipe(prior=None, terms={"both": Ascend(both, start=0.0)}, steps=5), RED)
    assert run(o).skipped == 0


def test_a_schedule_of_weights_follows_progress():
    grows = Combine({"red": Part(SOFT, weight=Schedule(((0.0, 1.0), (1.0, 3.0))))})
    signal = Ascend(grows, jitter=0.0, start=0.0).build(situation())
    early, late = (pixel_gradient(signal, step(views(), progress=p)).norm() for p in (0.0, 0.5))
    assert late / early == pytest.approx(2.0, rel=1e-4)


@dataclass(frozen=True)
class Lift:
    """A scene term: up."""

    size: float

    def build(self, situation):
        return self

    def cameras(self, shared, rng):
        return None

    def losses(self, step):
        return {"scene": -self.size * step.scene.means[:, 2].sum()}


@pytest.mark.parametrize("size", [0.1, 100.0])
def test_a_ratio_of_a_scene_term_is_of_what_comes_from_the_pixels(size):
    terms = {"red": Ascend(SOFT, start=0.0, jitter=0.0)}
    plain = begin(tiny_recipe(prior=None, terms=terms), RED)
    more = begin(tiny_recipe(prior=None, terms={**terms, "lift": Lift(size)}, ratios={"lift": 0.5}), RED)
    advance(plain)
    advance(more)

    def gradient(o):
        return o.optimizer.state[o.scene.means]["exp_avg"] / (1 - 0.9)

    added = gradient(more) - gradient(plain)
    assert (added.norm() / gradient(plain).norm()).item() == pytest.approx(0.5, rel=1e-3)
    assert added[:, :2].abs().max() < 1e-4 * added.norm()


def test_a_tiny_scene_climbs():
    o = begin(tiny_recipe(prior=Fake(), terms={"red": Ascend(SOFT, start=0.0, on="denoised")}, steps=30), RED)
    assert redness(shown_of(run(o)), None).mean() > 0.2


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: Ascend(reward()).build(situation()), "no gradient: use SearchNoise or Prefer or PixelPolicy or Evolve"),
        (lambda: Ascend(Drop(pieces="hull")).build(situation()), "no gradient: use Evolve"),
        (lambda: Ascend(SOFT, on="denoised").build(situation()), "needs a prior"),
        (lambda: Ascend(Stands(), on="denoised").build(situation(GaussianViews())), "views alone"),
        (lambda: Ascend(Stands()).build(situation(scene=Nerf().build(blob().splats()))), "is a RadianceField"),
        (lambda: Ascend(Clip("judge")).build(situation()), "only ever reported"),
        (lambda: Ascend(t_min=0.9), "t_min 0.9"),
    ],
)
def test_mistakes_are_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()
