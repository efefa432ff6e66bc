"""Recipes at equal compute: what is shared between them changes nothing, and what it took is paid by each."""

from dataclasses import replace

import pytest
import tiny
import torch
from benches import load
from fake_prior import tiny_recipe

from rl3d.cameras import RandomOrbit
from rl3d.optimize import begin, optimize, state
from rl3d.priors.embedded import Embedded
from rl3d.recipe import load_recipe, recipe_file
from rl3d.search import BestOf, Contest
from rl3d.start import Draw
from rl3d.terms.ascent import Ascend
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match
from rl3d.types import Prompt

bench = load("recipes")

PLAIN = tiny_recipe(
    terms={"match": Match(), "distill": Distill()},
    prior=Embedded(dtype="float32"),
    draw=Draw(views=2, steps=2, candidates=3),
    rig=RandomOrbit(views=2, size=16),
    steps=3,
)
OTHER = replace(PLAIN, terms={**PLAIN.terms, "reward": Ascend()}, ratios={"reward": 0.3})


@pytest.fixture(autouse=True)
def weights(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path_factory.mktemp("weights"))))


def test_views_drawn_for_another_recipe_are_those_it_would_have_drawn():
    draws = bench.Draws()
    _, saved = draws.begin(PLAIN, "a red mug", 5)
    assert saved == (0, 0)
    shared, saved = draws.begin(OTHER, "a red mug", 5)
    assert saved.cpu > 0
    alone = begin(OTHER, Prompt("a red mug"), seed=5)
    for _ in range(2):
        one, other = state(shared)[0], state(alone)[0]
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
        for o in (shared, alone):
            for _ in optimize(o):
                pass
    # What the one did with its views is not seen by the next.
    again, _ = draws.begin(PLAIN, "a red mug", 5)
    assert torch.equal(again.drawn.rgba, begin(PLAIN, Prompt("a red mug"), seed=5).drawn.rgba)


@pytest.mark.parametrize(
    ("recipe", "prompt", "seed"),
    [
        (replace(PLAIN, draw=replace(PLAIN.draw, steps=3)), "a red mug", 0),
        (replace(PLAIN, prior=Embedded(dtype="bfloat16")), "a red mug", 0),
        (PLAIN, "a blue mug", 0),
        (PLAIN, "a red mug", 1),
        (replace(PLAIN, search=BestOf(seeds=2)), "a red mug", 0),
    ],
    ids=["another draw", "another prior", "another prompt", "another seed", "a contest"],
)
def test_what_would_be_drawn_differently_is_not_shared(recipe, prompt, seed):
    draws = bench.Draws()
    draws.begin(PLAIN, "a red mug", 0)
    o, saved = draws.begin(recipe, prompt, seed)
    assert saved == (0, 0)
    assert isinstance(o, Contest) == (recipe.search is not None)


def test_each_pays_for_what_was_drawn_for_another(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(bench, "clock", lambda: bench.Clock(float(next(ticks)), 0.0))
    draws = bench.Draws()
    # A clock that ticks when it is read: begin reads it at both ends of drawing, make before, after beginning, and at the end.
    first, second = (bench.make(one, "a red mug", 0, draws) for one in (PLAIN, OTHER))
    assert (first.begun, first.cpu_seconds) == (3, 4)
    assert (second.begun, second.cpu_seconds) == (2, 3)


def test_steps_are_those_that_fit_into_the_time():
    made = bench.Made(None, begun=10.0, cpu_seconds=30.0, seconds=0.0)
    assert bench.affordable(200, made, 30.0) == 200
    assert bench.affordable(200, made, 20.0) == 100
    assert bench.affordable(200, made, 5.0) == 10


def test_a_recipe_is_given_the_steps_that_take_as_long_as_the_first(monkeypatch):
    def made(recipe, prompt, seed, draws):
        # A step takes a second, and every tenth one a lesson of five.
        return bench.Made(None, 10.0, 10.0 + recipe.steps + 5.0 * (recipe.steps // 10), 0.0)

    monkeypatch.setattr(bench, "make", made)
    assert bench.paced(replace(PLAIN, steps=200), "a red mug", 0.0, None) == (200, 310.0)
    steps, budget = bench.paced(replace(PLAIN, steps=400), "a red mug", 310.0, None)
    assert (steps, budget) == (200, 310.0)
    # Nine steps have no lesson, and fifteen one.
    assert bench.paced(replace(PLAIN, steps=200), "a red mug", 30.0, None)[0] in (14, 15)


def test_intervals_are_over_prompts_not_over_their_seeds():
    gains = {"a": (0.1, 0.3, 0.2), "b": (-0.1, 0.1, 0.0)}
    rows = [
        {"recipe": name, "prompt": prompt, "seed": seed, "judge_score": 0.3 + (name == "other") * gain}
        for name in ("first", "other")
        for prompt, some in gains.items()
        for seed, gain in enumerate(some)
    ]
    text, data = bench.table(rows, ("first", "other"))
    found = data["recipes"]["other"]["judge_score"]
    assert found["mean"] == pytest.approx(0.4)
    assert found["against_first"] == pytest.approx((0.0, 0.2), abs=1e-6)  # two prompts: the lower one, or the higher
    assert "6 assets of each" in text


def test_what_a_recipe_follows_is_named():
    said = {
        name: bench.followed(load_recipe(recipe_file(name))) for name in ("default", "reward", "both", "mvdream", "best_of_n")
    }
    assert said["default"] == "draw: encoder"
    assert said["reward"] == "terms.reward: encoder; draw: encoder"
    assert said["both"] == "teach: encoder; draw: encoder"
    assert said["mvdream"] == "nothing"
    assert "search: encoder" in said["best_of_n"]


def test_the_table_pairs_prompts_and_seeds():
    def row(recipe, prompt, judge):
        return {"recipe": recipe, "prompt": prompt, "seed": 0, "follows": "nothing", "judge_score": judge, "sharpness": None}

    rows = [row("a", p, x) for p, x in (("x", 0.1), ("y", 0.5), ("z", 0.9))]
    # What only one has is left out; the difference is the same everywhere, so its interval is a point.
    rows += [row("b", p, x) for p, x in (("x", 0.2), ("y", 0.6))]
    text, data = bench.table(rows, ("a", "b"))
    assert data["assets"] == 2
    assert data["recipes"]["a"]["judge_score"]["mean"] == pytest.approx(0.3)
    assert data["recipes"]["b"]["judge_score"]["against_first"] == pytest.approx((0.1, 0.1))
    assert "sharpness" not in data["recipes"]["a"]
    assert "b follows nothing" in text
