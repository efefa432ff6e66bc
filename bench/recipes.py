"""Recipes against each other at equal compute: ``python bench/recipes.py default both reward --prompts 12 --seeds 3``.

Every recipe gets the processor seconds that the first one needs on a prompt: its steps are set by what one whole asset of it
was found to cost, lessons and searches included. Assets are examined as by ``rl3d evaluate``, on validation prompts, and by
guards; above the figures stands what each recipe follows, which is no evidence for it. Recipes that draw alike from one prior
get the same views, which are drawn once for all: their seconds count for each. Rows go to a file of JSON lines as they come,
and a second call does what is missing; the table has paired bootstrap intervals against the first recipe, over prompts, with
the seeds of each averaged.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from rl3d import optimize as single
from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.metrics import bootstrap_interval
from rl3d.evaluate.worlds import Question, evenly, prompt_set, read_questions
from rl3d.files import append_record, read_records
from rl3d.generate import evaluation_cameras
from rl3d.optimize import Optimization
from rl3d.protocols import Reward, RewardPart, Shown, Situation
from rl3d.recipe import Recipe, load_recipe, recipe_file
from rl3d.render.gaussians import look_at
from rl3d.rewards.base import SplatScene
from rl3d.rewards.clip import Clip
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.rewards.physics import Stands
from rl3d.rewards.sides import Sides
from rl3d.search import Contest, begin, optimize
from rl3d.start import Draw
from rl3d.types import Prompt, Splats, Views

COLUMNS = ("judge_r1", "judge_score", "reward_r1", "reward_score", "iou", "azimuth_error_deg")
GUARDS: dict[str, RewardPart] = {
    "sharpness": Sharpness(),
    "colours": ColourEntropy(),
    "foreground": Area(),
    "tipping_deg": Stands(),
    "sides": Sides(),
}
"""Measured of each asset beside what is asked of it; a tipping angle below 0 is an object that falls, and sides near 0 are
those of Janus, or of a thing without a front."""
MEASURES = (*COLUMNS, *GUARDS, "cpu_seconds", "seconds", "steps")


@functools.cache
def built_guards() -> dict[str, Reward]:
    """The guards with their weights, read once."""
    return {name: guard.build() for name, guard in GUARDS.items()}


@dataclass(frozen=True)
class Settings:
    """What to compare, on what."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names or files of recipes; the others are given the first one's time."""
    prompts: int = 40
    """Of the validation set, evenly spread over it."""
    seeds: int = 3
    cpu_seconds: float = 0.0
    """The time of each asset, if not that of the first recipe with its own steps."""
    minutes: float = 1e9
    """Stop after the asset that goes beyond."""
    rows: Path = Path("bench/results/recipes.jsonl")
    out: Path = Path("bench/results/recipes.json")


class Clock(NamedTuple):
    """Seconds, or a point in time."""

    cpu: float
    """Of this process, over all its threads: other work on the machine hardly moves them."""
    wall: float

    def since(self, start: Clock) -> Clock:
        return Clock(self.cpu - start.cpu, self.wall - start.wall)


def clock() -> Clock:
    return Clock(time.process_time(), time.monotonic())


class Drawn(NamedTuple):
    """What was drawn for a prompt and a seed, how the generator was left, and what it took."""

    views: Views
    rng: Tensor
    seconds: Clock


@dataclass
class Draws:
    """Views of the last prompt and seed, for all recipes that would draw the same ones."""

    at: tuple[str, int] | None = None
    known: dict[tuple, Drawn] = field(default_factory=dict)

    def begin(self, recipe: Recipe, prompt: str, seed: int) -> tuple[Optimization | Contest, Clock]:
        """Begin as :func:`rl3d.search.begin` does, bit for bit; and the seconds saved by what had been drawn before.

        Contests draw their sets in one batch, and are left alone.
        """
        if recipe.search is not None or recipe.draw is None or recipe.prior is None:
            return begin(recipe, Prompt(prompt), seed=seed), Clock(0.0, 0.0)
        if self.at != (prompt, seed):
            self.at, self.known = (prompt, seed), {}
        device, rng = torch.device("cpu"), torch.Generator().manual_seed(seed)
        # Not shared: a tutor changes it.
        prior, key = recipe.prior.build(device), (recipe.draw, recipe.prior)
        drawn, saved = self.known.get(key), Clock(0.0, 0.0)
        if drawn is None:
            start = clock()
            views = recipe.draw.draw(Prompt(prompt), prior, rng, device)
            drawn = self.known[key] = Drawn(views, rng.get_state(), clock().since(start))
        else:
            rng.set_state(drawn.rng)
            saved = drawn.seconds
        return single.start(recipe, Situation(Prompt(prompt), prior, drawn.views, rng, device)), saved


class Made(NamedTuple):
    """An asset, and what it took, with what was drawn for it."""

    splats: Splats
    begun: float
    """Processor seconds before the first step."""
    cpu_seconds: float
    seconds: float


def make(recipe: Recipe, prompt: str, seed: int, draws: Draws) -> Made:
    """Make one asset."""
    start = clock()
    o, saved = draws.begin(recipe, prompt, seed)
    begun = clock().since(start).cpu + saved.cpu
    for _ in optimize(o):
        pass
    took = clock().since(start)
    return Made(o.scene.splats(), begun, took.cpu + saved.cpu, took.wall + saved.wall)


def warm_up(recipe: Recipe, prompt: str) -> None:
    """Take the shortest way through a recipe, so that what is loaded and compiled once is not in its price."""
    quick = replace(recipe.draw, candidates=1) if isinstance(recipe.draw, Draw) else recipe.draw
    make(replace(recipe, steps=2, draw=quick), prompt, 0, Draws())


def affordable(steps: int, made: Made, budget: float) -> int:
    """The steps that fit into so many processor seconds, by what an asset of ``steps`` steps took; at least 10."""
    return max(10, round((budget - made.begun) * steps / (made.cpu_seconds - made.begun)))


def paced(recipe: Recipe, prompt: str, budget: float, draws: Draws) -> tuple[int, float]:
    """A recipe's steps that fit a budget, and the budget in processor seconds: without one, what its own steps take.

    Whole assets are timed, since what comes and goes (lessons, searches, terms that begin late) is in no single step's price;
    and once more with the steps found, among which it need not come as often.
    """
    warm_up(recipe, prompt)
    made = make(recipe, prompt, 0, draws)
    budget = budget or made.cpu_seconds
    steps = affordable(recipe.steps, made, budget)
    if steps != recipe.steps:
        steps = affordable(steps, make(replace(recipe, steps=steps), prompt, 0, draws), budget)
    return steps, budget


def followed(recipe: Recipe) -> str:
    """What a recipe optimises or chooses by. It shows obedience, not quality, where it is measured of the result."""
    parts: dict[str, object] = {f"terms.{name}": term for name, term in recipe.terms.items()}
    parts |= {"teach": recipe.teach, "search": recipe.search}
    found = [f"{place}: {', '.join(names)}" for place, part in parts.items() if (names := list(_rewards(part)))]
    if isinstance(recipe.draw, Draw) and recipe.draw.candidates > 1:
        found.append(f"draw: {recipe.draw.chooser.model}")
    return "; ".join(found) or "nothing"


def _rewards(part: object) -> Iterator[str]:
    """The names of the rewards that a value holds."""
    if part is None or not dataclasses.is_dataclass(part):
        return
    for name in ("reward", "surrogate"):
        if (reward := getattr(part, name, None)) is not None:
            yield reward.model if isinstance(reward, Clip) else type(reward).__name__
    yield from getattr(part, "rewards", {})


@torch.no_grad()
def guarded(splats: Splats, examiner: Examiner) -> dict[str, float | None]:
    """What the guards say of an asset; None where they cannot."""
    shown = Shown(look_at(splats)(examiner.cameras), (SplatScene(splats),))
    scores = {name: guard.score(shown, [Prompt("")]) for name, guard in built_guards().items()}
    return {name: float(score.value[0]) if score.valid[0] else None for name, score in scores.items()}


def examined(question: Question, splats: Splats, examiner: Examiner) -> dict[str, Any]:
    """All measures of an asset."""
    torch.manual_seed(0)
    return examiner.examine(question, splats) | guarded(splats, examiner)


def by_prompt(keys: Sequence[tuple[str, int]], values: Tensor) -> Tensor:
    """The mean over each prompt's seeds: they are no samples of their own, since a prompt is easy or hard with all of them."""
    found: dict[str, list[float]] = defaultdict(list)
    for (prompt, _), value in zip(keys, values.tolist(), strict=True):
        found[prompt].append(value)
    return torch.tensor([float(np.mean(x)) for x in found.values()])


def table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The means as text and as data, with intervals of the paired differences to the first recipe."""
    by: dict[str, dict[tuple, dict]] = defaultdict(dict)
    for row in rows:
        by[row["recipe"]][row["prompt"], row["seed"]] = row
    common = set.intersection(*(set(by[name]) for name in names)) if all(name in by for name in names) else set()
    data: dict[str, dict[str, Any]] = {name: {} for name in names}
    lines = [f"{len(common)} assets of each recipe; in brackets, 95 % of the difference to {names[0]}"]
    lines += [
        f"{name} follows {follows}" for name in names for follows in sorted({r.get("follows", "?") for r in by[name].values()})
    ]
    lines.append(f"{'':18}" + "".join(f"{name:>34}" for name in names))
    for measure in MEASURES:
        cells = []
        for name in names:
            keys = [key for key in sorted(common) if all(by[n][key].get(measure) is not None for n in (name, names[0]))]
            own, base = (torch.tensor([float(by[n][key][measure]) for key in keys]) for n in (name, names[0]))
            if not keys:
                cells.append("-")
                continue
            entry: dict[str, Any] = {"mean": float(own.mean())}
            cells.append(f"{entry['mean']:.4g}")
            if name != names[0]:
                entry["against_first"] = low, high = bootstrap_interval(by_prompt(keys, own - base))
                cells[-1] += f" [{low:+.3g} {high:+.3g}]"
            data[name][measure] = entry
        lines.append(f"{measure:18}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines), {"assets": len(common), "recipes": data}


def main(s: Settings) -> None:
    questions = evenly(read_questions(prompt_set("validation")), s.prompts)
    rows = read_records(s.rows)
    done = {(row["recipe"], row["prompt"], row["seed"]) for row in rows}
    recipes, draws, budget = {name: load_recipe(recipe_file(name)) for name in s.recipes}, Draws(), s.cpu_seconds
    for name, recipe in recipes.items():
        known = next((row["steps"] for row in rows if row["recipe"] == name), None)
        if known is None:
            known, budget = paced(recipe, questions[0].prompt, budget, draws)
            print(f"{name}: {known} of {recipe.steps} steps in {budget:.1f} s; follows {followed(recipe)}", flush=True)
        else:
            budget = budget or float(np.mean([row["cpu_seconds"] for row in rows if row["recipe"] == name]))
        recipes[name] = replace(recipe, steps=known)
    examiner = Examiner({"judge": Clip("judge").build(), "reward": Clip().build()}, evaluation_cameras())
    start = time.monotonic()
    for seed in range(s.seeds):
        for question in questions:
            for name, recipe in recipes.items():
                if (name, question.prompt, seed) in done or time.monotonic() - start > 60 * s.minutes:
                    continue
                made = make(recipe, question.prompt, seed, draws)
                row: dict[str, Any] = {"recipe": name, "prompt": question.prompt, "seed": seed, "follows": followed(recipe)}
                row |= {"steps": recipe.steps, "cpu_seconds": made.cpu_seconds, "seconds": made.seconds}
                row |= examined(question, made.splats, examiner)
                rows.append(row)
                append_record(s.rows, row)
                print(f"{seed} {name:16} {question.prompt:44} judge {row['judge_score']:.3f}", flush=True)
    text, data = table(rows, s.recipes)
    print(text)
    s.out.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
