"""Buildings that are seen from afar, and a tent. Their doors are on +x and they stand on z = 0."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.buildings import DARK, archway, placed, ring_of
from rl3d.toybox.shapes import (
    Mesh,
    box,
    cone,
    cylinder,
    dome,
    facade,
    join,
    lathe,
    move,
    rod,
    rounded_box,
    scale,
    sphere,
    torus,
    tube,
    turn,
)
from rl3d.toybox.things import ALL_FORMS, Form, Kind, Piece, Rng


def windmill(rng: Rng, form: Form) -> list[Piece]:
    """A round, eight-sided or boarded mill with four big blades on its front."""
    shape = rng.choice(["round", "eight", "post"])
    height = rng.uniform(0.7, 0.8) * form.tall
    base, top = rng.uniform(0.23, 0.27) * form.wide, rng.uniform(0.15, 0.175) * form.wide
    n = 8 if shape == "eight" else 28
    pieces = []
    if shape == "post":
        foot = 0.3 * height
        shed = box(1.9 * top, 1.9 * top, height - foot + 0.08)
        half, rise = top, 0.2
        gable = move(facade([(-0.95 * top, 0), (0.95 * top, 0), (0, rise)], 1.9 * top), x=-0.95 * top, z=height + 0.08)
        chevron = [
            (-half - 0.05, -0.05),
            (0, rise),
            (half + 0.05, -0.05),
            (half + 0.05, 0.0),
            (0, rise + 0.06),
            (-half - 0.05, 0.0),
        ]
        cap = move(facade(chevron, 2.3 * top), x=-1.15 * top, z=height + 0.08)
        pieces += [
            Piece("base", cylinder(1.35 * top, foot + 0.01, 24, top=0.7 * top), "trim"),
            Piece("wall", join(move(shed, z=foot), gable), smooth=False),
            Piece("cap", cap, "cap", False),
        ]
        face, door_z = 0.95 * top, foot
        hub_z = height - 0.02
    else:
        wall = lathe([(0, 0), (base, 0), (base - 0.5 * (base - top), 0.5 * height), (top, height), (0, height)], n)
        pieces.append(Piece("wall", turn(wall, "z", 180 / n), smooth=shape == "round"))
        style = rng.choice(["dome", "cone"])
        cap = dome(1.12 * top, 0.17, 24) if style == "dome" else cone(1.25 * top, 0.26, 24)
        pieces.append(Piece("cap", move(join(cap, move(cylinder(1.12 * top, 0.04, 24), z=-0.03)), z=height), "cap"))
        face, door_z = base, 0.0
        hub_z = height + 0.03
        if shape == "eight" or rng.random() < 0.3:
            ring = move(cylinder(base - 0.35 * (base - top) + 0.08, 0.045, 24), z=0.36 * height)
            pieces.append(Piece("gallery", ring, "trim", False))
    door_high = min(0.24, 0.3 * height)
    pieces.append(Piece("door", move(archway(0.15, door_high, 0.1), face - 0.01, 0, door_z), "door", False))
    if shape != "post":
        middle = base - 0.52 * (base - top)
        places = [
            (middle * np.cos(a), middle * np.sin(a), 0.48 * height, float(np.degrees(a))) for a in np.radians([90, 180, 270])
        ]
        pieces.append(Piece("window", placed(box(0.06, 0.1, 0.13), places), "windows", False))
    x = (1.15 if shape == "post" else 1.3) * top + 0.04
    reach, wide = min(rng.uniform(0.46, 0.54), hub_z - 0.06), rng.uniform(0.15, 0.18)
    spar = move(rounded_box(0.05, 0.045, reach, 0.01, 1), x=0.015)
    offset = 0.3 if rng.random() < 0.5 else 0.0
    cloth = move(box(0.035, wide, 0.72 * reach), 0, offset * wide, 0.26 * reach)
    rungs = [move(box(0.055, wide, 0.022), 0.004, offset * wide, f * reach) for f in (0.27, 0.62, 0.96)]
    spin, tilt = rng.uniform(0, 90), rng.uniform(0, 6)

    def cross(*meshes: Mesh) -> Mesh:
        star = join(*(turn(mesh, "x", spin + 90 * i) for mesh in meshes for i in range(4)))
        return move(turn(star, "y", -tilt), x, 0, hub_z)

    axle = move(turn(cylinder(0.05, x + 0.03, 14), "y", 90), 0, 0, hub_z)
    hub = move(sphere(0.065, 14), x + 0.02, 0, hub_z)
    pieces += [
        Piece("blade", cross(cloth), "blades", False),
        Piece("spar", cross(spar, *rungs), "spars", False),
        Piece("hub", join(axle, hub), "spars"),
    ]
    return pieces


def lighthouse(rng: Rng, form: Form) -> list[Piece]:
    """A slender banded tower with a railed gallery and a glowing lantern under a cap."""
    height, base = rng.uniform(0.72, 0.82) * form.tall, rng.uniform(0.17, 0.2) * form.wide
    top = base * rng.uniform(0.58, 0.68)
    n = 8 if rng.random() < 0.3 else 28
    flat = n == 8

    def radius(h: float) -> float:
        return base + (top - base) * h

    foot = 0.05
    shaft = lathe([(0, foot), (base, foot), (top, foot + height), (0, foot + height)], n)
    pieces = [Piece("wall", shaft, smooth=not flat)]
    if rng.random() < 0.5:
        rock = lathe([(0, 0), (1.9 * base, 0), (1.7 * base, 0.07), (1.3 * base, 0.12), (0, 0.12)], 9)
    else:
        rock = lathe([(0, 0), (1.35 * base, 0), (1.35 * base, 0.07), (0, 0.07)], n)
    pieces.append(Piece("base", rock, "base", False))
    if rng.random() < 0.3 and not flat:
        around, levels = 2.2, 64
        path = [
            ((radius(h) - 0.035) * np.cos(a), (radius(h) - 0.035) * np.sin(a), foot + height * h)
            for h, a in zip(np.linspace(0.1, 0.93, levels), np.linspace(0, around * 2 * np.pi, levels), strict=True)
        ]
        pieces.append(Piece("stripe", scale(tube(np.array(path) / (1, 1, 2), 0.05, 8), (1, 1, 2)), "stripes"))
    else:
        count = int(rng.integers(2, 4))
        pitch = 1 / (2 * count)
        bands = []
        for i in range(count):
            low, high = (2 * i + 0.75) * pitch, (2 * i + 1.6) * pitch
            ring = [(0, low), (radius(low) + 0.008, low), (radius(high) + 0.008, high), (0, high)]
            bands.append(lathe([(r, foot + height * h) for r, h in ring], n))
        pieces.append(Piece("stripe", join(*bands), "stripes", not flat))
    z = foot + height
    room, glow = 0.72 * top, 0.15 * (0.5 + 0.5 * form.tall)
    deck = lathe([(0, -0.06), (top, -0.06), (1.5 * top, 0), (1.5 * top, 0.04), (0, 0.04)], 24)
    rail = move(torus(1.42 * top, 0.02, 20, 6), z=0.11)
    posts = ring_of(move(cylinder(0.018, 0.1, 6), 1.42 * top, 0, 0.02), 8)
    bars = ring_of(move(box(0.03, 0.03, glow), room, 0, 0.03), 6)
    pieces += [
        Piece("gallery", move(deck, z=z)),
        Piece("railing", move(join(rail, posts, bars), z=z), "gallery"),
        Piece("lantern", move(cylinder(room, glow, 20), z=z + 0.03), "lantern"),
    ]
    style = rng.choice(["dome", "cone"])
    cap = dome(1.3 * room, 0.11, 20) if style == "dome" else cone(1.4 * room, 0.16, 20)
    knob = move(sphere(0.03, 10), z=0.12 if style == "dome" else 0.165)
    pieces.append(Piece("roof", move(join(cap, knob), z=z + 0.03 + glow - 0.005), "roof"))
    pieces.append(Piece("door", move(archway(0.14, 0.22, 0.08), base - 0.015, 0, 0.06), "door", False))
    if rng.random() < 0.7:
        places = [
            (radius(h) * np.cos(a) - 0.005, radius(h) * np.sin(a), foot + height * h, float(np.degrees(a)))
            for h, a in ((0.45, 0.0), (0.7, 0.0), (0.45, np.pi / 2), (0.7, -np.pi / 2), (0.55, np.pi))
        ]
        pieces.append(Piece("window", placed(archway(0.07, 0.1, 0.05), places), "windows", False))
    if rng.random() < 0.3:
        wide = 0.3
        hut = facade([(-0.13, 0), (0.13, 0), (0.13, 0.15), (0, 0.24), (-0.13, 0.15)], wide)
        lid = facade([(-0.16, 0.12), (0, 0.235), (0.16, 0.12), (0.16, 0.16), (0, 0.28), (-0.16, 0.16)], wide + 0.06)
        spin = float(rng.choice([90, 270]))
        pieces.append(Piece("hut", turn(move(hut, base - 0.05, 0, 0.03), "z", spin), smooth=False))
        pieces.append(Piece("hut roof", turn(move(lid, base - 0.05, 0, 0.03), "z", spin), "roof", False))
    return pieces


def tent(rng: Rng, form: Form) -> list[Piece]:
    """A ridge tent, a domed tent or a tipi, open to the front."""
    shape = rng.choice(["ridge", "ridge", "dome", "tipi"])
    if shape == "ridge":
        half, high, long = rng.uniform(0.36, 0.44) * form.wide, rng.uniform(0.52, 0.62) * form.tall, rng.uniform(0.72, 0.9)
        sag = rng.uniform(0.0, 0.05)
        wall = rng.choice([0.0, 0.12]) * form.tall
        foot = half if wall == 0 else 0.92 * half
        outline = [(-foot, 0), (foot, 0), (half, wall), (0.5 * half - sag, 0.5 * (wall + high) - sag), (0, high)]
        outline += [(-0.5 * half + sag, 0.5 * (wall + high) - sag), (-half, wall)]
        if wall == 0:
            outline = [p for i, p in enumerate(outline) if i not in (2, 6)]
        body = move(facade(outline, long), x=-long / 2)
        front, gap, peak = long / 2, 0.5 * half, 0.8 * high
        opening = move(facade([(-gap, 0), (gap, 0), (0, peak)], 0.03), x=front - 0.015)
        flaps = []
        for side in (-1, 1):
            flap = [(0, 0), (0.62 * gap, 0), (0.0, 0.86 * peak)]
            flap = turn(move(facade(flap, 0.03)), "z", -58)
            hinge = move(flap, front, 0.62 * gap)
            flaps.append(scale(hinge, (1, side, 1)))
        poles = [rod((x, 0, 0), (x, 0, high + 0.09), 0.024, n=10) for x in (-long / 2, long / 2)]
        ridge = rod((-long / 2 - 0.05, 0, high), (long / 2 + 0.05, 0, high), 0.03, n=10)
        hems = [move(box(long + 0.01, 0.06, 0.05), 0, s * (foot - 0.015)) for s in (-1, 1)]
        return [
            Piece("canvas", body, smooth=False),
            Piece("opening", opening, "opening", False),
            Piece("flap", join(*flaps), "flaps", False),
            Piece("pole", join(*poles, ridge), "poles"),
            Piece("hem", join(*hems), "flaps", False),
        ]
    if shape == "dome":
        rx, ry, high = rng.uniform(0.42, 0.48), rng.uniform(0.44, 0.5) * form.wide, rng.uniform(0.42, 0.5) * form.tall
        angle = np.radians(np.linspace(3, 177, 25))
        arch = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1)
        hoops = [scale(turn(tube(arch, 0.045, 8), "z", a), (rx, ry, high)) for a in (45, -45)]
        gate = np.radians(np.linspace(0, 180, 15))
        outline = np.stack([0.5 * ry * np.cos(gate), 0.74 * high * np.sin(gate)], 1)
        hood = np.stack([0.62 * ry * np.cos(gate), 0.84 * high * np.sin(gate)], 1)
        return [
            Piece("canvas", scale(dome(1, 1, 24), (rx, ry, high))),
            Piece("pole", join(*hoops), "poles"),
            Piece("porch", move(facade(hood, 0.3), x=rx - 0.28), "flaps", False),
            Piece("opening", move(facade(outline, 0.3), x=rx - 0.265), "opening", False),
        ]
    radius, high = rng.uniform(0.36, 0.42) * form.wide, rng.uniform(0.72, 0.82) * form.tall
    tip = 0.06
    hide = lathe([(0, 0), (radius, 0), (tip, high), (0, high)], 14)
    poles = []
    for a in np.radians(np.arange(0, 360, 60) + rng.uniform(0, 60)):
        reach = 0.13
        poles.append(
            rod(
                (0.06 * np.cos(a), 0.06 * np.sin(a), high - 0.12),
                (-reach * np.cos(a), -reach * np.sin(a), high + 0.17),
                0.02,
                n=8,
            )
        )
    slope = np.degrees(np.arctan2(radius - tip, high))
    hole = move(facade([(-0.14, 0), (0.14, 0), (0, 0.52 * high)], 0.06), x=-0.03)
    flap = turn(facade([(0, 0), (0.17, 0), (0, 0.5 * high)], 0.03), "z", -50)
    flaps = [scale(move(flap, 0.0, 0.11), (1, s, 1)) for s in (-1, 1)]
    bands = []
    for low, wide in ((0.2, 0.07), (0.62, 0.09))[: int(rng.integers(1, 3))]:
        r = [radius + (tip - radius) * h + 0.008 for h in (low, low + wide)]
        bands.append(lathe([(0, low * high), (r[0], low * high), (r[1], (low + wide) * high), (0, (low + wide) * high)], 14))
    return [
        Piece("canvas", hide, smooth=False),
        Piece("band", join(*bands), "flaps", False),
        Piece("opening", move(turn(hole, "y", -slope), x=radius - 0.01, z=0.02), "opening", False),
        Piece(
            "flap", move(turn(join(*flaps), "y", -slope), x=radius, z=0.005 + 0.15 * np.sin(np.radians(slope))), "flaps", False
        ),
        Piece("pole", join(*poles), "poles"),
    ]


KINDS: tuple[Kind, ...] = (
    Kind(
        "windmill",
        windmill,
        {
            "main": ("white", "cream", "stone", "terracotta", "tan", "brown"),
            "cap": ("red", "brown", "gray", "navy", "green"),
            "blades": ("white", "cream", "ivory", "red"),
            "spars": ("brown", "bark", "dark"),
            "trim": ("brown", "stone", "bark"),
            "door": ("brown", "green", "blue"),
            "windows": DARK,
        },
        accents={"blades": "blades", "cap": "cap"},
        forms=("tall", "short"),
        front=True,
        loose=False,
    ),
    Kind(
        "lighthouse",
        lighthouse,
        {
            "main": ("white", "white", "cream"),
            "stripes": ("red", "red", "navy", "black"),
            "gallery": ("dark", "gray"),
            "lantern": ("yellow",),
            "roof": ("red", "dark", "green"),
            "base": ("stone", "gray", "sand"),
            "door": ("brown", "green", "blue"),
            "windows": DARK,
        },
        accents={"stripes": "stripes", "roof": "roof"},
        forms=ALL_FORMS,
        front=True,
        loose=False,
    ),
    Kind(
        "tent",
        tent,
        {
            "main": ("orange", "green", "cream", "blue", "red", "yellow"),
            "flaps": ("cream", "yellow", "terracotta", "leaf"),
            "opening": ("dark",),
            "poles": ("bark", "wooden", "brown"),
        },
        forms=ALL_FORMS,
        front=True,
        loose=False,
    ),
)
