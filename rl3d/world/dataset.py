"""Render a data set of real objects: the toybox's arrays and lines, and the albedo of every view.

DIR holds what a data set of the toybox does (:mod:`rl3d.toybox.dataset`), and

- ``albedo.npy``: uint8 [n v h w 3], premultiplied sRGB without any light, under the same alpha;
- ``nouns.json``: what its language needs to know;
- in each line of ``toys.jsonl`` also "things", the ids of the objects that are shown.

Scene ``i`` depends on the seed, the split and ``i`` alone. Splits: "train", "validation" and "test" show objects that may be
trained on, in combinations of attributes of that split; "unseen" shows the objects that are never trained on, in any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from rl3d.cameras import look_at_origin
from rl3d.files import write_whole
from rl3d.toybox.assemble import RADIUS
from rl3d.toybox.dataset import ANGLES, Order, Stacked, ToyViews, fill, random_angles, toy_rng
from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.placement import Place, next_to, on, side_by_side
from rl3d.toybox.things import Item, Rng, Spec
from rl3d.world import things
from rl3d.world.colours import COLOURS, repainted
from rl3d.world.language import Words, draw_sort
from rl3d.world.nouns import Noun
from rl3d.world.render import render_many
from rl3d.world.shading import Light, random_light
from rl3d.world.surface import Surface, join
from rl3d.world.things import Thing

SPLITS = ("train", "validation", "test", "unseen")

STRETCH = {
    "tall": (1.45, 1.0),
    "short": (0.62, 1.0),
    "wide": (1.0, 1.55),
    "narrow": (1.0, 0.62),
    "tall narrow": (1.3, 0.72),
    "short wide": (0.75, 1.35),
    "big": (1.0, 1.0),
    "small": (1.0, 1.0),
}
"""Factors on height and width, by form words."""

PLAIN = ("black", "white", "gray", "beige")
"""Colours that things are painted in half as often, since so many come in them."""

FIXED = ("tire", "tyre", "wheel", "rubber", "glass", "chrome", "mirror", "screen", "cristal", "skin")
"""In the name of a material that keeps its colour when its object is painted."""


@dataclass(frozen=True)
class Stock:
    """The objects of a prepared folder that a split may show."""

    folder: Path
    things: tuple[Thing, ...]
    language: Words

    @classmethod
    def open(cls, folder: Path, split: str) -> Stock:
        """Read a folder's lists. A split without objects is a ``ValueError``."""
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
        every, nouns = things.read(folder)
        chosen = tuple(thing for thing in every if thing.kept and thing.held == (split == "unseen"))
        if not chosen:
            raise ValueError(f"{folder} has no objects for the split {split!r}: add objects, or take another --split")
        return cls(folder, chosen, Words(nouns))

    def by_noun(self) -> dict[str, list[Thing]]:
        """The objects of each noun."""
        found: dict[str, list[Thing]] = {}
        for thing in self.things:
            found.setdefault(thing.noun, []).append(thing)
        return found


@dataclass(frozen=True)
class Scene:
    """What is shown, and all that it takes to show it."""

    spec: Spec
    things: tuple[Thing, ...]
    """One for each item of the spec."""
    surface: Surface
    light: Light


class Draw:
    """Draws scenes from a stock."""

    def __init__(self, stock: Stock):
        self.stock, self.nouns = stock, stock.by_noun()
        names = list(self.nouns)
        weights = np.array([len(self.nouns[name]) ** 0.5 for name in names])
        self._names, self._bounds = names, np.cumsum(weights / weights.sum())
        self._flat = [thing for thing in stock.things if thing.flat]
        self._small = [thing for thing in stock.things if thing.small]

    def scene(self, split: str, rng: Rng) -> Scene:
        """Draw a scene of a split; the same generator state gives the same scene."""
        while True:
            spec, chosen = self.spec(rng)
            if split == "unseen" or self.stock.language.split_of(spec) == split:
                return Scene(spec, chosen, assembled(self.stock.folder, spec, chosen, rng), random_light(rng))

    def _thing(self, rng: Rng) -> Thing:
        noun = self._names[min(int(np.searchsorted(self._bounds, rng.random())), len(self._names) - 1)]
        return _any(self.nouns[noun], rng)

    def spec(self, rng: Rng) -> tuple[Spec, tuple[Thing, ...]]:
        """Draw what to say of which things, of any split."""
        sort, thing = draw_sort(rng), self._thing(rng)
        noun = self.stock.language.nouns[thing.noun]
        if noun.phrase:
            return Spec((Item(thing.noun),)), (thing,)
        if sort == "relation" and (pair := self._pair(rng)) is not None:
            relation, chosen = pair
            return Spec(tuple(replace(_said(x, rng), form=None, stuff=None) for x in chosen), relation), chosen
        item = _said(thing, rng)
        if sort in ("paint", "both") and thing.change and thing.colour is not None:
            item = replace(item, paint=_paint(thing.colour, rng))
        if sort in ("form", "both") and (form := _form(thing, rng)) is not None:
            item = replace(item, form=form)
        if sort == "count" and noun.plural:
            item = replace(item, form=None, count=int(rng.integers(2, 4)))
        return Spec((item,)), (thing,)

    def _pair(self, rng: Rng) -> tuple[str, tuple[Thing, Thing]] | None:
        """Draw two things of which one may stand on the other, or that are of like size."""
        if rng.random() < 0.5 and self._small and self._flat:
            first, second = _any(self._small, rng), _any(self._flat, rng)
            if first.noun != second.noun and max(first.size) < 1.2 * max(second.size):
                return "on", (first, second)
        first = self._thing(rng)
        for _ in range(20):
            second = self._thing(rng)
            ratio = max(first.size) / max(second.size)
            if second.noun != first.noun and 0.4 < ratio < 2.5:
                return "next to", (first, second)
        return None


def assembled(folder: Path, spec: Spec, chosen: Sequence[Thing], rng: Rng) -> Surface:
    """Build what a spec says of a prepared folder's things, one for each item, inside the unit sphere."""
    parts: list[Surface] = []
    for item, thing in zip(spec.items, chosen, strict=True):
        one = _changed(things.load(folder, thing), item, thing, rng)
        parts += [_turned(one, rng.uniform(-12, 12)) for _ in range(item.count)]
    if len(parts) > 1:
        places = _places([_bare(part) for part in parts], spec.relation, rng)
        parts = [part.moved(place(part.vertices)) for part, place in zip(parts, places, strict=True)]
    size = spec.items[0].form if spec.relation is None else None
    radius = min(RADIUS.get(size, RADIUS[None]) * rng.uniform(0.97, 1.03), 1.0)
    return things.unit(join(parts), radius)


def can_be(thing: Thing, item: Item) -> bool:
    """Whether a thing is what an item says, or can be painted and stretched so; its noun is not asked for."""
    paint = item.paint in (None, thing.colour) or (thing.change and thing.colour is not None)
    form = item.form in (None, thing.form, "big", "small") or (thing.change and _takes(thing, item.form))
    return paint and form and item.stuff in (None, thing.stuff) and item.accent is None


def _any(options: Sequence[Any], rng: Rng) -> Any:
    return options[int(rng.integers(len(options)))]


def _said(thing: Thing, rng: Rng) -> Item:
    """What a caption says of a thing as it is: its colour, its stuff and its proportions, each mostly or sometimes."""
    return Item(
        thing.noun,
        thing.colour if rng.random() < 0.7 else None,
        thing.form if rng.random() < 0.5 else None,
        stuff=thing.stuff if rng.random() < 0.6 else None,
    )


def _paint(own: str, rng: Rng) -> str:
    """Draw a colour that differs from a thing's own."""
    while True:
        paint = _any(tuple(COLOURS), rng)
        if paint != own and (paint not in PLAIN or rng.random() < 0.5):
            return paint


def _form(thing: Thing, rng: Rng) -> str | None:
    """Draw a form that a thing can take: it must then differ from most of its kind in that way, too."""
    form = _any(tuple(STRETCH), rng)
    if form in ("big", "small"):
        return form
    return form if thing.change and _takes(thing, form) else None


def _takes(thing: Thing, form: str) -> bool:
    """Whether a thing that is stretched to a form then differs from most of its kind in that way."""
    if form not in STRETCH:
        return False
    tall, wide = STRETCH[form]
    after = thing.shape * tall / wide
    return after > 1.25 if tall > wide else after < 0.8


def _changed(surface: Surface, item: Item, thing: Thing, rng: Rng) -> Surface:
    """Paint and stretch a surface as an item says; without a form proportions vary by 5 %."""
    strength, tall, wide = rng.uniform(0.75, 1.15), *rng.uniform(0.95, 1.05, 2)
    if item.paint is not None and thing.colour is not None and item.paint != thing.colour:
        fixed = [any(word in name.lower() for word in FIXED) for name in surface.names]
        surface = repainted(surface, thing.colour, item.paint, strength, np.array(fixed))
    if item.form is not None and item.form != thing.form:
        stretch = STRETCH[item.form]
        tall, wide = tall * stretch[0], wide * stretch[1]
    return surface.moved(surface.vertices * np.array([1.0, wide, tall]))


def _turned(surface: Surface, degrees: float) -> Surface:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return surface.moved(surface.vertices @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]))


def _bare(surface: Surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


def _places(meshes: list[trimesh.Trimesh], relation: str | None, rng: Rng) -> Sequence[Place]:
    if relation is None:
        return side_by_side(meshes, rng)
    return {"on": on, "next to": next_to}[relation](meshes[0], meshes[1], rng)


# ---- rendering


def make(order: Order, stock: Path, workers: int = 2, chunk: int = 32) -> Iterator[int]:
    """Render a data set from a prepared folder, and yield how many scenes are done as it goes. What ``order.folder`` held is
    overwritten.
    """
    language = Stock.open(stock, order.split).language
    n, v, size = order.count, order.views, order.size
    arrays = {"rgba": (np.uint8, (n, v, size, size, 4)), "albedo": (np.uint8, (n, v, size, size, 3))}
    arrays |= dict.fromkeys(ANGLES, (np.float16, (n, v)))
    nouns = json.dumps([asdict(noun) for noun in language.nouns.values()], indent=1)
    write_whole(order.folder / "nouns.json", nouns.encode())
    jobs = ((order, stock, start, min(start + chunk, n)) for start in range(0, n, chunk))
    yield from fill(order.folder, arrays, _render_chunk, jobs, workers)


@lru_cache(maxsize=2)
def _drawer(stock: Path, split: str) -> Draw:
    return Draw(Stock.open(stock, split))


def _render_chunk(job: tuple[Order, Path, int, int]) -> list[str]:
    """Render scenes ``start`` to ``stop`` into the files; return their lines of JSON."""
    order, stock, start, stop = job
    rgba, albedo, azimuths, elevations = (
        np.load(order.folder / f"{name}.npy", mmap_mode="r+") for name in ("rgba", "albedo", *ANGLES)
    )
    draw = _drawer(stock, order.split)
    scenes, lines = [], []
    azimuth = np.empty((stop - start, order.views), np.float32)
    elevation = np.empty_like(azimuth)
    for i in range(start, stop):
        rng = toy_rng(order.seed, order.split, i)
        scene = draw.scene(order.split, rng)
        azimuth[i - start], elevation[i - start] = random_angles(order.views, rng)
        text = draw.stock.language.caption(scene.spec, rng)
        names = [thing.id for thing in scene.things]
        lines.append(json.dumps({"caption": text, "spec": asdict(scene.spec), "things": names}))
        scenes.append(scene)
    cameras = look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), width=order.size, height=order.size)
    surfaces, lights = [scene.surface for scene in scenes], [scene.light for scene in scenes]
    rgba[start:stop], albedo[start:stop] = render_many(surfaces, cameras, lights, samples=order.samples)
    azimuths[start:stop], elevations[start:stop] = azimuth, elevation
    return lines


# ---- reading


def open_views(*folders: Path | str) -> ToyViews:
    """Open data sets of the toybox, of real objects, or of both as one, with the language of all of them.

    Views must be of one size and number. Albedo is there if all have it.
    """
    if not folders:
        raise ValueError("name at least one folder of a data set")
    opened = [ToyViews.open(folder) for folder in folders]
    shapes = {data.rgba.shape[1:] for data in opened}
    if len(shapes) > 1:
        raise ValueError(f"data sets differ in views or size: {sorted(shapes)} (views, height, width, 4); render them alike")
    nouns: dict[str, Noun] = {}
    toys = False
    for folder in map(Path, folders):
        if (folder / "nouns.json").is_file():
            nouns |= things.read_nouns((folder / "nouns.json").read_text())
        else:
            toys = True
    language: Language = Words(nouns, toys) if nouns else TOYS
    if len(opened) == 1:
        return replace(opened[0], language=language)
    albedos = [data.albedo for data in opened if data.albedo is not None]
    return ToyViews(
        Stacked([data.rgba for data in opened]),
        Stacked([data.azimuth_deg for data in opened]),
        Stacked([data.elevation_deg for data in opened]),
        tuple(text for data in opened for text in data.captions),
        tuple(spec for data in opened for spec in data.specs),
        Stacked(albedos) if len(albedos) == len(opened) else None,
        language,
    )
