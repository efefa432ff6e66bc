"""How well the prior's samples follow held-out prompts: ``python bench/prior.py [--guidance 2 3] [--climb 0 .3] [--best 1 8]``.

Draws sets of views of the validation prompts, and asks the embedded encoder and the judge for the right caption among the hard
pool of each, as ``rl3d evaluate`` does with assets; true renders from the same cameras stand beside. Of several samples the
encoder's favourite is taken (``--best``), so that only the judge's figure says something then.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from rl3d.cameras import Orbit
from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.worlds import Question, ToyWorld, prompt_set, read_questions
from rl3d.export.pictures import png_bytes, sheet, to_uint8
from rl3d.priors.embedded import Embedded
from rl3d.priors.sampling import Climb, sample_best, sample_views
from rl3d.rewards.clip import Clip
from rl3d.toybox.language import TOYS
from rl3d.types import Prompt, Views

FIGURES = ("encoder_r1", "encoder_score", "judge_r1", "judge_score")


@dataclass(frozen=True)
class Settings:
    """What to draw and how."""

    prior: Path | None = None
    """A folder of an exported prior; the package's own by default."""
    lora: Path | None = None
    """What a lesson left (`rl3d finetune`)."""
    encoder: str = "encoder"
    judge: str = "judge"
    """Names or folders of the two dual encoders."""
    guidance: tuple[float, ...] = (3.0,)
    best: tuple[int, ...] = (1,)
    """Samples of which the encoder chooses one."""
    begun: tuple[int, ...] = ()
    """The same, but chosen after so many steps (``after``), so that one alone is finished."""
    after: int = 4
    steps: int = 16
    rescale: float = 0.5
    guided: float = 1.0
    """The part of the steps that guidance is for."""
    climb: tuple[float, ...] = (0.0,)
    """How far predictions are pulled up the encoder's gradient on the way; its own figures then say little."""
    climbed: tuple[float, float] = (0.1, 0.8)
    """The part of the steps in which they are."""
    views: int = 4
    elevation_deg: float = 20.0
    limit: int | None = None
    """Only the first so many prompts."""
    split: Literal["train", "validation"] | None = None
    """Ask for ``limit`` random combinations of this split in place of the validation set."""
    batch: int = 12
    picture: Path | None = None
    json: Path | None = None


def examined(examiner: Examiner, views: Views, questions: list[Question]) -> dict[str, float]:
    """How often each model's first caption is the right one, and how well it likes that: the means over samples."""
    ranks = [examiner.ranks(question, select(views, torch.tensor([i]))) for i, question in enumerate(questions)]
    return {key: float(np.mean([x[key] for x in ranks])) for key in FIGURES}


def any_of(split: str, count: int) -> list[Question]:
    """Questions after random combinations of a split, always the same."""
    rng = np.random.default_rng(77)
    specs = [TOYS.sample(rng, split) for _ in range(count)]
    return [Question(TOYS.canonical(spec), spec) for spec in specs]


def concatenated(parts: list[Views], cameras) -> Views:
    return Views(torch.cat([p.rgb for p in parts]), torch.cat([p.alpha for p in parts]), None, None, cameras)


def select(views: Views, index: torch.Tensor) -> Views:
    return Views(views.rgb[index], views.alpha[index], None, None, views.cameras)


@torch.no_grad()
def main(s: Settings) -> None:
    questions = read_questions(prompt_set("validation"))[: s.limit] if s.split is None else any_of(s.split, s.limit or 64)
    prior = Embedded(folder=str(s.prior or "prior"), lora=str(s.lora or "")).build()
    judges = {"encoder": Clip(s.encoder).build(), "judge": Clip(s.judge).build()}
    cameras = Orbit(s.views, s.elevation_deg, 15.0, size=prior.info.size).cameras()
    examiner = Examiner(judges, cameras)

    def liked(*shown) -> torch.Tensor:
        return judges["encoder"].score(*shown).value

    truths = [ToyWorld().truths(q, cameras, q.seed, 1)[0].views for q in questions]
    sets = {"true renders": (concatenated(truths, cameras), 0.0)}
    options: dict[str, Any] = {"steps": s.steps, "rescale": s.rescale, "guided": s.guided}
    for guidance, climb in itertools.product(s.guidance, s.climb):
        rng, parts, start = torch.Generator().manual_seed(0), [], time.perf_counter()
        pull = Climb(lambda *shown, rng=rng: judges["encoder"].score(*shown, background=rng).value, climb, *s.climbed)
        options |= {"guidance": guidance, "climb": pull if climb else None}
        said = f"guidance {guidance:g}" + (f", climb {climb:g}" if climb else "")
        drawn = [question for question in questions for _ in range(max(s.best))]
        for i in range(0, len(drawn), s.batch):
            prompts = [Prompt(q.prompt) for q in drawn[i : i + s.batch]]
            parts.append(sample_views(prior, prompts, cameras, rng=rng, **options))
        views, seconds = concatenated(parts, cameras), (time.perf_counter() - start) / max(s.best)
        score = judges["encoder"].score(views, [Prompt(q.prompt) for q in drawn]).value.view(len(questions), -1)
        for count in s.best:
            favourite = torch.arange(len(questions)) * max(s.best) + score[:, :count].argmax(1)
            sets[f"{said}, best of {count}"] = (select(views, favourite), count * seconds)
        for count in s.begun:
            rng, start = torch.Generator().manual_seed(0), time.perf_counter()
            prompts = [Prompt(q.prompt) for q in questions]
            more: dict[str, Any] = {"candidates": count, "after": s.after, "batch": s.batch}
            views = sample_best(prior, prompts, cameras, liked, rng=rng, **options, **more)
            sets[f"{said}, best of {count} begun"] = (views, time.perf_counter() - start)
    results = {}
    print(f"{'':42}{'encoder R@1':>12}{'score':>8}{'judge R@1':>12}{'score':>8}{'s a set':>9}")
    for name, (views, seconds) in sets.items():
        found = results[name] = examined(examiner, views, questions) | {"seconds_per_set": seconds / len(questions)}
        figures = "".join(f"{found[key]:{'12.1%' if key.endswith('r1') else '8.3f'}}" for key in FIGURES)
        print(f"{name:42}{figures}{found['seconds_per_set']:9.2f}", flush=True)
    if s.picture:
        pictures = to_uint8(list(sets.values())[-1][0]).reshape(-1, prior.info.size, prior.info.size, 3)
        s.picture.write_bytes(png_bytes(sheet(pictures.repeat(2, 1).repeat(2, 2), 4 * s.views)))
        s.picture.with_suffix(".txt").write_text("\n".join(q.prompt for q in questions) + "\n")
    if s.json:
        s.json.write_text(json.dumps({"prompts": len(questions), **results}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
