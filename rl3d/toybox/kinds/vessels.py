"""Vessels: what one drinks and pours from. Builders return pieces standing on z = 0."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    Points2,
    arc,
    cylinder,
    dome,
    join,
    lathe,
    loft,
    move,
    pair,
    sphere,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _curve(points: Points2, n: int = 4) -> list[tuple[float, float]]:
    """Pass a smooth curve (Catmull-Rom) through points, with ``n`` steps between neighbours; radii stay positive."""
    p = np.asarray(points, float)
    ends = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.arange(n)[:, None] / n
    spans = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        spans.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    curve = np.concatenate([*spans, p[-1:]])
    return [(float(max(r, 1e-3)), float(z)) for r, z in curve]


def vessel(outer: Points2, wall: float, n: int = 28) -> Mesh:
    """Turn an outer profile, from the foot up to the rim, into a hollow thing with walls and floor this thick."""
    outer = [(float(r), float(z)) for r, z in outer]
    (rim, top), floor = outer[-1], outer[0][1] + wall
    inner = [(max(r - wall, 0.02), z) for r, z in reversed(outer[:-1]) if z > floor + 0.02]
    bottom = float(np.interp(floor, [z for _, z in outer], [r for r, _ in outer]))
    lip = [(rim - wall * 0.5, top + wall * 0.4), (rim - wall, top)]
    return lathe([(0, outer[0][1]), *outer, *lip, *inner, (max(bottom - wall, 0.02) * 0.97, floor), (0, floor)], n)


def radius_at(profile: Points2, z: float) -> float:
    """Find how wide a profile is at a height."""
    points = np.asarray(profile, float)
    return float(np.interp(z, points[:, 1], points[:, 0]))


def belt(profile: Points2, low: float, high: float, out: float, n: int = 26) -> Mesh:
    """A belt that follows a profile between two heights and stands out from it by ``out``, with bevelled edges."""
    levels = np.linspace(low, high, 4)
    radii = np.array([radius_at(profile, z) for z in levels])
    inner = [(r - 0.02, z) for r, z in zip(radii[::-1], levels[::-1], strict=True)]
    outer = [(r + out, z) for r, z in zip(radii, levels, strict=True)]
    outer[0], outer[-1] = (outer[0][0], low + out * 0.4), (outer[-1][0], high - out * 0.4)
    around = np.arange(n) * 2 * np.pi / n
    rings = [np.stack([r * np.cos(around), r * np.sin(around), np.full(n, z)], 1) for r, z in [*inner, *outer]]
    return loft(np.stack(rings), closed=True)


def ear_handle(x: float, width: float, height: float, z: float, radius: float, n: int = 14) -> Mesh:
    """A half-elliptic handle that stands out towards +y from the distance ``x``, around the height ``z``."""
    path = np.array(arc(1.0, -100, 100, n))
    return tube(np.stack([0 * path[:, 0], x + width * path[:, 0], z + height * path[:, 2]], 1), radius, 10)


def mug(rng: Rng, form: Form) -> list[Piece]:
    """A thick cup with a big ear at its side and a drink in it: straight, tapered, round-bellied or with a foot."""
    height, radius = rng.uniform(0.68, 0.82) * form.tall, rng.uniform(0.32, 0.38) * form.wide
    style = rng.integers(4)
    shapes = (
        [(0.94, 0), (1, 0.05), (1, 1)],
        [(0.76, 0), (0.82, 0.05), (1.02, 1)],
        [(0.68, 0), (0.95, 0.18), (1.08, 0.45), (1.02, 0.75), (0.94, 1)],
        [(0.7, 0), (0.72, 0.07), (0.62, 0.12), (0.98, 0.3), (1.0, 0.6), (1, 1)],
    )
    profile = [(r * radius, z * height) for r, z in shapes[style]]
    if style >= 2:
        profile = _curve(profile, 3)
    cup = vessel(profile, 0.055)
    level = height * 0.86
    inside = radius_at(profile, level) - 0.03
    drink = move(cylinder(inside, 0.03, 28), z=level)
    middle = rng.uniform(0.5, 0.56)
    side = radius_at(profile, height * middle)
    handle = ear_handle(side, rng.uniform(0.22, 0.3), min(height * 0.33, 0.3), height * middle, rng.uniform(0.05, 0.062))
    pieces = [Piece("cup", cup), Piece("handle", handle, "handle"), Piece("drink", drink, "drink")]
    if style < 2 and rng.random() < 0.4:
        at = height * rng.uniform(0.3, 0.55)
        pieces.append(Piece("stripe", belt(profile, at, at + 0.12, 0.012), "handle"))
    return pieces


def bottle(rng: Rng, form: Form) -> list[Piece]:
    """A body, shoulders and a narrow neck with a cap, and a label around it: for wine, for milk, for soda or round."""
    radius, style = rng.uniform(0.17, 0.21) * form.wide, rng.integers(4)
    height = rng.uniform(0.95, 1.1) * form.tall
    shapes = (
        [(0.94, 0), (1, 0.03), (1, 0.52), (0.97, 0.57), (0.7, 0.66), (0.4, 0.74), (0.36, 0.8), (0.36, 0.94)],
        [(0.94, 0), (1, 0.03), (1, 0.6), (0.9, 0.68), (0.62, 0.77), (0.54, 0.84), (0.54, 0.94)],
        [(0.9, 0), (1, 0.06), (0.98, 0.2), (0.82, 0.34), (0.96, 0.5), (0.9, 0.62), (0.55, 0.78), (0.38, 0.86), (0.38, 0.94)],
        [(0.8, 0), (1.15, 0.12), (1.3, 0.3), (1.1, 0.48), (0.6, 0.6), (0.4, 0.68), (0.38, 0.94)],
    )
    profile = [(r * radius, z * height) for r, z in shapes[style]]
    if style >= 2:
        profile = _curve(profile, 3)
    neck = profile[-1][0]
    glass = lathe([(0, 0), *profile, (0, height * 0.94)], 24)
    cap = move(cylinder(neck * 1.25, 0.11, 20, neck * 1.15), z=height * 0.9)
    low, high = ((0.14, 0.42), (0.14, 0.48), (0.42, 0.6), (0.17, 0.42))[style]
    label = belt(profile, low * height, high * height, 0.014, 24)
    return [Piece("bottle", glass), Piece("cap", cap, "cap"), Piece("label", label, "label")]


def bowl(rng: Rng, form: Form) -> list[Piece]:
    """A wide open round bowl: deep, shallow, flared or on a foot, with a coloured rim."""
    radius, style = rng.uniform(0.48, 0.54) * form.wide, rng.integers(4)
    depth = rng.uniform(0.38, 0.46) * form.tall
    shapes = (
        [(0.3, 0), (0.62, 0.1), (0.88, 0.42), (0.98, 0.75), (1, 1)],
        [(0.5, 0), (0.62, 0.12), (0.84, 0.55), (1, 1)],
        [(0.4, 0), (0.4, 0.14), (0.66, 0.28), (0.92, 0.62), (1, 1)],
        [(0.36, 0), (0.74, 0.12), (0.86, 0.5), (0.92, 0.82), (1.12, 1)],
    )
    profile = _curve([(r * radius, z * depth) for r, z in shapes[style]], 3)
    dish = vessel(profile, 0.05, 32)
    band = belt(profile, depth - rng.uniform(0.05, 0.08), depth + 0.035, 0.03, 32)
    pieces = [Piece("bowl", dish), Piece("rim", band, "rim")]
    if rng.random() < 0.4:
        pieces.append(Piece("stripe", belt(profile, depth * 0.4, depth * 0.4 + 0.07, 0.014, 32), "rim"))
    return pieces


def vase(rng: Rng, form: Form) -> list[Piece]:
    """A curved open vessel with a flared lip and coloured stripes: an urn, an amphora with two ears, a trumpet or a bulb."""
    radius, height, style = rng.uniform(0.27, 0.32) * form.wide, rng.uniform(0.92, 1.06) * form.tall, rng.integers(4)
    shapes = (
        [(0.55, 0), (0.62, 0.05), (1, 0.35), (1.02, 0.58), (0.6, 0.82), (0.52, 0.9), (0.82, 1)],
        [(0.6, 0), (0.44, 0.07), (0.85, 0.35), (1.02, 0.58), (0.7, 0.74), (0.46, 0.84), (0.72, 1)],
        [(0.56, 0), (0.48, 0.06), (0.74, 0.26), (0.9, 0.5), (0.78, 0.74), (0.68, 0.88), (1.0, 1)],
        [(0.6, 0), (0.98, 0.14), (1.12, 0.32), (0.9, 0.5), (0.46, 0.64), (0.42, 0.8), (0.74, 1)],
    )
    profile = _curve([(r * radius, z * height) for r, z in shapes[style]], 3)

    pot = vessel(profile, 0.045)
    belts = (((0.38, 0.54),), ((0.42, 0.58),), ((0.3, 0.4), (0.54, 0.64)), ((0.2, 0.27), (0.34, 0.41)))[style]
    bands = [belt(profile, low * height, high * height, 0.02) for low, high in belts]
    if rng.random() < 0.5:
        bands.append(belt(profile, height - 0.05, height + 0.03, 0.03))
    pieces = [Piece("vase", pot), Piece("stripe", join(*bands), "stripe")]
    if style == 1 or (style == 0 and rng.random() < 0.3):
        low, high = 0.62, 0.92
        x = (radius_at(profile, low * height) + radius_at(profile, high * height)) / 2 - 0.02
        ear = ear_handle(x, rng.uniform(0.18, 0.24), (high - low) / 2 * height, (low + high) / 2 * height, 0.038, 12)
        pieces.append(Piece("handles", pair(ear)))
    return pieces


def teapot(rng: Rng, form: Form) -> list[Piece]:
    """A squat round pot with a spout at its right, a big ear at its left and a lid with a knob."""
    radius, tall = rng.uniform(0.36, 0.42) * (form.wide + 1) / 2, rng.uniform(0.9, 1.05) * form.tall
    style = rng.integers(3)
    shapes = (
        [(0.6, 0), (0.9, 0.18), (1.02, 0.45), (0.88, 0.75), (0.55, 0.94), (0.5, 1)],
        [(0.9, 0), (1.02, 0.12), (0.98, 0.4), (0.78, 0.8), (0.56, 1)],
        [(0.62, 0), (0.66, 0.08), (0.95, 0.5), (1.02, 0.7), (0.78, 0.92), (0.56, 1)],
    )
    height = 0.62 * tall
    profile = [(r * radius, z * height) for r, z in shapes[style]]
    profile = _curve(profile, 3)
    pot = lathe([(0, 0), *profile, (0, height)], 28)
    lift = height * 0.45
    spout_path = [
        (r, 0.0, z)
        for r, z in _curve(
            [
                (radius * 0.75, lift * 0.7),
                (radius + 0.13, lift * 1.0),
                (radius + 0.24, height * 0.8),
                (radius + 0.38, height * 1.02),
            ],
            3,
        )
    ]
    spout = tube(spout_path, np.linspace(0.125, 0.06, len(spout_path)).tolist(), 12)
    ear = turn(ear_handle(radius * 0.86, rng.uniform(0.28, 0.34), height * 0.36, height * 0.54, 0.055), "z", 90)
    lid = move(dome(radius * 0.62, 0.13, 24), z=height - 0.02)
    knob = move(sphere(0.075, 14), z=height + 0.16)
    parts = [
        ("pot", pot, "main"),
        ("spout", spout, "main"),
        ("handle", ear, "handle"),
        ("lid", lid, "lid"),
        ("knob", knob, "lid"),
    ]
    if rng.random() < 0.4:
        parts.append(("stripe", belt(profile, height * 0.42, height * 0.42 + 0.1, 0.012), "lid"))
    return [Piece(label, turn(mesh, "z", -90), slot) for label, mesh, slot in parts]


_GLAZE = ("white", "red", "blue", "yellow", "green", "turquoise", "orange", "cream", "purple", "pink")


KINDS: tuple[Kind, ...] = (
    Kind(
        "mug",
        mug,
        {"main": _GLAZE, "handle": ("white", "cream", "dark", "yellow", "blue", "red"), "drink": ("brown", "bark", "ivory")},
        accents={"handle": "handle"},
        forms=("tall", "short", "wide"),
        synonyms=("cup",),
        front=True,
    ),
    Kind(
        "bottle",
        bottle,
        {
            "main": ("green", "brown", "turquoise", "glass", "lime", "blue"),
            "cap": ("red", "golden", "white", "dark", "orange"),
            "label": ("white", "cream", "yellow", "ivory"),
        },
        accents={"cap": "cap", "label": "label"},
    ),
    Kind(
        "bowl",
        bowl,
        {"main": _GLAZE, "rim": ("blue", "white", "orange", "red", "cream", "navy")},
        accents={"rim": "rim"},
        forms=("wide",),
        container=True,
    ),
    Kind(
        "vase",
        vase,
        {
            "main": ("terracotta", "blue", "white", "turquoise", "green", "cream", "red", "sand"),
            "stripe": ("white", "navy", "golden", "cream", "dark"),
        },
        accents={"stripe": "stripe"},
    ),
    Kind(
        "teapot",
        teapot,
        {"main": _GLAZE, "lid": ("white", "golden", "cream", "navy", "coral"), "handle": ("dark", "wooden", "golden", "white")},
        accents={"lid": "lid", "handle": "handle"},
        front=True,
    ),
)
