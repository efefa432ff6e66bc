"""Tools, with which one strikes, cuts and opens. They stand upright on z = 0 with their broad side to +x."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    Points2,
    bend,
    box,
    cylinder,
    facade,
    join,
    lathe,
    loft,
    move,
    rounded_box,
    scale,
    sphere,
    torus,
    tube,
    turn,
    twins,
)
from rl3d.toybox.things import ALL_FORMS, Form, Kind, Piece, Rng


def board(outline: Points2, depth: float) -> Mesh:
    """Sweep a front view, (y, z) counter-clockwise, along x, half of ``depth`` to either side of x = 0."""
    return move(facade(outline, depth), x=-depth / 2)


def plate(outline: Points2, depth: float, bevel: float) -> Mesh:
    """Do the same with rounded rims, for outlines that are seen whole from their centre."""
    outline = np.asarray(outline, float)
    low, high = outline.min(0), outline.max(0)
    centre, half = (low + high) / 2, (high - low) / 2
    levels = [(bevel, -depth / 2), (0.3 * bevel, 0.3 * bevel - depth / 2), (0, bevel - depth / 2)]
    levels += [(inset, -x) for inset, x in levels[::-1]]
    rings = [
        np.column_stack([np.full(len(outline), x), centre + (outline - centre) * (half - inset) / half]) for inset, x in levels
    ]
    return loft(np.stack(rings))


def _handle(height: float, radius: float, grip: float, n: int = 16) -> Mesh:
    """A turned handle on the z axis, thicker by the factor ``grip`` in its lower third."""
    profile = [(0, 0), (0.8, 0), (grip, 0.04), (grip, 0.2), (1, 0.45), (0.92, 0.7), (0.95, 1), (0, 1)]
    return lathe([(radius * r, height * z) for r, z in profile], n)


def hammer(rng: Rng, form: Form) -> list[Piece]:
    """A claw hammer, a round mallet or a square sledge, its head up."""
    shape = rng.choice(["claw", "mallet", "sledge"])
    height, thick = rng.uniform(0.72, 0.86) * form.tall, rng.uniform(0.048, 0.058)
    grip = 1.0 if shape == "mallet" else rng.uniform(1.05, 1.25)
    handle = scale(_handle(height, thick, grip), (1, 1.15, 1))
    wide = form.wide
    if shape == "claw":
        size = rng.uniform(0.088, 0.1)
        heart = rounded_box(1.7 * size, 0.24 * wide, 2 * size, 0.03, 2)
        neck = lathe(
            [
                (0, 0),
                (0.72 * size, 0),
                (0.72 * size, 0.12),
                (1.25 * size, 0.16),
                (1.3 * size, 0.24),
                (1.2 * size, 0.26),
                (0, 0.26),
            ],
            20,
        )
        neck = scale(turn(neck, "x", -90), (1, wide, 1))
        reach = rng.uniform(0.26, 0.32)
        path = np.array([(0.0, -0.06, 0), (0, -0.14, 0.005), (0, -0.21, -0.02), (0, -0.27, -0.075), (0, -reach - 0.03, -0.16)])
        prongs = [
            tube(
                path * (1, wide, 1) + np.linspace(0.3, 1, 5)[:, None] * (s * 0.068, 0, 0),
                [0.07, 0.066, 0.056, 0.044, 0.026],
                10,
            )
            for s in (-1, 1)
        ]
        head = [move(heart, z=height - size), *(move(m, z=height + 0.01) for m in (move(neck, y=0.08 * wide), *prongs))]
        pieces = [Piece("head", join(*head))]
    else:
        size, long = rng.uniform(0.13, 0.16), rng.uniform(0.46, 0.56) * wide
        if shape == "mallet":
            barrel = lathe([(0, 0), (0.9, 0), (1, 0.07), (1, 0.2), (0.92, 0.5), (1, 0.8), (1, 0.93), (0.9, 1), (0, 1)], 24)
            head = turn(move(scale(barrel, (size, size, long)), z=-long / 2), "x", 90)
            ring = turn(move(cylinder(size + 0.012, 0.045, 24), z=-0.0225), "x", 90)
            rings = twins(ring, 0, 0.34 * long, 0)
        else:
            outline = [(-0.5, -0.7), (-0.42, -1), (-0.16, -0.72), (0.16, -0.72), (0.42, -1), (0.5, -0.7)]
            outline += [(-y, -z) for y, z in outline]
            head = plate(np.array(outline) * (long, 0.92 * size), 1.7 * size, 0.02)
            rings = twins(box(1.75 * size, 0.04, 1.78 * size), 0, 0.3 * long, 0)
            rings = move(rings, z=-0.89 * size)
        pieces = [Piece("head", move(head, z=height), smooth=shape == "mallet")]
        if rng.random() < 0.6:
            pieces.append(Piece("band", move(rings, z=height), "band", shape == "mallet"))
        handle = join(handle, move(cylinder(0.9 * thick, size + 0.03, 16), z=height))
    return [*pieces, Piece("handle", handle, "handle")]


def axe(rng: Rng, form: Form) -> list[Piece]:
    """An axe with one blade, two blades, or a blade and a spike, its head up."""
    shape = rng.choice(["single", "single", "double", "spike"])
    height, thick = rng.uniform(0.86, 0.96) * form.tall, rng.uniform(0.046, 0.054)
    bow = 0.0 if shape == "double" else rng.uniform(-0.05, 0.06)
    levels = np.linspace(0, 1, 9)
    path = np.column_stack([0 * levels, bow * np.sin(np.pi * levels), 0.015 + (height - 0.015) * levels])
    handle = tube(path, thick * np.array([1.3, 1.25, 1.05, 1, 1, 1, 1, 1.05, 1.05]), 14)
    reach, flare = rng.uniform(0.3, 0.36) * form.wide, rng.uniform(0.17, 0.22)
    drop = rng.uniform(0.0, 0.07) if shape != "double" else 0.0
    edge = np.linspace(-1, 1, 11)
    curve = np.stack([reach - 0.2 * reach * edge**2, flare * edge - drop * (1 - edge) * 0.6], 1)
    outline = np.concatenate(
        [
            [(-0.075, -0.085), (0.05, -0.085), (0.55 * reach, -0.11 - 0.4 * drop)],
            curve,
            [(0.55 * reach, 0.1), (0.05, 0.085), (-0.075, 0.085)],
        ]
    )

    def wedge(p: np.ndarray) -> np.ndarray:
        return p * np.column_stack([1 - 0.72 * np.clip(p[:, 1] / reach, 0, 1), np.ones((len(p), 2))])

    blade = bend(board(outline, 0.15), wedge)
    rim = np.concatenate([curve + np.array([0.008, 0]), (curve - np.array([0.055, 0]))[::-1]])
    shine = board(rim, 0.062)
    if shape == "double":
        blade, shine = (join(m, scale(m, (1, -1, 1))) for m in (blade, shine))
    z = height - rng.uniform(0.12, 0.16)
    pieces = [Piece("head", move(blade, z=z)), Piece("edge", move(shine, z=z), "edge", False)]
    if shape == "spike":
        spike = turn(lathe([(0, 0), (0.075, 0), (0.06, 0.08), (0, 0.24)], 4), "x", 90)
        pieces.append(Piece("spike", move(spike, 0, -0.05, z), smooth=False))
    if rng.random() < 0.4:
        wraps = [move(cylinder(1.32 * thick, 0.05, 14), 0, bow * np.sin(np.pi * f), height * f) for f in (0.08, 0.16, 0.24)]
        pieces.append(Piece("grip", join(*wraps), "edge"))
    return [*pieces, Piece("handle", handle, "handle")]


def sword(rng: Rng, form: Form) -> list[Piece]:
    """A straight, a leaf-shaped or a curved sword, its point up."""
    shape = rng.choice(["straight", "straight", "leaf", "curved"])
    wide, long = rng.uniform(0.088, 0.11) * form.wide, rng.uniform(0.62, 0.74) * form.tall
    if shape == "curved":
        wide *= 1.05
    grip, start = rng.uniform(0.17, 0.2), 0.1
    guard_z = start + grip
    h = np.array([0, 0.12, 0.25, 0.4, 0.55, 0.68, 0.78, 0.87, 0.94, 1.0])
    w = {
        "straight": np.array([1, 1, 0.98, 0.96, 0.94, 0.92, 0.9, 0.84, 0.5, 0.0]),
        "leaf": np.array([0.82, 0.7, 0.72, 0.86, 1.05, 1.18, 1.12, 0.86, 0.48, 0.0]),
        "curved": np.array([0.8, 0.82, 0.88, 0.97, 1.1, 1.22, 1.25, 1.05, 0.66, 0.0]),
    }[str(shape)]
    shift = 0.26 * (h**2 - 0.25 * h) * rng.choice([-1, 1]) if shape == "curved" else 0 * h
    thick = np.where(h < 1, 0.036, 0.0)
    section = np.array([(1.0, 0.0), (0.35, 0.75), (0.0, 1.0), (-0.35, 0.75), (-1, 0), (-0.35, -0.75), (0, -1), (0.35, -0.75)])
    section = np.stack([section[:, 1], -section[:, 0]], 1)
    rings = [
        np.column_stack([section[:, 0] * t, section[:, 1] * wide * r + s, np.full(8, guard_z + long * z)])
        for z, r, s, t in zip(h, w, shift, thick, strict=True)
    ]
    reach = rng.uniform(0.17, 0.23) * (0.5 + 0.5 * form.wide)
    style = rng.choice(["bar", "bow", "discs"])
    y = np.linspace(-1, 1, 11)
    droop = {"bar": 0 * y, "bow": 0.08 * y**2, "discs": -0.05 * y**2}[str(style)]
    guard = [tube(np.column_stack([0 * y, reach * y, guard_z + droop]), 0.042, 12)]
    guard += [move(sphere(0.06, 12), 0, reach * s, guard_z + droop[-1]) for s in (-1, 1)]
    pommel = sphere(0.08, 14) if rng.random() < 0.6 else turn(move(cylinder(0.08, 0.09, 18), z=-0.045), "y", 90)
    wraps = [move(torus(0.044, 0.014, 16, 8), z=start + grip * f) for f in (0.25, 0.5, 0.75)]
    return [
        Piece("blade", loft(np.stack(rings)), smooth=False),
        Piece("guard", join(*guard), "guard"),
        Piece("handle", join(move(cylinder(0.047, grip + 0.04, 16), z=start - 0.02), *wraps), "handle"),
        Piece("pommel", move(pommel, z=0.08), "guard"),
    ]


def key(rng: Rng, form: Form) -> list[Piece]:
    """A big old key: its bow up, its bit down."""
    shape = rng.choice(["ring", "oval", "trefoil", "square"])
    thick, long = rng.uniform(0.05, 0.06), rng.uniform(0.52, 0.62) * form.tall
    size = rng.uniform(0.16, 0.19) * form.wide
    if shape == "trefoil":
        ring = turn(torus(0.6 * size, 0.95 * thick, 20, 10), "y", 90)
        bow = join(
            move(ring, y=0.62 * size, z=-0.1 * size), move(ring, y=-0.62 * size, z=-0.1 * size), move(ring, z=0.85 * size)
        )
        lift = 0.75 * size
    elif shape == "square":
        corners = np.array(
            [(0, y, z) for y, z in ((0, -1), (0.5, -0.5), (1, 0), (0.5, 0.5), (0, 1), (-0.5, 0.5), (-1, 0), (-0.5, -0.5))]
        )
        bow, lift = tube(corners * 1.15 * size, thick, 10, closed=True), 1.15 * size
    else:
        stretch = 1.0 if shape == "ring" else 1.3
        bow, lift = scale(turn(torus(size, thick, 28, 12), "y", 90), (1, stretch, 1 if shape == "ring" else 0.85)), size
    shaft = lathe([(0, 0), (0.8 * thick, 0), (thick, 0.025), (thick, long + 0.03), (0, long + 0.03)], 16)
    collars = [
        move(lathe([(0, -0.03), (1.4 * thick, -0.03), (1.55 * thick, 0), (1.4 * thick, 0.03), (0, 0.03)], 16), z=long * f)
        for f in (0.97, 0.8)[: int(rng.integers(1, 3))]
    ]
    reach = rng.uniform(0.2, 0.25) * form.wide
    side = rng.choice([-1, 1])
    depth = 1.5 * thick
    kind = rng.choice(["two", "three", "block"])
    teeth = {
        "two": [(0.05, 1.0, 0.1), (0.22, 0.8, 0.1)],
        "three": [(0.04, 0.75, 0.075), (0.155, 1.0, 0.075), (0.27, 0.75, 0.075)],
        "block": [(0.05, 1.0, 0.08), (0.19, 1.0, 0.08), (0.06, 0.5, 0.2)],
    }[str(kind)]
    bits = [move(box(depth, reach * r, tall), 0, side * reach * r / 2, z) for z, r, tall in teeth]
    return [
        Piece("bow", move(bow, z=long + lift)),
        Piece("shaft", join(shaft, *collars)),
        Piece("bit", join(*bits), smooth=False),
    ]


METAL = ("steel", "steel", "gray", "silver")
WOOD = ("wooden", "tan", "brown", "bark")

KINDS: tuple[Kind, ...] = (
    Kind(
        "hammer",
        hammer,
        {"main": (*METAL, "dark"), "handle": (*WOOD, "red", "blue"), "band": ("dark", "golden")},
        accents={"handle": "handle"},
        forms=(),
    ),
    Kind(
        "axe",
        axe,
        {"main": (*METAL, "red"), "edge": ("white", "silver"), "handle": WOOD},
        accents={"handle": "handle"},
        forms=(),
    ),
    Kind(
        "sword",
        sword,
        {
            "main": ("steel", "silver", "silver", "gray"),
            "guard": ("golden", "golden", "bark", "dark"),
            "handle": ("brown", "red", "blue", "dark"),
        },
        accents={"handle": "handle"},
        forms=ALL_FORMS,
    ),
    Kind("key", key, {"main": ("golden", "golden", "silver", "steel", "rust")}, forms=ALL_FORMS),
)
