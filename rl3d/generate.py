"""From a prompt to a finished run: the loop of :mod:`rl3d.optimize`, its folder, and what is made of the scene at the end."""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rl3d.cameras import look_at_origin
from rl3d.export.mesh import to_mesh, write_glb
from rl3d.export.pictures import contact_sheet, png_bytes, write_turntable
from rl3d.export.ply import write_ply
from rl3d.files import write_whole
from rl3d.optimize import Optimization, Report
from rl3d.protocols import Representation
from rl3d.recipe import Recipe, describe
from rl3d.run import Run, circumstances
from rl3d.scene import load_scene, scene_file
from rl3d.search import Contest, begin, optimize, restore, state
from rl3d.types import Cameras, Look, Prompt, Views

CHECKPOINT_EVERY = 25
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Request:
    """What a run was asked for: two runs with equal requests are the same run."""

    prompt: Prompt
    recipe: str
    """Name or path, as it was given."""
    arguments: tuple[str, ...] = ()
    """Flags that changed the recipe."""
    seed: int = 0

    def matches(self, about: dict) -> bool:
        return all(about.get(key) == value for key, value in self.plain().items())

    def plain(self) -> dict:
        return {"prompt": vars(self.prompt), "recipe": self.recipe, "arguments": list(self.arguments), "seed": self.seed}


def create(run: Run, request: Request, recipe: Recipe, source: Path) -> None:
    """Make the folder of a new run: the request, the recipe as written and as resolved, and what the bytes depend on."""
    written = source.read_bytes()
    write_whole(run.folder / "recipe.py", written)
    run.write_json("recipe.json", describe(recipe))
    digest = hashlib.sha256(written).hexdigest()
    run.write_json("run.json", {**request.plain(), "recipe_sha256": digest, "depends_on": circumstances()})


def produce(run: Run, recipe: Recipe, *, device: str = "cpu") -> Iterator[tuple[Report, Optimization | Contest]]:
    """Do a run, or what is left of it; yields after every step. When it ends the folder is complete.

    Leaving early (an exception, Ctrl-C) saves a checkpoint first, so that nothing is lost.
    """
    about, clock = run.about, time.monotonic()
    saved = run.load()
    before = saved[1]["seconds"] if saved else 0.0
    if saved:
        o = restore(recipe, *saved, device=device)
        run.cut_metrics(o.step)
    else:
        (run.folder / "metrics.jsonl").unlink(missing_ok=True)
        o = begin(recipe, Prompt(**about["prompt"]), seed=about["seed"], device=device)

    def seconds() -> float:
        return before + time.monotonic() - clock

    def save() -> None:
        tensors, plain = state(o)
        run.save(tensors, plain | {"seconds": seconds()})

    if not saved:
        save()
    last = o.step
    try:
        for report in optimize(o):
            losses, norms = ({k: round(v, 6) for k, v in part.items()} for part in (report.losses, report.norms))
            run.log(
                {
                    "step": report.step,
                    "seconds": round(seconds(), 3),
                    "losses": losses,
                    "gradient_norms": norms,
                    "size": report.size,
                    "skipped": report.skipped,
                }
            )
            if report.step % CHECKPOINT_EVERY == 0 or report.step == recipe.steps:
                preview(run, seen(o.scene), report.step)
                save()
                last = o.step
            yield report, o
    except (KeyboardInterrupt, GeneratorExit):
        if o.step != last:
            save()
        raise
    finish(run, o, seconds)


def seen(scene: Representation) -> Look:
    """A scene as something to look at, without gradients."""

    @torch.no_grad()
    def look(cameras: Cameras) -> Views:
        return scene.render(cameras)[0]

    return look


def preview(run: Run, look: Look, step: int) -> None:
    """Write a picture of the scene as it is."""
    write_whole(run.folder / "previews" / f"step_{step:05d}.png", png_bytes(contact_sheet(look, 128)))


def evaluation_cameras(size: int = 128) -> Cameras:
    """Eight sides that no optimization has seen: below and above its elevations, another field of view, twice the pixels."""
    azimuth = torch.tensor([[22.5, 112.5, 202.5, 292.5, 67.5, 157.5, 247.5, 337.5]])
    elevation = torch.tensor([[-8.0] * 4 + [52.0] * 4])
    return look_at_origin(azimuth, elevation, distance=3.6, fov_y_deg=33.0, width=size, height=size)


@torch.no_grad()
def judge(recipe: Recipe, prompt: Prompt, look: Look, device: torch.device | str = "cpu") -> dict[str, float | None]:
    """Every guard's score of the object from unseen sides; None where a judgement could not be had."""
    views = look(evaluation_cameras().to(device))
    scores = {}
    for name, guard in recipe.guards.items():
        score = guard.build(device).score(views, [prompt])
        scores[name] = round(float(score.value[0]), 6) if bool(score.valid[0]) else None
    return scores


def finish(run: Run, o: Optimization | Contest, seconds) -> None:
    """Write what a user takes away: the asset, its mesh, its pictures, and the summary, last of all."""
    splats, look = o.scene.splats(), seen(o.scene)
    write_ply(run.folder / "asset.ply", splats)
    write_whole(run.folder / "preview.png", png_bytes(contact_sheet(look)))
    write_turntable(run.folder / "turntable.mp4", look)
    notes: list[str] = []
    try:
        write_glb(run.folder / "mesh.glb", to_mesh(look))
    except ValueError as error:
        notes.append(f"no mesh: {error}")
    scores = judge(o.recipe, o.prompt, look, o.scene.device)
    summary = {
        "prompt": o.prompt.text,
        "scores": scores,
        "gaussians": len(splats),
        "steps": o.step,
        "skipped_steps": o.skipped,
        "seconds": round(seconds(), 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "notes": notes,
    }
    run.write_json("summary.json", summary)


def find_run(out: Path, name: str, request: Request) -> Run:
    """The folder for a request under ``out``: the one that already holds it, else the first free name."""
    for suffix in ["", *(f"-{i}" for i in range(2, 10_000))]:
        run = Run(out / f"{name}{suffix}")
        if not (run.folder / "run.json").is_file() or request.matches(run.about):
            return run
    raise ValueError(f"{out} holds ten thousand runs of this prompt: choose another --out")


def read_prompts(names: Sequence[str]) -> list[Prompt]:
    """Prompts from the words of a command line: a prompt itself, a scene, or a file with a prompt on each line."""
    prompts = []
    for name in names:
        path = Path(name)
        if name.endswith(".txt"):
            if not path.is_file():
                raise ValueError(f"there is no prompt file {name}")
            lines = [line.strip() for line in path.read_text().splitlines()]
            found = [Prompt(line) for line in lines if line and not line.startswith("#")]
            if not found:
                raise ValueError(f"{name} holds no prompts: write one on each line")
            prompts += found
        elif scene := scene_file(name):
            prompts.append(load_scene(scene))
        elif name.strip():
            prompts.append(Prompt(name.strip()))
        else:
            raise ValueError('the prompt is empty: say what to make, for example "a red mug"')
    return prompts
