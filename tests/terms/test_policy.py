from dataclasses import replace

import pytest
import torch
from fake_prior import RED, Hold, blob, pixel_gradient, redness, reward, run, situation, step, tiny_recipe, views

from rl3d.cameras import Orbit
from rl3d.optimize import begin
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combine, Part
from rl3d.rewards.physics import Stands
from rl3d.terms.policy import PixelPolicy, enlarged


def slope_of(term, seeds, alpha=1.0, judge=None):
    signal = term.build(situation())
    found = [pixel_gradient(signal, step(views(alpha=alpha), seed=s)) for s in range(seeds)]
    # What descends is minus the estimate of the reward's gradient.
    return -torch.stack(found).mean(0)


@pytest.mark.parametrize(("antithetic", "seeds", "slack"), [(True, 600, 0.1), (False, 1200, 0.2)])
def test_in_expectation_it_is_the_cell_mean_of_a_linear_rewards_gradient(antithetic, seeds, slack):
    weight = torch.randn(1, 2, 16, 16, 3)
    linear = reward(lambda shown, prompts: (weight * shown.views.rgb).sum((1, 2, 3, 4)) + 5.0, name="linear")
    term = PixelPolicy(linear, samples=16, cells=2, antithetic=antithetic)
    found = slope_of(term, seeds, alpha=0.5)
    cells = weight.unflatten(2, (2, 8)).unflatten(4, (2, 8)).mean((3, 5))
    # The action is seen through alpha, and reaches the pixels through alpha.
    wanted = 0.5 * 0.5 * enlarged(cells, views())
    error = (found - wanted).norm() / wanted.norm()
    assert error < slack
    closer = (slope_of(term, seeds // 4, alpha=0.5) - wanted).norm() / wanted.norm()
    assert closer > 1.4 * error, "the error falls with the number of samples: there is no bias that stays"


@pytest.mark.parametrize("antithetic", [True, False])
def test_a_constant_reward_and_an_empty_view_pull_at_nothing(antithetic):
    flat = reward(lambda shown, prompts: torch.full((len(prompts),), 7.0), name="flat")
    assert slope_of(PixelPolicy(flat, antithetic=antithetic), 2).abs().max() < 1e-6
    assert slope_of(PixelPolicy(reward(), antithetic=antithetic), 2, alpha=0.0).abs().max() == 0


def test_an_even_reward_vanishes_in_antithetic_pairs():
    even = reward(lambda shown, prompts: (shown.views.rgb - 0.5).square().sum((1, 2, 3, 4)), name="even")
    assert slope_of(PixelPolicy(even), 2).abs().max() < 1e-4


def test_samples_that_cannot_be_judged_change_nothing_for_others():
    weight = torch.randn(1, 2, 16, 16, 3)

    def moody(shown, prompts):
        value = (weight * shown.views.rgb).sum((1, 2, 3, 4))
        return torch.where(torch.arange(len(value)) % 4 == 1, torch.nan, value)

    term = PixelPolicy(reward(moody, name="moody"), samples=16, cells=2)
    found = slope_of(term, 600)
    cells = weight.unflatten(2, (2, 8)).unflatten(4, (2, 8)).mean((3, 5))
    wanted = enlarged(cells, views())
    assert (found - wanted).norm() / wanted.norm() < 0.2


def last_redness(o):
    seen = o.scene.render(Orbit(size=16).cameras())[0].detach()
    return redness(type("S", (), {"views": seen}), None).mean().item()


def test_a_black_box_raises_its_score():
    recipe = tiny_recipe(prior=None, terms={"policy": PixelPolicy(reward(), start=0.0)}, steps=40)
    start = begin(recipe, RED)
    before = last_redness(start)
    assert last_redness(run(start)) > before + 0.15


def test_it_waits_for_its_time_and_its_turn():
    signal = PixelPolicy(reward(), start=0.5, every=3).build(situation())
    assert signal.losses(step(views(), progress=0.4)) == {}
    assert signal.losses(step(views(), progress=0.6, number=4)) == {}
    assert signal.losses(step(views(), progress=0.6, number=6)).keys() == {"pixels"}


def test_rewards_of_views_and_scene_together_see_both():
    def both(shown, prompts):
        assert len(shown.scenes) == len(prompts)
        return [len(scene.splats()) for scene in shown.scenes]

    term = PixelPolicy(reward(both, needs=("views", "mesh"), name="both"))
    assert pixel_gradient(term.build(situation(scene=blob())), step(views())).abs().max() == 0


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: PixelPolicy(samples=1), "samples 1"),
        (lambda: PixelPolicy(samples=5), "in pairs"),
        (lambda: PixelPolicy(Stands()).build(situation()), "does not look at colours: use Ascend or Evolve"),
        (lambda: PixelPolicy(Clip("judge")).build(situation()), "only ever reported"),
        (lambda: PixelPolicy(reward(), cells=5).build(situation()).cameras(views().cameras, torch.Generator()), "divisor"),
    ],
)
def test_mistakes_are_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()


def test_combinations_are_asked_with_progress():
    both = Combine({"red": Part(reward()), "dear": Part(reward(name="dear"), every=20)})
    found = replace(tiny_recipe(), prior=None, terms={"policy": PixelPolicy(both, start=0.0), "hold": Hold()}, steps=3)
    assert run(begin(found, RED)).skipped == 0
