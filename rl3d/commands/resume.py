"""``rl3d resume``."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from tyro.conf import AvoidSubcommands, Positional

from rl3d.commands import finetune
from rl3d.commands.generate import logs_of, recipe_with, show
from rl3d.commands.viewing import viewing
from rl3d.commands.words import device_here, value_of, without
from rl3d.priors.embedded import Embedded
from rl3d.recipe import Recipe, describe
from rl3d.run import Run
from rl3d.team import Team


@dataclass(frozen=True)
class Resume:
    """Continue a run or a lesson that was stopped. On the CPU it ends in the same bytes as if it had not been."""

    folder: Positional[Path]
    device: str = "cpu"
    tensorboard: bool = False
    wandb: bool = False
    view: bool = False
    """Also open the viewer on the run; it stays open until Ctrl-C."""


def main(words: list[str]) -> None:
    """Continue a run from its checkpoint."""
    asked = tyro.cli(Resume, args=words, prog="rl3d resume")
    device_here(asked.device)
    run = Run(asked.folder)
    if run.about.get("kind") == finetune.LESSON:
        if asked.view:
            raise ValueError("--view follows a scene in the making, and this is a lesson: leave it out")
        team = Team(asked.device)
        with run.lock() if team.leads else contextlib.nullcontext():
            finetune.teach(run, finetune.recorded(run), team)
        return
    recipe, logs = recorded(run), logs_of(asked.tensorboard, asked.wandb)
    console = Console(stderr=True)
    with viewing(run.folder, console) if asked.view else contextlib.nullcontext(), run.lock():
        show(run, recipe, asked.device, logs=logs, console=console)


def recorded(run: Run) -> Recipe:
    """The recipe of an existing run: its own copy of the file, with the flags that were given."""
    about = run.about
    source = run.folder / "recipe.py"
    if not source.is_file():
        raise ValueError(f"{source} is missing: a run cannot be resumed without its recipe")
    given = about["arguments"]
    flags = without([flag for flag in given if flag != "--allow-unknown"], {"--init"}, set())
    plain = recipe_with(source, value_of(given, "--init", ""))
    recipe = tyro.cli(AvoidSubcommands[Recipe], args=flags, default=plain, prog="rl3d resume")
    if "--allow-unknown" in given and isinstance(recipe.prior, Embedded):
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    if describe(recipe) != json.loads((run.folder / "recipe.json").read_text()):
        raise ValueError(
            f"{run.folder} was made by another version of rl3d, whose defaults differ (recipe.json): start it anew"
        )
    return recipe
