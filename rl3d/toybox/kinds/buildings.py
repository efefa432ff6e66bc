"""Houses and strongholds. Their doors are on +x and they stand on z = 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    box,
    cone,
    cylinder,
    facade,
    join,
    lathe,
    move,
    rod,
    sphere,
    turn,
)
from rl3d.toybox.things import ALL_FORMS, Form, Kind, Piece, Rng

Place = tuple[float, float, float, float]
"""Where something faces outwards: x, y, z and the degrees that it is turned about z."""


def archway(width: float, height: float, depth: float = 0.05) -> Mesh:
    """A round-headed slab that faces +x, its middle plane at x = 0: a door, or a window."""
    angle = np.radians(np.linspace(0, 180, 11))
    head = np.stack([width / 2 * np.cos(angle), height - width / 2 + width / 2 * np.sin(angle)], 1)
    return move(facade(np.concatenate([[(-width / 2, 0), (width / 2, 0)], head]), depth), x=-depth / 2)


def placed(mesh: Mesh, places: Sequence[Place]) -> Mesh:
    """Copies of a mesh at these places."""
    return join(*(move(turn(mesh, "z", degrees), x, y, z) for x, y, z, degrees in places))


def ring_of(mesh: Mesh, count: int, first: float = 0.0) -> Mesh:
    """Copies of a mesh turned about the z axis, evenly."""
    return join(*(turn(mesh, "z", first + 360 * i / count) for i in range(count)))


def _windows(width: float, height: float, places: Sequence[Place]) -> list[Piece]:
    """Square windows with a frame and a cross of bars."""
    frame = move(box(0.05, width + 0.06, height + 0.06), z=-0.03)
    bars = join(box(0.075, 0.022, height), move(box(0.075, width, 0.022), z=height / 2 - 0.011))
    pane = box(0.065, width, height)
    return [
        Piece("window frame", placed(join(frame, bars), places), "trim", False),
        Piece("window", placed(pane, places), "windows", False),
    ]


def _flag(x: float, y: float, z: float, rise: float = 0.2) -> list[Piece]:
    cloth = move(turn(facade([(0, 0), (0.16, 0.055), (0, 0.11)], 0.035), "z", 30), 0, 0, rise - 0.12)
    return [
        Piece("flagpole", move(cylinder(0.018, rise, 8), x, y, z), "flagpole"),
        Piece("flag", move(cloth, x, y, z), "flag", False),
    ]


def house(rng: Rng, form: Form) -> list[Piece]:
    """A house under a gable to the front, a gable to the sides, or a hip roof; with one floor or two."""
    roof_shape = rng.choice(["gable", "side", "hip"])
    floors = int(rng.integers(1, 3)) if form.tall > 0.8 else 1
    depth, width = rng.uniform(0.58, 0.7), rng.uniform(0.6, 0.76) * form.wide
    height = (0.36 if floors == 1 else 0.56) * rng.uniform(0.94, 1.08) * form.tall
    rise = rng.uniform(0.26, 0.36) * (1 + 0.5 * (form.tall - 1))
    eave, thick = 0.07, 0.055
    span, run = (width, depth) if roof_shape != "side" else (depth, width)
    if roof_shape == "hip":
        walls = box(depth, width, height)
        cap = box(depth + 2 * eave, width + 2 * eave, 0.9 * rise, taper=(0.16, max(0.1, 1 - 0.84 * depth / width)))
        roof = join(move(box(depth + 2 * eave, width + 2 * eave, 0.05), z=height - 0.045), move(cap, z=height))
    else:
        half, slope = span / 2, 2 * rise / span
        low, top, out = height - eave * slope, height + rise, half + eave
        walls = facade([(-half, 0), (half, 0), (half, height), (0, top), (-half, height)], run)
        chevron = [(-out, low), (0, top), (out, low), (out, low + thick), (0, top + 1.3 * thick), (-out, low + thick)]
        roof = move(facade(chevron, run + 2 * eave), x=-eave)
        walls, roof = (move(mesh, x=-run / 2) for mesh in (walls, roof))
        if roof_shape == "side":
            walls, roof = turn(walls, "z", 90), turn(roof, "z", 90)
    pieces = [Piece("wall", walls, smooth=False), Piece("roof", roof, "roof", False)]
    face, flank, back = depth / 2, width / 2, -depth / 2
    floor = height / floors
    tall_door, wide_door = min(0.72 * floor, 0.3), min(0.17, 0.3 * width)
    size = min(0.42 * floor, 0.16)
    sill = 0.36 * floor
    door_y = rng.choice([-1, 0, 1]) * 0.27 * width if width > 0.5 else 0.0
    slots = [-0.3, 0.0, 0.3] if width > 0.62 else [-0.27, 0.27]
    places: list[Place] = []
    for level in range(floors):
        z = level * floor + sill
        clear = 0.5 * (size + wide_door) + 0.05
        places += [(face, y * width, z, 0.0) for y in slots if level or abs(y * width - door_y) > clear]
        places += [(x * depth, s * flank, z, 90.0 * s) for s in (-1, 1) for x in (-0.24, 0.24)]
        places += [(back, y * width, z, 180.0) for y in (-0.25, 0.25)]
    pieces += _windows(min(size, 0.24 * width), size, places)
    if roof_shape == "gable":
        attic = turn(cylinder(0.06, 0.06, 16), "y", 90)
        pieces.append(Piece("attic window", move(attic, face - 0.03, 0, height + 0.32 * rise), "windows"))
    pieces += [
        Piece("door frame", move(box(0.05, wide_door + 0.05, tall_door + 0.03), face, door_y), "trim", False),
        Piece("door", move(box(0.08, wide_door, tall_door), face, door_y), "door", False),
        Piece("knob", move(sphere(0.022, 8), face + 0.045, door_y - 0.3 * wide_door, 0.5 * tall_door), "knob"),
    ]
    if rng.random() < 0.65:
        x, y = rng.choice([-1, 1]) * 0.24 * depth, rng.choice([-1, 1]) * 0.27 * width
        stack = join(
            move(box(0.12, 0.12, 0.3 * height + rise + 0.06), z=0.7 * height),
            move(box(0.15, 0.15, 0.05), z=height + rise + 0.03),
        )
        pieces.append(Piece("chimney", move(stack, x, y), "chimney", False))
    if rng.random() < 0.35:
        posts = [
            rod((face + 0.17, door_y + s * 0.14, 0), (face + 0.17, door_y + s * 0.14, tall_door + 0.05), 0.025, n=8)
            for s in (-1, 1)
        ]
        shade = move(box(0.24, 0.36, 0.05), face + 0.1, door_y, tall_door + 0.04)
        pieces += [Piece("porch", join(*posts), "trim"), Piece("porch roof", shade, "roof", False)]
    return pieces


def _round_keep(radius: float, height: float, flare: float, n: int = 24) -> tuple[Mesh, Mesh]:
    """A round tower with a parapet, and the merlons on it."""
    r, rim, wall = radius, radius + flare, 0.3 * radius
    profile = [(0, 0), (1.12 * r, 0), (r, 0.1 * height), (0.96 * r, height - 2.2 * flare), (rim, height - flare)]
    profile += [(rim, height), (rim - wall, height), (rim - wall, height - 0.06), (0, height - 0.06)]
    count = 6 if radius < 0.15 else 8
    merlon = move(box(wall, 1.05 * np.pi * rim / count, 0.42 * rim), x=rim - 0.52 * wall, z=height - 0.01)
    return lathe(profile, n), ring_of(merlon, count)


def _square_keep(half: float, height: float, flare: float) -> tuple[Mesh, Mesh]:
    """A square tower with a parapet, and the merlons on it."""
    rim = half + flare
    shaft = box(2.15 * half, 2.15 * half, height - flare, taper=(0.93, 0.93))
    deck = move(box(2 * rim, 2 * rim, 2.2 * flare), z=height - 2.2 * flare)
    size = 2 * rim / 5
    spots = [(a, b) for a in (-2, 0, 2) for b in (-2, 0, 2) if (a, b) != (0, 0)]
    block = box(size, size, 1.15 * size)
    merlons = [move(block, a * size, b * size, height - 0.01) for a, b in spots]
    return join(shaft, deck), join(*merlons)


def tower(rng: Rng, form: Form) -> list[Piece]:
    """A lone castle tower, round or square, with battlements on a jutting parapet."""
    radius, height = rng.uniform(0.19, 0.23) * form.wide, rng.uniform(0.82, 0.98) * form.tall
    square = rng.random() < 0.4
    flare = rng.uniform(0.05, 0.08)
    shaft, merlons = (_square_keep if square else _round_keep)(radius, height, flare)
    pieces = [Piece("wall", shaft, smooth=not square), Piece("battlement", merlons, smooth=False)]
    wide = min(0.2, 0.85 * radius)
    tall = min(0.3, 0.34 * height)
    face = 1.03 * radius
    pieces.append(Piece("door frame", move(archway(wide + 0.07, tall + 0.035, 0.1), face), "trim", False))
    pieces.append(Piece("door", move(archway(wide, tall, 0.13), face), "door", False))
    slit = archway(0.075, 0.17 * min(form.tall, 1.2), 0.06)
    levels = [0.46, 0.68] if rng.random() < 0.6 and height > 0.6 else [0.56]
    places = []
    for i, level in enumerate(levels):
        for angle in (0, 90, 180, 270):
            spin = angle + (45 if i % 2 and not square else 0)
            reach = radius * ((1.05 - 0.07 * level) if square else 0.98) - 0.005
            a = np.radians(spin)
            places.append((reach * np.cos(a), reach * np.sin(a), level * height, float(spin)))
    pieces.append(Piece("window", placed(slit, places), "windows", False))
    if rng.random() < 0.5:
        level = rng.uniform(0.36, 0.42) * height
        if square:
            band = move(box(2.12 * radius + 0.03, 2.12 * radius + 0.03, 0.045), z=level)
        else:
            band = move(cylinder(radius + 0.025, 0.045, 24), z=level)
        pieces.append(Piece("ledge", band, "trim", False))
    if rng.random() < 0.5:
        pieces += _flag(0, 0, height - 0.08, 0.36)
    return pieces


def castle(rng: Rng, form: Form) -> list[Piece]:
    """Four corner towers under pointed roofs, joined by battlemented walls, with a gate and sometimes a keep."""
    hx, hy = rng.uniform(0.33, 0.38), rng.uniform(0.34, 0.4) * form.wide
    wall, high = 0.08, rng.uniform(0.26, 0.32) * form.tall
    radius, rise = rng.uniform(0.105, 0.13), rng.uniform(0.42, 0.52) * form.tall
    point = rng.uniform(0.22, 0.3) * (0.5 + 0.5 * form.tall)
    square = rng.random() < 0.35
    corners = [(x, y) for x in (-hx, hx) for y in (-hy, hy)]
    walls = join(
        *(move(box(wall, 2 * hy, high), x) for x in (-hx, hx)),
        *(move(box(2 * hx, wall, high), 0, y) for y in (-hy, hy)),
        box(2 * hx, 2 * hy, 0.04),
    )
    block = box(wall + 0.02, 0.075, 0.085)
    steps = np.array([-0.52, -0.26, 0, 0.26, 0.52])
    teeth = [move(block, x, hy * s, high - 0.01) for x in (-hx, hx) for s in steps]
    teeth += [move(turn(block, "z", 90), hx * s, y, high - 0.01) for y in (-hy, hy) for s in steps]
    if square:
        shaft, cap = box(2 * radius, 2 * radius, rise), box(2.5 * radius, 2.5 * radius, point, taper=(0.02, 0.02))
    else:
        shaft, cap = cylinder(radius, rise, 18), cone(1.3 * radius, point, 18)
    pieces = [
        Piece("wall", walls, smooth=False),
        Piece("battlement", join(*teeth), smooth=False),
        Piece("tower", join(*(move(shaft, x, y) for x, y in corners)), smooth=not square),
    ]
    caps = [move(cap, x, y, rise - 0.005) for x, y in corners]
    flags = [(x, y, rise + 0.9 * point) for x, y in corners[1:3]]
    tall_gate = 0.8 * high
    house_high = high * rng.uniform(1.15, 1.35)
    gatehouse = move(box(0.16, 0.3, house_high), hx)
    crown = [move(box(0.17, 0.07, 0.08), hx, y, house_high - 0.01) for y in (-0.115, 0, 0.115)]
    pieces += [
        Piece("gatehouse", join(gatehouse, *crown), smooth=False),
        Piece("gate", move(archway(0.17, tall_gate, 0.06), hx + 0.07), "gate", False),
    ]
    if rng.random() < 0.7:
        size, top = rng.uniform(0.16, 0.19), rise * rng.uniform(1.3, 1.5)
        if rng.random() < 0.5:
            keep, merlons = _square_keep(size, top, 0.03)
            pieces.append(Piece("keep", join(keep, merlons), smooth=False))
            flags = [(0, 0, top - 0.05)]
        else:
            pieces.append(Piece("keep", cylinder(size, top, 24)))
            caps.append(move(cone(1.25 * size, 1.15 * point, 24), z=top - 0.005))
            flags = [(0, 0, top + 1.05 * point)]
    pieces.append(Piece("roof", join(*caps), "roofs", not square))
    slit = archway(0.065, 0.13 * min(1.2, form.tall), 0.04)
    places = [
        (x + radius * np.cos(a) * 0.97, y + radius * np.sin(a) * 0.97, 0.6 * rise, np.degrees(a))
        for x, y in corners
        for a in ((0 if x > 0 else np.pi), (np.pi / 2 if y > 0 else -np.pi / 2))
    ]
    pieces.append(Piece("window", placed(slit, [tuple(map(float, p)) for p in places]), "windows", False))  # pyright: ignore[reportArgumentType]
    if rng.random() < 0.6:
        for x, y, z in flags:
            pieces += _flag(x, y, z, 0.19)
    return pieces


STONE = ("stone", "gray", "sand", "tan")
FLAG = {"flagpole": ("bark", "dark"), "flag": ("red", "blue", "yellow", "purple")}
DARK = ("dark", "navy")

KINDS: tuple[Kind, ...] = (
    Kind(
        "house",
        house,
        {
            "main": ("cream", "white", "yellow", "terracotta", "pink", "turquoise", "tan"),
            "roof": ("terracotta", "red", "brown", "gray", "navy"),
            "door": ("brown", "red", "green", "blue"),
            "windows": ("glass", "glass", "navy"),
            "trim": ("white", "cream", "brown"),
            "chimney": ("rust", "terracotta", "stone"),
            "knob": ("golden",),
        },
        accents={"roof": "roof", "door": "door"},
        forms=ALL_FORMS,
        front=True,
        loose=False,
    ),
    Kind(
        "tower",
        tower,
        {"main": STONE, "trim": ("stone", "gray", "cream"), "door": ("brown", "bark", "dark"), "windows": DARK, **FLAG},
        accents={"door": "door"},
        forms=ALL_FORMS,
        synonyms=("castle tower",),
        front=True,
        loose=False,
    ),
    Kind(
        "castle",
        castle,
        {
            "main": (*STONE, "cream", "pink"),
            "roofs": ("red", "blue", "purple", "terracotta", "navy"),
            "gate": ("brown", "bark", "dark"),
            "windows": DARK,
            **FLAG,
        },
        accents={"roofs": "roofs", "gate": "gate"},
        forms=ALL_FORMS,
        front=True,
        loose=False,
    ),
)
