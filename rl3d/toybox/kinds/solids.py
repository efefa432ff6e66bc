"""Plain solids: one slot, honest forms."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.shapes import Mesh, box, lathe, loft, move, rounded_box, sphere, torus, turn
from rl3d.toybox.shapes import cone as make_cone
from rl3d.toybox.shapes import cylinder as make_cylinder
from rl3d.toybox.things import Form, Kind, Piece, Rng

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "white", "gray")


def _spun(mesh: Mesh, rng: Rng) -> Mesh:
    return turn(mesh, "z", rng.uniform(0, 90))


def ball(rng: Rng, form: Form) -> list[Piece]:
    """A sphere."""
    return [Piece("ball", move(sphere(0.5, 32), z=0.5))]


def cube(rng: Rng, form: Form) -> list[Piece]:
    """A cube at any turn, its edges sharp or a little rounded."""
    if rng.random() < 0.6:
        return [Piece("cube", _spun(box(1, 1, 1), rng), smooth=False)]
    return [Piece("cube", _spun(rounded_box(1, 1, 1, rng.uniform(0.06, 0.12), 4), rng))]


def cylinder(rng: Rng, form: Form) -> list[Piece]:
    """A cylinder, from a thick disc to a column."""
    height, radius = rng.uniform(0.8, 1.1) * form.tall, rng.uniform(0.36, 0.44) * form.wide
    return [Piece("cylinder", make_cylinder(radius, height, 40))]


def cone(rng: Rng, form: Form) -> list[Piece]:
    """A pointed cone."""
    height, radius = rng.uniform(0.9, 1.2) * form.tall, rng.uniform(0.4, 0.5) * form.wide
    return [Piece("cone", make_cone(radius, height, 40))]


def pyramid(rng: Rng, form: Form) -> list[Piece]:
    """A pyramid on a square, at any turn."""
    side, height = rng.uniform(0.9, 1.05) * form.wide, rng.uniform(0.75, 0.95) * form.tall
    base = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]) * (side / 2)
    return [Piece("pyramid", _spun(loft(np.stack([base, base * 0 + np.array([0, 0, height])])), rng), smooth=False)]


def ring(rng: Rng, form: Form) -> list[Piece]:
    """A ring, lying or standing upright."""
    thickness = rng.uniform(0.07, 0.13)
    mesh = torus(0.45, thickness, 40, 16)
    if rng.random() < 0.6:
        return [Piece("ring", move(mesh, z=thickness))]
    return [Piece("ring", move(turn(mesh, "y", 90), z=0.45 + thickness))]


def egg(rng: Rng, form: Form) -> list[Piece]:
    """An egg on its blunt end, or leaning."""
    taper, radius = rng.uniform(0.2, 0.3), rng.uniform(0.33, 0.37)
    turns = np.linspace(0, np.pi, 19)
    profile = np.stack([radius * np.sin(turns) * (1 + taper * np.cos(turns)), 0.5 - 0.5 * np.cos(turns)], 1)
    profile[[0, -1], 0] = 0
    mesh = lathe(profile, 28)
    if rng.random() < 0.3:
        mesh = turn(mesh, "y", rng.uniform(45, 70))
        mesh = turn(move(mesh, z=-mesh.vertices[:, 2].min()), "z", rng.uniform(-60, 60))
    return [Piece("egg", mesh)]


KINDS = (
    Kind("ball", ball, {"main": COLOURS}, forms=(), synonyms=("sphere",)),
    Kind("cube", cube, {"main": COLOURS}, forms=(), synonyms=("block",), flat_top=True),
    Kind("cylinder", cylinder, {"main": COLOURS}, forms=("tall", "short", "wide", "narrow"), flat_top=True),
    Kind("cone", cone, {"main": COLOURS}, forms=("tall", "short", "wide", "narrow")),
    Kind("pyramid", pyramid, {"main": (*COLOURS, "sand")}, forms=("tall", "short", "wide", "narrow")),
    Kind("ring", ring, {"main": COLOURS}, forms=(), synonyms=("hoop",)),
    Kind("egg", egg, {"main": ("cream", "ivory", "skin", "tan", "white")}, forms=()),
)
