from dataclasses import dataclass, replace

import pytest
import torch
from helpers import sphere_views

from rl3d.cameras import Orbit, RandomOrbit
from rl3d.optimize import Diverged, advance, begin, optimize, restore, state
from rl3d.protocols import Situation, Step
from rl3d.recipe import Recipe
from rl3d.representations.gaussians import Gaussians
from rl3d.start import Ball
from rl3d.terms.regularise import Solid
from rl3d.types import Prompt


@dataclass(frozen=True)
class Paint:
    """A pixel term for tests: renders should look like a sphere."""

    poison: tuple[int, ...] = ()
    """Steps at which the loss is not a number."""

    def build(self, situation: Situation):
        return self

    def cameras(self, shared, rng):
        return shared

    def losses(self, step: Step):
        target = sphere_views(step.views.cameras, 0.5)
        loss = (step.views.rgba - target.rgba).square().sum()
        return {"pixels": loss * float("nan") if round(step.progress * 100) in self.poison else loss}


@dataclass(frozen=True)
class Own:
    """A pixel term with cameras of its own."""

    def build(self, situation: Situation):
        return self

    def cameras(self, shared, rng):
        return Orbit(views=1, size=shared.width).cameras()

    def losses(self, step: Step):
        assert step.views.cameras.views == 1
        return {"pixels": step.views.alpha.sum()}


def recipe(**changes) -> Recipe:
    plain = Recipe(
        terms={"paint": Paint()},
        prior=None,
        draw=None,
        start=Ball(count=60),
        scene=Gaussians(strategy=None),
        rig=RandomOrbit(views=2, size=24),
        steps=100,
        guards={},
    )
    return replace(plain, **changes)


def test_a_scene_learns_what_a_term_asks():
    o = begin(recipe(steps=60), Prompt("x"))
    losses = [report.losses["paint"] for report in optimize(o)]
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_gradients_through_the_seam_equal_one_backward_through_everything():
    r = recipe(terms={"paint": Paint(), "own": Own(), "solid": Solid()}, weights={"paint": 0.3, "own": 2.0, "solid": 5.0})
    o = begin(r, Prompt("x"), seed=1)
    twin = restore(r, *state(o))
    advance(o)
    shared = r.rig.cameras(twin.rng)
    total = 0
    for name, term in r.terms.items():
        cameras = term.cameras(shared, twin.rng)
        views = twin.scene.render(cameras or shared)[0]
        (loss,) = term.losses(Step(views, twin.scene, None, twin.prompt, 0.0, twin.rng)).values()
        total = total + r.weights[name] * loss
    expected = torch.autograd.grad(total, list(twin.scene.parameters()))
    moments = [o.optimizer.state[p]["exp_avg"] / (1 - 0.9) for p in o.scene.parameters()]
    for found, wanted in zip(moments, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item() + 1e-5)


@dataclass(frozen=True)
class Brief(Own):
    """A term that is over at half of the run."""

    def over(self, progress):
        return progress >= 0.5


def test_a_term_that_is_over_is_rendered_no_more():
    o = begin(recipe(terms={"paint": Paint(), "brief": Brief()}, steps=4), Prompt("x"))
    reports = list(optimize(o))
    assert [sorted(report.losses) for report in reports] == [["brief", "paint"]] * 2 + [["paint"]] * 2
    assert [report.views.cameras.views for report in reports] == [3, 3, 2, 2]
    alone = begin(recipe(terms={"brief": Brief()}, steps=4), Prompt("x"))
    assert [sorted(report.losses) for report in optimize(alone)] == [["brief"]] * 4


def test_a_ratio_sets_the_norm_of_a_gradient_on_the_pixels():
    r = recipe(terms={"paint": Paint(), "own": Own()}, ratios={"own": 0.25})
    norms = advance(begin(r, Prompt("x"))).norms
    assert norms["own"] == pytest.approx(0.25 * norms["paint"], rel=1e-4)


@pytest.mark.parametrize("stop", [1, 13])
def test_a_restored_scene_goes_on_bit_for_bit(stop):
    r = recipe(steps=20, terms={"paint": Paint(), "solid": Solid()})
    whole = begin(r, Prompt("x"), seed=3)
    for _ in optimize(whole):
        pass
    part = begin(r, Prompt("x"), seed=3)
    for _ in range(stop):
        advance(part)
    part = restore(r, *state(part))
    for _ in optimize(part):
        pass
    one, other = state(whole), state(part)
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def test_steps_that_are_not_finite_are_left_out_and_counted():
    o = begin(recipe(terms={"paint": Paint(poison=(2, 3))}), Prompt("x"))
    before = None
    for report, _ in zip(optimize(o), range(5), strict=False):
        if report.step == 2:
            before = o.scene.means.detach().clone()
        if report.step in (3, 4):
            assert report.skipped
            assert torch.equal(o.scene.means, before)
    assert o.skipped == 2
    assert o.scene.means.isfinite().all()


def test_a_run_that_keeps_failing_stops_and_names_the_term():
    o = begin(recipe(terms={"paint": Paint(poison=tuple(range(100)))}, patience=3), Prompt("x"))
    with pytest.raises(Diverged, match="paint"):
        list(optimize(o))
    assert o.step == 4


def test_mistakes_in_a_recipe_are_named():
    with pytest.raises(ValueError, match="no term 'pain'"):
        recipe(weights={"pain": 1.0})
    with pytest.raises(ValueError, match="looks at the scene"):
        advance(begin(recipe(terms={"solid": Solid()}), Prompt("x")))
