"""``rl3d generate``."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from tyro.conf import AvoidSubcommands, Positional, arg

from rl3d.commands.viewing import viewing
from rl3d.commands.words import device_here, value_of, without
from rl3d.control import Control
from rl3d.generate import Request, create, find_run, produce
from rl3d.memory import free_bytes, ran_out
from rl3d.optimize import Diverged
from rl3d.priors.embedded import Embedded
from rl3d.recipe import Recipe, comparison, load_recipe, recipe_file, recipe_files, shortage, starting_from, thriftier
from rl3d.record import LogName, check_logs
from rl3d.representations.mesh import Mesh
from rl3d.run import Run, circumstances, short_name
from rl3d.scene import read_prompts
from rl3d.start import Draw, FromFile, FromMesh, Renders
from rl3d.types import Prompt


@dataclass(frozen=True)
class Generate:
    """Make 3D objects from prompts."""

    prompts: Positional[tuple[str, ...]]
    """Prompts; scenes by name or .toml file; .txt files with a prompt on each line."""
    settings: Annotated[AvoidSubcommands[Recipe], arg(name="")]
    recipe: str = "default"
    """A recipe's name (see `rl3d recipes`) or a .py file; every number below is one of its settings."""
    out: Path | None = None
    """The run's folder; for several prompts the folder that holds theirs. Default: runs/."""
    seed: int = 0
    device: str = "cpu"
    """"cpu", or "cuda" where there is a GPU."""
    allow_unknown: bool = False
    """Go on although the prior does not know some words."""
    image: Path | None = None
    """A picture of the object from its front, for a prior that goes by one; the recipe is then image_to_3d unless another is
    named, and no prompt is needed. Cut out it is best; an opaque one should show little else."""
    init: str = ""
    """An asset to improve or edit: a splat .ply, or a .glb, .gltf or .obj mesh. Nothing is drawn or matched then; recipes
    of a mesh match renders, and take a run's folder, too."""
    tensorboard: bool = False
    """Also write what metrics.jsonl holds for TensorBoard, into the run's folder."""
    wandb: bool = False
    """Also log what metrics.jsonl holds to Weights & Biases."""
    view: bool = False
    """Also open the viewer (`rl3d view`) on the run, or on the folder of several; it stays open until Ctrl-C."""
    dry_run: bool = False
    """Print the recipe's settings beside its paper's, and its cost, and stop; without --recipe those of all."""


BESIDE_FLAGS = ("--tensorboard", "--no-tensorboard", "--wandb", "--no-wandb", "--view", "--no-view")
"""Where numbers go besides, and who watches: no part of what a run is."""


def main(words: list[str]) -> None:
    """Make objects from prompts, each in a run's folder of its own."""
    usual = "image_to_3d" if value_of(words, "--image", "") else "default"
    source = recipe_file(value_of(words, "--recipe", usual))
    if "--dry-run" in words and not any(word.split("=")[0] == "--recipe" for word in words):
        print("\n\n".join(f"{path.stem}\n{comparison(load_recipe(path))}" for path in recipe_files()))
        return
    plain = recipe_with(source, value_of(words, "--init", ""))
    asked = tyro.cli(Generate, args=words, prog="rl3d generate", default=Generate((), plain, usual))
    recipe = asked.settings
    if asked.dry_run:
        print(comparison(recipe))
        return
    for part in (recipe.start, recipe.draw):
        if isinstance(part, (FromFile, FromMesh, Renders)):
            part.check()
    if isinstance(recipe.scene, Mesh):
        recipe.scene.check()
    if asked.allow_unknown and isinstance(recipe.prior, Embedded):
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    prompts = read_prompts(asked.prompts) or ([Prompt("")] if asked.image else [])
    if asked.image:
        prompts = [replace(prompts[0], image=str(asked.image))]
        if len(asked.prompts) > 1:
            raise ValueError(f"one picture shows one object: give one prompt or none, got {len(asked.prompts)}")
        if recipe.prior is None:
            raise ValueError(f"the recipe {asked.recipe} has no prior that could look at {asked.image}: take image_to_3d")
    if not prompts:
        raise ValueError('say what to make, for example: rl3d generate "a red mug"')
    if recipe.prior is not None:
        for prompt in prompts:
            recipe.prior.check(prompt)
    logs = logs_of(asked.tensorboard, asked.wandb)
    own = [word for word in words if word not in BESIDE_FLAGS]
    changed = without(own, {"--recipe", "--out", "--seed", "--device", "--image"}, set(asked.prompts))
    several, console = len(prompts) > 1, Console(stderr=True)
    if short := shortage(recipe, free_bytes(device_here(asked.device)) / 1e9):
        console.print(f"[yellow]{short}[/yellow]", highlight=False)
    with ExitStack() as beside:
        for i, prompt in enumerate(prompts):
            request = Request(prompt, asked.recipe, tuple(changed), asked.seed)
            run = folder_for(request, asked.out, several=several)
            with run.lock():
                if not (run.folder / "run.json").is_file():
                    create(run, request, recipe, source)
                if asked.view and i == 0:
                    beside.enter_context(viewing(run.folder.parent if several else run.folder, console))
                show(run, recipe, asked.device, f"[{i + 1}/{len(prompts)}] " if several else "", logs, console)


def folder_for(request: Request, out: Path | None, *, several: bool) -> Run:
    """The folder of a request's run: ``out`` itself, or one in it where there are several.

    Raises:
        ValueError: if that is taken by something else.
    """
    if out is None or several:
        named = request.prompt.text or Path(request.prompt.image).stem
        return find_run(out or Path("runs"), short_name(named), request)
    run = Run(out)
    if run.folder.exists() and not run.folder.is_dir():
        raise ValueError(f"{run.folder} is a file: name a folder")
    if (run.folder / "run.json").is_file() and not request.matches(run.about):
        raise ValueError(f"{run.folder} holds another run ({run.title!r}): choose another --out")
    return run


def logs_of(tensorboard: bool, wandb: bool) -> list[LogName]:
    """Where else a run's numbers go, if it is installed."""
    names: list[LogName] = []
    if tensorboard:
        names.append("tensorboard")
    if wandb:
        names.append("wandb")
    check_logs(names)
    return names


def recipe_with(source: Path, init: str) -> Recipe:
    """The recipe of a file, or what it is when an asset is there already."""
    recipe = load_recipe(source)
    return starting_from(recipe, init) if init else recipe


class Now(ProgressColumn):
    """What a run does now, or that it was told to pause."""

    def __init__(self, control: Control):
        super().__init__()
        self.control = control

    def render(self, task: Task) -> Text:
        if self.control.paused and not self.control.left:
            return Text("paused: resume it in the viewer, or stop with Ctrl-C", style="yellow")
        return Text(task.fields["now"])


def show(
    run: Run, recipe: Recipe, device: str, prefix: str = "", logs: Sequence[LogName] = (), console: Console | None = None
) -> None:
    """Do a run with a live progress bar; where memory does not suffice go on from the last checkpoint with less."""
    console = console or Console(stderr=True)
    text = run.title
    if summary := run.summary:
        console.print(f"{prefix}[bold]{text}[/bold]: done before, in {run.folder}", highlight=False)
        _print_summary(console, run, summary)
        return
    if (was := run.about.get("depends_on")) != (now := circumstances()):
        differs = sorted(k for k in now if (was or {}).get(k) != now[k])
        console.print(f"[yellow]this run began under other circumstances ({', '.join(differs)}): its bytes may differ[/yellow]")
    while (smaller := _follow(run, recipe, device, prefix, logs, console)) is not None:
        console.print(f"[yellow]{device} ran out of memory: going on with --prior.low-memory[/yellow]", highlight=False)
        recipe = smaller
        gc.collect()
        torch.cuda.empty_cache()
    summary = run.summary
    assert summary is not None
    _print_summary(console, run, summary)


def _follow(run: Run, recipe: Recipe, device: str, prefix: str, logs: Sequence[LogName], console: Console) -> Recipe | None:
    """Do a run, or what is left of it; the recipe to go on with if memory did not suffice and less can do."""
    control = Control(run)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        Now(control),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(
            f"{prefix}{run.title[:40]}",
            total=recipe.steps,
            now="drawing views from the prior" if isinstance(recipe.draw, Draw) else "starting",
        )
        try:
            for report, _ in produce(run, recipe, device=device, logs=logs, control=control):
                losses = "  ".join(f"{name} {loss:.3g}" for name, loss in report.losses.items())
                bar.update(task, completed=report.step, now=f"{losses}  size {report.size}")
            bar.update(task, now="exporting")
        except KeyboardInterrupt:
            console.print(f"saved; continue with: rl3d resume {run.folder}", highlight=False)
            raise
        except Diverged as error:
            raise ValueError(f"{error}. The last good state is in {run.folder}; lower the learning rates or weights") from None
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if (smaller := thriftier(recipe)) is not None:
                return smaller
            raise ValueError(
                f"{device} has too little memory for this ({str(error).splitlines()[0][:200]}); what was done is kept in "
                f"{run.folder}. Free some and say `rl3d resume {run.folder}`, or make another run with fewer or smaller views "
                "(--rig.views, --rig.size) or another prior"
            ) from None
    return None


def _print_summary(console, run: Run, summary: dict) -> None:
    scores = "  ".join(f"{name} {value:.3f}" if value is not None else f"{name} -" for name, value in summary["scores"].items())
    size = f"{summary['faces']} faces" if "faces" in summary else f"{summary['gaussians']} splats"
    cost = f"{size}  {summary['seconds']:.0f} s  {summary['peak_memory_gb']} GB"
    console.print(f"[bold]{summary['prompt']}[/bold]  {scores}  {cost}", highlight=False)
    console.print(f"  {run.folder}/preview.png  asset.ply  mesh.glb  turntable.mp4", highlight=False)
    for note in summary["notes"]:
        console.print(f"[yellow]  {note}[/yellow]")
