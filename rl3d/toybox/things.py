"""The values of the toybox: what a toy is said to be (:class:`Spec`), how a kind is described (:class:`Kind`), and the
pieces that a kind's builder returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import trimesh


@dataclass(frozen=True)
class Item:
    """One object, or several alike, as a caption would say it."""

    kind: str
    paint: str | None = None
    """A colour or material of its main part; None leaves the kind's natural colours."""
    form: str | None = None
    """A size or form word: "tall", "short", "wide", "narrow", "big", "small"."""
    accent: tuple[str, str] | None = None
    """A second part and its colour: ("roof", "red")."""
    count: int = 1
    stuff: str | None = None
    """What it is mostly made of, as real objects are: "leather", "wooden"; toys say it with their paint."""


@dataclass(frozen=True)
class Spec:
    """The exact attributes of one toy: one item, or two in a relation."""

    items: tuple[Item, ...]
    relation: str | None = None
    """How the first item stands to the second: "on", "next to" or "inside"."""


ALL_FORMS = ("tall", "short", "wide", "narrow")
"""The form words of kinds that may be stretched in any way."""


@dataclass(frozen=True)
class Form:
    """How an object's proportions depart from its kind's middle. A builder multiplies what should stretch."""

    tall: float = 1.0
    """Factor on heights: about 0.6 for "short", 1.55 for "tall"."""
    wide: float = 1.0
    """Factor on widths across the front (y), or on both horizontal axes of round things: about 0.6 to 1.6."""


@dataclass(frozen=True)
class Piece:
    """A part as its builder makes it."""

    label: str
    """What a child would call it: "handle", "roof", "wheel"."""
    mesh: trimesh.Trimesh
    slot: str = "main"
    """The paint slot of the kind that colours it."""
    smooth: bool = True
    """Whether it is shaded with normals smoothed over edges below 40 degrees (curved things) or face by face."""


Rng = np.random.Generator
Builder = Callable[[Rng, Form], list[Piece]]


@dataclass(frozen=True)
class Kind:
    """A kind of object that a child would name."""

    name: str
    build: Builder
    slots: dict[str, tuple[str, ...]]
    """Paint slots and the natural paints that one is drawn from; always has "main", which a colour word colours."""
    accents: dict[str, str] = field(default_factory=dict)
    """Words for parts that a caption may colour ("roof") and their slots; each part is plainly visible."""
    forms: tuple[str, ...] = ("tall", "short")
    """The form words that make sense for it, beside "big" and "small"."""
    plural: str = ""
    """Empty: add an s."""
    synonyms: tuple[str, ...] = ()
    """Other words that captions use for it."""
    front: bool = False
    """Whether it has a front (looks different from front and back)."""
    flat_top: bool = False
    """Whether something may stand on it."""
    container: bool = False
    """Whether something may lie inside it and still be seen."""
    loose: bool = True
    """Whether it makes sense on, inside or next to another object, and in counts."""
