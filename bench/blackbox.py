"""A black box teaches a scene, by one signal or another: ``python bench/blackbox.py [--prompts 12] [--seeds 0 1]``.

The black box is the embedded encoder with its gradient hidden, so that the true gradient can stand beside the signals that do
without. All start from the same drawn views, and fit them; each adds its signal to that. Every asset is then scored by the box
from sides that no step has seen, and the table says what a gain of 0.01 cost in processor seconds beyond the mere fit. Rows go
to a file of JSON lines as they come, and a second call does what is missing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from rl3d import search
from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.metrics import bootstrap_interval
from rl3d.evaluate.worlds import evenly, prompt_set, read_questions
from rl3d.files import append_record, read_records
from rl3d.generate import evaluation_cameras
from rl3d.optimize import Optimization, optimize, start
from rl3d.protocols import Shown, Situation
from rl3d.recipe import BestOf, Recipe, load_recipe, recipe_file
from rl3d.rewards.base import from_callable
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.terms.ascent import Ascend
from rl3d.terms.policy import PixelPolicy
from rl3d.terms.subspace import Clusters, Evolve, KeepOrDrop
from rl3d.types import Prompt, Views


@cache
def encoder() -> ClipReward:
    return Clip().build()


@torch.no_grad()
def box(shown: Shown | Views, prompts: list[Prompt]) -> Tensor:
    """What the encoder says, without saying why."""
    return encoder().score(shown, prompts).value


BOX = from_callable(box)
FIT: Recipe = replace(load_recipe(recipe_file("draft")), steps=120)


def added(signal, ratio: float) -> Recipe:
    return replace(FIT, terms={**FIT.terms, "box": signal}, ratios={"box": ratio})


SIGNALS: dict[str, Recipe] = {
    "fit alone": FIT,
    "policy at the pixels": added(PixelPolicy(BOX, start=0.3, every=2), 0.5),
    "evolution of clusters": added(Evolve(BOX, Clusters(colour=True), start=0.3), 0.5),
    "keep or drop": added(KeepOrDrop(BOX, start=0.3), 1.0),
    "best of 4": replace(FIT, search=BestOf(seeds=4, reward=BOX)),
    "its gradient": added(Ascend(start=0.3, backgrounds=1), 0.5),
}


@dataclass(frozen=True)
class Settings:
    """What to try, on what."""

    prompts: int = 12
    """Of the validation set, evenly spread over it."""
    seeds: tuple[int, ...] = (0,)
    minutes: float = 1e9
    """Stop after the prompt that goes beyond."""
    rows: Path = Path("bench/results/blackbox.jsonl")


def made(recipe: Recipe, situation: Situation, seed: int) -> tuple[Optimization | search.Contest, float]:
    """The scene that a recipe makes, from drawn views unless it searches, and its processor seconds without drawing one set."""
    begun = time.process_time()
    o = start(recipe, situation) if recipe.search is None else search.begin(recipe, situation.prompt, seed=seed)
    for _ in search.optimize(o) if isinstance(o, search.Contest) else optimize(o):
        pass
    return o, time.process_time() - begun


def table(rows: list[dict]) -> str:
    """Gains over the mere fit, paired, and their price."""
    by = {(row["signal"], row["prompt"], row["seed"]): row for row in rows}
    keys = [key[1:] for key in by if key[0] == "fit alone" and all((name, *key[1:]) in by for name in SIGNALS)]
    lines = [
        f"{len(keys)} assets of each",
        f"{'':24}{'box':>8}{'gain, 95 %':>24}{'judge gain, 95 %':>24}{'s':>8}{'s per 0.01':>12}",
    ]
    for name in SIGNALS:
        mine, base = ([by[n, *key] for key in keys] for n in (name, "fit alone"))
        gains = {k: torch.tensor([a[k] - b[k] for a, b in zip(mine, base, strict=True)]) for k in ("box", "judge", "seconds")}
        cells = [
            f"{float(gains[k].mean()):+.3f} ({low:+.3f} {high:+.3f})"
            for k in ("box", "judge")
            for low, high in [bootstrap_interval(gains[k])]
        ]
        gain, more = float(gains["box"].mean()), float(gains["seconds"].mean())
        price = f"{more / gain / 100:.1f}" if name != "fit alone" and gain > 0 else "-"
        lines.append(
            f"{name:24}{np.mean([row['box'] for row in mine]):8.3f}{cells[0]:>24}{cells[1]:>24}"
            f"{np.mean([row['seconds'] for row in mine]):8.1f}{price:>12}"
        )
    return "\n".join(lines)


def main(s: Settings) -> None:
    questions = evenly(read_questions(prompt_set("validation")), s.prompts)
    rows = read_records(s.rows)
    done = {(row["signal"], row["prompt"], row["seed"]) for row in rows}
    examiner = Examiner({"judge": Clip("judge").build(), "reward": encoder()}, evaluation_cameras())
    device, draw = torch.device("cpu"), FIT.draw
    assert FIT.prior is not None
    assert draw is not None
    prior, begun = FIT.prior.build(device), time.monotonic()
    for seed in s.seeds:
        for question in questions:
            left = [name for name in SIGNALS if (name, question.prompt, seed) not in done]
            if not left or time.monotonic() - begun > 60 * s.minutes:
                continue
            rng, prompt, before = torch.Generator().manual_seed(seed), Prompt(question.prompt), time.process_time()
            drawn, after = draw.draw(prompt, prior, rng, device), time.process_time()
            for name in left:
                own = torch.Generator()
                own.set_state(rng.get_state())
                o, seconds = made(SIGNALS[name], Situation(prompt, prior, drawn, own, device), seed)
                seconds -= after - before if SIGNALS[name].search else 0.0
                torch.manual_seed(0)
                seen = examiner.examine(question, o.scene.splats())
                row = {"signal": name, "prompt": question.prompt, "seed": seed, "box": seen["reward_score"]}
                row |= {"judge": seen["judge_score"], "judge_r1": seen["judge_r1"], "seconds": round(seconds, 2)}
                rows.append(row)
                append_record(s.rows, row)
                print(f"{seed} {name:22} {question.prompt:44} box {row['box']:.3f} judge {row['judge']:.3f}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
