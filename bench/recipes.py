"""Recipes against each other at equal compute: ``python bench/recipes.py default reward best_of_n --prompts 12 --seeds 3``.

Every recipe gets the processor seconds that the first one needs on a prompt: its steps are set by what a step of it was found
to cost, before its assets are made. Assets are examined as by ``rl3d evaluate``, on validation prompts. Rows go to a file of
JSON lines as they come, and a second call does what is missing; the table has paired bootstrap intervals against the first
recipe, over prompts and seeds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.metrics import bootstrap_interval
from rl3d.evaluate.worlds import Question, prompt_set, read_questions
from rl3d.generate import evaluation_cameras
from rl3d.recipe import Recipe, load_recipe, recipe_file
from rl3d.rewards.clip import Clip
from rl3d.search import begin, optimize
from rl3d.types import Prompt

COLUMNS = ("judge_r1", "judge_score", "reward_r1", "reward_score", "iou", "azimuth_error_deg", "cpu_seconds", "steps")
PACED = 12
"""Steps that are timed; two more before them are not."""


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


def clock() -> float:
    """Processor seconds of this process, over all its threads: other work on the machine hardly moves them."""
    return time.process_time()


def price(recipe: Recipe, prompt: str) -> tuple[float, float]:
    """Processor seconds to begin, and for a step (a mean over the run: of searches and of terms that come and go)."""
    start = clock()
    o = begin(recipe, Prompt(prompt), seed=0)
    begun = clock() - start
    del o
    # A run of few steps goes through all of a recipe's phases, as progress is relative.
    short, costs = replace(recipe, steps=PACED + 2), []
    o = begin(short, Prompt(prompt), seed=0)
    last = clock()
    for _ in optimize(o):
        now = clock()
        costs.append(now - last)
        last = now
    return begun, float(np.mean(costs[2:]))


def make(recipe: Recipe, question: Question, seed: int, examiner: Examiner) -> dict[str, Any]:
    """One asset and its measures."""
    start, wall = clock(), time.monotonic()
    o = begin(recipe, Prompt(question.prompt), seed=seed)
    for _ in optimize(o):
        pass
    used = {"cpu_seconds": clock() - start, "seconds": time.monotonic() - wall, "steps": recipe.steps}
    torch.manual_seed(0)
    return used | examiner.examine(question, o.scene.splats())


def table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The means as text and as data, with intervals of the paired differences to the first recipe."""
    by: dict[str, dict[tuple, dict]] = defaultdict(dict)
    for row in rows:
        by[row["recipe"]][row["prompt"], row["seed"]] = row
    common = set.intersection(*(set(by[name]) for name in names)) if all(name in by for name in names) else set()
    lines, data = [f"{len(common)} assets of each recipe", f"{'':16}" + "".join(f"{c:>18}" for c in COLUMNS)], {}
    for name in names:
        cells, data[name] = [], {}
        for column in COLUMNS:
            keys = [key for key in sorted(common) if all(by[n][key].get(column) is not None for n in (name, names[0]))]
            own = torch.tensor([float(by[name][key][column]) for key in keys])
            base = torch.tensor([float(by[names[0]][key][column]) for key in keys])
            if not len(own):
                cells.append(f"{'-':>18}")
                continue
            entry: dict[str, Any] = {"mean": float(own.mean())}
            cell = f"{entry['mean']:.3f}"
            if name != names[0]:
                entry["against_first"] = bootstrap_interval(own - base)
                low, high = entry["against_first"]
                cell += f" {low:+.3f}{high:+.3f}"
            data[name][column] = entry
            cells.append(f"{cell:>18}" if len(cell) < 18 else f" {cell}")
        lines.append(f"{name:16}" + "".join(cells))
    return "\n".join(lines), {"assets": len(common), "recipes": data}


def main(s: Settings) -> None:
    questions = read_questions(prompt_set("validation"))
    questions = [questions[round(i)] for i in np.linspace(0, len(questions) - 1, min(s.prompts, len(questions)))]
    rows = [json.loads(line) for line in s.rows.read_text().splitlines()] if s.rows.exists() else []
    done = {(row["recipe"], row["prompt"], row["seed"]) for row in rows}
    recipes, budget = {name: load_recipe(recipe_file(name)) for name in s.recipes}, s.cpu_seconds
    for name, recipe in recipes.items():
        known = next((row["steps"] for row in rows if row["recipe"] == name), None)
        if known is None:
            begun, step = price(recipe, questions[0].prompt)
            budget = budget or begun + recipe.steps * step
            known = max(10, round((budget - begun) / step))
            print(f"{name}: {begun:.1f} s to begin, {step:.3f} s a step; {known} steps in {budget:.1f} s", flush=True)
        else:
            budget = budget or float(np.mean([row["cpu_seconds"] for row in rows if row["recipe"] == name]))
        recipes[name] = replace(recipe, steps=known)
    examiner = Examiner({"judge": Clip("judge").build(), "reward": Clip().build()}, evaluation_cameras())
    s.rows.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for seed in range(s.seeds):
        for question in questions:
            for name, recipe in recipes.items():
                if (name, question.prompt, seed) in done or time.monotonic() - start > 60 * s.minutes:
                    continue
                row = {"recipe": name, "prompt": question.prompt, "seed": seed} | make(recipe, question, seed, examiner)
                rows.append(row)
                with s.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{seed} {name:16} {question.prompt:44} judge {row['judge_score']:.3f}", flush=True)
    text, data = table(rows, s.recipes)
    print(text)
    s.out.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
