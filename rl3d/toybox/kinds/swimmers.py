"""Animals that swim: a duck, a fish, a turtle. All face +x."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.blobs import FACE, ball, blob, eyes, stand
from rl3d.toybox.shapes import (
    Mesh,
    along,
    bend,
    capsule,
    cylinder,
    dome,
    extrude,
    join,
    lathe,
    move,
    pair,
    rod,
    scale,
    torus,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def duck(rng: Rng, form: Form) -> list[Piece]:
    """A duck, swimming (without legs) or standing on webbed feet."""
    walks, neck, fat = rng.random() < 0.5, rng.uniform(0.5, 0.64), rng.uniform(0.9, 1.12) * form.wide
    lift, r = (0.17 if walks else 0.0), rng.uniform(0.17, 0.205)
    neck *= form.tall
    body = blob((0, 0, 0.22), (0.38, 0.25 * fat, 0.22), 20)
    body = bend(body, lambda p: p + np.stack([0 * p[:, 0], 0 * p[:, 0], 1.1 * np.minimum(p[:, 0] + 0.05, 0) ** 2], 1))
    tail = rod((-0.26, 0, 0.27), (-0.5, 0, 0.27 + rng.uniform(0.16, 0.26)), 0.13, 0.03)
    head = (0.24, 0.0, neck + 0.05)
    pieces = [
        Piece("body", join(body, scale(tail, (1, 1.2, 1)), rod((0.16, 0, 0.2), (0.23, 0, neck), 0.16, 0.12))),
        Piece("head", ball(head, r, 18)),
        *eyes(head, (r, r, r), 0.055, apart_deg=48, up_deg=25),
    ]
    gape = rng.uniform(6, 16)
    half = blob((0.1, 0, 0), (0.15, 0.115, 0.042), 14)
    bill = join(turn(half, "y", -gape), move(turn(scale(half, (0.85, 0.85, 1)), "y", gape), z=-0.02))
    pieces.append(Piece("beak", move(bill, head[0] + r * 0.75, 0, head[2] - 0.05), "bill"))
    wing = blob((0, 0, 0), (0.23, 0.055, 0.13), 14)
    spread = rng.choice([0.0, 35.0], p=[0.7, 0.3])
    wing = turn(turn(wing, "y", rng.uniform(8, 25)), "x", -spread)
    pieces.append(Piece("wing", pair(move(wing, -0.09, 0.235 * fat + spread * 0.002, 0.29)), "wings"))
    if rng.random() < 0.35:
        pieces.append(
            Piece("tuft", rod((head[0] - 0.02, 0, head[2] + r * 0.8), (head[0] - 0.14, 0, head[2] + r + 0.1), 0.055, 0.02))
        )
    pieces = stand(pieces, lift)
    if walks:
        foot = extrude([(-0.06, -0.03), (0.16, -0.11), (0.12, 0), (0.16, 0.11), (-0.06, 0.03)], 0.045)
        leg = join(rod((0, 0, 0.02), (0, 0, 0.28), 0.035), foot)
        pieces.append(Piece("leg", pair(move(leg, 0.03, 0.12)), "bill"))
    return pieces


def fish(rng: Rng, form: Form) -> list[Piece]:
    """A fish, long or round, with a forked or rounded tail and sometimes stripes."""
    long, high, thick = rng.uniform(0.36, 0.46), rng.uniform(0.2, 0.31) * form.tall, rng.uniform(0.13, 0.17) * form.wide
    turns = np.linspace(0, np.pi, 15)
    spine = [(high * np.sin(t) * (1 - 0.12 * np.cos(t)), -long * np.cos(t)) for t in turns]

    def swim(mesh: Mesh) -> Mesh:
        return scale(turn(mesh, "y", 90), (1, thick / high, 1))

    pieces = [Piece("body", swim(lathe([(0, -long), *spine[1:-1], (0, long)], 22)))]
    if rng.random() < 0.5:
        for at in (-0.35, 0.15) if rng.random() < 0.5 else (-0.45, -0.1, 0.25):
            band = [(high * 1.03 * np.sqrt(1 - u**2) * (1 + 0.12 * u), long * u) for u in np.linspace(at, at + 0.16, 4)]
            pieces.append(Piece("stripe", swim(lathe([(0, band[0][1]), *band, (0, band[-1][1])], 22)), "stripes"))
    fan = rng.uniform(0.2, 0.28)
    fork = [
        (0.1, -0.04),
        (0.1, 0.04),
        (-0.1, fan),
        (-0.24, fan * 1.1),
        (-0.24 + (0.12 if rng.random() < 0.6 else -0.06), 0),
        (-0.24, -fan * 1.1),
        (-0.1, -fan),
    ]
    rise = rng.uniform(0.1, 0.2)
    back = [(0.2, 0), (-0.02, rise), (-0.22, rise * 1.05), (-0.2, 0)]
    fins = [
        move(_upright(fork), -long - 0.04),
        move(_upright(back), -0.02, 0, high * 0.86),
        move(_upright([(0.1, 0), (-0.08, 0), (-0.16, -rise * 0.8), (-0.04, -rise * 0.8)]), -0.08, 0, -high * 0.9),
    ]
    side = turn(turn(blob((-0.1, 0, 0), (0.13, 0.03, 0.08), 12), "y", -20), "z", -rng.uniform(25, 45))
    fins.append(pair(move(side, 0.08, thick * 0.9, -high * 0.22)))
    pieces.append(Piece("fin", join(*fins), "fins", smooth=False))
    lips = torus(0.04, 0.028, 14, 8)
    pieces.append(Piece("mouth", move(scale(turn(lips, "y", 90), (1.2, 1.2, 0.9)), long * 0.99, 0, -0.04), "lips"))
    pieces += eyes((long * 0.4, 0, 0), (long * 0.25, thick * 0.86, high * 0.86), 0.065, apart_deg=66, up_deg=20)
    return stand(pieces)


def _upright(outline: list[tuple[float, float]]) -> Mesh:
    """A plate in the x-z plane with this outline, of a fin's thickness."""
    thickness = 0.05
    outline = outline if _area(outline) > 0 else outline[::-1]
    return move(turn(extrude(outline, thickness), "x", 90), y=thickness / 2)


def _area(outline: list[tuple[float, float]]) -> float:
    x, y = np.array(outline).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def turtle(rng: Rng, form: Form) -> list[Piece]:
    """A turtle under its shell, head out and up; the shell is round, high or with plates."""
    long, broad, high = rng.uniform(0.36, 0.42), rng.uniform(0.3, 0.36) * form.wide, rng.uniform(0.24, 0.34) * form.tall
    low = rng.uniform(0.1, 0.15)
    shell = move(scale(dome(1, 1, 24), (long, broad, high)), z=low)
    rim = scale(torus(1, 0.09, 28, 8), (long * 0.98, broad * 0.98, 0.5))
    pieces = [Piece("shell", shell), Piece("rim", move(rim, z=low + 0.02), "rim")]
    if rng.random() < 0.65:
        ring = int(rng.integers(5, 8))
        spots = [(0.0, 0.0, 1.0)]
        spots += [(0.74 * np.cos(a), 0.74 * np.sin(a), 0.67) for a in (np.arange(ring) + 0.5) * 2 * np.pi / ring]
        plates = []
        for u in spots:
            out = np.array([u[0] / long, u[1] / broad, u[2] / high])
            at = np.array([u[0] * long, u[1] * broad, u[2] * high + low])
            plates.append(
                along(move(cylinder(0.1 if u[2] == 1 else 0.085, 0.03, 6, top=0.06), z=-0.01), tuple(at), tuple(at + out))
            )
        pieces.append(Piece("plates", join(*plates), "rim", smooth=False))
    r, stretch, raise_ = rng.uniform(0.125, 0.15), rng.uniform(0.08, 0.16), rng.uniform(0.2, 0.36)
    head = (long + stretch, 0.0, low + raise_)
    flippers = rng.random() < 0.3
    limbs = []
    for x in (-0.62, 0.62):
        if flippers:
            wing = turn(blob((0, 0.14, 0), (0.09, 0.2, 0.045), 12), "z", -18 if x > 0 else 30)
            limbs.append(move(wing, x * long, broad * 0.75, low * 0.6 + 0.02))
        else:
            limbs.append(move(capsule(0.085, 0.13, 12), x * long, broad * 0.72, 0.085))
    pieces += [
        Piece("leg", pair(join(*limbs)), "skin"),
        Piece("belly", move(scale(cylinder(1, 0.08, 20), (long * 0.92, broad * 0.92, 1)), z=low - 0.04), "skin"),
        Piece("neck", rod((long * 0.7, 0, low + 0.05), head, 0.09, 0.085), "skin"),
        Piece("head", blob(head, (r * 1.15, r, r), 16), "skin"),
        Piece("tail", rod((-long * 0.9, 0, low), (-long - 0.14, 0, low - 0.04), 0.06, 0.02), "skin"),
        *eyes(head, (r * 1.15, r, r), 0.048, apart_deg=42, up_deg=30),
    ]
    return stand(pieces)


KINDS = (
    Kind(
        "duck",
        duck,
        {
            "main": ("yellow", "white", "yellow", "brown"),
            "bill": ("orange",),
            "wings": ("white", "straw", "orange", "tan"),
            **FACE,
        },
        {"beak": "bill", "wings": "wings"},
        forms=(),
        front=True,
    ),
    Kind(
        "fish",
        fish,
        {
            "main": ("orange", "blue", "coral", "turquoise", "yellow", "gray"),
            "fins": ("red", "yellow", "navy", "orange"),
            "stripes": ("white", "dark", "yellow"),
            "lips": ("rose",),
            **FACE,
        },
        {"fins": "fins"},
        forms=(),
        plural="fish",
        front=True,
    ),
    Kind(
        "turtle",
        turtle,
        {"main": ("green", "leaf", "brown", "rust"), "rim": ("tan", "straw", "bark"), "skin": ("lime", "tan", "sand"), **FACE},
        {"head": "skin", "legs": "skin"},
        forms=(),
        synonyms=("tortoise",),
        front=True,
    ),
)
