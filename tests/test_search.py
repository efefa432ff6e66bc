from dataclasses import dataclass, replace

import pytest
import torch
from fake_prior import RED, Fake, redness, reward, tiny_recipe

from rl3d import optimize as single
from rl3d.optimize import Diverged
from rl3d.recipe import BestOf, Paper, comparison, cost, setting
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combine, Part
from rl3d.rewards.shape import Decided
from rl3d.search import Contest, advance, begin, optimize, restore, state
from rl3d.start import Draw
from rl3d.terms.distillation import Distill, Interval
from rl3d.terms.match import Match
from rl3d.terms.noise_search import SearchNoise
from rl3d.terms.variational import Variational
from rl3d.types import Prompt

GREY = Prompt("")
DRAW = Draw(views=2, steps=2, guidance=1.0, rescale=0.0)


def recipe(**changes):
    terms = {"match": Match(views=2), "distill": Distill(guidance=1.0, rescale=0.0)}
    plain = {"prior": Fake(coarse=True), "draw": DRAW, "terms": terms, "steps": 20, "search": BestOf(reward=reward())}
    return tiny_recipe(**(plain | changes))


def all_of(o):
    for _ in optimize(o):
        pass
    return o


def test_the_plan_halves_until_one_is_left():
    assert BestOf(seeds=4, until=0.5).cuts(100) == {25: 2, 50: 1}
    assert BestOf(seeds=5, until=0.3).cuts(100) == {10: 3, 20: 2, 30: 1}
    assert list(BestOf(seeds=8).cuts(3).values())[-1] == 1
    assert BestOf(seeds=4, until=0.5).scenes_a_step(100) == (4 * 25 + 2 * 25 + 50) / 100


def test_the_best_by_the_reward_is_left():
    o = begin(recipe(), GREY)
    assert isinstance(o, Contest)
    drawn = {n: redness(type("S", (), {"views": one.drawn}), None).mean().item() for n, one in o.members.items()}
    assert len({round(x, 4) for x in drawn.values()}) == 4
    all_of(o)
    assert list(o.members) == [max(drawn, key=drawn.__getitem__)]
    assert [len(s) for s in o.scores] == [4, 2]
    assert o.step == 20
    assert o.scene is o.leader.scene
    assert o.skipped == 0


def test_predictions_are_shared_and_those_of_scenes_alone():
    r = recipe(terms={"distill": Distill(), "search": SearchNoise(reward(), noises=2), "ism": Interval()})
    o = begin(r, GREY, seed=3)
    alone = [
        single.start(
            r, single.Situation(GREY, r.prior.build(), one.drawn, torch.Generator().manual_seed(3), torch.device("cpu"))
        )
        for one in o.members.values()
    ]
    asked = []
    plain = o.prior.prior.predict
    o.prior.prior.predict = lambda noisy, *a, **k: (asked.append(len(noisy)), plain(noisy, *a, **k))[1]
    for _ in range(3):
        advance(o)
        for one in alone:
            single.advance(one)
    assert set(asked) == {4, 8}
    for one, other in zip(o.members.values(), alone, strict=True):
        for p, q in zip(one.scene.parameters(), other.scene.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_a_contest_resumes_bit_for_bit(stop):
    r = recipe()
    whole, part = all_of(begin(r, GREY, seed=1)), begin(r, GREY, seed=1)
    for _ in range(stop):
        advance(part)
    part = all_of(restore(r, *state(part)))
    one, other = state(whole), state(part)
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def test_without_a_search_it_is_the_plain_loop():
    r = recipe(search=None)
    one, other = all_of(begin(r, GREY, seed=1)), single.begin(r, GREY, seed=1)
    for _ in single.optimize(other):
        pass
    assert torch.equal(one.scene.means, other.scene.means)


@dataclass(frozen=True)
class Bad:
    """A term that fails, for scenes whose views begin with much red."""

    above: float
    error: type[Exception] | None = None

    def build(self, situation):
        red = situation.drawn.rgb[0, 0, 0, 0, 0].item()
        return replace(self, above=1.0 if red > self.above else 0.0)

    def cameras(self, shared, rng):
        return shared

    def losses(self, step):
        if self.above and self.error:
            raise self.error("broken")
        return {"pixels": step.views.rgb.sum() * (torch.nan if self.above else 0.0)}


def test_scenes_that_diverge_leave_the_others_alone():
    o = begin(
        recipe(terms={"bad": Bad(0.5), "distill": Distill()}, patience=2, search=BestOf(until=0.9, reward=reward())), GREY
    )
    bad = [n for n, one in o.members.items() if one.drawn.rgb[0, 0, 0, 0, 0] > 0.5]
    assert 0 < len(bad) < 4
    for _ in range(4):
        advance(o)
    assert not set(bad) & set(o.members)


def test_errors_of_one_scene_end_all_and_leave_no_thread():
    import threading

    before = threading.active_count()
    o = begin(recipe(terms={"distill": Distill(), "bad": Bad(0.5, KeyError)}), GREY)
    with pytest.raises(KeyError, match="broken"):
        advance(o)
    assert threading.active_count() == before
    o = begin(recipe(terms={"bad": Bad(-10.0), "distill": Distill()}, patience=1), GREY)
    with pytest.raises(Diverged):
        all_of(o)


def test_any_reward_may_choose_but_the_judge():
    both = Combine({"red": Part(reward()), "decided": Part(Decided())})
    assert len(all_of(begin(recipe(search=BestOf(seeds=2, reward=both)), RED)).members) == 1
    with pytest.raises(ValueError, match="only ever reported"):
        begin(recipe(search=BestOf(reward=Clip("judge"))), RED)
    with pytest.raises(ValueError, match="leave out the recipe's search"):
        begin(recipe(terms={"vsd": Variational()}), RED)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        BestOf(seeds=1)
    with pytest.raises(ValueError, match="set the recipe's `draw`"):
        recipe(draw=None)


def test_costs_are_added_up():
    r = recipe(terms={"d": Distill(), "s": SearchNoise(reward(), noises=3, until=1.0)}, search=None)
    assert cost(r).draw == 2
    assert cost(r).step == 2 + 6
    assert cost(r).total == 2 + 8 * 20
    assert cost(replace(r, search=BestOf(seeds=2, until=0.5))).total == 2 * 2 + 8 * (2 * 10 + 10)


def test_a_recipe_is_laid_beside_its_paper():
    there = {"terms.distill.guidance": "100", "steps": "10 000", "terms.match": "-"}
    text = comparison(recipe(paper=Paper("Title", "https://x", there, ("It is smaller.",))))
    assert ["terms.distill.guidance", "1.0", "100"] in [line.split() for line in text.splitlines()]
    assert "- It is smaller." in text
    assert "passes of the prior's network" in text
    with pytest.raises(ValueError, match="there is no setting"):
        setting(recipe(), "terms.distil.guidance")
