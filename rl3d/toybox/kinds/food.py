"""Things to eat."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.blobs import ball, blob, stand
from rl3d.toybox.shapes import (
    Mesh,
    bend,
    capsule,
    circle,
    cone,
    cylinder,
    extrude,
    join,
    lathe,
    loft,
    move,
    rod,
    scale,
    torus,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def ice_cream(rng: Rng, form: Form) -> list[Piece]:
    """One to three scoops in a waffle cone, or a soft swirl; with sauce, a cherry or a wafer at times."""
    scoops = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    swirl = rng.random() < 0.25
    r, long = rng.uniform(0.22, 0.27), rng.uniform(0.46, 0.58)
    mouth = r * 0.86
    waffle = [
        Piece(
            "cone",
            lathe(
                [
                    (0, 0),
                    (0.03, 0.01),
                    (mouth, long),
                    (mouth * 1.08, long + 0.01),
                    (mouth * 1.08, long + 0.07),
                    (0, long + 0.07),
                ],
                24,
            ),
            "cone",
        )
    ]
    t = np.linspace(0.12, 1, 9)
    ribs = []
    for a in (t * 2.2, t * -2.2):
        rib = tube(np.stack([t * mouth * np.cos(a), t * mouth * np.sin(a), t * long], 1), 0.014, 5)
        ribs += [turn(rib, "z", 72 * k) for k in range(5)]
    waffle.append(Piece("cone", join(*ribs), "waffle"))
    z, pieces = long + 0.05, []
    if swirl:
        t = np.linspace(0, 1, 44)
        turns = rng.uniform(2.6, 3.6)
        size = (r * 0.62) * (1 - t) ** 0.8
        path = np.stack(
            [
                size * np.cos(t * turns * 2 * np.pi),
                size * np.sin(t * turns * 2 * np.pi),
                z + 0.07 + t * rng.uniform(0.34, 0.42),
            ],
            1,
        )
        pieces.append(
            Piece("scoop", join(tube(path, (r * 0.55 * (1 - t) + 0.025).tolist(), 10), move(cone(r * 0.9, 0.35, 16), z=z)))
        )
        top, radius = path[-1, 2] + 0.02, 0.05
    else:
        balls, top, skirts = [], z + r * 0.6, torus(0.9, 0.2, 24, 8)
        for k in range(scoops):
            size = r * (1.12 - 0.1 * k)
            balls.append(ball((0, 0, top), size, 20))
            skirt = move(scale(skirts, (size, size, 0.24)), z=top - size * 0.4)
            wave = rng.uniform(0, 6)
            balls.append(
                bend(
                    skirt,
                    lambda p, wave=wave: (
                        p + np.stack([0 * p[:, 0], 0 * p[:, 0], 0.018 * np.sin(6 * np.arctan2(p[:, 1], p[:, 0]) + wave)], 1)
                    ),
                )
            )
            radius, top = size, top + size * 1.42
        top -= radius * 0.42
        pieces.append(Piece("scoop", join(*balls)))
        if rng.random() < 0.35:
            pieces.append(Piece("sauce", _icing_cap(rng, radius * 1.06, top - radius), "sauce"))
    extra = rng.choice(3, p=[0.4, 0.35, 0.25])
    if extra == 1:
        pieces.append(Piece("cherry", ball((0, 0, top + 0.04), 0.075, 12), "cherry"))
    elif extra == 2 and not swirl:
        pieces.append(Piece("wafer", rod((0, 0.06, top - radius), (-0.05, 0.22, top + 0.16), 0.035, n=10), "waffle"))
    return waffle + pieces


def _icing_cap(rng: Rng, radius: float, z: float, n: int = 24) -> Mesh:
    """A cap on a ball whose lower edge runs down in drops."""
    around = circle(1, n)
    drops = 0.3 + 0.22 * np.sin(np.arange(n) * 2 * np.pi * 5 / n + rng.uniform(0, 6))
    rings = [np.column_stack([around * radius * 0.9 * np.cos(drops)[:, None], radius * 0.9 * np.sin(drops)])]
    for f in np.linspace(0, 1, 6):
        u = drops + (np.pi / 2 - drops) * f
        rings.append(np.column_stack([around * radius * np.cos(u)[:, None], radius * np.sin(u)]))
    rings[-1][:] = (0, 0, radius)
    return move(loft(np.stack(rings)), z=z)


def donut(rng: Rng, form: Form) -> list[Piece]:
    """A donut with icing, lying or leaning; sprinkled, striped or bitten."""
    r, n, m = rng.uniform(0.155, 0.19), 40, 18
    bitten = rng.random() < 0.3
    gap = rng.uniform(35, 55) if bitten else 0.0
    turn0 = rng.uniform(-70, 70)
    angle = np.radians(np.linspace(gap / 2, 360 - gap / 2, n) if bitten else np.arange(n) * 360 / n)
    radius = 0.34

    def ring(size: np.ndarray, section: np.ndarray) -> Mesh:
        rings = [
            np.stack(
                [
                    (radius + size[i] * np.cos(section[i])) * np.cos(a),
                    (radius + size[i] * np.cos(section[i])) * np.sin(a),
                    size[i] * np.sin(section[i]),
                ],
                1,
            )
            for i, a in enumerate(angle)
        ]
        return loft(np.stack(rings)[:, ::-1], closed=not bitten)

    full = np.arange(m) * 2 * np.pi / m
    dough = ring(np.full((n, 1), r * 0.97) * np.ones(m), np.tile(full, (n, 1)))
    wave = 0.3 * np.sin(angle * rng.integers(5, 8) + rng.uniform(0, 6))
    low = np.stack([-0.38 + wave, np.full(n, np.pi + 0.2)], 1)
    section = np.stack([np.concatenate([np.linspace(a, b, m - 4), np.linspace(b - 0.1, a + 0.1, 4)]) for a, b in low])
    size = np.tile(np.concatenate([np.full(m - 4, r * 1.07), np.full(4, r * 0.9)]), (n, 1))
    pieces = [Piece("dough", dough, "dough"), Piece("icing", ring(size, section))]
    topping = rng.choice(3, p=[0.6, 0.25, 0.15])
    bits: list[list[Mesh]] = [[], []]
    grain = turn(move(capsule(0.022, 0.06, 6), z=-0.03), "x", 90)
    spots = np.linspace(gap / 2 + 6, 354 - gap / 2, 26)
    if topping == 0:
        for k, a in enumerate(spots):
            u = np.radians(rng.uniform(25, 155))
            bit = move(
                turn(turn(grain, "z", rng.uniform(0, 180)), "y", 90 - np.degrees(u)),
                radius + r * 1.07 * np.cos(u),
                0,
                r * 1.07 * np.sin(u),
            )
            bits[k % 2].append(turn(bit, "z", a + rng.uniform(-5, 5)))
    elif topping == 1:
        t = np.linspace(gap / 2 + 4, 356 - gap / 2, 64)
        u = np.pi / 2 + 0.75 * np.sin(np.radians(t) * 11)
        d = radius + r * 1.07 * np.cos(u)
        bits[0].append(
            tube(np.stack([d * np.cos(np.radians(t)), d * np.sin(np.radians(t)), r * 1.07 * np.sin(u)], 1), 0.022, 6)
        )
    for slot, meshes in zip(("sprinkles", "more sprinkles"), bits, strict=True):
        if meshes:
            pieces.append(Piece("sprinkles", join(*meshes), slot))
    tilt = rng.choice([0.0, 25.0, 50.0], p=[0.5, 0.25, 0.25])
    return stand([Piece(p.label, turn(turn(p.mesh, "z", turn0), "y", tilt), p.slot) for p in pieces])


def apple(rng: Rng, form: Form) -> list[Piece]:
    """An apple, round or tapering, with its stalk and a leaf or two."""
    taper, high, wide = rng.uniform(0.0, 0.22), rng.uniform(0.4, 0.48), rng.uniform(0.42, 0.47)
    t = np.linspace(-np.pi / 2, np.pi / 2, 19)
    side = wide * np.cos(t) * (1 + taper * np.sin(t)) + 0.0
    rise = high * (np.sin(t) - 0.42 * np.exp(-((side / (0.42 * wide)) ** 2)) * np.sign(t) * np.where(t > 0, 1.0, 0.55))
    profile = np.stack([side, rise], 1)
    profile[[0, -1], 0] = 0
    body = lathe(profile, 30)
    lobes = rng.uniform(0.0, 0.035)

    def lobe(p):
        factor = 1 + lobes * np.cos(5 * np.arctan2(p[:, 1], p[:, 0])) * np.clip(-p[:, 2] / high, 0, 1)
        return p * np.stack([factor, factor, np.ones(len(p))], 1)

    dip, lean = float(rise[-1]), rng.uniform(-0.1, 0.1)
    top = (lean, lean * 0.5, dip + rng.uniform(0.3, 0.38))
    stalk = tube([(0, 0, dip - 0.05), (lean * 0.2, 0, dip + 0.15), top], [0.028, 0.03, 0.042], 10)
    pieces = [Piece("apple", bend(body, lobe)), Piece("stalk", stalk, "stalk")]
    first = rng.uniform(0, 360)
    for k in range(int(rng.integers(1, 3))):
        leaf = turn(blob((0.17, 0, 0), (0.17, 0.085, 0.028), 12), "y", -rng.uniform(15, 35))
        pieces.append(Piece("leaf", move(turn(leaf, "z", first + 150 * k), lean * 0.3, 0, dip + 0.17), "leaf"))
    return stand(pieces)


def cake(rng: Rng, form: Form) -> list[Piece]:
    """A round cake of one to three tiers on a plate, or a slice; with candles, cherries or cream."""
    if rng.random() < 0.25:
        return _slice(rng, form)
    tiers = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    wide, high = (
        rng.uniform(0.38, 0.44) * form.wide,
        (0.34 if tiers == 1 else 0.25 if tiers == 2 else 0.2) * form.tall * rng.uniform(0.9, 1.1),
    )
    pieces = [Piece("plate", cylinder(wide * 1.12, 0.04, 28, top=wide * 1.2), "plate")]
    z, body, cream, size = 0.04, [], [], wide
    for k in range(tiers):
        size = wide * (1 - 0.29 * k)
        soft = min(0.04, high * 0.2)
        body.append(move(lathe([(size, 0), (size, high - soft), (size - soft, high), (0, high)], 30), z=z))
        waves = int(rng.integers(6, 9))
        n = waves * 6
        drops = high * (0.24 + 0.16 * np.sin(np.arange(n) * np.pi / 3))
        around = circle(1, n)
        rim = [(0.95, -drops), (1.035, -drops), (1.035, np.zeros(n)), (1.0, np.full(n, 0.03)), (0.0, np.full(n, 0.03))]
        skin = loft(np.stack([np.column_stack([around * size * s, z + high + h]) for s, h in rim]))
        cream.append(skin)
        cream.append(move(torus(size, 0.032, 24, 6), z=z + 0.02))
        z += high + 0.02
    pieces += [Piece("cake", join(*body)), Piece("icing", join(*cream), "icing")]
    topping = rng.choice(3, p=[0.55, 0.3, 0.15])
    if topping == 0:
        count = 1 if tiers == 3 else int(rng.integers(3, 6))
        at = (
            [(0.0, 0.0)]
            if count == 1
            else [
                (size * 0.55 * np.cos(a), size * 0.55 * np.sin(a))
                for a in np.arange(count) * 2 * np.pi / count + rng.uniform(0, 2)
            ]
        )
        up = rng.uniform(0.15, 0.2)
        pieces.append(Piece("candle", join(*(move(cylinder(0.032, up, 10), x, y, z) for x, y in at)), "candles"))
        pieces.append(Piece("flame", join(*(blob((x, y, z + up + 0.045), (0.032, 0.032, 0.058), 8) for x, y in at)), "flames"))
    else:
        count = int(rng.integers(5, 8))
        at = [(size * 0.72 * np.cos(a), size * 0.72 * np.sin(a)) for a in np.arange(count) * 2 * np.pi / count]
        at = [(0.0, 0.0)] if topping == 2 else at
        fruit = 0.1 if topping == 2 else 0.06
        pieces.append(Piece("cherry", join(*(ball((x, y, z + fruit * 0.8), fruit, 12) for x, y in at)), "cherries"))
    return pieces


def _slice(rng: Rng, form: Form) -> list[Piece]:
    """A wedge of cake, its tip forward."""
    long, high, half = 0.85, rng.uniform(0.17, 0.21) * form.tall, np.radians(rng.uniform(24, 30))
    back = np.linspace(-half, half, 8) * form.wide
    outline = [(long / 2, 0.0), *((long / 2 - long * np.cos(a), -long * np.sin(a)) for a in back)]
    outline = outline if _turns_left(outline) else outline[::-1]
    points = np.array(outline)

    def layer(low: float, thickness: float, grow: float = 1.0) -> Mesh:
        middle = points.mean(0)
        return move(extrude((points - middle) * grow + middle, thickness), z=low)

    sponge = join(layer(0.0, high), layer(high + 0.055, high))
    cream = join(layer(high - 0.005, 0.065, 1.01), layer(2 * high + 0.05, 0.07, 1.03))
    pieces = [Piece("cake", sponge, smooth=False), Piece("icing", cream, "icing", smooth=False)]
    pieces.append(Piece("cherry", ball((-long * 0.2, 0, 2 * high + 0.19), 0.09, 14), "cherries"))
    return [Piece(p.label, turn(p.mesh, "z", 35), p.slot, p.smooth) for p in pieces]


def _turns_left(outline: list[tuple[float, float]]) -> bool:
    x, y = np.array(outline).T
    return bool(x @ np.roll(y, -1) > y @ np.roll(x, -1))


def carrot(rng: Rng, form: Form) -> list[Piece]:
    """A carrot with its green, point down or lying."""
    long, r = rng.uniform(0.64, 0.78), rng.uniform(0.15, 0.19)
    crook = rng.uniform(-0.06, 0.06)
    t = np.linspace(0, 1, 24)
    notch = 1 - 0.07 * (np.sin(t * 40 + rng.uniform(0, 6)) > 0.6)
    size = r * (0.06 + 0.94 * t**0.75) * notch
    size[-3:] *= (0.98, 0.85, 0.5)
    root = lathe([(0, 0), *zip(size, t * long, strict=True), (0, long)], 18)
    root = bend(root, lambda p: p + np.stack([0 * p[:, 2], crook * np.sin(p[:, 2] / long * np.pi), 0 * p[:, 2]], 1))
    leaves = []
    if rng.random() < 0.6:
        for k in range(int(rng.integers(5, 8))):
            lean = rng.uniform(12, 42) if k else 0.0
            up = rng.uniform(0.17, 0.22)
            leaf = turn(blob((0, 0, up * 0.9), (0.05, 0.07, up), 10), "y", lean)
            leaves.append(turn(leaf, "z", k * 137.5))
    else:
        for k in range(4):
            a, out = k * 2.1, 0.16 if k else 0.0
            tip = (out * np.cos(a), out * np.sin(a), 0.22 if k else 0.3)
            leaves.append(join(rod((0, 0, 0), tip, 0.032, n=8), ball(tip, 0.095, 10)))
    pieces = [Piece("carrot", root), Piece("leaves", move(join(*leaves), z=long - 0.04), "leaves")]
    if rng.random() < 0.35:
        aim, tilt = rng.uniform(-15, 15), rng.choice([-1, 1]) * rng.uniform(55, 90)
        pieces = [Piece(p.label, turn(turn(p.mesh, "x", tilt), "z", aim), p.slot) for p in pieces]
    return stand(pieces)


KINDS = (
    Kind(
        "ice cream",
        ice_cream,
        {
            "main": ("pink", "cream", "brown", "lime", "rose", "yellow"),
            "cone": ("tan", "straw"),
            "waffle": ("rust",),
            "sauce": ("brown", "red"),
            "cherry": ("red",),
        },
        {"cone": "cone"},
        forms=(),
        plural="ice creams",
        synonyms=("ice cream cone",),
    ),
    Kind(
        "donut",
        donut,
        {
            "main": ("pink", "brown", "white", "rose", "turquoise"),
            "dough": ("tan", "straw"),
            "sprinkles": ("yellow", "white", "blue"),
            "more sprinkles": ("red", "green", "turquoise"),
        },
        {"dough": "dough"},
        forms=(),
        synonyms=("doughnut",),
    ),
    Kind(
        "apple",
        apple,
        {"main": ("red", "red", "green", "yellow", "lime"), "stalk": ("bark",), "leaf": ("leaf", "green", "lime")},
        {"leaf": "leaf"},
        forms=(),
    ),
    Kind(
        "cake",
        cake,
        {
            "main": ("brown", "straw", "pink", "cream"),
            "icing": ("white", "rose", "ivory", "brown"),
            "plate": ("steel", "white", "turquoise"),
            "cherries": ("red",),
            "candles": ("blue", "red", "yellow"),
            "flames": ("orange",),
        },
        {"icing": "icing"},
    ),
    Kind("carrot", carrot, {"main": ("orange",), "leaves": ("green", "leaf", "lime")}, {"leaves": "leaves"}, forms=()),
)
