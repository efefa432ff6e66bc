"""Things that sail and fly. They head along +x and stand on z = 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rl3d.toybox.kinds.vehicles import softened
from rl3d.toybox.shapes import (
    Mesh,
    capsule,
    circle,
    cone,
    cylinder,
    dome,
    ellipsoid,
    join,
    lathe,
    loft,
    move,
    rod,
    scale,
    slab,
    sphere,
    tube,
    turn,
    twins,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _fin(stations: Sequence[tuple[float, float, float, float]], n: int = 12) -> Mesh:
    """Raise a streamlined plate from (z, x, chord along x, thickness along y) at each station."""
    ring = circle(0.5, n)
    return loft(np.stack([np.column_stack([ring * (chord, thick) + (x, 0), np.full(n, z)]) for z, x, chord, thick in stations]))


def _wings(stations: Sequence[tuple[float, float, float, float]]) -> Mesh:
    """A pair of fins that reach out to both sides."""
    half = _fin(stations)
    return join(turn(half, "x", 90), turn(half, "x", -90))


def boat(rng: Rng, form: Form) -> list[Piece]:
    """A sailing boat with one, two or a square sail."""
    half, beam = rng.uniform(0.48, 0.54), rng.uniform(0.19, 0.23) * form.wide
    deep, sheer = rng.uniform(0.24, 0.29) * form.tall**0.5, rng.uniform(0.04, 0.09)
    fullness = rng.uniform(0.6, 0.85)

    def section(u: float, shrink: float, floor: float | None) -> Float[ndarray, "k 3"]:
        # u runs from -1 at the stern to 1 at the bow.
        y = beam * shrink * (1 - max(u + 0.2, 0) ** 2.2 * 0.64) * (1 - 0.3 * max(-u - 0.1, 0) ** 2)
        y = max(y - beam * 0.33 * max(u - 0.6, 0) / 0.4, 0.012)
        rim = deep + sheer * (u * abs(u) * 0.7 + 0.3 * u * u)
        angle = np.linspace(np.pi, 2 * np.pi, 11)
        low = 0.12 * max(u, 0) ** 3 if floor is None else rim - 0.04
        lift = 0.015 if floor is not None else 0.0
        z = rim + lift - (rim + lift - low) * np.abs(np.sin(angle)) ** fullness
        x = half * u * shrink - (0.16 * (rim - z) / deep * max(u, 0) ** 2 if floor is None else 0)
        return np.column_stack([np.broadcast_to(x, 11), y * np.cos(angle), z])

    stations = np.concatenate([np.linspace(-1, 0.4, 8), np.linspace(0.5, 1, 7)])
    hull = loft(np.stack([section(u, 1, None) for u in stations]))
    deck = loft(np.stack([section(u, 0.84, 0.0) for u in stations]))
    mast_x, foot = rng.uniform(0.02, 0.14), deep + 0.1
    head = foot + rng.uniform(0.62, 0.74) * form.tall
    rig = rng.choice(["sloop", "single", "square"], p=[0.45, 0.3, 0.25])
    swing, thick = rng.choice([-1, 1]) * rng.uniform(22, 38), 0.045
    around = np.linspace(0, 2 * np.pi, 18, endpoint=False)

    def sail(chord0: float, chord1: float, low: float, high: float, slant: float = 0.0) -> Mesh:
        # A bellied sail hanging from x = 0 backwards; slant moves its leading edge back with height.
        rings = []
        for h in np.linspace(0, 1, 7):
            c = chord0 + (chord1 - chord0) * h
            x = -slant * h + c * (np.cos(around) - 1) / 2
            y = thick / 2 * np.sin(around) + 0.14 * c * np.sin(around) ** 2
            rings.append(np.column_stack([x, y, np.full(18, low + (high - low) * h)]))
        return loft(np.stack(rings))

    pieces = [
        Piece("hull", hull),
        Piece("deck", deck, "deck"),
        Piece("mast", rod((mast_x, 0, 0.1), (mast_x, 0, head + 0.05), 0.028), "mast"),
    ]
    if rig == "square":
        yard = turn(
            move(sail(0.62 * form.wide, 0.54 * form.wide, foot + 0.02, head - 0.03), 0.31 * form.wide), "z", -90 + swing / 3
        )
        spar = turn(move(turn(capsule(0.028, 0.58 * form.wide, 10), "x", 90), y=0.29 * form.wide), "z", swing / 3)
        pieces += [Piece("sail", move(yard, mast_x), "sail"), Piece("yard", move(spar, mast_x, 0, head - 0.03), "mast")]
    else:
        chord = rng.uniform(0.46, 0.54)
        main = turn(move(sail(chord, 0.04, foot, head), -0.01), "z", swing)
        boom = turn(rod((0, 0, foot - 0.02), (-chord, 0, foot - 0.02), 0.026), "z", swing)
        sails = [move(main, mast_x)]
        if rig == "sloop":
            run = half - mast_x - 0.05
            jib = sail(0.86 * run, 0.04, foot, head - 0.12 * form.tall, 0.86 * run)
            sails.append(move(scale(jib, (1, float(np.sign(swing)), 1)), half - 0.06))
        pieces += [Piece("sail", join(*sails), "sail"), Piece("boom", move(boom, mast_x), "mast")]
    if rng.random() < 0.5:
        flag = slab([(0, 0), (-0.2, 0.055), (0, 0.11)][::-1], 0.04)
        pieces.append(Piece("flag", move(turn(flag, "z", swing / 2), mast_x, 0, head), "flag", False))
    if rng.random() < 0.5:
        stripe = loft(np.stack([section(u, 1, None) * (1.006, 1.03, 1) for u in stations]))
        low, high = 0.62 * deep, 0.8 * deep
        stripe.vertices[:, 2] = np.clip(stripe.vertices[:, 2], low, high)
        pieces.append(Piece("stripe", stripe, "sail"))
    return pieces


def airplane(rng: Rng, form: Form) -> list[Piece]:
    """A jet liner, a propeller plane with a high or low wing, or a biplane."""
    shape = rng.choice(["jet", "propeller", "biplane"])
    long, fat = rng.uniform(0.48, 0.54), rng.uniform(0.115, 0.135)
    span = rng.uniform(0.46, 0.54) * form.wide
    z = 0.1 + fat + (0.07 if shape == "jet" else 0.09)
    if shape == "jet":
        stations = [
            (-1, 0.15, 0.6),
            (-0.75, 0.5, 0.35),
            (-0.4, 0.92, 0.06),
            (-0.15, 1, 0),
            (0.6, 1, 0),
            (0.8, 0.88, -0.04),
            (0.93, 0.6, -0.12),
            (1, 0.0, -0.2),
        ]
    else:
        stations = [
            (-1, 0.28, 0.3),
            (-0.6, 0.62, 0.1),
            (-0.1, 1.05, 0),
            (0.4, 1.1, 0),
            (0.75, 0.95, 0),
            (0.86, 0.8, 0),
            (0.9, 0.45, 0),
        ]
    path = np.array([(long * x, 0, z + fat * rise) for x, _, rise in stations])
    pieces = [Piece("fuselage", tube(path, [fat * max(r, 0.02) for _, r, _ in stations], 24))]
    thick = 0.05
    if shape == "jet":
        sweep = rng.uniform(0.2, 0.3)
        wings = move(
            _wings([(0, 0.06, 0.3, 0.07), (0.4 * span, 0.06 - 0.45 * sweep, 0.22, thick), (span, 0.06 - sweep, 0.12, 0.04)]),
            z=z - 0.3 * fat,
        )
        pods = lathe([(0, 0), (0.045, 0), (0.07, 0.08), (0.075, 0.2), (0.06, 0.22), (0, 0.22)], 16)
        pods = twins(turn(pods, "y", 90), 0.03, 0.42 * span, z - 0.3 * fat - 0.075)
        pieces.append(Piece("engine", pods, "engines"))
    else:
        x = rng.uniform(0.1, 0.16)
        plank = [(0, x, 0.27, 0.06), (0.85 * span, x - 0.02, 0.23, thick), (span, x - 0.03, 0.12, 0.04)]
        low, high = z - 0.7 * fat, z + fat * 1.0 + 0.02
        if shape == "biplane":
            high += 0.14 * form.tall
            wings = join(move(_wings(plank), z=low), move(_wings(plank), z=high))
            struts = [
                rod((x + dx, side * y * span, low), (x + dx, side * y * span, high), 0.022, n=8)
                for side in (-1, 1)
                for y, dx in ((0.7, 0.06), (0.7, -0.07))
            ]
            struts += [rod((x + 0.02, side * 0.05, z), (x + 0.02, side * 0.08, high), 0.022, n=8) for side in (-1, 1)]
            pieces.append(Piece("strut", join(*struts), "struts"))
        else:
            wings = move(_wings(plank), z=low + 0.02 if rng.random() < 0.5 else high - 0.03)
    pieces.append(Piece("wing", wings, "wings"))
    tail_x, tail_z = -long * 0.88, z + fat * (0.4 if shape == "jet" else 0.25)
    tail_rise = rng.uniform(0.22, 0.28) * form.tall
    lean = 0.12 if shape == "jet" else 0.04
    fin = move(
        _fin([(0, 0.05, 0.24, 0.055), (0.75 * tail_rise, 0.05 - lean, 0.16, 0.05), (tail_rise, 0.03 - lean, 0.1, 0.04)]),
        tail_x,
        0,
        tail_z,
    )
    plane = move(
        _wings(
            [(0, 0.02, 0.2, 0.05), (0.36 * span, 0.02 - 0.6 * lean, 0.15, 0.045), (0.42 * span, 0.01 - 0.7 * lean, 0.09, 0.04)]
        ),
        tail_x,
        0,
        tail_z,
    )
    pieces += [Piece("tail", fin, "wings" if rng.random() < 0.4 else "main"), Piece("tailplane", plane)]
    if shape == "jet":
        xs = np.linspace(-0.42, 0.5, 6) * long
        ports = join(*(twins(ellipsoid(0.026, 0.02, 0.03, 8), x, 0.95 * fat, z + 0.3 * fat) for x in xs))
        screen = move(ellipsoid(0.06, 0.72 * fat, 0.045, 12), 0.78 * long, 0, z + 0.58 * fat)
        pieces.append(Piece("window", join(ports, screen), "windows"))
    else:
        glass = ellipsoid(0.14, 0.72 * fat, 0.1, 16)
        back = 0.06 if shape == "propeller" else -0.1
        pieces.append(Piece("cockpit", move(glass, back, 0, z + 0.85 * fat), "windows"))
        twist = rng.uniform(0, 180)
        blades = int(rng.integers(2, 4))
        blade = move(scale(sphere(1, 12), (0.022, 0.045, 0.115)), z=0.11)
        prop = join(*(turn(blade, "x", twist + 360 / blades * i) for i in range(blades)))
        spinner = turn(dome(0.055, 0.09, 14), "y", 90)
        pieces += [
            Piece("propeller", move(prop, 0.93 * long, 0, z), "propeller"),
            Piece("spinner", move(spinner, 0.89 * long, 0, z), "struts"),
        ]
    gear = 0.065
    main_x = 0.0 if shape == "jet" else 0.2
    tyre = move(turn(cylinder(gear, 0.06, 14), "x", 90), y=0.03)
    nose_x = 0.66 * long if shape == "jet" else -0.8 * long
    pieces.append(Piece("wheel", join(twins(tyre, main_x, 0.15, gear), move(tyre, nose_x, 0, gear)), "wheels"))
    legs = [rod((main_x, s * 0.15, gear), (main_x, s * 0.07, z), 0.024, n=8) for s in (-1, 1)]
    legs.append(rod((nose_x, 0, gear), (nose_x, 0, z), 0.024, n=8))
    pieces.append(Piece("landing gear", join(*legs), "struts"))
    return pieces


def rocket(rng: Rng, form: Form) -> list[Piece]:
    """A pointed body on three or four fins: bulging, straight or with boosters."""
    shape = rng.choice(["bulging", "straight", "boosters"])
    fat = rng.uniform(0.15, 0.19) * form.wide * (0.85 if shape != "bulging" else 1)
    tall, base = rng.uniform(0.74, 0.86) * form.tall, 0.14
    if shape == "bulging":
        h = np.linspace(0, 1, 17)
        r = fat * np.sin(np.pi * (0.2 + 0.8 * h) ** 0.95) ** 0.8
        r[-1] = 0
    else:
        h = np.array([0, 0.03, 0.35, 0.62, 0.74, 0.84, 0.92, 0.97, 1])
        r = fat * np.array([0.86, 1, 1, 1, 0.92, 0.74, 0.48, 0.24, 0])
    z = base + tall * h
    cut = float(rng.uniform(0.7, 0.76))
    below, above = h < cut, h > cut
    edge = float(np.interp(cut, h, r))
    level = base + tall * cut
    body = lathe([(0, base), *zip(r[below], z[below], strict=True), (edge, level), (0, level)], 28)
    nose = lathe(
        [(0, level - 0.01), (edge + 0.012, level - 0.01), (edge + 0.012, level + 0.02), *zip(r[above], z[above], strict=True)],
        28,
    )
    nozzle = lathe([(0, 0.05), (0.62 * fat, 0.05), (0.42 * fat, base + 0.03), (0, base + 0.03)], 20)
    pieces = [Piece("body", body), Piece("nose", nose, "nose"), Piece("nozzle", nozzle, "nozzle")]
    count = int(rng.integers(3, 5))
    reach, rise = rng.uniform(0.17, 0.22) * form.wide, rng.uniform(0.3, 0.38) * form.tall
    inner = 0.55 * fat
    tip = rng.uniform(0.02, 0.1)
    fin = [
        (inner, base + 0.03),
        (fat + reach - 0.07, 0),
        (fat + reach, 0),
        (fat + reach, tip + 0.12),
        (fat + 0.3 * reach, base + 0.8 * rise),
        (inner, base + rise),
    ]
    fin = slab(softened(fin, 0.04), 0.055)
    spin = 45 if count == 4 else 60
    pieces.append(Piece("fin", join(*(turn(fin, "z", spin + i * 360 / count) for i in range(count))), "fins"))
    if shape == "boosters":
        angles = [0, 180] if count == 4 else [0, 120, 240]
        shoulder = 0.1 + 0.42 * tall
        shell = join(move(cylinder(0.075, 0.42 * tall, 16), z=0.1), move(cylinder(0.06, 0.06, 16), z=0.045))
        tip = move(cone(0.08, 0.13, 16), z=shoulder - 0.001)
        for label, mesh, slot in (("booster", shell, "main"), ("booster nose", tip, "nose")):
            pieces.append(Piece(label, join(*(turn(move(mesh, fat + 0.055), "z", a) for a in angles)), slot))
    ports, rims = [], []
    size = 0.36 * fat
    for level in (0.52,) if shape == "boosters" or rng.random() < 0.6 else (0.34, 0.56):
        x = float(np.interp(level, h, r))
        ring = turn(cylinder(size + 0.028, 0.09, 20), "y", 90)
        pane = turn(dome(size, 0.035, 18), "y", 90)
        for angle in (0, 90, 180, 270):
            rims.append(turn(move(ring, x - 0.075, 0, base + tall * level), "z", angle))
            ports.append(turn(move(pane, x + 0.013, 0, base + tall * level), "z", angle))
    pieces += [Piece("porthole", join(*rims), "rims"), Piece("window", join(*ports), "windows")]
    if rng.random() < 0.5:
        x = float(np.interp(0.14, h, r))
        band = lathe([(0, -0.035), (x + 0.012, -0.035), (x + 0.018, 0.035), (0, 0.035)], 28)
        pieces.append(Piece("band", move(band, z=base + 0.14 * tall), "nose"))
    return pieces


KINDS: tuple[Kind, ...] = (
    Kind(
        "boat",
        boat,
        {
            "main": ("red", "blue", "white", "wooden", "green", "navy"),
            "deck": ("tan", "wooden", "sand"),
            "mast": ("bark", "wooden", "brown"),
            "sail": ("white", "white", "cream", "ivory", "orange", "red"),
            "flag": ("red", "blue", "yellow"),
        },
        accents={"sail": "sail"},
        forms=("tall", "short", "wide", "narrow"),
        synonyms=("sailing boat", "sailboat"),
        front=True,
    ),
    Kind(
        "airplane",
        airplane,
        {
            "main": ("white", "red", "blue", "yellow", "silver", "green"),
            "wings": ("white", "red", "blue", "gray", "orange"),
            "windows": ("navy", "glass", "dark"),
            "engines": ("gray", "steel", "red"),
            "propeller": ("brown", "dark", "yellow"),
            "struts": ("steel", "gray"),
            "wheels": ("dark",),
        },
        accents={"wings": "wings"},
        forms=("wide", "narrow"),
        synonyms=("plane", "aeroplane"),
        front=True,
    ),
    Kind(
        "rocket",
        rocket,
        {
            "main": ("white", "white", "silver", "red", "blue", "yellow", "orange"),
            "nose": ("red", "blue", "orange", "green"),
            "fins": ("red", "blue", "orange", "green", "yellow"),
            "nozzle": ("dark", "gray"),
            "rims": ("steel", "golden", "gray"),
            "windows": ("glass", "navy", "turquoise"),
        },
        accents={"fins": "fins", "nose": "nose"},
        forms=("tall", "short", "wide", "narrow"),
        synonyms=("rocket ship",),
    ),
)
