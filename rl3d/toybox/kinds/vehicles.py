"""Things that drive on wheels. They head along +x and stand on z = 0; wheels stay round whatever the form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rl3d.toybox.shapes import (
    Mesh,
    Points2,
    box,
    capsule,
    cylinder,
    ellipsoid,
    extrude,
    join,
    lathe,
    loft,
    move,
    rod,
    rounded_box,
    scale,
    slab,
    sphere,
    turn,
    twins,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng

PAINTS = ("red", "blue", "yellow", "green", "orange", "turquoise", "white")
LAMPS = ("yellow", "cream", "white")


def softened(outline: Points2, radius: float) -> Float[ndarray, "m 2"]:
    """Round a polygon's corners, with three points each; short edges get smaller roundings."""
    points = np.asarray(outline, float)
    rounded = []
    for before, corner, after in zip(np.roll(points, 1, 0), points, np.roll(points, -1, 0), strict=True):
        a, b = (corner + (p - corner) * min(0.45, radius / np.linalg.norm(p - corner)) for p in (before, after))
        rounded += [a, (a + 2 * corner + b) / 4, b]
    return np.array(rounded)


def _body(outline: Points2, width: float, bevel: float = 0.04) -> Mesh:
    """Sweep a convex side view, (x, z) counter-clockwise, across y, with rounded flanks."""
    outline = np.asarray(outline, float)
    low, high = outline.min(0), outline.max(0)
    centre, half = (low + high) / 2, (high - low) / 2
    levels = [(bevel, 0), (bevel * 0.3, bevel * 0.3), (0, bevel)]
    levels += [(inset, width - depth) for inset, depth in levels[::-1]]
    rings = []
    for inset, depth in levels:
        xz = centre + (outline - centre) * (half - inset) / half
        rings.append(np.column_stack([xz[:, 0], np.full(len(xz), width / 2 - depth), xz[:, 1]]))
    return loft(np.stack(rings))


def _strip(line: Points2, width: float, thickness: float = 0.03) -> Mesh:
    """Lay a band of this thickness along a line in the side view, (x, z): a windscreen on its slope."""
    line = np.asarray(line, float)
    tangent = np.gradient(line, axis=0)
    normal = tangent[:, ::-1] * (-1, 1) / np.linalg.norm(tangent, axis=1, keepdims=True) * thickness / 2
    return slab(np.concatenate([line - normal, (line + normal)[::-1]]), width)


def _between(
    a: Sequence[float] | Float[ndarray, "2"], b: Sequence[float] | Float[ndarray, "2"], *where: float
) -> Float[ndarray, "k 2"]:
    """Points at these fractions of the way from a to b."""
    return np.asarray(a, float) + np.array(where)[:, None] * np.subtract(b, a)


def _wheels(axles: Sequence[float], radius: float, width: float, track: float) -> list[Piece]:
    """Tyres and hubs of pairs of wheels at these x; ``track`` is the distance between their outer faces."""
    tyre = [(0, -width), (0.8, -width), (1, -0.8 * width), (1, -0.2 * width), (0.8, 0), (0, 0)]
    tyre = lathe([(radius * r, z) for r, z in tyre], 20)
    hub = move(cylinder(0.55 * radius, 0.06, 16), z=-0.045)
    sides = [(x, side) for x in axles for side in (-1, 1)]
    pieces = []
    for label, mesh, slot in (("wheel", tyre, "wheels"), ("hub", hub, "hubs")):
        faces = [move(turn(mesh, "x", -90 * side), x, side * track / 2, radius) for x, side in sides]
        pieces.append(Piece(label, join(*faces), slot))
    return pieces


def _lights(front: float, back: float, y: float, z: float, radius: float) -> list[Piece]:
    bulb = ellipsoid(0.5 * radius, radius, radius, 12)
    tail = rounded_box(0.05, 1.3 * radius, 1.6 * radius, 0.02, 2)
    return [
        Piece("headlight", twins(bulb, front, y, z), "lights"),
        Piece("tail light", twins(tail, back, y, z - 0.8 * radius), "tail lights"),
    ]


def car(rng: Rng, form: Form) -> list[Piece]:
    """A saloon, a hatchback or a round beetle."""
    shape = rng.choice(["saloon", "hatchback", "beetle"])
    radius, width = rng.uniform(0.12, 0.14), rng.uniform(0.46, 0.54) * form.wide
    half = rng.uniform(0.5, 0.56) if shape == "saloon" else rng.uniform(0.43, 0.5)
    floor, belt = 0.09, 0.09 + rng.uniform(0.235, 0.265)
    top = belt + rng.uniform(0.2, 0.25) * form.tall
    nose = rng.uniform(0.02, 0.045)
    if shape == "beetle":
        angle = np.radians(np.linspace(0, 180, 17))
        lower = np.stack([half * np.cos(angle), floor + (belt + 0.05 - floor) * np.sin(angle) ** 0.55], 1)
        cabin = np.stack([0.72 * half * np.cos(angle) - 0.06, belt - 0.05 + (top - belt + 0.06) * np.sin(angle)], 1)
        front, rear = cabin[3:6], cabin[11:14]
        panes = np.array([(-0.32, 0.35), (-0.2, 0.84), (0.08, 0.84), (0.22, 0.35)]) * (half / 0.48, top - belt) + (
            0,
            belt - 0.02,
        )
    else:
        lower = softened([(-half, floor), (half, floor), (half, belt - nose), (-half, belt - 0.3 * nose)], 0.07)
        back = -half + (rng.uniform(0.2, 0.26) if shape == "saloon" else 0.02)
        x1 = half - rng.uniform(0.2, 0.28)
        rake = rng.uniform(0.11, 0.16)
        corners = [(back, belt - 0.03), (back + rng.uniform(0.06, 0.12), top), (x1 - rake, top), (x1, belt - 0.03)]
        cabin = softened(corners[::-1], 0.06)
        front, rear = _between(corners[3], corners[2], 0.22, 0.86), _between(corners[0], corners[1], 0.28, 0.86)
        middle = np.mean(corners, 0) + np.array([0, 0.01])
        panes = middle + (np.array(corners) - middle) * (0.8, 0.62)
    slope = 0.035 if shape == "beetle" else 0.0
    inner = width - 0.04
    split = rng.uniform(0.42, 0.55)
    halves = []
    for low, high in ((0.0, split - 0.05), (split + 0.05, 1.0)):
        pane = np.concatenate([_between(panes[0], panes[3], low, high), _between(panes[1], panes[2], high, low)])
        halves.append(slab(softened(pane, 0.03), inner + 0.015))
    pieces = [
        Piece("body", _body(lower, width, 0.05)),
        Piece("roof", _body(cabin, inner, 0.05)),
        Piece("window", join(*halves, _strip(front, 0.8 * inner), _strip(rear, 0.76 * inner)), "windows", False),
        *_wheels((-0.58 * half, 0.6 * half), radius, 0.13, width + 0.07),
        *_lights(half - slope, slope - half, 0.32 * width, belt - 0.1, 0.055),
    ]
    if shape == "beetle" or rng.random() < 0.6:
        bar = turn(capsule(0.035, 0.82 * width, 12), "x", 90)
        bars = [move(bar, x, 0.41 * width, floor + 0.05) for x in (half, -half)]
        pieces.append(Piece("bumper", join(*bars), "bumpers"))
    if shape == "beetle":
        arch = turn(move(cylinder(1.3 * radius, width + 0.03, 20), z=-(width + 0.03) / 2), "x", 90)
        pieces.append(Piece("mudguard", join(*(move(arch, x * half, 0, 1.3 * radius) for x in (-0.58, 0.6)))))
    return pieces


def truck(rng: Rng, form: Form) -> list[Piece]:
    """A cab in front of a box, a tipping bed or a tank."""
    load = rng.choice(["box", "bed", "tank"])
    radius, width = rng.uniform(0.12, 0.14), rng.uniform(0.42, 0.48) * form.wide
    half, deck = rng.uniform(0.54, 0.62), 0.2
    height = rng.uniform(0.34, 0.4) * form.tall
    cab_long, gap = rng.uniform(0.26, 0.31), 0.05
    back_of_cab = half - cab_long - (bonnet := rng.choice([0.0, 0.16]))
    roof = deck + height + (0.02 if load == "box" else 0.08 * form.tall)
    if load == "box":
        roof -= 0.1 * form.tall
    lean = rng.uniform(0.02, 0.07)
    x1 = back_of_cab + cab_long
    side = [(back_of_cab, 0.1), (x1, 0.1), (x1, deck + 0.45 * (roof - deck)), (x1 - lean, roof), (back_of_cab, roof)]
    screen = _between(side[2], side[3], 0.1, 0.82)
    pane = [
        (x1 - 0.19, screen[0, 1]),
        (x1 - 0.04, screen[0, 1]),
        (x1 - 0.04 - 0.7 * lean, screen[1, 1]),
        (x1 - 0.19, screen[1, 1]),
    ]
    windows = join(_strip(screen, 0.82 * width), slab(pane, width + 0.015))
    bed_long = back_of_cab - gap + half
    middle = -half + bed_long / 2
    pieces = [
        Piece("chassis", move(box(2 * half - 0.06, 0.7 * width, 0.08), z=0.13), "chassis", False),
        Piece("cab", _body(softened(side, 0.05), width, 0.035)),
        Piece("window", windows, "windows", False),
    ]
    if bonnet:
        hood = [(x1 - 0.05, 0.1), (half, 0.1), (half, deck + 0.36 * (roof - deck)), (x1 - 0.05, deck + 0.45 * (roof - deck))]
        pieces.append(Piece("bonnet", _body(softened(hood, 0.05), 0.8 * width, 0.03)))
    if load == "box":
        crate = rounded_box(bed_long, 1.04 * width, height + 0.12 * form.tall, 0.03, 2)
        pieces.append(Piece("box", move(crate, middle, 0, deck)))
        stripe = box(0.86 * bed_long, 1.04 * width + 0.02, 0.14 * form.tall)
        pieces.append(Piece("stripe", move(stripe, middle, 0, deck + 0.45 * height), "trim", False))
    elif load == "bed":
        wall, rise = 0.05, 0.62 * height
        lip = rise + rng.uniform(0.02, 0.1) * form.tall
        flank = [(-half, deck + 0.03), (-half + bed_long, deck + 0.03), (-half + bed_long, deck + lip), (-half, deck + rise)]
        sides = twins(slab(flank, wall), 0, 0.52 * width - wall / 2, 0)
        ends = join(
            move(box(wall, width, lip), -half + bed_long - wall / 2, 0, deck + 0.03),
            move(box(wall, width, rise), -half + wall / 2, 0, deck + 0.03),
            move(box(bed_long, width, 0.05), middle, 0, deck - 0.01),
        )
        heap = scale(sphere(1, 16), (0.44 * bed_long, 0.42 * width, 0.85 * rise))
        pieces += [
            Piece("bed", join(sides, ends), smooth=False),
            Piece("sand", move(heap, middle, 0, deck + 0.3 * rise), "load"),
        ]
        pieces.append(
            Piece(
                "rib",
                join(
                    *(move(box(0.05, 1.04 * width + 0.04, rise), -half + bed_long * f, 0, deck + 0.03) for f in (0.2, 0.5, 0.8))
                ),
                smooth=False,
            )
        )
    else:
        size = 0.5 * height + 0.03
        barrel = lathe([(0, 0), (0.7, 0), (0.92, 0.05), (1, 0.12), (1, 0.88), (0.92, 0.95), (0.7, 1), (0, 1)], 24)
        barrel = turn(scale(barrel, (size, 0.53 * width, bed_long)), "y", 90)
        hoop = turn(scale(cylinder(1, 0.05, 24), (size + 0.015, 0.53 * width + 0.015, 1)), "y", 90)
        z = deck + size - 0.02
        hoops = join(*(move(hoop, -half + bed_long * f - 0.025, 0, z) for f in (0.22, 0.5, 0.78)))
        hatch = move(cylinder(0.07, 0.06, 14), middle, 0, z + size - 0.01)
        pieces += [Piece("tank", move(barrel, -half, 0, z)), Piece("hoop", join(hoops, hatch), "trim")]
    axles = [half - 0.17, -half + 0.17] + ([-half + 0.19 + 2.1 * radius] if rng.random() < 0.6 else [])
    pieces += _wheels(axles, radius, 0.13, width + 0.07)
    pieces += _lights(half, -half + 0.02, 0.28 * width if bonnet else 0.33 * width, 0.22, 0.045)
    pieces.append(Piece("bumper", move(rounded_box(0.07, 0.96 * width, 0.07, 0.02, 2), half, 0, 0.09), "trim"))
    if rng.random() < 0.4:
        pipe = rod((back_of_cab - 0.01, 0.4 * width, deck), (back_of_cab - 0.01, 0.4 * width, roof + 0.14), 0.03)
        pieces.append(Piece("exhaust", pipe, "trim"))
    return pieces


def bus(rng: Rng, form: Form) -> list[Piece]:
    """A long box of windows: one deck, two decks, or a bonnet in front."""
    shape = rng.choice(["city", "double", "bonnet"])
    radius, width = rng.uniform(0.1, 0.12), rng.uniform(0.34, 0.39) * form.wide
    half = rng.uniform(0.56, 0.64) if shape != "double" else rng.uniform(0.48, 0.54)
    deck = rng.uniform(0.34, 0.38) * form.tall
    decks = 2 if shape == "double" else 1
    floor, top = 0.08, 0.1 + deck * (1.75 if decks == 2 else 1)
    front = half - (0.2 if shape == "bonnet" else 0)
    side = [(-half, floor), (front, floor), (front, floor + 0.5 * deck), (front - 0.02, top), (-half, top)]
    pieces = [Piece("body", _body(softened(side, 0.06), width, 0.04))]
    panes = []
    count = int(rng.integers(4, 6))
    door = front - 0.1
    for level in range(decks):
        z0 = floor + deck * (0.5 + 0.78 * level)
        z1 = min(z0 + 0.34 * deck, top - 0.05)
        start, stop = -half + 0.05, front - (0.19 if level == 0 else 0.05)
        pitch = (stop - start) / count
        window = move(rounded_box(0.78 * pitch, width + 0.02, z1 - z0, 0.02, 2), 0, 0, z0)
        panes += [move(window, start + pitch * (i + 0.5)) for i in range(count)]
        screen = rounded_box(0.03, 0.84 * width, z1 - z0 + (0.06 * deck if level == 0 else 0), 0.02, 2)
        panes.append(move(screen, front + 0.002 - 0.01 * level, 0, z0 - (0.06 * deck if level == 0 else 0)))
        panes.append(move(rounded_box(0.03, 0.7 * width, z1 - z0, 0.02, 2), -half, 0, z0))
    doors = move(rounded_box(0.11, width + 0.024, 0.84 * deck - 0.05, 0.02, 2), door, 0, floor + 0.05)
    stripe = box(2 * half - 0.07 - (half - front), width + 0.012, 0.14 * deck)
    pieces += [
        Piece("window", join(*panes), "windows", False),
        Piece("door", doors, "doors", False),
        Piece("stripe", move(stripe, (front - half) / 2, 0, floor + (0.28 if decks == 1 else 0.97) * deck), "stripe", False),
    ]
    if shape == "bonnet":
        hood = [(front - 0.05, floor), (half, floor), (half, floor + 0.42 * deck), (front - 0.05, floor + 0.5 * deck)]
        pieces.append(Piece("bonnet", _body(softened(hood, 0.05), 0.86 * width, 0.03)))
    elif rng.random() < 0.5:
        pieces.append(
            Piece("vent", move(rounded_box(0.3 * half, 0.5 * width, 0.06, 0.02, 2), -0.3 * half, 0, top - 0.02), "stripe")
        )
    pieces += _wheels((-half + 0.22, front - (0.26 if shape != "bonnet" else 0.0)), radius, 0.12, width + 0.05)
    pieces += _lights(half, -half, 0.33 * width, 0.19, 0.04)
    pieces.append(
        Piece(
            "bumper",
            join(*(move(rounded_box(0.06, 0.94 * width, 0.06, 0.02, 2), x, 0, 0.075) for x in (half, -half))),
            "bumpers",
        )
    )
    return pieces


def train(rng: Rng, form: Form) -> list[Piece]:
    """A steam locomotive: boiler, chimney, domes and the driver's cab behind."""
    width, half = rng.uniform(0.36, 0.42) * form.wide, rng.uniform(0.5, 0.58)
    radius, small = rng.uniform(0.13, 0.155), rng.uniform(0.085, 0.1)
    boiler, deck = rng.uniform(0.15, 0.175), 0.22
    z = deck + boiler
    cab_long = rng.uniform(0.26, 0.32)
    cab_front = -half + cab_long
    cab_top = deck + rng.uniform(0.42, 0.47) * form.tall
    nose = half - 0.1
    across = min(boiler, 0.5 * width)
    drum = turn(scale(cylinder(1, 1, 28), (boiler, across, nose - cab_front + 0.05)), "y", 90)
    ring = turn(scale(cylinder(1, 0.04, 28), (boiler + 0.015, across + 0.015, 1)), "y", 90)
    face = turn(lathe([(0, 0), (0.86, 0), (0.7, 0.05), (0.3, 0.07), (0, 0.07)], 24), "y", 90)
    face = scale(face, (1, across, boiler))
    pieces = [
        Piece("frame", move(rounded_box(2 * half - 0.04, width, 0.1, 0.02, 2), 0, 0, 0.14), "frame", False),
        Piece("boiler", move(drum, cab_front - 0.05, 0, z)),
        Piece("band", join(*(move(ring, x, 0, z) for x in (nose - 0.06, (nose + cab_front) / 2))), "bands"),
        Piece("smokebox", move(face, nose, 0, z), "frame"),
        Piece("headlight", move(ellipsoid(0.04, 0.055, 0.055, 12), nose + 0.07, 0, z), "bands"),
    ]
    if rng.random() < 0.4:
        tank = rounded_box(0.62 * (nose - cab_front), 0.16 * form.wide, 0.8 * boiler, 0.03, 2)
        pieces.append(
            Piece("side tank", twins(tank, cab_front + 0.31 * (nose - cab_front), width / 2 - 0.08 * form.wide, deck))
        )
    chimney_x, rise = nose - 0.12, rng.uniform(0.2, 0.26) * form.tall
    shape = rng.choice(["funnel", "stack", "diamond"])
    profile = {
        "funnel": [(0, 0), (0.05, 0), (0.06, 0.45), (0.115, 0.9), (0.115, 1), (0, 1)],
        "stack": [(0, 0), (0.075, 0), (0.065, 0.8), (0.095, 0.82), (0.095, 1), (0, 1)],
        "diamond": [(0, 0), (0.06, 0), (0.06, 0.4), (0.13, 0.7), (0.08, 1), (0, 1)],
    }[str(shape)]
    chimney = lathe([(r, h * (rise + boiler)) for r, h in profile], 20)
    pieces.append(Piece("chimney", move(chimney, chimney_x, 0, z), "chimney"))
    for x in (0.5, 0.2)[: int(rng.integers(1, 3))]:
        hump = lathe([(0, 0), (0.07, 0), (0.07, 0.55), (0.05, 0.85), (0, 1)], 18)
        hump = scale(hump, (1, 1, boiler + 0.1 * form.tall))
        pieces.append(Piece("dome", move(hump, cab_front + x * (chimney_x - cab_front), 0, z), "bands"))
    cab = rounded_box(cab_long, width, cab_top - deck + 0.03, 0.02, 2)
    z0 = deck + 0.5 * (cab_top - deck)
    pane = move(rounded_box(0.5 * cab_long, width + 0.02, 0.33 * (cab_top - deck), 0.02, 2), 0, 0, z0)
    fore = move(twins(box(cab_long + 0.02, 0.16 * width, 0.26 * (cab_top - deck)), 0, 0.36 * width, 0), z=z0 + 0.02)
    arch = np.radians(np.linspace(0, 180, 9))
    roof = np.column_stack([(width / 2 + 0.05) * np.cos(arch), 0.09 * np.sin(arch) ** 0.8])
    roof = turn(
        turn(
            extrude(np.concatenate([roof, [(-width / 2 - 0.05, -0.04), (width / 2 + 0.05, -0.04)]]), cab_long + 0.12), "x", 90
        ),
        "z",
        90,
    )
    middle = -half + cab_long / 2
    pieces += [
        Piece("cab", move(cab, middle, 0, deck - 0.03)),
        Piece("window", move(join(pane, fore), middle), "windows", False),
        Piece("roof", move(roof, -half - 0.06, 0, cab_top), "frame"),
    ]
    wheels = [-half + 0.17, -half + 0.2 + 2 * radius]
    pieces += _wheels(wheels, radius, 0.09, width + 0.07)
    fronts = [half - 0.15] if rng.random() < 0.5 else [half - 0.13, half - 0.15 - 2 * small]
    pieces += _wheels(fronts, small, 0.09, width + 0.05)
    bar = rounded_box(wheels[1] - wheels[0] + 0.12, 0.05, 0.05, 0.015, 2)
    pieces.append(Piece("rod", twins(bar, np.mean(wheels), width / 2 + 0.05, radius - 0.06), "bands", False))  # pyright: ignore[reportArgumentType]
    if rng.random() < 0.6:
        plough = slab([(half - 0.08, 0.03), (half + 0.1, 0.03), (half, 0.2), (half - 0.08, 0.2)], 0.86 * width)
        pieces.append(Piece("cowcatcher", plough, "buffers", False))
    else:
        beam = move(rounded_box(0.05, width + 0.02, 0.12, 0.02, 2), half, 0, 0.13)
        buffer = turn(lathe([(0, 0), (0.03, 0), (0.03, 0.05), (0.055, 0.05), (0.055, 0.08), (0, 0.08)], 14), "y", 90)
        pieces.append(Piece("buffer", join(beam, twins(buffer, half + 0.02, 0.3 * width, 0.19)), "buffers"))
    return pieces


ROAD = {"wheels": ("dark",), "hubs": ("steel", "white", "cream"), "lights": LAMPS, "tail lights": ("red", "coral")}
GLASS = ("glass", "glass", "navy", "dark")


KINDS: tuple[Kind, ...] = (
    Kind(
        "car",
        car,
        {"main": PAINTS, "windows": GLASS, "bumpers": ("steel", "gray", "white"), **ROAD},
        accents={"wheels": "wheels"},
        forms=("wide", "narrow"),
        front=True,
    ),
    Kind(
        "truck",
        truck,
        {
            "main": PAINTS,
            "windows": GLASS,
            "chassis": ("dark",),
            "trim": ("steel", "white", "cream"),
            "load": ("sand", "rust", "stone"),
            **ROAD,
        },
        accents={"wheels": "wheels"},
        front=True,
        synonyms=("lorry",),
    ),
    Kind(
        "bus",
        bus,
        {
            "main": ("yellow", "red", "blue", "green", "orange"),
            "windows": GLASS,
            "doors": ("navy", "dark", "steel"),
            "stripe": ("white", "cream", "black"),
            "bumpers": ("gray", "dark"),
            **ROAD,
        },
        accents={"wheels": "wheels"},
        plural="buses",
        front=True,
        flat_top=True,
    ),
    Kind(
        "train",
        train,
        {
            "main": ("green", "red", "blue", "black", "purple"),
            "frame": ("dark",),
            "bands": ("golden", "golden", "cream"),
            "chimney": ("dark", "red", "golden"),
            "windows": ("cream", "glass", "yellow"),
            "buffers": ("red", "steel", "rust"),
            "wheels": ("red", "dark", "gray"),
            "hubs": ("golden", "steel"),
        },
        accents={"chimney": "chimney", "wheels": "wheels"},
        forms=("tall", "short", "wide", "narrow"),
        synonyms=("locomotive", "steam train"),
        front=True,
    ),
)
