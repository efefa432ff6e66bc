"""Plants and what grows or melts outside."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rl3d.toybox.kinds.blobs import ball, blob, stand
from rl3d.toybox.shapes import (
    Mesh,
    along,
    bend,
    capsule,
    circle,
    cone,
    cylinder,
    join,
    lathe,
    loft,
    move,
    pair,
    rod,
    torus,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _pot(radius: float, height: float) -> list[Piece]:
    """A flower pot with a rim, full of soil."""
    wall = [
        (0, 0),
        (radius * 0.68, 0),
        (radius * 0.92, height * 0.72),
        (radius * 1.08, height * 0.72),
        (radius * 1.1, height),
        (radius * 0.9, height),
    ]
    pot = lathe([*wall, (radius * 0.86, height * 0.88), (0, height * 0.88)], 24)
    return [Piece("pot", pot, "pot"), Piece("soil", move(cylinder(radius * 0.9, 0.03, 18), z=height * 0.87), "soil")]


def tree(rng: Rng, form: Form) -> list[Piece]:
    """A leafy tree: a round crown, a bumpy one, or clumps on branches; sometimes with fruit."""
    trunk, r = rng.uniform(0.34, 0.46) * form.tall, rng.uniform(0.055, 0.085)
    wide, high = rng.uniform(0.3, 0.36) * form.wide, rng.uniform(0.28, 0.36) * form.tall
    top = trunk + high * 0.8
    stem = lathe([(r * 1.7, 0), (r * 1.1, 0.08), (r, trunk), (r * 0.7, top)], 12)
    variant = rng.integers(3)
    balls = [((0.0, 0.0, top), (wide, wide, high))]
    if variant == 1:
        for k in range(8):
            a, up = k * 2 * np.pi / (5 if k < 5 else 3) + rng.uniform(-0.25, 0.25), -0.25 if k < 5 else 0.5
            reach = 0.66 if k < 5 else 0.45
            size = rng.uniform(0.5, 0.62)
            balls.append(
                ((wide * reach * np.cos(a), wide * reach * np.sin(a), top + up * high), (wide * size, wide * size, high * size))
            )
    elif variant == 2:
        turn0, balls = rng.uniform(0, 2 * np.pi), []
        for k in range(3):
            a, up = turn0 + k * 2 * np.pi / 3, rng.uniform(-0.1, 0.25)
            balls.append(
                (
                    (wide * 0.62 * np.cos(a), wide * 0.62 * np.sin(a), top + (up - 0.15) * high),
                    (wide * 0.58, wide * 0.58, high * 0.55),
                )
            )
        stem = join(stem, *(rod((0, 0, trunk * 0.6), c, r * 0.8, r * 0.6, 8) for c, _ in balls))
        balls.append(((0.0, 0.0, top + 0.45 * high), (wide * 0.7, wide * 0.7, high * 0.62)))
    n = 24 if variant == 0 else 14
    pieces = [Piece("trunk", stem, "trunk"), Piece("leaves", join(*(blob(c, s, n) for c, s in balls)))]
    if rng.random() < 0.3:
        fruit = []
        for k in range(14):
            c, s = balls[k % len(balls)]
            a, u = k * 2.4, rng.uniform(-0.5, 0.6)
            out = np.array([np.cos(a) * np.sqrt(1 - u * u), np.sin(a) * np.sqrt(1 - u * u), u])
            fruit.append(ball(tuple(np.array(c) + out * s), 0.045, 8))
        pieces.append(Piece("fruit", join(*fruit), "fruit"))
    return pieces


def pine(rng: Rng, form: Form) -> list[Piece]:
    """A pine of stacked cones, smooth or with jagged skirts; sometimes with snow on it."""
    tiers, wide, high = int(rng.integers(3, 5)), rng.uniform(0.3, 0.36) * form.wide, rng.uniform(1.0, 1.15) * form.tall
    stem, r = rng.uniform(0.27, 0.33) * form.tall, rng.uniform(0.07, 0.095)
    jagged, snowy = rng.random() < 0.5, rng.random() < 0.25
    points = 2 * int(rng.integers(8, 11))
    skirts, snow = [], []
    for k in range(tiers):
        low = stem + (high - stem) * k / tiers * 0.88
        up = (high - low) if k == tiers - 1 else (high - stem) / tiers * 1.75
        size = wide * (1 - 0.52 * k / (tiers - 1))
        around = circle(1, points if jagged else 24)
        rim = around * (1 - 0.16 * (np.arange(len(around)) % 2))[:, None] if jagged else around
        rings = [(rim * size, low), (rim * size * 0.97, low + 0.03), (around * 0, low + up)]
        skirts.append(loft(np.stack([np.column_stack([xy, np.full(len(xy), z)]) for xy, z in rings])))
        if snowy:
            snow.append(move(cone(size * 0.62, up * 0.6, 16), z=low + up * 0.44))
    pieces = [
        Piece("trunk", cylinder(r, stem + 0.1, 12, top=r * 0.85), "trunk"),
        Piece("leaves", join(*skirts), smooth=not jagged),
    ]
    return pieces + ([Piece("snow", join(*snow), "snow")] if snowy else [])


def cactus(rng: Rng, form: Form) -> list[Piece]:
    """A cactus in a pot: a ribbed column with arms, a round one with spikes, or flat paddles."""
    pot, radius = rng.uniform(0.2, 0.26), rng.uniform(0.2, 0.26)
    variant = rng.choice(3, p=[0.6, 0.22, 0.18])
    pieces, blossoms = _pot(radius, pot), []
    if variant == 0:
        high, r = rng.uniform(0.62, 0.78) * form.tall, rng.uniform(0.11, 0.14)
        body = [_ribbed(move(capsule(r, high - r, 24), z=0))]
        body[0] = move(body[0], z=pot - 0.06)
        for k in range(int(rng.integers(2, 4))):
            a = rng.uniform(-0.4, 0.4) + k * np.pi + np.pi / 2 + (np.pi / 2 if k == 2 else 0)
            low, out, up = pot + high * rng.uniform(0.28, 0.5), r + rng.uniform(0.1, 0.14), high * rng.uniform(0.22, 0.34)
            bow = [(0, low), (out * 0.8, low), (out, low + 0.04), (out, low + up)]
            path = [(np.cos(a) * d, np.sin(a) * d, z) for d, z in bow]
            body.append(join(tube(path, 0.068, 12), ball(path[-1], 0.068, 12), ball(path[2], 0.066, 10)))
        pieces.append(Piece("cactus", join(*body)))
        blossoms.append((0.0, 0.0, pot + high - 0.05))
    elif variant == 1:
        r = rng.uniform(0.24, 0.28)
        high = r * rng.uniform(1.0, 1.25) * form.tall
        at = (0.0, 0.0, pot + high * 0.8)
        pieces.append(Piece("cactus", move(_ribbed(blob((0, 0, 0), (r, r, high), 32)), z=at[2])))
        blossoms.append((0.0, 0.0, at[2] + high))
        for u in (-0.3, 0.1, 0.45, 0.75):
            for a in np.arange(8) * np.pi / 4 + u:
                out = np.array([np.cos(a) * np.sqrt(1 - u * u), np.sin(a) * np.sqrt(1 - u * u), u])
                foot = np.array(at) + out * (r, r, high) * 0.93
                pieces.append(Piece("spikes", along(cone(0.022, 0.1, 6), tuple(foot), tuple(foot + out)), "spikes"))
    else:
        first = 0.2 * form.tall
        pads = [((0.0, 0.0, pot + first * 0.85), (0.08, 0.17, first), 0.0)]
        for side, size in zip((1, -1), rng.uniform(0.1, 0.14, 2), strict=True):
            pads.append(((0.0, side * 0.2, pot + first * 1.75), (0.065, size, size * 1.5 * form.tall), -side * 38.0))
        pads.append(((0.0, 0.0, pot + first * 2.2), (0.06, 0.11, 0.15 * form.tall), 0.0))
        pieces.append(Piece("cactus", join(*(move(turn(blob((0, 0, 0), s, 16), "x", tilt), *c) for c, s, tilt in pads))))
        spots = [
            (c[0] + s[0] * 0.8, c[1] + y * s[1], c[2] + z * s[2])
            for c, s, _ in pads
            for y, z in ((0.3, 0.3), (-0.3, 0.1), (0.1, -0.4))
        ]
        dots = [blob((sign * x, y, z), (0.03, 0.02, 0.02), 8) for x, y, z in spots for sign in (1, -1)]
        pieces.append(Piece("spikes", join(*dots), "spikes"))
        blossoms.append((0.0, 0.0, pot + first * 2.2 + 0.14 * form.tall))
    if rng.random() < 0.45:
        petals = [
            blob((x + 0.05 * np.cos(a), y + 0.05 * np.sin(a), z + 0.03), (0.045, 0.045, 0.05), 10)
            for x, y, z in blossoms
            for a in np.arange(5) * 2 * np.pi / 5
        ]
        pieces.append(Piece("flower", join(*petals), "flower"))
    spikes = [p.mesh for p in pieces if p.label == "spikes"]
    return [p for p in pieces if p.label != "spikes"] + ([Piece("spikes", join(*spikes), "spikes")] if spikes else [])


def _ribbed(mesh: Mesh, ribs: int = 8, depth: float = 0.13) -> Mesh:
    """Press grooves into a round thing along its z axis."""

    def groove(p):
        factor = 1 - depth * (0.5 - 0.5 * np.cos(ribs * np.arctan2(p[:, 1], p[:, 0])))
        return p * np.stack([factor, factor, np.ones(len(p))], 1)

    return bend(mesh, groove)


def flower(rng: Rng, form: Form) -> list[Piece]:
    """A flower that looks forward and up: a daisy or a round one on a leafy stem or in a pot, or a tulip."""
    potted, tulip = rng.random() < 0.4, rng.random() < 0.25
    base = rng.uniform(0.2, 0.24) if potted else 0.0
    reach = 0.8 if potted else 1.0
    pieces = _pot(0.19, base) if potted else []
    high, sway = base + reach * rng.uniform(0.46, 0.62) * form.tall, rng.uniform(-0.06, 0.06)
    path = [(0, 0, base * 0.8), (0.01, sway, base + (high - base) * 0.5), (0, 0, high)]
    stem = tube(path, [0.04, 0.034, 0.032], 10)
    leaves = []
    for k in range(int(rng.integers(2, 4))):
        side, low = (-1) ** k, base + (high - base) * (0.12 + 0.16 * k)
        leaf = turn(blob((0, 0.15, 0), (0.075, 0.16, 0.026), 12), "x", rng.uniform(25, 45))
        leaves.append(move(turn(leaf, "z", 0 if side > 0 else 180), 0, 0, low))
    pieces.append(Piece("stem", join(stem, *leaves), "leaves"))
    if tulip:
        cup, open_ = rng.uniform(0.2, 0.25), rng.uniform(8, 20)
        petals = []
        for k in range(6):
            petal = turn(blob((0, 0, cup * 0.85), (0.06, 0.13, cup), 14), "y", open_)
            petals.append(turn(move(petal, 0.075 if k % 2 else 0.09), "z", k * 60))
        pieces.append(Piece("petals", move(join(*petals, ball((0, 0, 0.07), 0.13, 12)), z=high - 0.03)))
        return stand(pieces)
    count, size = int(rng.integers(5, 10)), rng.uniform(0.29, 0.34)
    slim = rng.uniform(0.8, 1.05) * size * np.sin(np.pi / count) * (0.95 if count > 6 else 0.85)
    heart = rng.uniform(0.1, 0.13)
    petals = [turn(blob((0, size * 0.58, 0), (slim, size * 0.46, 0.045), 12), "z", k * 360 / count) for k in range(count)]
    head = [Piece("petals", join(*petals)), Piece("middle", blob((0, 0, 0.025), (heart, heart, 0.07), 14), "middle")]
    tilt = rng.uniform(42, 66)
    return stand(pieces + [Piece(p.label, move(turn(p.mesh, "y", tilt), 0.04, 0, high), p.slot) for p in head])


def mushroom(rng: Rng, form: Form) -> list[Piece]:
    """A mushroom with a round, pointed or flat cap, mostly spotted."""
    stem, r = rng.uniform(0.42, 0.58) * form.tall, rng.uniform(0.12, 0.17)
    wide, high = rng.uniform(0.38, 0.46) * form.wide, rng.uniform(0.28, 0.4) * form.tall
    t = np.linspace(0, np.pi / 2, 9)
    side, rise = np.cos(t), np.sin(t)
    if rng.random() < 0.3:
        side, rise, high = side**0.8, t / t[-1], high * 1.3
    outer = np.stack([wide * side, stem + high * rise], 1)
    outer[-1, 0] = 0
    brim = [(0, stem + 0.02), (wide * 0.82, stem - 0.03), (wide * 0.97, stem - 0.035)]
    foot = lathe(
        [
            (0, 0),
            (r * 1.1, 0),
            (r * 1.35, 0.05),
            (r * 1.2, stem * 0.3),
            (r * 0.9, stem * 0.75),
            (r, stem + 0.05),
            (0, stem + 0.05),
        ],
        18,
    )
    pieces = [
        Piece("cap", lathe(np.concatenate([brim, outer]), 28)),
        Piece("stem", foot, "stem"),
        Piece(
            "gills",
            lathe([(0, stem - 0.035), (wide * 0.8, stem - 0.045), (wide * 0.84, stem - 0.01), (0, stem + 0.04)], 24),
            "stem",
        ),
    ]
    if rng.random() < 0.85:
        spots = []
        for level, count in ((1.6, 7), (4.0, 5), (6.2, 2)):
            out, z = (np.interp(level, np.arange(9), outer[:, axis]) for axis in (0, 1))
            d_out, d_z = outer[int(level) + 1] - outer[int(level)]
            for a in (np.arange(count) + rng.uniform(-0.1, 0.1, count) + level) * 2 * np.pi / count:
                at, slope = np.array([out * np.cos(a), out * np.sin(a), z]), (d_z * np.cos(a), d_z * np.sin(a), -d_out)
                size = rng.uniform(0.05, 0.075)
                spots.append(along(blob((0, 0, 0), (size, size, 0.022), 10), tuple(at), tuple(at + slope)))
        pieces.append(Piece("spots", join(*spots), "spots"))
    if rng.random() < 0.4:
        low = stem * 0.62
        pieces.append(
            Piece("ring", lathe([(0, low), (r * 1.55, low - 0.05), (r * 1.6, low - 0.01), (0, low + 0.08)], 18), "stem")
        )
    return pieces


def snowman(rng: Rng, form: Form) -> list[Piece]:
    """A snowman of two or three balls with a carrot nose; hat, scarf, arms and buttons come and go."""
    count = 3 if rng.random() < 0.6 else 2
    sizes = np.array([0.27, 0.205, 0.155] if count == 3 else [0.31, 0.205]) * rng.uniform(0.94, 1.06, count)
    sizes_z = sizes * form.tall
    middles = [sizes_z[0] * 0.94]
    for low, high in pairwise(sizes_z):
        middles.append(middles[-1] + (low + high) * 0.8)
    wide = form.wide
    r, z, rz = sizes[-1] * wide, middles[-1], sizes_z[-1]
    pieces = [
        Piece(
            "snow",
            join(*(blob((0, 0, m), (s * wide, s * wide, s_z), 22) for s, s_z, m in zip(sizes, sizes_z, middles, strict=True))),
        ),
        Piece("nose", rod((r * 0.85, 0, z - 0.01), (r + rng.uniform(0.16, 0.22), 0, z - 0.02), 0.05, 0.01, 12), "nose"),
        Piece("eye", pair(ball((r * 0.84, r * 0.36, z + rz * 0.38), 0.034, 10)), "coal"),
    ]
    chest, cr, crz = middles[-2], sizes[-2] * wide, sizes_z[-2]
    if count == 2 or rng.random() < 0.75:
        ups = np.radians((40, 12, -16))
        pieces.append(
            Piece("buttons", join(*(ball((cr * np.cos(u), 0, chest + crz * np.sin(u)), 0.034, 10) for u in ups)), "coal")
        )
    if rng.random() < 0.6:
        up = rng.uniform(0.15, 0.24)
        top = lathe([(0, 0), (r * 1.3, 0), (r * 1.3, 0.04), (r * 0.85, 0.04), (r * 0.9, up), (0, up)], 20)
        pieces.append(Piece("hat", move(top, z=z + rz * 0.62), "hat"))
    else:
        pieces.append(
            Piece(
                "hat",
                join(
                    move(cone(r * 1.02, rng.uniform(0.22, 0.3), 20), z=z + rz * 0.42),
                    move(torus(r * 0.95, 0.035, 20, 8), z=z + rz * 0.45),
                ),
                "hat",
            )
        )
        pieces.append(Piece("hat", ball((0, 0, float(pieces[-1].mesh.vertices[:, 2].max())), 0.055, 10), "scarf"))
    neck = z - rz * 0.75
    ends = [
        rod((r * 0.86, 0, neck), (r * rng.uniform(1.2, 1.4), 0.02, neck - 0.24), 0.05, 0.06, 10)
        for _ in range(rng.integers(1, 3))
    ]
    scarf = join(torus(r * 0.82, 0.05, 24, 10), *(turn(move(end, z=-neck), "z", 35 - 75 * k) for k, end in enumerate(ends)))
    pieces.append(Piece("scarf", move(scarf, z=neck), "scarf"))
    if rng.random() < 0.75:
        up = rng.uniform(0.02, 0.2)
        tip = (0.03, cr + 0.26, chest + up)
        arm = join(
            rod((0, cr * 0.8, chest + 0.03), tip, 0.024, 0.02, 8),
            rod((0.02, cr + 0.15, chest + up * 0.6), (0.05, cr + 0.2, chest + up + 0.1), 0.02, n=6),
        )
        pieces.append(Piece("arm", pair(arm), "arms"))
    return stand(pieces)


POT = {"pot": ("terracotta", "terracotta", "rust", "cream"), "soil": ("bark",)}
KINDS = (
    Kind(
        "tree",
        tree,
        {"main": ("leaf", "green", "leaf", "lime", "orange"), "trunk": ("bark", "brown"), "fruit": ("red", "orange")},
        {"trunk": "trunk"},
        forms=("tall", "short", "wide", "narrow"),
    ),
    Kind(
        "pine",
        pine,
        {"main": ("green", "leaf"), "trunk": ("bark", "brown"), "snow": ("white",)},
        {"trunk": "trunk"},
        forms=("tall", "short", "wide", "narrow"),
        synonyms=("pine tree", "fir tree"),
    ),
    Kind(
        "cactus",
        cactus,
        {"main": ("green", "leaf"), **POT, "spikes": ("ivory",), "flower": ("pink", "rose", "yellow")},
        {"pot": "pot"},
        plural="cacti",
    ),
    Kind(
        "flower",
        flower,
        {
            "main": ("red", "pink", "yellow", "white", "purple", "blue"),
            "middle": ("orange", "yellow", "brown"),
            "leaves": ("leaf", "green"),
            **POT,
        },
        {"leaves": "leaves"},
        front=True,
    ),
    Kind(
        "mushroom",
        mushroom,
        {"main": ("red", "red", "brown", "tan", "orange"), "stem": ("cream", "ivory"), "spots": ("white",)},
        {"stem": "stem"},
        forms=("tall", "short", "wide", "narrow"),
        synonyms=("toadstool",),
    ),
    Kind(
        "snowman",
        snowman,
        {
            "main": ("white",),
            "nose": ("orange",),
            "coal": ("dark",),
            "hat": ("dark", "red", "blue", "brown"),
            "scarf": ("red", "green", "blue"),
            "arms": ("bark",),
        },
        {"hat": "hat", "scarf": "scarf", "nose": "nose"},
        plural="snowmen",
        front=True,
    ),
)
