"""Anyone's own meshes: a folder of .glb, .gltf or .obj files with a caption each.

A caption is a text file beside the mesh (``chair.glb``, ``chair.txt``; each line another wording), or an entry of
``captions.json`` in the folder: ``{"chair.glb": "a red chair", "lamp.obj": ["a lamp", "a table lamp"]}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh

from rl3d.toybox.grammar import words
from rl3d.world import things
from rl3d.world.language import LONGEST
from rl3d.world.nouns import Noun
from rl3d.world.surface import Surface, clean, read, upright
from rl3d.world.things import Thing

KINDS = (".glb", ".gltf", ".obj")

Up = Literal["y", "z"]

_FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""From z up and a front towards -y, as modellers have it, to y up and a front towards +z, as files mostly do."""


def prepare(folder: Path, out: Path, up: Up = "y") -> Iterator[tuple[int, int]]:
    """Make a prepared folder of a folder of captioned meshes; yield how many are done, of how many.

    All that is wrong is gathered into one ``ValueError``. ``up`` is the axis that is up in the meshes: "y", with the front
    towards +z (the rule of glTF), or "z", with the front towards -y (Blender's).
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one that holds meshes ({', '.join(KINDS)}) and their captions")
    meshes = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    if not meshes:
        raise ValueError(f"{folder} holds no meshes: put {', '.join(KINDS)} files into it, with a caption each")
    captions, wrong = _captions(folder, meshes)
    found: list[Thing] = []
    nouns: dict[str, Noun] = {}
    for i, path in enumerate(meshes):
        if path in captions:
            try:
                found.append(_prepared(path, folder, out, captions[path], up))
            except ValueError as error:
                wrong.append(f"{path}: {error}")
            else:
                first, *others = captions[path]
                known = nouns.get(first, Noun(first, phrase=True))
                nouns[first] = replace(known, synonyms=tuple(dict.fromkeys((*known.synonyms, *others))))
        yield i + 1, len(meshes)
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(f"{len(wrong)} of the meshes of {folder} cannot be used:\n  " + "\n  ".join(wrong[:10]) + more)
    things.write(out, things.divided(found), nouns)


def _captions(folder: Path, meshes: Sequence[Path]) -> tuple[dict[Path, list[str]], list[str]]:
    """The captions of each mesh, and what is wrong with the others."""
    listed = _listed(folder / "captions.json")
    wrong = [f"captions.json names {name}, which is not there" for name in listed if folder / name not in meshes]
    captions: dict[Path, list[str]] = {}
    for path in meshes:
        beside = path.with_suffix(".txt")
        said = listed.get(path.relative_to(folder).as_posix())
        if said is None and beside.is_file():
            said = [line.strip() for line in beside.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not said:
            wrong.append(f"{path} has no caption: write one into {beside.name} beside it, or into captions.json")
            continue
        long = next((text for text in said if not 0 < len(words(text)) <= LONGEST), None)
        if long is not None:
            wrong.append(f"{path}: captions have 1 to {LONGEST} words, got {len(words(long))}: {long[:60]!r}")
            continue
        captions[path] = said
    return captions, wrong


def _listed(file: Path) -> dict[str, list[str]]:
    """Read ``captions.json``, if it is there."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON ({error}): it should look like {{'chair.glb': 'a red chair'}}") from None
    listed = content.items() if isinstance(content, dict) else ()
    ways = {name: [said] if isinstance(said, str) else said for name, said in listed}
    if not ways or not all(isinstance(said, list) and all(isinstance(x, str) for x in said) for said in ways.values()):
        raise ValueError(f"{file} should hold an object of file names with a caption, or a list of captions, each")
    return ways


def _prepared(path: Path, folder: Path, out: Path, captions: Sequence[str], up: Up) -> Thing:
    surface = surface_of(path, up)
    id = path.relative_to(folder).with_suffix("").as_posix() + path.suffix.lower().replace(".", "-")
    low, high = surface.bounds
    depth, width, height = (float(x) for x in high - low)
    thing = Thing(
        id,
        captions[0],
        name=path.name,
        source=folder.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=(width, depth, height),
    )
    thing = things.measured(thing, surface)
    if not thing.kept:
        raise ValueError(f"it is {thing.reason}")
    surface.save(things.file_of(out, id))
    return thing


def surface_of(path: Path, up: Up = "y") -> Surface:
    """Read a mesh file, clean, and as it stands in the world. A file that is no mesh is a ``ValueError``."""
    try:
        scene = trimesh.load_scene(path, process=False)
    except Exception as error:  # whatever a damaged file may raise in a reader of many formats
        raise ValueError(f"it cannot be read ({error or type(error).__name__})") from None
    return clean(upright(read(scene), None if up == "y" else _FROM_Z_UP))
