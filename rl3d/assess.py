"""``rl3d evaluate``: runs over a prompt set, examined as they come; a table, a record, and a picture of all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from rl3d.cameras import evaluation_cameras
from rl3d.evaluate.benchmark import Examiner, prompt_set, read_questions, summarize, table
from rl3d.export.pictures import png_bytes, sheet
from rl3d.export.ply import read_ply
from rl3d.files import write_whole
from rl3d.generate import Request, create, find_run, produce
from rl3d.recipe import load_recipe, recipe_file
from rl3d.rewards.clip import Clip
from rl3d.run import circumstances, short_name
from rl3d.types import Prompt


def assess(
    prompts: str, recipe_name: str, out: Path | None, to_json: Path | None, limit: int | None, seed: int, device: str
) -> dict:
    """Generate and score; returns what is written to ``to_json``."""
    path = prompt_set(prompts) if prompts in ("validation", "test") else Path(prompts)
    if not path.is_file():
        raise ValueError(f'there is no prompt set {prompts!r}: name "validation", "test" or a file of JSON lines')
    questions = read_questions(path)[:limit]
    out = out or Path("runs") / f"evaluate-{path.stem}-{Path(recipe_name).stem}"
    source = recipe_file(recipe_name)
    recipe = load_recipe(source)
    examiner = Examiner({"judge": Clip("judge").build(device), "reward": Clip().build(device)}, evaluation_cameras())
    console, records, pictures = Console(stderr=True), [], []
    for i, question in enumerate(questions):
        request = Request(Prompt(question.prompt), recipe_name, (), seed)
        run = find_run(out, short_name(question.prompt), request)
        with run.lock():
            if not (run.folder / "run.json").is_file():
                create(run, request, recipe, source)
            if run.summary is None:
                for _ in produce(run, recipe, device=device):
                    pass
        summary = run.summary
        assert summary is not None
        torch.manual_seed(0)
        record = {"prompt": question.prompt, "seconds": summary["seconds"], "peak_memory_gb": summary["peak_memory_gb"]}
        records.append(record | examiner.examine(question, read_ply(run.folder / "asset.ply")))
        right = "right" if records[-1]["judge_r1"] else f"judge says {records[-1]['judge_mistook_for']!r}"
        console.print(f"[{i + 1}/{len(questions)}] {question.prompt}: {right}, {summary['seconds']:.0f} s", highlight=False)
        preview = np.asarray(Image.open(run.folder / "preview.png").convert("RGB"))
        pictures.append(preview[:256, :512])
    write_whole(out / "all.png", png_bytes(sheet(np.stack(pictures), 4)))
    print(table(records))
    print(f"{len(records)} prompts of {path.stem}, recipe {recipe_name}, seed {seed}; all assets: {out / 'all.png'}")
    result = {
        "prompts": path.stem,
        "recipe": recipe_name,
        "seed": seed,
        "summary": {title: {"assets": own, "true": true} for title, (own, true) in summarize(records).items()},
        "records": records,
        "circumstances": circumstances(),
    }
    if to_json is not None:
        write_whole(to_json, (json.dumps(result, indent=1) + "\n").encode())
    return result
