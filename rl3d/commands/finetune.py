"""``rl3d finetune``."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import AvoidSubcommands, Positional, arg

from rl3d.commands.recipes import listed
from rl3d.commands.words import device_here, without
from rl3d.files import write_whole
from rl3d.finetune import produce as finetuning
from rl3d.lesson import Lesson, compared, lesson_file, lesson_files, load_lesson, with_names
from rl3d.optimize import Diverged
from rl3d.recipe import describe
from rl3d.run import Run, circumstances
from rl3d.team import Team

LESSON = "finetune"
"""The kind of a run that teaches a prior."""


@dataclass(frozen=True)
class Finetune:
    """Teach a prior with rewards."""

    recipe: Positional[str]
    """A lesson's name (see `rl3d recipes`) or a .py file; every number below is one of its settings."""
    settings: Annotated[AvoidSubcommands[Lesson], arg(name="")]
    given: tuple[str, ...] = ()
    """Prompts to teach with in place of the lesson's own: prompts, scenes, .txt files, folders of scenes (ending with a /)."""
    out: Path | None = None
    """The lesson's folder. Default: one in runs/ with the lesson's name."""
    seed: int = 0
    device: str = "cpu"
    dry_run: bool = False
    """Print the lesson's settings beside its paper's, and stop."""


def main(words: list[str]) -> None:
    """Teach a prior, in a folder of its own; started by `accelerate launch` it is taught by several processes."""
    if not words or words[0].startswith("-"):
        if words and set(words) <= {"-h", "--help"}:
            print("usage: rl3d finetune LESSON [settings]; rl3d finetune LESSON --help names them. Lessons:")
            listed(lesson_files(), load_lesson)
            return
        raise ValueError("say first which lesson, for example: rl3d finetune draft --steps 50")
    source = lesson_file(words[0])
    asked = _asked_lesson(words, source)
    lesson = with_names(asked.settings, asked.given)
    if asked.dry_run:
        print(compared(lesson))
        return
    lesson.asked(asked.seed, 0)  # a mistake in the prompts is told before anything is made
    changed = without(words[1:], {"--out", "--seed", "--device"}, set())
    request = {"kind": LESSON, "recipe": words[0], "arguments": changed, "seed": asked.seed}
    run = _lesson_run(asked.out, source.stem, request)
    team = Team(device_here(asked.device))
    with run.lock() if team.leads else contextlib.nullcontext():
        if team.leads and not (run.folder / "run.json").is_file():
            written = source.read_bytes()
            write_whole(run.folder / "recipe.py", written)
            run.write_json("recipe.json", describe(lesson))
            digest = hashlib.sha256(written).hexdigest()
            run.write_json("run.json", {**request, "recipe_sha256": digest, "depends_on": circumstances()})
        team.told(None)  # the others wait until there is a folder
        teach(run, lesson, team)


def _asked_lesson(words: list[str], source: Path) -> Finetune:
    return tyro.cli(Finetune, args=words, prog="rl3d finetune", default=Finetune(words[0], load_lesson(source)))


def _lesson_run(out: Path | None, name: str, request: dict) -> Run:
    """The folder that was asked for, or that already holds the lesson, or the first free name."""

    def matches(run: Run) -> bool:
        return all(run.about.get(key) == value for key, value in request.items())

    if out is not None:
        run = Run(out)
        if run.folder.exists() and not run.folder.is_dir():
            raise ValueError(f"{run.folder} is a file: name a folder")
        if (run.folder / "run.json").is_file() and not matches(run):
            raise ValueError(f"{run.folder} holds another run: choose another --out")
        return run
    for suffix in ["", *(f"-{i}" for i in range(2, 10_000))]:
        run = Run(Path("runs") / f"finetune-{name}{suffix}")
        if not (run.folder / "run.json").is_file() or matches(run):
            return run
    raise ValueError("runs/ holds ten thousand lessons of this name: choose another --out")


def recorded(run: Run) -> Lesson:
    """The lesson of an existing run: its own copy of the file, with the flags that were given."""
    about, source = run.about, run.folder / "recipe.py"
    if not source.is_file():
        raise ValueError(f"{source} is missing: a lesson cannot be resumed without its recipe")
    asked = _asked_lesson([about["recipe"], *about["arguments"]], source)
    lesson = with_names(asked.settings, asked.given)
    if describe(lesson) != json.loads((run.folder / "recipe.json").read_text()):
        raise ValueError(
            f"{run.folder} was made by another version of rl3d, whose defaults differ (recipe.json): start it anew"
        )
    return lesson


def teach(run: Run, lesson: Lesson, team: Team) -> None:
    """Do a lesson with a live progress bar; of several processes the first one shows it."""
    console = Console(stderr=True, quiet=not team.leads)
    done = team.told(run.summary is not None)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    if not done:
        with Progress(*columns, TextColumn("{task.fields[now]}"), console=console, transient=True) as bar:
            task = bar.add_task(run.folder.name, total=lesson.steps, now="loading")
            try:
                for taught, _ in finetuning(run, lesson, team=team):
                    seen = {k.removeprefix("reward/"): x for k, x in taught.told.items() if k.startswith("reward/")}
                    now = "  ".join(f"{name} {value:.3g}" for name, value in seen.items())
                    bar.update(task, completed=taught.step, now=now)
            except KeyboardInterrupt:
                console.print(f"saved; continue with: rl3d resume {run.folder}", highlight=False)
                raise
            except Diverged as error:
                raise ValueError(f"{error}. The last good state is in {run.folder}; lower --rate") from None
    if not team.leads:
        return
    summary = run.summary
    assert summary is not None
    before, after = summary["before"], summary["after"]
    told = "  ".join(f"{name} {before[name]} -> {after[name]}" for name in before if name != "step")
    prefix = "done before: " if done else ""
    console.print(f"{prefix}[bold]{run.folder.name}[/bold]  step {summary['step']}  {told}", highlight=False)
    if summary["stopped"]:
        console.print(f"[yellow]  stopped after {summary['steps']} steps: {summary['stopped']}[/yellow]")
    flag = "--prior.lora" if summary["result"] == "lora" else "--prior.folder"
    console.print(f'  rl3d generate "a red mug" {flag} {run.folder / summary["result"]}', highlight=False)
