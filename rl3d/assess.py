"""``rl3d evaluate``: runs over a prompt set, examined as they come; a table, a record, and a picture of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from rl3d.cameras import evaluation_cameras
from rl3d.evaluate.benchmark import Examiner, summarize, table
from rl3d.evaluate.independent import Panel
from rl3d.evaluate.independent import table as table_of_many
from rl3d.evaluate.worlds import SETS, Question, RealWorld, ToyWorld, World, questions_of
from rl3d.export.pictures import png_bytes, sheet
from rl3d.export.splats.ply import read_ply
from rl3d.files import write_whole
from rl3d.generate import Request, create, find_run, produce
from rl3d.priors.embedded import Embedded
from rl3d.recipe import Recipe, load_recipe, recipe_file
from rl3d.rewards.clip import Clip
from rl3d.run import Run, circumstances, short_name
from rl3d.types import Prompt


@dataclass(frozen=True)
class Assessment:
    """Generate held-out prompts, score them beside true renders, and print a table."""

    prompts: str = "validation"
    """"validation", "test" (sealed: for the record only), or a file of JSON lines like rl3d/toybox/prompts/validation.txt."""
    recipe: str = "default"
    out: Path | None = None
    """Where the runs go; those done before are not done again. Default: runs/evaluate-PROMPTS-RECIPE."""
    json: Path | None = None
    """Also write the table and every asset's record here."""
    limit: int | None = None
    """Only the first so many prompts of each world."""
    seed: int = 0
    device: str = "cpu"
    world: Literal["toys", "real", "both"] = "toys"
    """Whose prompts: the toybox's, or those about real objects that no training sees (`rl3d world fetch`), or both."""
    objects: Path = Path(".cache/world/debian")
    """Where the real objects are."""
    pool: int = 100
    """Captions among which a judge must find the right one; a fifth of them are near misses."""
    untaught: bool = False
    """Ask only for what has a name that no caption of a training has, by that name; judges still answer in taught words."""
    independent: bool = False
    """Let published networks judge, too: identity and distances in DINOv2's features, and what ConSE calls each asset."""
    networks: Path = Path(".cache/networks")
    """Where `python -m rl3d.evaluate.published FOLDER` put them."""


def worlds_of(a: Assessment) -> list[World]:
    """The worlds that are asked for things, in a fixed order; what they lack is a ``ValueError``."""
    if a.pool < 10:
        raise ValueError(f"--pool {a.pool} is too easy to say anything: take at least 10 captions")
    if a.world == "both" and a.prompts not in SETS:
        raise ValueError(f"say whose prompts {a.prompts} has: --world toys or --world real")
    if a.untaught and a.world != "real":
        raise ValueError("--untaught needs --world real: only real objects have names that are kept out of all captions")
    worlds: list[World] = []
    if a.world != "real":
        worlds.append(ToyWorld())
    if a.world != "toys":
        worlds.append(RealWorld.open(a.objects))
    return worlds


def assess(a: Assessment) -> dict[str, Any]:
    """Generate and score; returns what is written to ``a.json``."""
    worlds = worlds_of(a)
    source = recipe_file(a.recipe)
    recipe, arguments = load_recipe(source), ()
    if a.untaught and isinstance(recipe.prior, Embedded):
        recipe, arguments = replace(recipe, prior=replace(recipe.prior, allow_unknown=True)), ("--allow-unknown",)
    asked = {world.name: _asked(a, world) for world in worlds}
    judges = {"judge": Clip("judge").build(a.device), "reward": Clip().build(a.device)}
    panel = Panel(a.networks, a.device) if a.independent else None
    examiners = [Examiner(judges, evaluation_cameras(), world, a.pool, panel) for world in worlds]
    for examiner in examiners:
        examiner.check()
        for question in asked[examiner.world.name]:
            if recipe.prior is not None:
                recipe.prior.check(Prompt(question.prompt))
    name = Path(a.prompts).stem
    whose = "" if a.world == "toys" else f"{a.world}-"
    out = a.out or Path("runs") / f"evaluate-{whose}{name}-{'untaught-' if a.untaught else ''}{Path(a.recipe).stem}"
    console, records, pictures = Console(stderr=True), [], []
    count = sum(map(len, asked.values()))
    for examiner in examiners:
        for question in asked[examiner.world.name]:
            request = Request(Prompt(question.prompt), a.recipe, arguments, a.seed)
            run = _run(out, request, recipe, source, a.device)
            summary = run.summary
            assert summary is not None
            torch.manual_seed(0)
            record = {"prompt": question.prompt, "world": examiner.world.name}
            record |= {key: summary[key] for key in ("seconds", "peak_memory_gb")}
            record |= examiner.examine(question, read_ply(run.folder / "asset.ply"))
            records.append(record)
            right = "right" if record["judge_r1"] else f"judge says {record['judge_mistook_for']!r}"
            line = f"[{len(records)}/{count}] {question.prompt}: {right}, {summary['seconds']:.0f} s"
            console.print(line, highlight=False)
            preview = np.asarray(Image.open(run.folder / "preview.png").convert("RGB"))
            pictures.append(preview[:256, :512])
    write_whole(out / "all.png", png_bytes(sheet(np.stack(pictures), 4)))
    result: dict[str, Any] = {"prompts": name, "world": a.world, "recipe": a.recipe, "seed": a.seed, "pool": a.pool}
    result |= {"untaught": a.untaught} | _summaries(records, worlds, panel)
    result |= {"records": records, "circumstances": circumstances()}
    print(f"{len(records)} prompts of {name}, recipe {a.recipe}, seed {a.seed}; all assets: {out / 'all.png'}")
    if a.json is not None:
        write_whole(a.json, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _asked(a: Assessment, world: World) -> list[Question]:
    """The questions of a world, as they will be put."""
    questions = questions_of(world, a.prompts)
    if a.untaught:
        named = [(question, world.untaught(question.spec)) for question in questions]
        questions = [replace(question, prompt=text) for question, text in named if text is not None]
        if not questions:
            raise ValueError(f"none of {a.prompts} has a name that is never taught: take another set of prompts")
    return questions[: a.limit]


def _run(out: Path, request: Request, recipe: Recipe, source: Path, device: str) -> Run:
    """The finished run of a request: done now, unless it was done before."""
    run = find_run(out, short_name(request.prompt.text), request)
    with run.lock():
        if not (run.folder / "run.json").is_file():
            create(run, request, recipe, source)
        if run.summary is None:
            for _ in produce(run, recipe, device=device):
                pass
    return run


def _summaries(records: Sequence[dict[str, Any]], worlds: Sequence[World], panel: Panel | None) -> dict[str, Any]:
    """Print a table for each world, and of all; return their means by title."""
    groups = {world.name: [record for record in records if record["world"] == world.name] for world in worlds}
    if len(worlds) > 1:
        groups["both"] = list(records)
    summaries = {}
    for name, some in groups.items():
        print(f"\n{name}: {len(some)} prompts" if len(groups) > 1 else "")
        print(table(some))
        summaries[name] = {title: {"assets": own, "true": true} for title, (own, true) in summarize(some).items()}
        if panel is not None:
            together = panel.compare((record["world"], record["prompt"]) for record in some)
            print(table_of_many(together))
            summaries[name] |= together
    last = summaries[name]
    return {"summary": last} | ({"summaries": summaries} if len(groups) > 1 else {})
