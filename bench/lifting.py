"""What is lost between drawn views and an asset: ``python bench/lifting.py RUNS [--recipes default draft]``.

RUNS is a folder of ``rl3d evaluate``; each run's checkpoint holds the views that were drawn from the prior. Judge and encoder
look for the right caption in the prompt's hard pool by those views, by the asset as the same cameras see it, by the asset from
sides that no step has seen, and by a true object from there. So it shows where what was drawn well got lost: in the fit, or
where no view looked. Recipes that are named start once more from the very same drawn views, whatever they would have drawn.
Rows go to a file of JSON lines as they come; a second call does what is missing.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from rl3d.cameras import evaluation_cameras
from rl3d.evaluate.benchmark import Examiner, likeness
from rl3d.evaluate.worlds import Question, prompt_set, read_questions
from rl3d.export.splats.ply import read_ply
from rl3d.files import append_record, read_records
from rl3d.optimize import drawn_views, optimize, start
from rl3d.protocols import Situation
from rl3d.recipe import Recipe, load_recipe, recipe_file
from rl3d.render.gaussians import look_at
from rl3d.rewards.clip import Clip
from rl3d.run import Run
from rl3d.types import Prompt, Splats, Views

MODELS = ("judge", "encoder")
STAGES = ("drawn", "same sides", "new sides", "true")


@dataclass(frozen=True)
class Settings:
    """Which assets to look at."""

    runs: Annotated[Path, tyro.conf.Positional]
    """Finished runs of validation prompts."""
    recipes: tuple[str, ...] = ()
    """Names or files of recipes to start from the same drawn views."""
    limit: int | None = None
    """Only the first so many prompts of the validation set that have runs."""
    rows: Path = Path("bench/results/lifting.jsonl")


@torch.no_grad()
def followed(examiner: Examiner, question: Question, drawn: Views, splats: Splats) -> dict[str, Any]:
    """What is seen at each stage, and how well the silhouette fits the closest true object."""
    look, truths = look_at(splats), [truth.views for truth in examiner.truths(question)]
    seen = (drawn, look(drawn.cameras), look(examiner.cameras), truths[0])
    found: dict[str, Any] = {stage: examiner.ranks(question, views) for stage, views in zip(STAGES, seen, strict=True)}
    return found | {"iou": likeness(seen[2], truths)["iou"], "gaussians": len(splats)}


def remade(recipe: Recipe, question: Question, drawn: Views) -> Splats:
    """The asset that a recipe makes of drawn views."""
    device = torch.device("cpu")
    prior = None if recipe.prior is None else recipe.prior.build(device)
    o = start(recipe, Situation(Prompt(question.prompt), prior, drawn, torch.Generator().manual_seed(1), device))
    for _ in optimize(o):
        pass
    return o.scene.splats()


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each stage of each way, over the prompts that all ways have."""
    ways: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        ways[row["way"]][row["prompt"]] = row
    common = set.intersection(*(set(found) for found in ways.values()))
    lines = [f"{len(common)} prompts", f"{'':28}" + "".join(f"{x:>16}" for name in MODELS for x in (f"{name} R@1", "score"))]

    def line(title: str, found: list[dict[str, Any]]) -> str:
        means = [[np.mean([x[f"{name}_{key}"] for x in found]) for key in ("r1", "score")] for name in MODELS]
        return f"{title:28}" + "".join(f"{hit:16.1%}{score:16.4f}" for hit, score in means)

    first = next(iter(ways.values()))
    lines += [line(stage, [first[prompt][stage] for prompt in common]) for stage in ("drawn", "true")]
    for way, found in ways.items():
        lines += [line(f"{way}, {stage}", [found[prompt][stage] for prompt in common]) for stage in ("same sides", "new sides")]
        iou, seconds, count = (np.mean([found[prompt][key] for prompt in common]) for key in ("iou", "seconds", "gaussians"))
        when = "in all" if way == "asset" else "after the draw"
        lines.append(f"{'':32}silhouette IoU {iou:.3f}, {seconds:.1f} s {when}, {count:.0f} Gaussians")
    return "\n".join(lines)


def main(s: Settings) -> None:
    models = {"judge": Clip("judge").build(), "encoder": Clip().build()}
    examiner = Examiner(models, evaluation_cameras())
    recipes = {name: load_recipe(recipe_file(name)) for name in s.recipes}
    digests = {"asset": 0} | {name: zlib.crc32(repr(recipe).encode()) for name, recipe in recipes.items()}
    runs = {run.about["prompt"]["text"]: run for run in map(Run, sorted(s.runs.iterdir())) if run.summary is not None}
    questions = [q for q in read_questions(prompt_set("validation")) if q.prompt in runs][: s.limit]
    known = {(row["prompt"], row["way"], row["digest"]): row for row in read_records(s.rows)}
    rows: list[dict[str, Any]] = []
    for question in questions:
        run = runs[question.prompt]
        saved = run.load()
        drawn = None if saved is None else drawn_views(saved[0], torch.device("cpu"))
        if drawn is None:
            raise SystemExit(f"{run.folder} has no drawn views: take runs of a recipe that draws some")
        for way, digest in digests.items():
            row = known.get((question.prompt, way, digest))
            if row is None:
                begun = time.process_time()
                splats = remade(recipes[way], question, drawn) if way in recipes else read_ply(run.folder / "asset.ply")
                seconds = time.process_time() - begun if way in recipes else run.summary["seconds"]  # pyright: ignore
                row = {"prompt": question.prompt, "way": way, "digest": digest, "seconds": round(seconds, 1)}
                row |= followed(examiner, question, drawn, splats)
                append_record(s.rows, row)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
