"""``rl3d world``: data sets of real objects."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from rl3d.toybox.dataset import Order
from rl3d.world import dataset, debian, folder, things


@dataclass(frozen=True)
class Fetch:
    """Download Debian's named meshes, and prepare them: clean, named and measured."""

    out: Path = Path(".cache/world/debian")
    """Where they go, with catalogue.csv: their authors and licences, and what was left out, and why."""
    mirror: str = "http://deb.debian.org/debian"


@dataclass(frozen=True)
class Build:
    """Render a data set of real objects to train on: of your own meshes, or of what `rl3d world fetch` prepared."""

    folder: Positional[Path]
    """.glb, .gltf and .obj files, each with a caption: chair.txt beside chair.glb (a line for each wording), or captions.json
    with {"chair.glb": "a red chair"}. Or a prepared folder."""
    out: Path | None = None
    """The data set's folder. Default: .cache/world/FOLDER-SPLIT."""
    up: Literal["y", "z"] = "y"
    """The axis that is up in the meshes: y, with the front towards +z (glTF), or z, with the front towards -y (Blender)."""
    count: int = 2000
    """Scenes: objects in their variants, or two of them."""
    views: int = 8
    """Views of each, evenly spaced in azimuth."""
    size: int = 64
    """Width and height in pixels."""
    seed: int = 0
    split: Literal["train", "validation", "test", "unseen"] = "train"
    """Combinations of attributes to train on, or held out; or the objects that are never trained on."""
    samples: int = 2
    """Samples along each side of a pixel."""
    workers: int = 2
    """Processes."""


def main(words: list[str]) -> None:
    """Make data sets of real objects."""
    parts = {"fetch": _fetch, "build": _build, "train": _train}
    if not words or words[0] not in parts:
        raise ValueError("say `rl3d world fetch` (Debian's meshes), `rl3d world build FOLDER` or `rl3d world train`")
    parts[words[0]](words[1:])


def _fetch(words: list[str]) -> None:
    asked = tyro.cli(Fetch, args=words, prog="rl3d world fetch")
    with _bar() as bar:
        task = bar.add_task("preparing", total=None)
        for done, total in debian.prepare(asked.out, asked.mirror):
            bar.update(task, completed=done, total=total)
    found, nouns = things.read(asked.out)
    kept = sum(thing.kept for thing in found)
    print(f"{asked.out}: {kept} of {len(found)} objects kept, of {len(nouns)} kinds; {asked.out}/catalogue.csv has all of them")
    print(f"next: rl3d world build {asked.out}")


def _build(words: list[str]) -> None:
    asked = tyro.cli(Build, args=words, prog="rl3d world build")
    out = asked.out or Path(".cache/world") / f"{asked.folder.resolve().name}-{asked.split}"
    if out.resolve() == asked.folder.resolve():
        raise ValueError(f"{out} holds the meshes: choose another --out")
    stock = asked.folder
    with _bar() as bar:
        if not (stock / "things.jsonl").is_file():
            stock = out / "prepared"
            task = bar.add_task("preparing", total=None)
            for done, total in folder.prepare(asked.folder, stock, asked.up):
                bar.update(task, completed=done, total=total)
        order = Order(out, asked.count, asked.views, asked.size, asked.seed, asked.split, asked.samples)
        task = bar.add_task("rendering", total=asked.count)
        for done in dataset.make(order, stock, asked.workers):
            bar.update(task, completed=done)
    language = dataset.open_views(out).language
    print(f"{out}: {asked.count} scenes of {asked.views} views, {len(language.vocabulary())} words")
    print(f"next: rl3d world train {out}")


def _train(words: list[str]) -> None:
    """Run the training script in a process of its own: nothing in the package depends on the scripts."""
    raise SystemExit(subprocess.call([sys.executable, "-m", "rl3d.train.worlds", *words]))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
