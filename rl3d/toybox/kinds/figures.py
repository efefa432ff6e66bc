"""Figures: a robot, a teddy bear, a ghost. All face +x."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.blobs import FACE, ball, blob, eyes, stand
from rl3d.toybox.shapes import Mesh, bend, box, capsule, cone, cylinder, join, lathe, move, pair, rod, rounded_box, scale, turn
from rl3d.toybox.things import Form, Kind, Piece, Rng


def robot(rng: Rng, form: Form) -> list[Piece]:
    """A robot with a boxy or domed head, on legs, tracks or one wheel, arms down, out or up."""
    deep, broad, high = rng.uniform(0.2, 0.27), rng.uniform(0.3, 0.38) * form.wide, rng.uniform(0.3, 0.38) * form.tall
    base, low = rng.choice(3, p=[0.6, 0.25, 0.15]), rng.uniform(0.2, 0.26) * form.tall
    pieces: list[Piece] = []
    if base == 0:
        leg = join(rod((0, 0, 0.03), (0, 0, low + 0.03), 0.055), move(box(0.2, 0.13, 0.08, taper=(0.8, 0.8)), 0.03))
        pieces.append(Piece("leg", pair(move(leg, 0, broad * 0.28)), smooth=False))
    elif base == 1:
        track = turn(capsule(0.1, 0.3, 16), "y", 90)
        pieces.append(
            Piece(
                "track",
                pair(move(join(move(track, -0.15), move(box(0.3, 0.12, 0.12), 0, 0, -0.06)), 0, broad * 0.42, 0.1)),
                "tracks",
            )
        )
        low = 0.16
    else:
        pieces.append(Piece("wheel", move(turn(move(cylinder(0.14, 0.1, 24), z=-0.05), "x", 90), z=0.14), "tracks"))
        pieces.append(Piece("leg", pair(rod((0, 0.07, 0.14), (0, 0.07, 0.36), 0.035)), "joints"))
        low = 0.31
    boxy = rng.random() < 0.7
    torso = rounded_box(deep, broad, high, 0.035, 2) if boxy else rounded_box(deep * 1.15, broad, high, 0.1, 4)
    pieces.append(Piece("body", move(torso, z=low)))
    top = low + high
    hx, hy, hz = rng.uniform(0.2, 0.25), rng.uniform(0.26, 0.34), rng.uniform(0.2, 0.25)
    neck = top + 0.045
    pieces.append(Piece("neck", move(cylinder(0.06, 0.08, 14), z=top - 0.02), "joints"))
    if rng.random() < 0.7:
        pieces.append(Piece("head", move(rounded_box(hx, hy, hz, 0.03, 2), z=neck), "head"))
        face = hx / 2
    else:
        t = np.linspace(0, np.pi / 2, 8)
        dome = lathe(
            [(hy / 2, 0), *zip(hy / 2 * np.cos(t[:-1]), hz * 0.4 + hz * 0.65 * np.sin(t[:-1]), strict=True), (0, hz * 1.05)], 24
        )
        pieces.append(Piece("head", move(dome, z=neck), "head"))
        face = hy / 2 * 0.86
    if rng.random() < 0.75:
        eye = turn(cylinder(0.05, 0.05, 16), "y", 90)
        pupil = turn(cylinder(0.027, 0.065, 12), "y", 90)
        pieces.append(Piece("eye", pair(move(eye, face - 0.02, hy * 0.22, neck + hz * 0.6)), "eyes"))
        pieces.append(Piece("eye", pair(move(pupil, face - 0.02, hy * 0.22, neck + hz * 0.6)), "pupils"))
    else:
        pieces.append(Piece("eye", move(box(0.06, hy * 0.8, 0.085), face - 0.02, 0, neck + hz * 0.5), "pupils", smooth=False))
        pieces.append(
            Piece("eye", pair(blob((face + 0.04, hy * 0.2, neck + hz * 0.5 + 0.042), (0.02, 0.03, 0.03), 10)), "lights")
        )
    pieces.append(Piece("mouth", move(box(0.04, hy * 0.45, 0.035), face - 0.015, 0, neck + hz * 0.18), "pupils", smooth=False))
    ends = [0.0] if rng.random() < 0.6 else [-0.08, 0.08]
    for y in ends:
        tip = (0.0, y * 1.6, neck + hz + rng.uniform(0.1, 0.14))
        pieces.append(Piece("antenna", rod((0, y, neck + hz * 0.9), tip, 0.022, n=8), "joints"))
        pieces.append(Piece("antenna", ball(tip, 0.045, 10), "lights"))
    if rng.random() < 0.7:
        ear = turn(cylinder(0.06, 0.04, 14), "x", -90)
        pieces.append(Piece("ear", pair(move(ear, 0, hy / 2 - 0.005, neck + hz * 0.5)), "joints"))
    panel = move(
        box(0.04, broad * 0.62, high * 0.5),
        deep / 2 - 0.015 if torso.bounds[1][0] < deep * 0.52 else deep * 0.575 - 0.015,
        0,
        low + high * 0.3,
    )
    pieces.append(Piece("panel", panel, "panel", smooth=False))
    front = float(panel.bounds[1][0])
    lamps = [ball((front, y * broad * 0.2, low + high * 0.65), 0.032, 10) for y in (-1, 0, 1)]
    pieces.append(
        Piece("light", join(*lamps, move(box(0.03, broad * 0.42, 0.04), front - 0.01, 0, low + high * 0.38)), "lights")
    )
    shoulder = (0.0, broad / 2 + 0.04, top - 0.07)
    poses = [np.radians(rng.choice([-80.0, -30.0, 50.0], p=[0.4, 0.35, 0.25]))] * 2
    if rng.random() < 0.3:
        poses[1] = np.radians(50.0)
    arms: list[Mesh] = []
    hands: list[Mesh] = []
    for side, a in zip((1, -1), poses, strict=True):
        reach = 0.24
        hand = np.array([0.05, shoulder[1] + 0.02 + reach * np.cos(a), shoulder[2] + reach * np.sin(a)]) * (1, side, 1)
        joint = np.array(shoulder) * (1, side, 1)
        arms += [ball(tuple(joint), 0.062, 12), rod(tuple(joint), tuple(hand), 0.04, n=10)]
        out = (hand - joint) / np.linalg.norm(hand - joint)
        claw = np.array([0.0, -out[2], out[1]]) * 0.06
        hands.append(ball(tuple(hand), 0.052, 10))
        hands += [rod(tuple(hand + s * claw * 0.6), tuple(hand + s * claw + out * 0.1), 0.026, n=8) for s in (1, -1)]
    pieces += [Piece("arm", join(*arms)), Piece("hand", join(*hands), "joints")]
    return stand(pieces)


def teddy_bear(rng: Rng, form: Form) -> list[Piece]:
    """A sitting or standing teddy bear with round ears, a light belly and at times a bow tie."""
    sits, r = rng.random() < 0.65, rng.uniform(0.2, 0.225)
    fat, high = rng.uniform(0.19, 0.23) * form.wide, rng.uniform(0.22, 0.25) * form.tall
    low = high if sits else high + 0.14 * form.tall
    head = (0.03, 0.0, low + high + r * 0.72)
    x, _, z = head
    if sits:
        limb, sole = capsule(0.085, 0.2, 14), blob((0, 0, 0), (0.03, 0.06, 0.06), 10)
        legs = turn(move(turn(limb, "y", 90), 0.05, 0.0, 0.09), "z", 24)
        tip = 0.335
        soles = move(turn(move(sole, tip - 0.01, 0, 0.09), "z", 24), 0, 0.1)
        legs = move(legs, 0, 0.1)
    else:
        legs = join(move(capsule(0.085, low * 0.7, 14), 0, 0.11, 0.085), blob((0.05, 0.11, 0.06), (0.12, 0.085, 0.06), 12))
        soles = blob((0, 0.11, 0.02), (0.05, 0.05, 0.02), 8)
    raised = rng.choice([-50.0, -10.0, 45.0], p=[0.5, 0.3, 0.2])
    a = np.radians(raised)
    shoulder = np.array([0.02, fat * 0.72, low + high * 0.55])
    hand = shoulder + np.array([0.1, 0.2 * np.cos(a), 0.2 * np.sin(a)])
    arm = join(
        rod(tuple(shoulder), tuple(hand), 0.075, 0.07, 12), ball(tuple(hand), 0.078, 12), ball(tuple(shoulder), 0.075, 10)
    )
    pieces = [
        Piece("body", blob((0, 0, low), (fat * 0.92, fat, high), 20)),
        Piece("belly", blob((fat * 0.32, 0, low - 0.01), (fat * 0.66, fat * 0.68, high * 0.7), 16), "belly"),
        Piece("leg", pair(legs)),
        Piece("foot", pair(soles), "belly"),
        Piece("arm", pair(arm)),
        Piece("head", blob(head, (r * 0.95, r * 1.06, r * 0.95), 20)),
        Piece("muzzle", blob((x + r * 0.78, 0, z - r * 0.28), (0.095, 0.1, 0.08), 14), "belly"),
        Piece("nose", blob((x + r * 0.78 + 0.085, 0, z - r * 0.14), (0.032, 0.048, 0.034), 10), "pupils"),
        *eyes(head, (r * 0.95, r * 1.06, r * 0.95), 0.042, apart_deg=28, up_deg=20),
    ]
    size, out = rng.uniform(0.085, 0.105), rng.uniform(42, 52)
    ear = turn(move(blob((0, 0, 0), (0.05, size, size), 14), z=r * 1.15), "x", -out)
    inner = turn(move(blob((0.03, 0, 0), (0.035, size * 0.62, size * 0.62), 10), z=r * 1.15), "x", -out)
    pieces += [Piece("ear", pair(move(ear, x - 0.03, 0, z))), Piece("ear", pair(move(inner, x - 0.03, 0, z)), "belly")]
    if rng.random() < 0.55:
        wing = turn(cone(0.085, 0.15, 12), "x", 90)
        bow = join(pair(move(scale(wing, (0.55, 1, 1)), y=0.145)), ball((0, 0, 0), 0.045, 10))
        pieces.append(Piece("bow", move(bow, fat * 0.72 + 0.05, 0, low + high * 0.8), "bow"))
    return stand(pieces)


def ghost(rng: Rng, form: Form) -> list[Piece]:
    """A ghost in a sheet with a wavy hem, big dark eyes and an open mouth."""
    r, high = rng.uniform(0.25, 0.29), rng.uniform(0.85, 0.98)
    high, r = high * form.tall, r * form.wide
    waves, flare = int(rng.integers(5, 8)), rng.uniform(1.15, 1.4)
    t = np.linspace(0, np.pi / 2, 9)
    cap = [(r * np.cos(u), high - r + r * np.sin(u)) for u in t[:-1]]
    hem = [(0, 0.14), (r * flare * 0.9, 0.14), (r * flare, 0.02), (r * flare * 0.98, 0.1), (r * 1.08, high * 0.4)]
    sheet = lathe([*hem, *cap, (0, high)], 48)
    tail = rng.uniform(-0.25, 0.25) if rng.random() < 0.5 else 0.0

    def drape(p):
        low = np.clip(1 - p[:, 2] / (high * 0.45), 0, 1)
        wave = np.cos(waves * np.arctan2(p[:, 1], p[:, 0]))
        factor = 1 + 0.12 * wave * low
        edge = (p[:, 2] < 0.12) & (np.hypot(p[:, 0], p[:, 1]) > r * 0.7)
        return np.stack([p[:, 0] * factor, p[:, 1] * factor + tail * low**2, p[:, 2] + edge * 0.05 * (1 - wave)], 1)

    top = high - r * 0.9
    lift = rng.uniform(0.0, 0.22)
    arm = join(
        rod((0, r * 0.7, top - 0.14), (0.16, r + 0.1, top - 0.12 + lift), 0.1, 0.065, 12),
        ball((0.16, r + 0.1, top - 0.12 + lift), 0.065, 12),
    )
    size = rng.uniform(0.052, 0.065)
    pieces = [
        Piece("body", join(bend(sheet, drape), pair(arm))),
        Piece("eye", pair(blob((r * 0.88, r * 0.4, top + 0.06), (0.04, size, size * 1.45), 12)), "pupils"),
    ]
    if rng.random() < 0.75:
        pieces.append(Piece("mouth", blob((r * 0.99, 0, top - 0.1), (0.035, 0.055, rng.uniform(0.045, 0.09)), 12), "pupils"))
    return stand(pieces)


KINDS = (
    Kind(
        "robot",
        robot,
        {
            "main": ("gray", "steel", "blue", "red", "turquoise", "orange", "white"),
            "head": ("steel", "gray", "white", "yellow"),
            "joints": ("gray", "steel", "dark"),
            "tracks": ("dark",),
            "panel": ("dark", "navy", "white"),
            "lights": ("red", "yellow", "lime"),
            **FACE,
        },
        {"head": "head"},
        forms=("tall", "short", "wide", "narrow"),
        front=True,
    ),
    Kind(
        "teddy bear",
        teddy_bear,
        {"main": ("brown", "tan", "rust", "straw"), "belly": ("cream", "sand"), "bow": ("red", "blue", "green"), **FACE},
        {"belly": "belly"},
        forms=(),
        synonyms=("teddy", "bear"),
        front=True,
    ),
    Kind(
        "ghost",
        ghost,
        {"main": ("white", "white", "ivory"), "pupils": ("dark",)},
        forms=("tall", "short", "wide", "narrow"),
        front=True,
    ),
)
