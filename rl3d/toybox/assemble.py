"""From a spec to a toy: its items are built, painted, turned and placed, and the whole is scaled to the unit sphere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray
from trimesh.visual import ColorVisuals

from rl3d.toybox import kinds, shapes
from rl3d.toybox.paints import PAINTS
from rl3d.toybox.placement import inside, next_to, on, side_by_side
from rl3d.toybox.things import Form, Item, Kind, Rng, Spec

RADIUS = {None: 0.85, "small": 0.58, "big": 0.99}
"""Radius of the bounding sphere, by size word; it varies by 3 %, and never exceeds 1."""

STRETCH = {"tall": (1.55, 1.0), "short": (0.6, 1.0), "wide": (1.0, 1.6), "narrow": (1.0, 0.6)}
"""Factors on height and width, by form word; without one both vary by 8 % around 1."""

NEUTRAL = ("cream", "dark", "white", "steel", "brown", "gray")
"""Paints for parts whose own natural paints all look too much like the main one."""

EYES = ("eyes", "pupils")
"""Slots that keep their paints whatever the main one is: each is told apart by the other."""

TOO_CLOSE = 0.25
"""Distance in sRGB below which two paints are not told apart well."""


@dataclass(frozen=True)
class Part:
    """A painted part in its place."""

    label: str
    """What a child would call it: "handle", "roof", "wheel"."""
    mesh: trimesh.Trimesh
    paint: str
    """A name from the palette (:mod:`rl3d.toybox.paints`)."""
    smooth: bool
    """Whether it is shaded with normals smoothed over edges below 40 degrees, or face by face."""
    item: int
    """Which item of the spec it belongs to."""


@dataclass(frozen=True)
class Toy:
    """An object of the toybox, as exact as it gets: its attributes and its painted parts."""

    spec: Spec
    parts: tuple[Part, ...]

    @property
    def bounds(self) -> Float[ndarray, "2 3"]:
        """The lowest and highest corner of the bounding box."""
        points = np.concatenate([part.mesh.vertices for part in self.parts])
        return np.stack([points.min(0), points.max(0)])

    def mesh(self) -> trimesh.Trimesh:
        """All parts in one mesh with plain vertex colours."""
        mesh = shapes.join(*(part.mesh for part in self.parts))
        colours = [np.tile(PAINTS[part.paint].colour, (len(part.mesh.vertices), 1)) for part in self.parts]
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.concatenate(colours))
        return mesh


def build(spec: Spec, rng: Rng) -> Toy:
    """Make one of the many toys of which ``spec`` is true.

    Centred on its bounding box and inside the unit sphere. The same generator state gives the same toy.
    """
    things = [(index, thing) for index, item in enumerate(spec.items) for thing in _things(item, index, rng)]
    meshes = [shapes.join(*(part.mesh for part in thing)) for _, thing in things]
    if spec.relation is None:
        places = side_by_side(meshes, rng)
    elif spec.relation == "inside":
        body = [part.mesh for part in things[1][1] if part.label != "handle"]
        places = inside(meshes[0], shapes.join(*body), rng)
    else:
        places = {"on": on, "next to": next_to}[spec.relation](meshes[0], meshes[1], rng)
    size = spec.items[0].form if spec.relation is None else None
    radius = min(RADIUS.get(size, RADIUS[None]) * rng.uniform(0.97, 1.03), 1.0)
    corners = np.stack([place(mesh.bounds) for place, mesh in zip(places, meshes, strict=True)])
    low, high = corners[:, 0].min(0), corners[:, 1].max(0)
    points = [place(mesh.vertices) for place, mesh in zip(places, meshes, strict=True)]
    reach = max(np.linalg.norm(x - (low + high) / 2, axis=1).max() for x in points)
    parts = []
    for place, (_, thing) in zip(places, things, strict=True):
        for part in thing:
            vertices = (place(part.mesh.vertices) - (low + high) / 2) * (radius / reach)
            parts.append(replace(part, mesh=shapes.bend(part.mesh, lambda _, vertices=vertices: vertices)))
    return Toy(spec, tuple(parts))


def _things(item: Item, index: int, rng: Rng) -> list[list[Part]]:
    """The copies of one item, alike in paint, each with its own proportions, details and pose."""
    kind = kinds.KINDS[item.kind]
    colours = _paints(kind, item, rng)
    things = []
    for _ in range(item.count):
        yaw = rng.uniform(-12, 12) if kind.front else rng.uniform(-180, 180)
        pieces = kind.build(rng, _form(item.form, rng))
        things.append([Part(p.label, shapes.turn(p.mesh, "z", yaw), colours[p.slot], p.smooth, index) for p in pieces])
    return things


def _form(word: str | None, rng: Rng) -> Form:
    tall, wide = STRETCH.get(word or "", (1.0, 1.0))
    return Form(tall * rng.uniform(0.92, 1.08), wide * rng.uniform(0.92, 1.08))


def _paints(kind: Kind, item: Item, rng: Rng) -> dict[str, str]:
    """A paint for each slot: as asked for, else a natural one that is told apart from the main one."""
    chosen = {}
    if item.accent is not None:
        part, paint = item.accent
        chosen[kind.accents[part]] = paint
    if item.paint is not None:
        chosen["main"] = item.paint
    else:
        options = [paint for paint in kind.slots["main"] if all(_apart(paint, other) for other in chosen.values())]
        chosen["main"] = str(rng.choice(options or kind.slots["main"]))
    for slot, natural in kind.slots.items():
        options = [paint for paint in natural if slot in EYES or _apart(paint, chosen["main"])]
        options = options or [paint for paint in NEUTRAL if _apart(paint, chosen["main"])]
        pick = str(rng.choice(options))
        chosen.setdefault(slot, pick)
    return chosen


def _apart(one: str, other: str) -> bool:
    """Whether two paints are told apart at a glance."""
    return float(np.linalg.norm(np.subtract(PAINTS[one].colour, PAINTS[other].colour))) >= TOO_CLOSE
