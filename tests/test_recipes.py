"""Every recipe that ships, with the weights that ship: what it says is true, and it runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rl3d.__main__ import main
from rl3d.evaluate.worlds import prompt_set, read_questions
from rl3d.priors.embedded import Embedded
from rl3d.recipe import comparison, cost, describe, load_recipe, setting
from rl3d.search import begin, optimize, restore, state
from rl3d.terms.subspace import Evolve
from rl3d.types import Prompt

CONFIGS = Path(__file__).parent.parent / "configs"
OF_MESHES = {"refine_mesh", "distil_mesh"}
"""They want a mesh: tests/test_mesh_stage.py runs them."""
LARGE = {"mvdream_large", "image_to_3d"}
"""Their weights do not ship: tests/family_checks.py and tests/priors/test_zero123plus.py run them with small ones."""
NAMES = sorted({p.stem for p in CONFIGS.glob("[!_]*.py")} - LARGE)
PUBLISHED = {"sds", "mvdream", "dreamreward", "dreamdpo", "rewardsds", "group_sds", "prolificdreamer", "luciddreamer"}
NEW = sorted(set(NAMES) - OF_MESHES)
"""Those that start from nothing."""
OWN = {"stable_object", "verified", "best_of_n", "my_reward"}


def load(name):
    return load_recipe(CONFIGS / f"{name}.py")


def small(recipe):
    """Three steps of few Gaussians, in which everything that waits has its turn."""
    terms = {}
    for name, term in recipe.terms.items():
        changes = {"start": 0.0} if hasattr(term, "start") else {}
        if isinstance(term, Evolve):
            changes |= {"every": 1, "samples": 2}
        terms[name] = replace(term, **changes)
    changes = {"terms": terms, "steps": 3}
    if recipe.draw is not None:
        changes["draw"] = replace(recipe.draw, steps=2, candidates=1)
        changes["start"] = replace(recipe.start, **({"limit": 300} if hasattr(recipe.start, "limit") else {"count": 1}))
    if recipe.search is not None:
        changes["search"] = replace(recipe.search, seeds=2, until=0.5)
    return replace(recipe, **changes)


def test_what_was_promised_is_there():
    assert set(NAMES) >= PUBLISHED | OWN


@pytest.mark.parametrize("name", sorted(PUBLISHED | OWN | LARGE))
def test_recipes_are_short_and_name_their_papers(name):
    recipe, lines = load(name), (CONFIGS / f"{name}.py").read_text().splitlines()
    assert 15 <= len(lines) <= 40
    assert (recipe.paper is not None) == (name != "my_reward")
    text = comparison(recipe)
    if recipe.paper is not None:
        assert recipe.paper.title in text
        assert recipe.paper.departures
        assert all(setting(recipe, place) is not None for place in recipe.paper.settings)


@pytest.mark.parametrize("name", NEW)
def test_every_recipe_runs_and_resumes(name):
    recipe = small(load(name))
    prompt = Prompt("a red mug")
    o = begin(recipe, prompt)
    first = next(optimize(o))
    assert not first.skipped
    tensors, plain = state(o)
    again = restore(recipe, {key: x.clone() for key, x in tensors.items()}, plain)
    for report in optimize(o):
        assert not report.skipped
        assert all(x == x for x in report.losses.values())
    for _ in optimize(again):
        pass
    one, other = state(o)[0], state(again)[0]
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert describe(recipe) == describe(small(load(name)))


# Scenes of a search share batches: test_search counts those.
@pytest.mark.parametrize("name", [name for name in NEW if load(name).search is None and name != "nerf"])
def test_costs_are_what_the_network_is_asked(name, monkeypatch):
    recipe = replace(small(load(name)), steps=8)
    # With the waits that the recipe itself has.
    own = load(name).terms
    terms = {k: replace(term, start=own[k].start) if hasattr(term, "start") else term for k, term in recipe.terms.items()}
    recipe, asked = replace(recipe, terms=terms), []
    if recipe.teach is not None:
        # The first lesson, which has nothing to compare yet, should not count for much.
        recipe = replace(recipe, teach=replace(recipe.teach, memory=2), steps=40)
    build = Embedded.build

    def counted(self, device="cpu"):
        prior = build(self, device)
        forward = prior.net.forward

        def count(noisy, *rest):
            # A pass that is differentiated is gone back through, at twice the cost.
            asked.append(len(noisy) * noisy.shape[1] / 4 * (3 if torch.is_grad_enabled() else 1))
            return forward(noisy, *rest)

        prior.net.forward = count
        return prior

    monkeypatch.setattr(Embedded, "build", counted)
    o = begin(recipe, Prompt("a red mug"))
    drawn = sum(asked)
    assert drawn == cost(recipe).draw
    for _ in optimize(o):
        pass
    assert (sum(asked) - drawn) / recipe.steps == pytest.approx(cost(recipe).step, rel=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_a_command_line(name, capsys):
    words = ["generate", "a red mug", "a blue cube", "--dry-run", "--recipe", str(CONFIGS / f"{name}.py"), "--steps", "7"]
    if name == "verified":
        words += ["--terms.checks.reward.parts.reward.weight", "0.2"]
    main(words)
    assert "in each of 7 steps" in capsys.readouterr().out


def test_prompts_of_the_verified_recipe_can_be_read_often_enough_to_matter():
    from rl3d.rewards.verify import parse, readable

    questions = read_questions(prompt_set("validation"))
    share = sum((spec := parse(q.prompt)) is not None and readable(spec) for q in questions) / len(questions)
    assert share > 0.2
