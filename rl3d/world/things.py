"""Real objects with what is known of them: where they come from, what they are called, and what was measured."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from rl3d.cameras import Orbit
from rl3d.files import write_whole
from rl3d.render import mesh
from rl3d.world.colours import main_colour
from rl3d.world.nouns import Noun, family
from rl3d.world.render import render_many, triangles
from rl3d.world.shading import Light
from rl3d.world.surface import Surface

HELD_PERCENT = 13
"""Of kinds that have several objects, how many are never trained on: about a tenth of all objects."""

LEAST_COVER = 0.015
"""Share of a view's pixels, mean over the sides, below which an object is too thin to be seen."""

STUFF = {
    "wooden": ("wood", "madera", "fusta", "oak", "pine", "teak", "bamboo", "parquet", "plywood", "walnut", "mahogany"),
    "metal": ("metal", "chrome", "steel", "alumin", "iron", "brass", "inox", "copper"),
    "leather": ("leather", "cuir"),
    "glass": ("glass", "cristal", "crystal", "vidrio", "verre"),
    "plastic": ("plastic",),
    "fabric": ("fabric", "cloth", "tissu", "textile", "cotton", "velvet", "cushion"),
    "stone": ("stone", "marble", "granite", "concrete", "brick"),
    "ceramic": ("ceramic", "porcelain"),
    "wicker": ("wicker", "rattan", "straw"),
}
"""What things are made of, and how makers name such materials."""


@dataclass(frozen=True)
class Thing:
    """An object of a prepared folder. Its surface is in ``objects/<id>.npz``."""

    id: str
    noun: str
    """What it is called; empty if it is left out."""
    name: str = ""
    """What its catalogue calls it."""
    category: str = ""
    source: str = ""
    author: str = ""
    licence: str = ""
    """An SPDX expression."""
    sha256: str = ""
    """Of the mesh's file."""
    triangles: int = 0
    size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Width, depth and height, in metres where that is known."""
    colour: str | None = None
    """The word for most of its albedo, as seen from all sides."""
    stuff: str | None = None
    """What most of it is made of, as its materials are named."""
    form: str | None = None
    """How its proportions differ from most of its kind: "tall narrow", "short wide"."""
    shape: float = 1.0
    """Height over width, relative to most of its kind; 1 where these are few."""
    held: bool = False
    """Whether it is never trained on."""
    small: bool = False
    """Whether it may stand on something."""
    flat: bool = False
    """Whether something may stand on it."""
    change: bool = False
    """Whether it may be painted and stretched."""
    reason: str = ""
    """Why it is left out, if it is."""

    @property
    def kept(self) -> bool:
        return not self.reason


def file_of(folder: Path, id: str) -> Path:
    """Where a thing's surface is."""
    return folder / "objects" / f"{id}.npz"


def load(folder: Path, thing: Thing) -> Surface:
    """Read a thing's surface."""
    return Surface.load(file_of(folder, thing.id))


def write(folder: Path, things: Iterable[Thing], nouns: dict[str, Noun]) -> None:
    """Write a prepared folder's lists: ``things.jsonl`` and ``nouns.json``."""
    lines = "".join(json.dumps(asdict(thing)) + "\n" for thing in things)
    write_whole(folder / "things.jsonl", lines.encode())
    write_whole(folder / "nouns.json", json.dumps([asdict(noun) for noun in nouns.values()], indent=1).encode())


def read(folder: Path) -> tuple[list[Thing], dict[str, Noun]]:
    """Read a prepared folder's lists."""
    if not (folder / "things.jsonl").is_file():
        raise ValueError(f"{folder} holds no prepared objects (things.jsonl): make them with `rl3d world fetch` or `build`")
    lines = (folder / "things.jsonl").read_text().splitlines()
    things = [Thing(**{**fields, "size": tuple(fields["size"])}) for fields in map(json.loads, lines)]
    return things, read_nouns((folder / "nouns.json").read_text())


def read_nouns(text: str) -> dict[str, Noun]:
    """Undo ``asdict`` on nouns, after JSON turned tuples into lists."""
    lists: list[dict[str, Any]] = json.loads(text)
    made = [Noun(**{key: _tuple(x) for key, x in fields.items()}) for fields in lists]
    return {noun.name: noun for noun in made}


def _tuple(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x


# ---- measuring


def unit(surface: Surface, radius: float = 0.85) -> Surface:
    """Put a surface's bounding box in the middle of the world, and all of it within a radius."""
    points = surface.vertices - surface.bounds.mean(0)
    return surface.moved(points * (radius / max(float(np.linalg.norm(points, axis=1).max()), 1e-9)))


@dataclass(frozen=True)
class Look:
    """What is seen of an object from around it."""

    albedo: UInt8[ndarray, "n 3"]
    """The colours of all pixels that it fills."""
    cover: float
    """The share of pixels that it covers."""
    materials: Float[ndarray, "p"]
    """How much of what is seen is of each material."""


def look(surface: Surface) -> Look:
    """See an object from eight sides and a little from above."""
    surface = unit(surface)
    cameras = Orbit(8, 20.0, 10.0, size=64).cameras()
    rgba, albedo = render_many([surface], cameras, [Light()], samples=1)
    filled = rgba[..., 3] == 255
    fragments = mesh.rasterize(triangles(surface), cameras, samples=1)
    seen = surface.labels[fragments.face[fragments.face >= 0]]
    counts = np.bincount(seen, minlength=len(surface.names)) / max(len(seen), 1)
    return Look(albedo[filled], float(filled.mean()), counts)


def stuff_of(names: Sequence[str], seen: Float[ndarray, "p"], least: float = 0.6) -> str | None:
    """What most of an object is made of, by its materials' names, or None where they do not say."""
    share = dict.fromkeys(STUFF, 0.0)
    for name, part in zip(names, seen, strict=True):
        word = next((word for word, ways in STUFF.items() if any(way in name.lower() for way in ways)), None)
        if word is not None:
            share[word] += float(part)
    best = max(share, key=share.__getitem__)
    return best if share[best] >= least else None


def measured(thing: Thing, surface: Surface) -> Thing:
    """Fill in what can be measured; what is too thin to be seen gets a reason to be left out."""
    seen = look(surface)
    if seen.cover < LEAST_COVER:
        return replace(thing, triangles=len(surface.faces), reason=f"too thin to be seen: it covers {seen.cover:.1%} of a view")
    return replace(
        thing,
        triangles=len(surface.faces),
        colour=main_colour(seen.albedo),
        stuff=stuff_of(surface.names, seen.materials),
    )


def compared(things: Sequence[Thing], few: int = 4) -> list[Thing]:
    """Compare each kept thing's proportions with most of its kind, where there are at least ``few``."""
    ratios: dict[str, list[float]] = {}
    for thing in things:
        if thing.kept:
            ratios.setdefault(thing.noun, []).append(_ratio(thing))
    out = []
    for thing in things:
        known = ratios.get(thing.noun, [])
        if not thing.kept or len(known) < few:
            out.append(thing)
            continue
        shape = _ratio(thing) / float(np.median(known))
        form = "tall narrow" if shape > 1.45 else "short wide" if shape < 0.69 else None
        out.append(replace(thing, shape=round(shape, 3), form=form))
    return out


def _ratio(thing: Thing) -> float:
    return thing.size[2] / max(thing.size[0], 1e-6)


def divided(things: Sequence[Thing]) -> list[Thing]:
    """Hold some objects of kinds that have several out of all training, by a hash of their names; of each kind one stays."""
    by_noun: dict[str, list[Thing]] = {}
    for thing in things:
        if thing.kept:
            by_noun.setdefault(thing.noun, []).append(thing)
    held: set[str] = set()
    for some in by_noun.values():
        ranked = sorted(some, key=lambda thing: zlib.crc32(thing.id.encode()) % 10_000)
        held |= {thing.id for thing in ranked[:-1] if zlib.crc32(thing.id.encode()) % 10_000 < 100 * HELD_PERCENT}
    return [replace(thing, held=thing.id in held) for thing in things]


def nouns_of(things: Sequence[Thing], known: dict[str, Noun]) -> dict[str, Noun]:
    """The nouns of all kept things and what these also are, with the colours in which a noun's objects come by themselves."""
    found: dict[str, set[str]] = {}
    for thing in things:
        if thing.kept:
            for name in family(thing.noun, known):
                found.setdefault(name, set())
            if thing.colour is not None:
                found[thing.noun].add(thing.colour)
    return {name: replace(noun, colours=tuple(sorted(found[name]))) for name, noun in known.items() if name in found}


# ---- the catalogue as a table


def table(things: Iterable[Thing]) -> str:
    """Write things as a table of comma-separated values, in their order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in fields(Thing)]
    writer.writerow(names)
    for thing in things:
        values = asdict(thing) | {"size": "x".join(f"{x:g}" for x in thing.size)}
        writer.writerow(["" if values[name] is None else values[name] for name in names])
    return out.getvalue()


def rows(text: str) -> Iterator[dict[str, str]]:
    """Read a table back, as text."""
    yield from csv.DictReader(io.StringIO(text))
