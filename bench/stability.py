"""Of objects that fall when they are dropped, how many does a recipe mend? ``python bench/stability.py [--prompts 60]``

Drafts are made of held-out prompts and dropped in the simulator, on convex pieces (:class:`rl3d.rewards.physics.Drop`). Those
that fall are treated: the recipe goes on from the draft, and so does a control, the same recipe without its physics. Rows go to
a file of JSON lines as they come, and a second call does what is missing. What must not happen is looked at, too: that the
judge knows the object less often, and that it grows a flat base (:class:`rl3d.rewards.shape.Undercut`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.metrics import bootstrap_interval, silhouette_iou
from rl3d.evaluate.worlds import Question, evenly, prompt_set, read_questions
from rl3d.export.splats.ply import read_ply, write_ply
from rl3d.files import append_record, read_records
from rl3d.generate import evaluation_cameras
from rl3d.optimize import begin, optimize
from rl3d.protocols import Shown
from rl3d.recipe import Recipe, load_recipe, recipe_file, starting_from
from rl3d.render.gaussians import look_at
from rl3d.rewards.base import SplatScene
from rl3d.rewards.clip import Clip
from rl3d.rewards.physics import Drop, Stands, standing
from rl3d.rewards.shape import Undercut
from rl3d.types import Prompt, Splats


@dataclass(frozen=True)
class Settings:
    """What to drop, and what to do about what falls."""

    prompts: int = 60
    """Of the validation set, evenly spread over it."""
    seed: int = 0
    recipe: str = "stable_object"
    physics: tuple[str, ...] = ("stands", "drop")
    """The recipe's terms that the control goes without."""
    steps: int = 120
    minutes: float = 1e9
    """Stop after the asset that goes beyond."""
    work: Path = Path("runs/bench-stability")
    """Where drafts are kept."""
    rows: Path = Path("bench/results/stability.jsonl")


def run(recipe: Recipe, prompt: str, seed: int) -> tuple[Splats, float]:
    """The Gaussians that a recipe makes, and the processor seconds that it took."""
    start = time.process_time()
    o = begin(recipe, Prompt(prompt), seed=seed)
    for _ in optimize(o):
        pass
    return o.scene.splats(), time.process_time() - start


@torch.no_grad()
def measured(question: Question, splats: Splats, examiner: Examiner) -> dict[str, Any]:
    """Whether it stands, what it stands on, and what the judge and the encoder say."""
    torch.manual_seed(0)
    shown = Shown(look_at(splats)(examiner.cameras), (SplatScene(splats),))
    prompts = [Prompt(question.prompt)]
    drop = Drop().build().score(shown, prompts)
    found: dict[str, Any] = {"stands": bool(standing(drop)[0]), "valid": bool(drop.valid[0])}
    found["tipping_deg"] = float(Stands().score(shown, prompts).value[0])
    found["undercut"] = float(Undercut().score(shown, prompts).value[0])
    seen = examiner.examine(question, splats)
    return found | {key: seen[key] for key in ("judge_r1", "judge_score", "reward_r1", "reward_score", "iou")}


def table(rows: list[dict[str, Any]]) -> str:
    """How many fell, and what became of them."""
    drafts = {row["prompt"]: row for row in rows if row["what"] == "draft"}
    fell = [p for p, row in drafts.items() if row["valid"] and not row["stands"]]
    lines = [f"{len(drafts)} drafts, of which {len(fell)} fall"]
    for what in ("draft", "treated", "control"):
        some = {row["prompt"]: row for row in rows if row["what"] == what}
        both = [p for p in fell if p in some]
        if not both:
            continue
        line = f"{what:8} {len(both):3}:"
        for key in ("stands", "tipping_deg", "undercut", "judge_r1", "judge_score", "iou", "kept", "cpu_seconds"):
            own = torch.tensor([float(some[p].get(key, 1.0)) for p in both])
            line += f"  {key} {own.mean():.3f}"
            if what != "draft" and key in drafts[both[0]] and key != "cpu_seconds":
                low, high = bootstrap_interval(own - torch.tensor([float(drafts[p][key]) for p in both]))
                line += f" ({low:+.3f} {high:+.3f})"
        lines.append(line)
    return "\n".join(lines)


def main(s: Settings) -> None:
    questions = evenly(read_questions(prompt_set("validation")), s.prompts)
    rows = read_records(s.rows)
    done = {(row["what"], row["prompt"]): row for row in rows}
    examiner = Examiner({"judge": Clip("judge").build(), "reward": Clip().build()}, evaluation_cameras())
    s.work.mkdir(parents=True, exist_ok=True)
    draft, treatment = load_recipe(recipe_file("draft")), load_recipe(recipe_file(s.recipe))
    start = time.monotonic()

    def keep(what: str, question: Question, splats: Splats, seconds: float, **more: float) -> dict[str, Any]:
        row = {"what": what, "prompt": question.prompt, "seed": s.seed, "cpu_seconds": round(seconds, 2), **more}
        row |= measured(question, splats, examiner)
        append_record(s.rows, row)
        print(f"{what:8} {question.prompt:44} {'stands' if row['stands'] else 'falls'}", flush=True)
        rows.append(row)
        return row

    for i, question in enumerate(questions):
        if time.monotonic() - start > 60 * s.minutes:
            break
        path = s.work / f"{i:03}-{s.seed}.ply"
        row = done.get(("draft", question.prompt))
        if row is None or not path.exists():
            splats, seconds = run(draft, question.prompt, s.seed)
            write_ply(path, splats)
            row = row or keep("draft", question, splats, seconds)
        if row["stands"] or not row["valid"]:
            continue
        recipe = replace(starting_from(treatment, str(path)), steps=s.steps)
        left = {name: term for name, term in recipe.terms.items() if name not in s.physics}
        ratios = {name: ratio for name, ratio in recipe.ratios.items() if name not in s.physics}
        before = look_at(read_ply(path))(examiner.cameras)
        for what, one in (("treated", recipe), ("control", replace(recipe, terms=left, ratios=ratios))):
            if (what, question.prompt) not in done:
                splats, seconds = run(one, question.prompt, s.seed)
                write_ply(path.with_name(f"{i:03}-{s.seed}-{what}.ply"), splats)
                same = float(silhouette_iou(before, look_at(splats)(examiner.cameras)))
                keep(what, question, splats, seconds, kept=same)
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
