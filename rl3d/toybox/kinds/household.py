"""Things of the house that one reads, lights and carries. Builders return pieces standing on z = 0."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.vessels import belt, ear_handle, vessel
from rl3d.toybox.shapes import (
    Mesh,
    arc,
    bend,
    box,
    cylinder,
    dome,
    ellipsoid,
    extrude,
    join,
    lathe,
    loft,
    move,
    pair,
    rod,
    rounded_box,
    scale,
    sphere,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def candle(rng: Rng, form: Form) -> list[Piece]:
    """A thick candle with a wick and a big flame, in a saucer with a ring, a tall stick or a plain bowl."""
    height, radius = rng.uniform(0.52, 0.64) * form.tall, rng.uniform(0.17, 0.21) * form.wide
    style, stand = rng.integers(3), 0.07
    if style == 0:
        ear = ear_handle(0.34 * form.wide - 0.04, 0.17, 0.1, 0.1, 0.038, 12)
        holder = join(vessel([(0.24 * form.wide, 0), (0.34 * form.wide, 0.05), (0.38 * form.wide, 0.12)], 0.045), ear)
    elif style == 1:
        stand = 0.3
        base = [(0, 0), (0.25, 0), (0.24, 0.05), (0.1, 0.1), (0.06, 0.14), (0.09, 0.18), (0.06, 0.22)]
        holder = lathe([*base, (radius * 1.0, 0.26), (radius * 1.3, 0.29), (radius * 1.3, 0.34), (0, 0.34)], 24)
        height *= 0.85
    else:
        holder = lathe(
            [(0, 0), (radius * 1.6, 0), (radius * 1.75, 0.05), (radius * 1.5, 0.1), (radius * 1.2, 0.15), (0, 0.15)], 24
        )
    drips = []
    for angle in rng.uniform(0, 360, 3):
        drop = ellipsoid(0.04, 0.04, rng.uniform(0.08, 0.14), 8)
        drips.append(turn(move(drop, radius * 0.93, z=stand + height - rng.uniform(0.06, 0.14)), "z", angle))
    top = stand + height
    stick = move(
        lathe([(0, 0), (radius, 0), (radius, height - 0.03), (radius * 0.85, height), (0, height - 0.02)], 22), z=stand
    )
    wax = join(stick, *drips) if rng.random() < 0.6 else stick
    wick = move(cylinder(0.025, 0.12, 8), z=top - 0.03)
    size = rng.uniform(0.85, 1.1)
    tear = [(0, 0), (0.06, 0.02), (0.095, 0.08), (0.095, 0.13), (0.065, 0.2), (0.03, 0.27), (0, 0.33)]
    flame = move(scale(lathe(tear, 14), size), z=top + 0.05)
    core = move(scale(lathe(tear, 10), (0.6 * size, 0.6 * size, 0.35 * size)), z=top + 0.02)
    pieces = [Piece("candle", wax), Piece("holder", holder, "holder"), Piece("wick", wick, "wick")]
    return [*pieces, Piece("flame", join(flame, core), "flame")]


def clock(rng: Rng, form: Form) -> list[Piece]:
    """A clock with a pale face, marks and hands: an alarm clock with bells, a mantel clock with an arch, or a desk clock."""
    radius, style = rng.uniform(0.38, 0.44), rng.integers(3)
    if style == 0:
        deep, z = rng.uniform(0.32, 0.42), radius + 0.1
        body = move(
            turn(
                lathe(
                    [
                        (0, 0),
                        (radius * 0.9, 0),
                        (radius, 0.05),
                        (radius, deep),
                        (radius * 0.86, deep),
                        (radius * 0.86, deep - 0.04),
                        (0, deep - 0.04),
                    ],
                    32,
                ),
                "y",
                90,
            ),
            -deep / 2,
            z=z,
        )
        foot = rod((0, radius * 0.78, 0), (0, radius * 0.45, z * 0.5), 0.05, 0.07, 10)
        bell = move(turn(dome(0.19, 0.16, 18), "x", -32), 0, radius * 0.56, z + radius * 0.87)
        hammer = join(
            rod((0, 0, z + radius * 0.9), (0, 0, z + radius + 0.16), 0.03, n=8), move(sphere(0.06, 10), z=z + radius + 0.17)
        )
        pieces = [Piece("body", join(body, pair(foot))), Piece("bells", join(pair(bell), hammer), "trim")]
        front, face = deep / 2 - 0.04, radius * 0.87
    elif style == 1:
        deep, tall = rng.uniform(0.28, 0.36), rng.uniform(1.0, 1.1) * form.tall
        wide = 2 * radius + 0.16
        angle = np.linspace(0, np.pi, 14)
        arch = np.stack([wide / 2 * np.cos(angle), tall - wide / 2 + wide / 2 * np.sin(angle)], 1)
        outline = np.concatenate([[(wide / 2, 0.06)], arch, [(-wide / 2, 0.06)]])
        body = move(bend(extrude(outline, deep), lambda p: p[:, [2, 0, 1]]), -deep / 2)
        base = box(deep + 0.14, wide + 0.22, 0.13)
        front, face, z = deep / 2, radius * 0.84, tall - wide / 2
        rim = turn(belt([(face, -1), (face, 1)], -0.035, 0.035, 0.035), "y", 90)
        pieces = [Piece("body", join(body, base)), Piece("rim", move(rim, front, z=z), "trim")]
    else:
        deep, wide, tall = rng.uniform(0.36, 0.44), 2 * radius + 0.14, (2 * radius + 0.14) * (form.tall + 3) / 4
        body = move(rounded_box(deep, wide, tall, 0.12), z=0.06)
        foot = move(rounded_box(deep * 0.7, 0.14, 0.12, 0.04, 1), y=wide * 0.32)
        button = move(cylinder(0.16, 0.12, 18, 0.13), z=tall + 0.02)
        front, face, z = deep / 2 - 0.005, radius * 0.92, tall / 2 + 0.06
        pieces = [Piece("body", join(body, pair(foot))), Piece("button", button, "trim")]
    dial = move(turn(cylinder(face, 0.03, 32), "y", 90), front, z=z)
    marks = []
    for hour in range(12):
        large = hour % 3 == 0
        mark = move(
            box(0.02, 0.06 if large else 0.04, 0.11 if large else 0.05),
            front + 0.025,
            z=face * 0.92 - (0.11 if large else 0.05),
        )
        marks.append(turn(mark, "x", 30 * hour))
    hands = []
    for length, width, turned, out in (
        (0.5, 0.075, rng.uniform(0, 360), 0.03),
        (0.78, 0.06, 30.0 * int(rng.integers(12)), 0.045),
    ):
        hands.append(turn(move(box(0.025, width, face * length + 0.08, taper=(1, 0.6)), front + out, z=-0.08), "x", turned))
    boss = move(turn(cylinder(0.06, 0.05, 14), "y", 90), front + 0.03)
    pieces.append(Piece("face", dial, "face"))
    return [
        *pieces,
        Piece("marks", move(join(*marks), z=z), "hands", False),
        Piece("hands", move(join(*hands, boss), z=z), "hands", False),
    ]


def book(rng: Rng, form: Form) -> list[Piece]:
    """A thick book with pale pages between its covers: standing, standing ajar or lying."""
    height, width, thick = rng.uniform(0.95, 1.08) * form.tall, rng.uniform(0.68, 0.8) * form.wide, rng.uniform(0.25, 0.35)
    style, board = rng.integers(3), 0.05
    cover = box(board, width, height)
    opened = rng.uniform(22, 38) if style == 1 else 0.0
    hinge = -width / 2

    def swing(mesh: Mesh, degrees: float) -> Mesh:
        """Turn about the spine's edge, the front cover's side opening towards the front."""
        return move(turn(move(mesh, y=-hinge), "z", -degrees), y=hinge)

    front = swing(move(cover, thick / 2 - board / 2), opened)
    spine = scale(cylinder(thick / 2, height, 20), (1, 0.35, 1))
    covers = [front, move(cover, board / 2 - thick / 2), move(spine, y=hinge)]
    leaf = move(box(thick - 2 * board + 0.01, width - 0.05, height - 0.06), y=-0.01, z=0.03)
    pages = [leaf]
    if opened:
        sheet = move(box(0.03, width - 0.1, height - 0.12), thick / 2 - board, -0.02, 0.06)
        pages += [swing(sheet, opened * at) for at in (0.3, 0.6, 0.85)]
    out = thick / 2 + 0.002
    kind = rng.integers(3)
    if kind == 0:
        title = [move(box(0.03, width * 0.6, height * 0.22), out - 0.015, 0.03, height * 0.6)]
    elif kind == 1:
        title = [move(turn(cylinder(width * 0.24, 0.03, 20), "y", 90), out - 0.015, 0.03, height * 0.58)]
    else:
        title = [move(box(0.03, width * 0.64, 0.09), out - 0.015, 0.03, height * at) for at in (0.74, 0.6)]
    bands = [move(scale(cylinder(thick / 2 + 0.012, 0.07, 20), (1, 0.4, 1)), y=hinge, z=height * at) for at in (0.12, 0.78)]
    title = join(*(swing(mesh, opened) for mesh in title), *bands)
    parts = [("cover", join(*covers), "main"), ("pages", join(*pages), "pages"), ("title", title, "title")]
    if style == 2:
        parts = [(label, move(turn(mesh, "y", -90), height / 2, z=thick / 2), slot) for label, mesh, slot in parts]
    return [Piece(label, mesh, slot, smooth=False) for label, mesh, slot in parts]


def umbrella(rng: Rng, form: Form) -> list[Piece]:
    """An open umbrella of six or eight scalloped panels on a stick with a hooked handle."""
    radius, rise, count = (
        rng.uniform(0.56, 0.64) * form.wide,
        rng.uniform(0.3, 0.42) * form.tall**0.5,
        int(rng.integers(3, 5)) * 2,
    )
    length, step = rng.uniform(0.78, 0.88) * form.tall, np.pi / count
    v = np.linspace(0, 1, 7)
    out, up = radius * np.sin(v * 1.25) / np.sin(1.25), rise * (np.cos(v * 1.25) - np.cos(1.25)) / (1 - np.cos(1.25))
    rib = np.stack([out * np.cos(step), out * np.sin(step), up], 1)
    middle = np.stack([out * (1 - 0.1 * v**2) * np.cos(step), 0 * v, up + 0.05 * v**2], 1)
    sunk, inner = np.array([0, 0, 0.035]) * v[:, None], (0.95, 0.95, 1)
    half = loft(np.stack([(middle - sunk) * inner, (rib - sunk) * inner, rib, middle], 1))
    panel = join(half, scale(half, (1, -1, 1)))
    base = length - rise * 0.15
    panels = [move(turn(panel, "z", 360 / count * (i + 0.5)), z=base) for i in range(count)]
    hook = rng.uniform(0.1, 0.13)
    bow = arc(hook, 0, -200, 14)
    path = [(hook, 0.0, 0.3), (hook, 0.0, 0.15), *map(tuple, bow.tolist())]
    grip = move(turn(tube(path, 0.045, 10), "z", 90), y=-hook, z=hook + 0.045)
    stick = move(cylinder(0.028, base + rise * 0.95 - 0.3, 10), z=0.3)
    tip = move(cylinder(0.04, 0.13, 10, 0.025), z=base + rise - 0.02)
    canopy = [join(*panels)] if rng.random() < 0.5 else [join(*panels[::2]), join(*panels[1::2])]
    pieces = [
        Piece("canopy", canopy[0], smooth=False),
        Piece("stick", stick, "stick"),
        Piece("handle", grip, "handle"),
        Piece("tip", tip, "stick"),
    ]
    return pieces + [Piece("panels", mesh, "panels", smooth=False) for mesh in canopy[1:]]


def carton(rng: Rng, form: Form) -> list[Piece]:
    """An open cardboard box: four walls, and four flaps folded outwards."""
    width, depth, height = rng.uniform(0.7, 0.85) * form.wide, rng.uniform(0.6, 0.75), rng.uniform(0.48, 0.6) * form.tall
    wall = 0.045
    ends = pair(move(box(depth, wall, height), y=(width - wall) / 2))
    side = box(wall, width, height)
    walls = join(ends, move(side, (depth - wall) / 2), move(side, (wall - depth) / 2), box(depth, width, wall))
    flaps = []
    for size, reach, angle in ((width, depth / 2, 0), (width, depth / 2, 180), (depth, width / 2, 90), (depth, width / 2, 270)):
        flap = move(
            turn(box(wall, size - 0.03, reach * rng.uniform(0.55, 0.7)), "y", rng.uniform(95, 140)),
            reach - wall * 0.6,
            z=height - 0.02,
        )
        flaps.append(turn(flap, "z", angle))
    pieces = [Piece("box", walls, smooth=False), Piece("flaps", join(*flaps), smooth=False)]
    style = rng.integers(3)
    if style == 0:
        hole = move(box(wall + 0.012, 0.22, 0.09), (depth - wall) / 2, z=height * 0.55)
        pieces.append(Piece("holes", join(hole, turn(hole, "z", 180)), "holes", smooth=False))
    elif style == 1:
        pieces.append(
            Piece(
                "label",
                move(box(0.02, width * 0.4, height * 0.4), depth / 2, -width * 0.1, height * 0.2),
                "label",
                smooth=False,
            )
        )
    return pieces


def bucket(rng: Rng, form: Form) -> list[Piece]:
    """A pail, wider at the top, with a rim, hoops and a bail over it."""
    top, height = rng.uniform(0.38, 0.44) * form.wide, rng.uniform(0.62, 0.74) * form.tall
    profile = [(top * rng.uniform(0.66, 0.78), 0.0), (top, height)]
    pail = vessel(profile, 0.045)
    hoops = [belt(profile, height - 0.07, height + 0.02, 0.03)]
    if rng.random() < 0.6:
        hoops += [belt(profile, height * z, height * z + 0.07, 0.016) for z in ((0.08, 0.55) if rng.random() < 0.5 else (0.4,))]
    path = arc(top + 0.01, 0, 180, 18)
    swung = rng.uniform(-12, 12) if rng.random() < 0.6 else rng.uniform(35, 55)
    path = np.stack([0 * path[:, 0], path[:, 0], path[:, 2] * rng.uniform(0.9, 1.1)], 1)
    bail = join(tube(path, 0.034, 9), move(turn(cylinder(0.06, 0.22, 12), "x", 90), y=0.11, z=float(path[:, 2].max())))
    bail = move(turn(bail, "y", swung), z=height - 0.03)
    ears = pair(move(sphere(0.065, 10), y=top + 0.015, z=height - 0.04))
    return [Piece("pail", pail), Piece("hoops", join(*hoops), "hoops"), Piece("handle", join(bail, ears), "handle")]


KINDS: tuple[Kind, ...] = (
    Kind(
        "candle",
        candle,
        {
            "main": ("white", "cream", "red", "ivory", "purple", "blue", "green"),
            "holder": ("golden", "silver", "dark", "turquoise", "terracotta"),
            "wick": ("dark",),
            "flame": ("yellow", "orange"),
        },
        accents={"holder": "holder"},
    ),
    Kind(
        "clock",
        clock,
        {
            "main": ("red", "wooden", "blue", "brown", "turquoise", "green", "golden", "pink"),
            "face": ("white", "ivory", "cream"),
            "hands": ("black", "dark"),
            "trim": ("golden", "silver", "steel"),
        },
        accents={"face": "face"},
        forms=(),
        front=True,
    ),
    Kind(
        "book",
        book,
        {
            "main": ("red", "blue", "green", "brown", "purple", "navy", "orange", "rust"),
            "pages": ("white", "ivory", "cream"),
            "title": ("golden", "cream", "yellow", "silver"),
        },
        accents={"pages": "pages"},
        forms=("tall", "wide"),
        front=True,
    ),
    Kind(
        "umbrella",
        umbrella,
        {
            "main": ("red", "blue", "yellow", "green", "purple", "pink", "turquoise", "orange"),
            "panels": ("white", "cream", "yellow"),
            "stick": ("steel", "dark"),
            "handle": ("wooden", "brown", "dark"),
        },
        accents={"handle": "handle"},
        forms=("wide", "tall"),
    ),
    Kind(
        "box",
        carton,
        {"main": ("tan", "sand", "brown", "tan"), "label": ("white", "cream", "red"), "holes": ("dark",)},
        forms=("tall", "short", "wide"),
        plural="boxes",
        synonyms=("cardboard box", "carton"),
        container=True,
    ),
    Kind(
        "bucket",
        bucket,
        {
            "main": ("silver", "red", "blue", "yellow", "green", "wooden", "turquoise"),
            "hoops": ("dark", "golden", "white", "gray"),
            "handle": ("steel", "wooden", "dark", "golden"),
        },
        accents={"handle": "handle"},
        synonyms=("pail",),
        container=True,
    ),
)
