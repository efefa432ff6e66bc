"""What there is to see: runs, in whatever state they are, and files of splats and meshes."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl3d.run import Run

State = Literal["running", "done", "stopped", "damaged", "file"]

FILES = (".ply", ".splat", ".spz", ".glb", ".gltf", ".obj")
"""Suffixes of what :func:`rl3d.assets.load_asset` reads."""
TRACES = ("run.json", "recipe.json", "metrics.jsonl", "checkpoint.safetensors", "asset.ply")
"""Any of these makes a folder a run, if perhaps a damaged one."""
DEPTH = 3
"""Folders below a named one in which runs are looked for."""


@dataclass(frozen=True)
class Entry:
    """One thing to see."""

    path: Path
    state: State
    title: str
    """Its prompt, or the file's name."""
    recipe: str = ""
    seed: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    """By guard; empty before a run is done."""
    note: str = ""
    """What is wrong with it, or what a run said of itself."""

    @property
    def picture(self) -> Path | None:
        """The newest picture that the run itself made, a sheet of four by two sides."""
        made = self.path / "preview.png"
        previews = [made] if made.is_file() else sorted(self.path.glob("previews/step_*.png"))
        return previews[-1] if previews else None


def entry(path: Path) -> Entry:
    """Say what is at a path. A damaged run is an entry too, whose note says what is wrong with it.

    Raises:
        ValueError: if there is nothing to see: no such path, or neither a run nor a file that is known.
    """
    if path.is_file():
        if path.suffix.lower() not in FILES:
            raise ValueError(f"{path} is nothing that can be shown: name a run's folder or one of {', '.join(FILES)}")
        return Entry(path, "file", path.name)
    if not path.is_dir():
        raise ValueError(f"there is no {path}: check the path")
    if not is_run(path):
        raise ValueError(f"{path} is not a run: name a folder that `rl3d generate` made")
    try:
        about, summary = Run(path).about, Run(path).summary
        text, recipe, seed = str(Run(path).title), str(about["recipe"]), int(about["seed"])
        scores = {name: float(x) for name, x in (summary or {"scores": {}})["scores"].items() if x is not None}
        note = " ".join((summary or {"notes": []})["notes"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return Entry(path, "damaged", path.name, note=_damage(path, error))
    state = "running" if in_use(path) else "done" if summary else "stopped"
    return Entry(path, state, text, recipe, seed, {k: x for k, x in scores.items() if math.isfinite(x)}, note)


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a run's folder, in a line."""
    if isinstance(error, json.JSONDecodeError):
        return f"summary.json is damaged ({error})"
    if isinstance(error, ValueError):
        return str(error).removeprefix(f"{path} ").removeprefix(f"{path}/")
    return f"run.json or summary.json lacks what it should hold ({type(error).__name__}: {error})"


def is_run(path: Path) -> bool:
    """Whether a folder holds, or once held, a run."""
    return any((path / name).is_file() for name in TRACES)


def in_use(path: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    try:
        with open(path / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def find(paths: Sequence[Path]) -> list[Entry]:
    """All that is to see at these paths, themselves or what lies in them, newest first; what vanishes meanwhile is left out."""
    found = {}
    for path in paths:
        for place in [path] if path.is_file() or is_run(path) else _within(path, DEPTH):
            try:
                found[place] = _age(place), entry(place)
            except (ValueError, OSError):
                continue
    return [one for _, one in sorted(found.values(), key=lambda x: -x[0])]


def _within(folder: Path, depth: int) -> Iterator[Path]:
    try:
        places = sorted(folder.iterdir())
    except OSError:
        return
    for place in places:
        if place.is_file() and place.suffix.lower() in FILES:
            yield place
        elif place.is_dir() and not place.name.startswith("."):
            if is_run(place):
                yield place
            elif depth > 1:
                yield from _within(place, depth - 1)


def _age(path: Path) -> float:
    """When a run began, or a file was written."""
    began = path / "run.json"
    return (began if began.is_file() else path).stat().st_mtime


def matching(entries: Sequence[Entry], words: str) -> list[Entry]:
    """The entries that have each of these words somewhere: in the prompt, the folder, the recipe or the state."""
    wanted = words.lower().split()
    return [e for e in entries if all(w in f"{e.title} {e.path} {e.recipe} {e.state}".lower() for w in wanted)]
