"""Scenes: what to make. Data only: a TOML file each, in ``scenes/`` or anywhere."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Sequence
from pathlib import Path

from rl3d.types import Prompt


def scene_file(name: str) -> Path | None:
    """Find a scene by its name in ``scenes/`` or by a path to a TOML file; None if this is no scene but a prompt."""
    path = Path(name)
    if not name.endswith(".toml"):
        path = Path(importlib.util.find_spec("rl3d.scenes").submodule_search_locations[0]) / f"{name}.toml"  # pyright: ignore
        return path if name.replace("_", "").replace("-", "").isalnum() and path.is_file() else None
    if not path.is_file():
        raise ValueError(f"there is no scene file {name}: check the path, or give the prompt itself in quotes")
    return path


def load_scene(path: Path) -> Prompt:
    """Read a scene's file: ``prompt``, and if wanted ``negative``."""
    try:
        found = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    unknown = found.keys() - {"prompt", "negative"}
    if unknown or not isinstance(found.get("prompt"), str):
        what = f"does not know {', '.join(sorted(unknown))}" if unknown else 'needs a line like: prompt = "a red mug"'
        raise ValueError(f"{path}: a scene {what}")
    return Prompt(found["prompt"], found.get("negative", ""))


def scenes_in(folder: Path) -> list[Prompt]:
    """The scenes of a folder, by the names of their files."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ValueError(f'{folder} holds no scenes: it needs .toml files, each with a line like: prompt = "a red mug"')
    return [load_scene(path) for path in files]


def read_prompts(names: Sequence[str]) -> list[Prompt]:
    """Prompts from the words of a command line: a prompt itself, a scene, a folder of scenes, or a file with a prompt on each
    line.
    """
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
        elif name.endswith("/"):
            prompts += scenes_in(path)
        elif scene := scene_file(name):
            prompts.append(load_scene(scene))
        elif name.strip():
            prompts.append(Prompt(name.strip()))
        else:
            raise ValueError('the prompt is empty: say what to make, for example "a red mug"')
    return prompts
