"""Things to play, to wear and to climb. Long ones stand upright on z = 0 with their broad side to +x."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.tools import board, plate
from rl3d.toybox.shapes import (
    Mesh,
    bend,
    box,
    cylinder,
    ellipsoid,
    join,
    lathe,
    loft,
    move,
    rod,
    rounded_box,
    scale,
    sphere,
    turn,
)
from rl3d.toybox.things import ALL_FORMS, Form, Kind, Piece, Rng


def guitar(rng: Rng, form: Form) -> list[Piece]:
    """An acoustic guitar with a waist and a sound hole, or an electric one with horns."""
    electric = rng.random() < 0.4
    wide, tall = rng.uniform(0.25, 0.285) * form.wide**0.6, rng.uniform(0.52, 0.58) * form.tall
    neck_long = rng.uniform(0.32, 0.4) * form.tall
    if electric:
        half = np.array(
            [
                (0.0, 0.0),
                (0.1, 0.0),
                (0.2, 0.03),
                (0.25, 0.12),
                (0.24, 0.22),
                (0.19, 0.3),
                (0.18, 0.36),
                (0.22, 0.44),
                (0.22, 0.53),
            ]
        )
        right = np.concatenate([half[1:], [(0.17, 0.55), (0.12, 0.47), (0.06, 0.43)]])
        left = np.concatenate([half[1:-1], [(0.23, 0.5), (0.24, 0.6), (0.19, 0.63), (0.13, 0.53), (0.06, 0.43)]])
        outline = np.concatenate([right, (left * (-1, 1))[::-1]]) * (wide / 0.25, tall / 0.55)
        depth, joint = 0.11, 0.43 * tall / 0.55
        body = board(outline, depth)
    else:
        t = (1 - np.cos(np.linspace(0, np.pi, 19))) / 2
        pinch = rng.uniform(0.12, 0.16)
        bout = (1 - (2 * t - 1) ** 4) ** 0.5 * (0.88 - 0.2 * (t - 0.27) + pinch * np.cos(2 * np.pi * (t - 0.27) / 0.62))
        right = np.stack([wide * bout, tall * t], 1)
        outline = np.concatenate([right, (right[1:-1] * (-1, 1))[::-1]])
        depth, joint = 0.17, tall
        body = plate(outline, depth, 0.018)
    face = depth / 2
    top = joint + neck_long
    neck = join(
        move(box(0.06, 0.105, top - 0.6 * tall, taper=(1, 0.85)), face - 0.005, 0, 0.6 * tall),
        move(
            board([(-0.05, -0.02), (0.05, -0.02), (0.085, 0.17), (-0.085, 0.2 if electric else 0.17)], 0.06),
            face - 0.01,
            0,
            top,
        ),
    )
    frets = [
        move(box(0.075, 0.096, 0.02), face - 0.005, 0, joint + neck_long * f) for f in (0.15, 0.32, 0.49, 0.66, 0.83, 0.98)
    ]
    peg = ellipsoid(0.03, 0.038, 0.028, 10)
    pegs = [move(peg, face - 0.01, s * 0.1, top + dz) for s in (-1, 1) for dz in (0.03, 0.09, 0.15)]
    pieces = [
        Piece("body", body, smooth=not electric),
        Piece("neck", neck, "neck", False),
        Piece("fret", join(*frets), "trim", False),
        Piece("peg", join(*pegs), "trim"),
    ]
    disc = turn(cylinder(1, 1, 24), "y", 90)
    if electric:
        guard = np.array([(0.02, 0.1), (0.16, 0.08), (0.19, 0.16), (0.13, 0.28), (0.13, 0.44), (-0.1, 0.42), (-0.06, 0.2)]) * (
            wide / 0.25,
            tall / 0.55,
        )
        pickups = [move(box(0.05, 0.13, 0.045), face, 0, tall * f) for f in (0.36, 0.5)]
        bridge = move(box(0.06, 0.15, 0.04), face, 0, 0.2 * tall)
        knobs = [move(scale(disc, (0.05, 0.028, 0.028)), face, 0.55 * wide, tall * f) for f in (0.18, 0.3)]
        pieces += [
            Piece("pickguard", move(board(guard, 0.03), face), "trim", False),
            Piece("pickup", join(*pickups, bridge), "dark", False),
            Piece("knob", join(*knobs), "dark"),
        ]
    else:
        hole = 0.36 * wide if form.wide > 1 else 0.4 * wide
        z = 0.6 * tall
        pieces += [
            Piece("rosette", move(scale(disc, (0.012, hole + 0.03, hole + 0.03)), face - 0.001, 0, z), "trim"),
            Piece("sound hole", move(scale(disc, (0.024, hole, hole)), face - 0.001, 0, z), "dark"),
            Piece("bridge", move(box(0.05, 1.05 * wide, 0.05), face, 0, 0.24 * tall), "dark", False),
        ]
    strings = [move(box(0.012, 0.012, top - 0.22 * tall), face + 0.032, y, 0.22 * tall) for y in (-0.027, 0, 0.027)]
    return [*pieces, Piece("string", join(*strings), "strings", False)]


def hat(rng: Rng, form: Form) -> list[Piece]:
    """A top hat, a cowboy hat, a straw hat or a wizard's hat, with a ribbon."""
    shape = rng.choice(["top", "cowboy", "straw", "wizard"])
    wide = form.wide
    brim = {"top": 0.42, "cowboy": 0.52, "straw": 0.55, "wizard": 0.48}[str(shape)] * rng.uniform(0.95, 1.08) * wide
    crown = {"top": 0.27, "cowboy": 0.25, "straw": 0.28, "wizard": 0.28}[str(shape)] * rng.uniform(0.94, 1.06) * wide
    high = {"top": 0.5, "cowboy": 0.34, "straw": 0.3, "wizard": 0.78}[str(shape)] * rng.uniform(0.92, 1.1) * form.tall
    thick = 0.05
    disc = lathe(
        [
            (0, 0),
            (0.5 * brim, 0),
            (0.97 * brim, 0),
            (brim, 0.4 * thick),
            (0.97 * brim, thick),
            (0.7 * brim, thick),
            (0.4 * brim, thick),
            (0, thick),
        ],
        36,
    )
    if shape == "top":
        flare = rng.uniform(1.0, 1.2)
        profile = [(0, 0), (1.0, 0), (0.95, 0.3), (0.97, 0.6), (1.02 * flare, 0.97), (0.98 * flare, 1), (0, 1)]
        curl = 0.1
    elif shape == "cowboy":
        profile = [(0, 0), (1, 0), (0.97, 0.3), (0.9, 0.65), (0.78, 0.88), (0.6, 0.98), (0.35, 1), (0.15, 1), (0, 1)]
        curl = 0.22
    elif shape == "straw":
        a = np.linspace(0, 90, 8)
        profile = [
            (0, 0),
            (1, 0),
            *((np.cos(np.radians(d)) ** 0.7 if d < 90 else 0, 0.2 + 0.8 * np.sin(np.radians(d))) for d in a),
        ]
        curl = rng.uniform(-0.08, 0.0)
    else:
        profile = [(0, 0), (1, 0), *((1 - 0.96 * h**0.85, h) for h in np.linspace(0.1, 0.94, 9)), (0.04, 0.98), (0, 1)]
        curl = rng.uniform(-0.05, 0.08)
    top = lathe([(crown * r, high * z) for r, z in profile], 28)
    band_high = 0.3 if shape in ("top", "cowboy", "straw") else 0.17
    rs, zs = np.array(profile[1:-1]).T
    levels = np.linspace(0, band_high, 4)
    radius = [crown * float(np.interp(level, zs, rs)) + 0.013 for level in levels]
    band = lathe([(0, 0), *((r, high * level) for r, level in zip(radius, levels, strict=True)), (0, high * band_high)], 28)
    dent, lean = rng.uniform(0.07, 0.1), rng.uniform(0.1, 0.26) * rng.choice([-1, 1])

    def crease(p: np.ndarray) -> np.ndarray:
        # The cowboy's crown is pinched along its top; the wizard's point leans over.
        p = p.copy()
        up = np.clip(p[:, 2] / high, 0, 1)
        if shape == "cowboy":
            p[:, 1] *= 0.86
            p[:, 2] -= dent * up**4 * np.exp(-((p[:, 1] / (0.3 * crown)) ** 2))
        if shape == "wizard":
            p[:, 1] += lean * up**2.5
        return p

    def roll(p: np.ndarray) -> np.ndarray:
        p = p.copy()
        p[:, 2] += curl * (np.abs(p[:, 1]) / brim) ** 2.5 * wide
        if shape == "cowboy":
            p[:, 1] *= 0.82
            p[:, 2] -= 0.05 * (np.abs(p[:, 0]) / brim) ** 3
        return p

    parts = [bend(disc, roll), move(bend(top, crease), z=0.6 * thick), move(bend(band, crease), z=0.8 * thick)]
    low = min(float(m.vertices[:, 2].min()) for m in parts)
    disc, top, band = (move(m, z=-low) for m in parts)
    pieces = [Piece("brim", disc), Piece("crown", top), Piece("ribbon", band, "ribbon")]
    if shape == "wizard" or rng.random() < 0.3:
        x = crown * 0.9 * (1 - 0.5 * band_high if shape == "wizard" else 1)
        square = board([(-0.07, -0.07), (0.07, -0.07), (0.07, 0.07), (-0.07, 0.07)], 0.06)
        z = -low + 0.8 * thick + 0.5 * high * band_high
        pieces.append(Piece("buckle", move(square, x + 0.02, 0, z), "buckle", False))
    return pieces


def ladder(rng: Rng, form: Form) -> list[Piece]:
    """A step ladder that stands open: flat steps or rungs in front, props or more rungs behind."""
    height, foot = rng.uniform(0.92, 1.04) * form.tall, rng.uniform(0.26, 0.31) * form.wide
    top = foot * rng.uniform(0.6, 0.78)
    spread, thick = rng.uniform(0.24, 0.3), 0.032
    double, flat = rng.random() < 0.4, rng.random() < 0.6

    def rail(x: float, y0: float, y1: float) -> Mesh:
        if flat:
            beam = [(-thick, -thick), (thick, -thick), (thick, thick), (-thick, thick)]
            ends = ((x, y0, 0.0), (np.sign(x) * 0.035, y1, height))
            return loft(np.stack([np.column_stack([np.array(beam) + end[:2], np.full(4, end[2])]) for end in ends]))
        return rod((x, y0, 0.011), (np.sign(x) * 0.035, y1, height), 0.034, n=10)

    count = max(3, round(rng.integers(4, 6) * form.tall**0.7))
    fractions = (np.arange(count) + 0.8) / (count + 0.6)

    def treads(x: float) -> list[Mesh]:
        found = []
        for f in fractions:
            at, half = x + (np.sign(x) * 0.035 - x) * f, foot + (top - foot) * f
            if flat:
                found.append(move(rounded_box(0.12, 2 * half, 0.045, 0.012, 1), at, 0, height * f - 0.02))
            else:
                found.append(rod((at, -half, height * f), (at, half, height * f), 0.028, n=10))
        return found

    rails = [rail(spread, s * foot, s * top) for s in (-1, 1)] + [rail(-spread, s * foot, s * top) for s in (-1, 1)]
    steps = treads(spread)
    if double:
        steps += treads(-spread)
    else:
        for f in (0.25, 0.6):
            at, half = -spread + (spread - 0.035) * f, foot + (top - foot) * f
            rails.append(move(rounded_box(0.04, 2 * half, 0.06, 0.01, 1), at, 0, height * f))
    braces = [
        rod(
            (-0.6 * spread, s * (foot + (top - foot) * 0.4), 0.4 * height),
            (0.6 * spread, s * (foot + (top - foot) * 0.4), 0.4 * height),
            0.022,
            n=8,
        )
        for s in (-1, 1)
    ]
    cap = move(rounded_box(0.24, 2 * top + 0.1, 0.06, 0.015, 1), z=height - 0.02)
    return [
        Piece("rail", join(*rails), smooth=not flat),
        Piece("step", join(*steps), "steps", not flat),
        Piece("brace", join(*braces), "braces"),
        Piece("top step", cap, smooth=False),
    ]


def drum(rng: Rng, form: Form) -> list[Piece]:
    """A drum with hoops and skins: laced in zigzag, set with rods, or a goblet; usually with two sticks."""
    shape = rng.choice(["laced", "laced", "rods", "goblet"])
    radius = rng.uniform(0.34, 0.4) * form.wide
    high = rng.uniform(0.38, 0.48) * form.tall * (1.7 if shape == "goblet" else 1)
    if shape == "goblet":
        radius *= 0.85
        curve = [(0.72, 0.0), (0.66, 0.06), (0.48, 0.32), (0.47, 0.42), (0.62, 0.56), (0.9, 0.74), (1, 0.88), (1, 1)]
    else:
        curve = [(1, 0), (1, 1)]
    shell = lathe([(0, 0), *((radius * r, high * z) for r, z in curve), (0, high)], 32)
    hoop = lathe(
        [
            (0, -0.045),
            (radius + 0.02, -0.045),
            (radius + 0.035, -0.02),
            (radius + 0.035, 0.02),
            (radius + 0.02, 0.045),
            (0, 0.045),
        ],
        32,
    )
    skin = move(lathe([(0, 0), (0.94 * radius, 0), (0.94 * radius, 0.025), (0, 0.04)], 28), z=high + 0.03)
    rims = [move(hoop, z=high)]
    reach = radius + 0.012
    count = 8
    angle = np.arange(2 * count) * (np.pi / count)
    if shape == "goblet":
        rims.append(move(scale(hoop, (0.72, 0.72, 0.8)), z=0.036))
        rims.append(move(scale(hoop, (0.96, 0.96, 0.8)), z=0.7 * high))
        low, high_at = 0.72 * high, high - 0.02
    else:
        rims.append(move(hoop, z=0.045))
        low, high_at = 0.07, high - 0.02
    tips = [(reach * np.cos(a), reach * np.sin(a), low if i % 2 else high_at) for i, a in enumerate(angle)]
    if shape == "rods":
        cords = [
            rod((reach * np.cos(a), reach * np.sin(a), low), (reach * np.cos(a), reach * np.sin(a), high_at), 0.022, n=8)
            for a in angle[::2]
        ]
        cords += [move(sphere(0.045, 10), reach * np.cos(a), reach * np.sin(a), (low + high_at) / 2) for a in angle[::2]]
    else:
        cords = [rod(a, b, 0.02, n=6) for a, b in zip(tips, tips[1:] + tips[:1], strict=True)]
    pieces = [
        Piece("shell", shell),
        Piece("rim", join(*rims), "rims"),
        Piece("skin", skin, "skin"),
        Piece("cord", join(*cords), "cords"),
    ]
    if shape != "goblet" and rng.random() < 0.85:
        long = 1.5 * min(radius, 0.4)
        stick = join(rod((-long / 2, 0, 0), (long / 2, 0, 0), 0.026, n=10), move(ellipsoid(0.06, 0.045, 0.045, 12), long / 2))
        spread = rng.uniform(25, 40)
        level = high + 0.095
        pair = [move(turn(turn(stick, "y", 2 * s), "z", s * spread), 0, 0.0, level + 0.022 * s) for s in (-1, 1)]
        pieces.append(Piece("drumstick", turn(join(*pair), "z", rng.uniform(0, 360)), "sticks"))
    return pieces


KINDS: tuple[Kind, ...] = (
    Kind(
        "guitar",
        guitar,
        {
            "main": ("wooden", "orange", "tan", "red", "sand"),
            "neck": ("bark", "brown", "dark"),
            "trim": ("cream", "white", "ivory"),
            "dark": ("dark",),
            "strings": ("silver", "cream"),
        },
        accents={"neck": "neck"},
        forms=ALL_FORMS,
        front=True,
    ),
    Kind(
        "hat",
        hat,
        {
            "main": ("black", "brown", "straw", "navy", "gray", "purple"),
            "ribbon": ("red", "white", "golden", "turquoise", "cream"),
            "buckle": ("golden", "silver"),
        },
        accents={"ribbon": "ribbon"},
        forms=ALL_FORMS,
    ),
    Kind(
        "ladder",
        ladder,
        {
            "main": ("wooden", "tan", "steel", "red", "yellow"),
            "steps": ("wooden", "steel", "gray", "tan"),
            "braces": ("steel", "dark"),
        },
        accents={"steps": "steps"},
        forms=ALL_FORMS,
        loose=False,
    ),
    Kind(
        "drum",
        drum,
        {
            "main": ("red", "blue", "wooden", "green", "yellow"),
            "rims": ("golden", "white", "silver", "cream"),
            "skin": ("cream", "white", "ivory"),
            "cords": ("white", "cream", "golden"),
            "sticks": ("wooden", "tan"),
        },
        accents={"rims": "rims"},
        forms=ALL_FORMS,
    ),
)
