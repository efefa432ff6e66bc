"""Buildings and a tent. Their doors are on +x and they stand on z = 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    Points2,
    box,
    cone,
    cylinder,
    dome,
    extrude,
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
from rl3d.toybox.things import Form, Kind, Piece, Rng

Place = tuple[float, float, float, float]
"""Where something faces outwards: x, y, z and the degrees that it is turned about z."""


def _front(outline: Points2, depth: float) -> Mesh:
    """Sweep a front view, (y, z) counter-clockwise, from x = 0 to ``depth``."""
    return turn(turn(extrude(outline, depth), "x", 90), "z", 90)


def _arch(width: float, height: float, depth: float = 0.05) -> Mesh:
    """A round-headed slab that faces +x, its middle plane at x = 0: a door, or a window."""
    angle = np.radians(np.linspace(0, 180, 11))
    head = np.stack([width / 2 * np.cos(angle), height - width / 2 + width / 2 * np.sin(angle)], 1)
    return move(_front(np.concatenate([[(-width / 2, 0), (width / 2, 0)], head]), depth), x=-depth / 2)


def _at(mesh: Mesh, places: Sequence[Place]) -> Mesh:
    """Copies of a mesh at these places."""
    return join(*(move(turn(mesh, "z", degrees), x, y, z) for x, y, z, degrees in places))


def _around(mesh: Mesh, count: int, first: float = 0.0) -> Mesh:
    """Copies of a mesh turned about the z axis, evenly."""
    return join(*(turn(mesh, "z", first + 360 * i / count) for i in range(count)))


def _windows(width: float, height: float, places: Sequence[Place]) -> list[Piece]:
    """Square windows with a frame and a cross of bars."""
    frame = move(box(0.05, width + 0.06, height + 0.06), z=-0.03)
    bars = join(box(0.075, 0.022, height), move(box(0.075, width, 0.022), z=height / 2 - 0.011))
    pane = box(0.065, width, height)
    return [
        Piece("window frame", _at(join(frame, bars), places), "trim", False),
        Piece("window", _at(pane, places), "windows", False),
    ]


def _flag(x: float, y: float, z: float, rise: float = 0.2) -> list[Piece]:
    cloth = move(turn(_front([(0, 0), (0.16, 0.055), (0, 0.11)], 0.035), "z", 30), 0, 0, rise - 0.12)
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
        walls = _front([(-half, 0), (half, 0), (half, height), (0, top), (-half, height)], run)
        chevron = [(-out, low), (0, top), (out, low), (out, low + thick), (0, top + 1.3 * thick), (-out, low + thick)]
        roof = move(_front(chevron, run + 2 * eave), x=-eave)
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
    return lathe(profile, n), _around(merlon, count)


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
    pieces.append(Piece("door frame", move(_arch(wide + 0.07, tall + 0.035, 0.1), face), "trim", False))
    pieces.append(Piece("door", move(_arch(wide, tall, 0.13), face), "door", False))
    slit = _arch(0.075, 0.17 * min(form.tall, 1.2), 0.06)
    levels = [0.46, 0.68] if rng.random() < 0.6 and height > 0.6 else [0.56]
    places = []
    for i, level in enumerate(levels):
        for angle in (0, 90, 180, 270):
            spin = angle + (45 if i % 2 and not square else 0)
            reach = radius * ((1.05 - 0.07 * level) if square else 0.98) - 0.005
            a = np.radians(spin)
            places.append((reach * np.cos(a), reach * np.sin(a), level * height, float(spin)))
    pieces.append(Piece("window", _at(slit, places), "windows", False))
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
        Piece("gate", move(_arch(0.17, tall_gate, 0.06), hx + 0.07), "gate", False),
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
    slit = _arch(0.065, 0.13 * min(1.2, form.tall), 0.04)
    places = [
        (x + radius * np.cos(a) * 0.97, y + radius * np.sin(a) * 0.97, 0.6 * rise, np.degrees(a))
        for x, y in corners
        for a in ((0 if x > 0 else np.pi), (np.pi / 2 if y > 0 else -np.pi / 2))
    ]
    pieces.append(Piece("window", _at(slit, [tuple(map(float, p)) for p in places]), "windows", False))  # pyright: ignore[reportArgumentType]
    if rng.random() < 0.6:
        for x, y, z in flags:
            pieces += _flag(x, y, z, 0.19)
    return pieces


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
        gable = move(_front([(-0.95 * top, 0), (0.95 * top, 0), (0, rise)], 1.9 * top), x=-0.95 * top, z=height + 0.08)
        chevron = [
            (-half - 0.05, -0.05),
            (0, rise),
            (half + 0.05, -0.05),
            (half + 0.05, 0.0),
            (0, rise + 0.06),
            (-half - 0.05, 0.0),
        ]
        cap = move(_front(chevron, 2.3 * top), x=-1.15 * top, z=height + 0.08)
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
    pieces.append(Piece("door", move(_arch(0.15, door_high, 0.1), face - 0.01, 0, door_z), "door", False))
    if shape != "post":
        middle = base - 0.52 * (base - top)
        places = [
            (middle * np.cos(a), middle * np.sin(a), 0.48 * height, float(np.degrees(a))) for a in np.radians([90, 180, 270])
        ]
        pieces.append(Piece("window", _at(box(0.06, 0.1, 0.13), places), "windows", False))
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
    posts = _around(move(cylinder(0.018, 0.1, 6), 1.42 * top, 0, 0.02), 8)
    bars = _around(move(box(0.03, 0.03, glow), room, 0, 0.03), 6)
    pieces += [
        Piece("gallery", move(deck, z=z)),
        Piece("railing", move(join(rail, posts, bars), z=z), "gallery"),
        Piece("lantern", move(cylinder(room, glow, 20), z=z + 0.03), "lantern"),
    ]
    style = rng.choice(["dome", "cone"])
    cap = dome(1.3 * room, 0.11, 20) if style == "dome" else cone(1.4 * room, 0.16, 20)
    knob = move(sphere(0.03, 10), z=0.12 if style == "dome" else 0.165)
    pieces.append(Piece("roof", move(join(cap, knob), z=z + 0.03 + glow - 0.005), "roof"))
    pieces.append(Piece("door", move(_arch(0.14, 0.22, 0.08), base - 0.015, 0, 0.06), "door", False))
    if rng.random() < 0.7:
        places = [
            (radius(h) * np.cos(a) - 0.005, radius(h) * np.sin(a), foot + height * h, float(np.degrees(a)))
            for h, a in ((0.45, 0.0), (0.7, 0.0), (0.45, np.pi / 2), (0.7, -np.pi / 2), (0.55, np.pi))
        ]
        pieces.append(Piece("window", _at(_arch(0.07, 0.1, 0.05), places), "windows", False))
    if rng.random() < 0.3:
        wide = 0.3
        hut = _front([(-0.13, 0), (0.13, 0), (0.13, 0.15), (0, 0.24), (-0.13, 0.15)], wide)
        lid = _front([(-0.16, 0.12), (0, 0.235), (0.16, 0.12), (0.16, 0.16), (0, 0.28), (-0.16, 0.16)], wide + 0.06)
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
        body = move(_front(outline, long), x=-long / 2)
        front, gap, peak = long / 2, 0.5 * half, 0.8 * high
        opening = move(_front([(-gap, 0), (gap, 0), (0, peak)], 0.03), x=front - 0.015)
        flaps = []
        for side in (-1, 1):
            flap = [(0, 0), (0.62 * gap, 0), (0.0, 0.86 * peak)]
            flap = turn(move(_front(flap, 0.03)), "z", -58)
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
            Piece("porch", move(_front(hood, 0.3), x=rx - 0.28), "flaps", False),
            Piece("opening", move(_front(outline, 0.3), x=rx - 0.265), "opening", False),
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
    hole = move(_front([(-0.14, 0), (0.14, 0), (0, 0.52 * high)], 0.06), x=-0.03)
    flap = turn(_front([(0, 0), (0.17, 0), (0, 0.5 * high)], 0.03), "z", -50)
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


STONE = ("stone", "gray", "sand", "tan")
FLAG = {"flagpole": ("bark", "dark"), "flag": ("red", "blue", "yellow", "purple")}
DARK = ("dark", "navy")
ALL_FORMS = ("tall", "short", "wide", "narrow")

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
