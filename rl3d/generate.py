"""From a prompt to a finished run: the loop of :mod:`rl3d.optimize`, its folder, and what is made of the scene at the end."""

from __future__ import annotations

import hashlib
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rl3d.cameras import evaluation_cameras
from rl3d.control import Control
from rl3d.explanation import explain, why_path, write_explanation
from rl3d.export.meshes.files import write_mesh
from rl3d.export.meshes.meshing import QUICK, to_mesh
from rl3d.export.pictures import contact_sheet, png_bytes, write_turntable
from rl3d.export.splats.ply import write_ply
from rl3d.files import write_whole
from rl3d.live import Live
from rl3d.optimize import Optimization, Report
from rl3d.priors.lora_files import save_lora
from rl3d.protocols import Representation, Scene, Shown
from rl3d.recipe import Recipe, describe
from rl3d.record import Alert, Log, LogName, Watcher, first_alert, line, open_log, scene_of, value_of
from rl3d.representations.mesh import TexturedMesh
from rl3d.rewards.base import SplatScene
from rl3d.run import IMAGE, Run, circumstances
from rl3d.search import Contest, advance, begin, restore, state
from rl3d.snapshot import is_kept, saved_steps, scene_path, write_snapshot
from rl3d.tutor import LEARNS
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
        found: dict[str, Any] = {"prompt": self.prompt.plain()}
        if self.prompt.image:
            # What the picture shows matters, and not where it lies.
            path = Path(self.prompt.image)
            found["prompt"]["image"], found["image_sha256"] = path.name, hashlib.sha256(path.read_bytes()).hexdigest()
        return {**found, "recipe": self.recipe, "arguments": list(self.arguments), "seed": self.seed}


def create(run: Run, request: Request, recipe: Recipe, source: Path) -> None:
    """Make the folder of a new run: the request, the recipe as written and as resolved, and what the bytes depend on."""
    written = source.read_bytes()
    write_whole(run.folder / "recipe.py", written)
    if request.prompt.image:
        write_whole(run.folder / IMAGE, Path(request.prompt.image).read_bytes())
    run.write_json("recipe.json", describe(recipe))
    digest = hashlib.sha256(written).hexdigest()
    run.write_json("run.json", {**request.plain(), "recipe_sha256": digest, "depends_on": circumstances()})


def produce(
    run: Run, recipe: Recipe, *, device: str = "cpu", logs: Sequence[LogName] = (), control: Control | None = None
) -> Iterator[tuple[Report, Optimization | Contest]]:
    """Do a run, or what is left of it; yields after every step. When it ends the folder is complete.

    It may end before the recipe's steps are done, where its reward rises while guards fall (:class:`rl3d.recipe.Watch`).
    ``logs`` get the lines of ``metrics.jsonl`` too.

    Between steps it does what is asked of it (:mod:`rl3d.control`), and shows itself to whoever watches (:mod:`rl3d.live`); a
    caller that wants to know whether it is paused brings the ``control``.

    Leaving early (an exception, Ctrl-C, a wish to stop) saves a checkpoint first, so that nothing is lost.
    """
    about, prompt, clock, idle = run.about, run.prompt, time.monotonic(), 0.0
    control = control or Control(run)
    saved = run.load()
    before = saved[1]["seconds"] if saved else 0.0
    if saved:
        o = restore(recipe, saved[0], saved[1] | {"prompt": prompt.plain()}, device=device)
        run.cut_metrics(o.step)
    else:
        (run.folder / "metrics.jsonl").unlink(missing_ok=True)
        o = begin(recipe, prompt, seed=about["seed"], device=device)

    def seconds() -> float:
        return before + time.monotonic() - clock - idle

    def save() -> None:
        tensors, plain = state(o)
        run.save(tensors, plain | {"seconds": seconds()})

    if not saved:
        save()
    last = o.step
    watcher = Watcher(recipe, prompt, device)
    looks = [record for record in run.metrics() if "guards" in record]
    alert = first_alert(recipe, looks)
    opened: list[Log] = []
    live, report = Live(run), None
    try:
        opened += [open_log(name, run.folder, describe(recipe), o.step) for name in logs]
        # A run that was killed after it had been ended by an alert is not taken up again.
        while o.step < recipe.steps and (alert is None or alert.then == "warn"):
            go = control.obey(o)
            if control.save:
                save()
                last, control.save = o.step, False
            if live.show(o, report, watcher, explain=control.explain):
                control.explain = False
            if not go:
                idle += control.wait()
                continue
            report = advance(o)
            record = line(report, seconds())
            if recipe.watch.due(report.step):
                record |= watcher.look(o.scene)
                looks.append(record)
                alert = alert or first_alert(recipe, looks)
                if recipe.watch.then == "roll back":
                    run.save(*state(o), _state_of(report.step))
            run.log(record)
            for log in opened:
                log.write(record)
            if report.step % CHECKPOINT_EVERY == 0 or report.step == recipe.steps:
                preview(run, seen(o.scene), report.step)
                keep(run, o, report, watcher)
                save()
                last = o.step
            yield report, o
    except (KeyboardInterrupt, GeneratorExit):
        if o.step != last:
            save()
        raise
    finally:
        for log in opened:
            log.close()
    if alert is not None and alert.then == "roll back":
        earlier = run.load(_state_of(alert.since))
        if earlier is None:
            raise ValueError(f"{run.folder / _state_of(alert.since)} is missing, to which this run goes back: start it anew")
        o = restore(recipe, earlier[0], earlier[1] | {"prompt": prompt.plain()}, device=device)
    if o.step not in saved_steps(run):
        write_snapshot(scene_path(run, o.step), o.scene, o.step)
    finish(run, o, seconds, alert, changed=control.changed)
    for name in ("states", "live"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def _state_of(step: int) -> str:
    """Where the state after so many steps is kept, as long as the run may go back to it."""
    return f"states/step_{step:05d}.safetensors"


def keep(run: Run, o: Optimization | Contest, report: Report, watcher: Watcher) -> None:
    """Keep the scene after a step and why it became so, for those who look back; of long runs not at each checkpoint."""
    if is_kept(report.step, o.recipe.steps, CHECKPOINT_EVERY):
        write_snapshot(scene_path(run, report.step), o.scene, report.step)
        write_explanation(why_path(run, report.step), explain(report, o, watcher))


def seen(scene: Representation) -> Look:
    """A scene as something to look at, without gradients."""

    @torch.no_grad()
    def look(cameras: Cameras) -> Views:
        return scene.render(cameras)[0]

    return look


def preview(run: Run, look: Look, step: int) -> None:
    """Write a picture of the scene as it is."""
    write_whole(run.folder / "previews" / f"step_{step:05d}.png", png_bytes(contact_sheet(look, 128)))


@torch.no_grad()
def judge(
    recipe: Recipe, prompt: Prompt, look: Look, scene: Scene, device: torch.device | str = "cpu"
) -> dict[str, float | None]:
    """Every guard's score of the object from unseen sides; None where a judgement could not be had."""
    shown = Shown(look(evaluation_cameras().to(device)), (scene,))
    return {name: value_of(guard.build(device), shown, prompt) for name, guard in recipe.guards.items()}


def finish(
    run: Run, o: Optimization | Contest, seconds: Callable[[], float], alert: Alert | None = None, changed: int = 0
) -> None:
    """Write what a user takes away: the asset, its mesh, its pictures, and the summary, last of all.

    The summary notes how often a weight was ``changed`` on the way.
    """
    scene, look = o.scene, seen(o.scene)
    splats = scene.splats()
    write_ply(run.folder / "asset.ply", splats)
    write_whole(run.folder / "preview.png", png_bytes(contact_sheet(look)))
    write_turntable(run.folder / "turntable.mp4", look)
    notes: list[str] = [] if alert is None else [str(alert)]
    if changed:
        notes.append(f"weights were changed {changed} times on the way (control.jsonl): the recipe alone gives another object")
    try:
        mesh = scene.to_trimesh() if isinstance(scene, TexturedMesh) else to_mesh(look, QUICK)
        write_mesh(run.folder / "mesh.glb", mesh, name=run.title)
    except ValueError as error:
        notes.append(f"no mesh: {error}")
    if isinstance(o, Optimization) and o.tutor is not None:
        save_lora(o.tutor.actor, LEARNS, run.folder / "lora")
        notes.append(f"the taught prior: --prior.lora {run.folder / 'lora'}")
    scores = judge(o.recipe, o.prompt, look, scene_of(scene) or SplatScene(splats), o.scene.device)
    summary = {
        "prompt": run.title,
        "scores": scores,
        "gaussians": len(splats),
        **({"faces": len(scene)} if isinstance(scene, TexturedMesh) else {}),
        "steps": o.step,
        "skipped_steps": o.skipped,
        "seconds": round(seconds(), 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "alert": None if alert is None else alert.plain(),
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
