"""Things to hold, play and wear. Long ones stand upright on z = 0 with their broad side to +x."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    Points2,
    bend,
    box,
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
    sphere,
    torus,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _front(outline: Points2, depth: float) -> Mesh:
    """Sweep a front view, (y, z) counter-clockwise, along x, half of ``depth`` to either side of x = 0."""
    return move(turn(turn(extrude(outline, depth), "x", 90), "z", 90), x=-depth / 2)


def _plate(outline: Points2, depth: float, bevel: float) -> Mesh:
    """Do the same with rounded rims, for outlines that are seen whole from their centre."""
    outline = np.asarray(outline, float)
    low, high = outline.min(0), outline.max(0)
    centre, half = (low + high) / 2, (high - low) / 2
    levels = [(bevel, -depth / 2), (0.3 * bevel, 0.3 * bevel - depth / 2), (0, bevel - depth / 2)]
    levels += [(inset, -x) for inset, x in levels[::-1]]
    rings = [
        np.column_stack([np.full(len(outline), x), centre + (outline - centre) * (half - inset) / half]) for inset, x in levels
    ]
    return loft(np.stack(rings))


def _handle(height: float, radius: float, grip: float, n: int = 16) -> Mesh:
    """A turned handle on the z axis, thicker by the factor ``grip`` in its lower third."""
    profile = [(0, 0), (0.8, 0), (grip, 0.04), (grip, 0.2), (1, 0.45), (0.92, 0.7), (0.95, 1), (0, 1)]
    return lathe([(radius * r, height * z) for r, z in profile], n)


def hammer(rng: Rng, form: Form) -> list[Piece]:
    """A claw hammer, a round mallet or a square sledge, its head up."""
    shape = rng.choice(["claw", "mallet", "sledge"])
    height, thick = rng.uniform(0.72, 0.86) * form.tall, rng.uniform(0.048, 0.058)
    grip = 1.0 if shape == "mallet" else rng.uniform(1.05, 1.25)
    handle = scale(_handle(height, thick, grip), (1, 1.15, 1))
    wide = form.wide
    if shape == "claw":
        size = rng.uniform(0.088, 0.1)
        heart = rounded_box(1.7 * size, 0.24 * wide, 2 * size, 0.03, 2)
        neck = lathe(
            [
                (0, 0),
                (0.72 * size, 0),
                (0.72 * size, 0.12),
                (1.25 * size, 0.16),
                (1.3 * size, 0.24),
                (1.2 * size, 0.26),
                (0, 0.26),
            ],
            20,
        )
        neck = scale(turn(neck, "x", -90), (1, wide, 1))
        reach = rng.uniform(0.26, 0.32)
        path = np.array([(0.0, -0.06, 0), (0, -0.14, 0.005), (0, -0.21, -0.02), (0, -0.27, -0.075), (0, -reach - 0.03, -0.16)])
        prongs = [
            tube(
                path * (1, wide, 1) + np.linspace(0.3, 1, 5)[:, None] * (s * 0.068, 0, 0),
                [0.07, 0.066, 0.056, 0.044, 0.026],
                10,
            )
            for s in (-1, 1)
        ]
        head = [move(heart, z=height - size), *(move(m, z=height + 0.01) for m in (move(neck, y=0.08 * wide), *prongs))]
        pieces = [Piece("head", join(*head))]
    else:
        size, long = rng.uniform(0.13, 0.16), rng.uniform(0.46, 0.56) * wide
        if shape == "mallet":
            barrel = lathe([(0, 0), (0.9, 0), (1, 0.07), (1, 0.2), (0.92, 0.5), (1, 0.8), (1, 0.93), (0.9, 1), (0, 1)], 24)
            head = turn(move(scale(barrel, (size, size, long)), z=-long / 2), "x", 90)
            ring = turn(move(cylinder(size + 0.012, 0.045, 24), z=-0.0225), "x", 90)
            rings = _both(ring, 0.34 * long)
        else:
            outline = [(-0.5, -0.7), (-0.42, -1), (-0.16, -0.72), (0.16, -0.72), (0.42, -1), (0.5, -0.7)]
            outline += [(-y, -z) for y, z in outline]
            head = _plate(np.array(outline) * (long, 0.92 * size), 1.7 * size, 0.02)
            rings = _both(box(1.75 * size, 0.04, 1.78 * size), 0.3 * long)
            rings = move(rings, z=-0.89 * size)
        pieces = [Piece("head", move(head, z=height), smooth=shape == "mallet")]
        if rng.random() < 0.6:
            pieces.append(Piece("band", move(rings, z=height), "band", shape == "mallet"))
        handle = join(handle, move(cylinder(0.9 * thick, size + 0.03, 16), z=height))
    return [*pieces, Piece("handle", handle, "handle")]


def _both(mesh: Mesh, y: float) -> Mesh:
    """The mesh at y and at -y."""
    return join(move(mesh, y=y), move(mesh, y=-y))


def axe(rng: Rng, form: Form) -> list[Piece]:
    """An axe with one blade, two blades, or a blade and a spike, its head up."""
    shape = rng.choice(["single", "single", "double", "spike"])
    height, thick = rng.uniform(0.86, 0.96) * form.tall, rng.uniform(0.046, 0.054)
    bow = 0.0 if shape == "double" else rng.uniform(-0.05, 0.06)
    levels = np.linspace(0, 1, 9)
    path = np.column_stack([0 * levels, bow * np.sin(np.pi * levels), 0.015 + (height - 0.015) * levels])
    handle = tube(path, thick * np.array([1.3, 1.25, 1.05, 1, 1, 1, 1, 1.05, 1.05]), 14)
    reach, flare = rng.uniform(0.3, 0.36) * form.wide, rng.uniform(0.17, 0.22)
    drop = rng.uniform(0.0, 0.07) if shape != "double" else 0.0
    edge = np.linspace(-1, 1, 11)
    curve = np.stack([reach - 0.2 * reach * edge**2, flare * edge - drop * (1 - edge) * 0.6], 1)
    outline = np.concatenate(
        [
            [(-0.075, -0.085), (0.05, -0.085), (0.55 * reach, -0.11 - 0.4 * drop)],
            curve,
            [(0.55 * reach, 0.1), (0.05, 0.085), (-0.075, 0.085)],
        ]
    )

    def wedge(p: np.ndarray) -> np.ndarray:
        return p * np.column_stack([1 - 0.72 * np.clip(p[:, 1] / reach, 0, 1), np.ones((len(p), 2))])

    blade = bend(_front(outline, 0.15), wedge)
    rim = np.concatenate([curve + np.array([0.008, 0]), (curve - np.array([0.055, 0]))[::-1]])
    shine = _front(rim, 0.062)
    if shape == "double":
        blade, shine = (join(m, scale(m, (1, -1, 1))) for m in (blade, shine))
    z = height - rng.uniform(0.12, 0.16)
    pieces = [Piece("head", move(blade, z=z)), Piece("edge", move(shine, z=z), "edge", False)]
    if shape == "spike":
        spike = turn(lathe([(0, 0), (0.075, 0), (0.06, 0.08), (0, 0.24)], 4), "x", 90)
        pieces.append(Piece("spike", move(spike, 0, -0.05, z), smooth=False))
    if rng.random() < 0.4:
        wraps = [move(cylinder(1.32 * thick, 0.05, 14), 0, bow * np.sin(np.pi * f), height * f) for f in (0.08, 0.16, 0.24)]
        pieces.append(Piece("grip", join(*wraps), "edge"))
    return [*pieces, Piece("handle", handle, "handle")]


def sword(rng: Rng, form: Form) -> list[Piece]:
    """A straight, a leaf-shaped or a curved sword, its point up."""
    shape = rng.choice(["straight", "straight", "leaf", "curved"])
    wide, long = rng.uniform(0.088, 0.11) * form.wide, rng.uniform(0.62, 0.74) * form.tall
    if shape == "curved":
        wide *= 1.05
    grip, start = rng.uniform(0.17, 0.2), 0.1
    guard_z = start + grip
    h = np.array([0, 0.12, 0.25, 0.4, 0.55, 0.68, 0.78, 0.87, 0.94, 1.0])
    w = {
        "straight": np.array([1, 1, 0.98, 0.96, 0.94, 0.92, 0.9, 0.84, 0.5, 0.0]),
        "leaf": np.array([0.82, 0.7, 0.72, 0.86, 1.05, 1.18, 1.12, 0.86, 0.48, 0.0]),
        "curved": np.array([0.8, 0.82, 0.88, 0.97, 1.1, 1.22, 1.25, 1.05, 0.66, 0.0]),
    }[str(shape)]
    shift = 0.26 * (h**2 - 0.25 * h) * rng.choice([-1, 1]) if shape == "curved" else 0 * h
    thick = np.where(h < 1, 0.036, 0.0)
    section = np.array([(1.0, 0.0), (0.35, 0.75), (0.0, 1.0), (-0.35, 0.75), (-1, 0), (-0.35, -0.75), (0, -1), (0.35, -0.75)])
    section = np.stack([section[:, 1], -section[:, 0]], 1)
    rings = [
        np.column_stack([section[:, 0] * t, section[:, 1] * wide * r + s, np.full(8, guard_z + long * z)])
        for z, r, s, t in zip(h, w, shift, thick, strict=True)
    ]
    reach = rng.uniform(0.17, 0.23) * (0.5 + 0.5 * form.wide)
    style = rng.choice(["bar", "bow", "discs"])
    y = np.linspace(-1, 1, 11)
    droop = {"bar": 0 * y, "bow": 0.08 * y**2, "discs": -0.05 * y**2}[str(style)]
    guard = [tube(np.column_stack([0 * y, reach * y, guard_z + droop]), 0.042, 12)]
    guard += [move(sphere(0.06, 12), 0, reach * s, guard_z + droop[-1]) for s in (-1, 1)]
    pommel = sphere(0.08, 14) if rng.random() < 0.6 else turn(move(cylinder(0.08, 0.09, 18), z=-0.045), "y", 90)
    wraps = [move(torus(0.044, 0.014, 16, 8), z=start + grip * f) for f in (0.25, 0.5, 0.75)]
    return [
        Piece("blade", loft(np.stack(rings)), smooth=False),
        Piece("guard", join(*guard), "guard"),
        Piece("handle", join(move(cylinder(0.047, grip + 0.04, 16), z=start - 0.02), *wraps), "handle"),
        Piece("pommel", move(pommel, z=0.08), "guard"),
    ]


def key(rng: Rng, form: Form) -> list[Piece]:
    """A big old key: its bow up, its bit down."""
    shape = rng.choice(["ring", "oval", "trefoil", "square"])
    thick, long = rng.uniform(0.05, 0.06), rng.uniform(0.52, 0.62) * form.tall
    size = rng.uniform(0.16, 0.19) * form.wide
    if shape == "trefoil":
        ring = turn(torus(0.6 * size, 0.95 * thick, 20, 10), "y", 90)
        bow = join(
            move(ring, y=0.62 * size, z=-0.1 * size), move(ring, y=-0.62 * size, z=-0.1 * size), move(ring, z=0.85 * size)
        )
        lift = 0.75 * size
    elif shape == "square":
        corners = np.array(
            [(0, y, z) for y, z in ((0, -1), (0.5, -0.5), (1, 0), (0.5, 0.5), (0, 1), (-0.5, 0.5), (-1, 0), (-0.5, -0.5))]
        )
        bow, lift = tube(corners * 1.15 * size, thick, 10, closed=True), 1.15 * size
    else:
        stretch = 1.0 if shape == "ring" else 1.3
        bow, lift = scale(turn(torus(size, thick, 28, 12), "y", 90), (1, stretch, 1 if shape == "ring" else 0.85)), size
    shaft = lathe([(0, 0), (0.8 * thick, 0), (thick, 0.025), (thick, long + 0.03), (0, long + 0.03)], 16)
    collars = [
        move(lathe([(0, -0.03), (1.4 * thick, -0.03), (1.55 * thick, 0), (1.4 * thick, 0.03), (0, 0.03)], 16), z=long * f)
        for f in (0.97, 0.8)[: int(rng.integers(1, 3))]
    ]
    reach = rng.uniform(0.2, 0.25) * form.wide
    side = rng.choice([-1, 1])
    depth = 1.5 * thick
    kind = rng.choice(["two", "three", "block"])
    teeth = {
        "two": [(0.05, 1.0, 0.1), (0.22, 0.8, 0.1)],
        "three": [(0.04, 0.75, 0.075), (0.155, 1.0, 0.075), (0.27, 0.75, 0.075)],
        "block": [(0.05, 1.0, 0.08), (0.19, 1.0, 0.08), (0.06, 0.5, 0.2)],
    }[str(kind)]
    bits = [move(box(depth, reach * r, tall), 0, side * reach * r / 2, z) for z, r, tall in teeth]
    return [
        Piece("bow", move(bow, z=long + lift)),
        Piece("shaft", join(shaft, *collars)),
        Piece("bit", join(*bits), smooth=False),
    ]


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
        body = _front(outline, depth)
    else:
        t = (1 - np.cos(np.linspace(0, np.pi, 19))) / 2
        pinch = rng.uniform(0.12, 0.16)
        bout = (1 - (2 * t - 1) ** 4) ** 0.5 * (0.88 - 0.2 * (t - 0.27) + pinch * np.cos(2 * np.pi * (t - 0.27) / 0.62))
        right = np.stack([wide * bout, tall * t], 1)
        outline = np.concatenate([right, (right[1:-1] * (-1, 1))[::-1]])
        depth, joint = 0.17, tall
        body = _plate(outline, depth, 0.018)
    face = depth / 2
    top = joint + neck_long
    neck = join(
        move(box(0.06, 0.105, top - 0.6 * tall, taper=(1, 0.85)), face - 0.005, 0, 0.6 * tall),
        move(
            _front([(-0.05, -0.02), (0.05, -0.02), (0.085, 0.17), (-0.085, 0.2 if electric else 0.17)], 0.06),
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
            Piece("pickguard", move(_front(guard, 0.03), face), "trim", False),
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
        square = _front([(-0.07, -0.07), (0.07, -0.07), (0.07, 0.07), (-0.07, 0.07)], 0.06)
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


METAL = ("steel", "steel", "gray", "silver")
WOOD = ("wooden", "tan", "brown", "bark")
ALL_FORMS = ("tall", "short", "wide", "narrow")

KINDS: tuple[Kind, ...] = (
    Kind(
        "hammer",
        hammer,
        {"main": (*METAL, "dark"), "handle": (*WOOD, "red", "blue"), "band": ("dark", "golden")},
        accents={"handle": "handle"},
        forms=(),
    ),
    Kind(
        "axe",
        axe,
        {"main": (*METAL, "red"), "edge": ("white", "silver"), "handle": WOOD},
        accents={"handle": "handle"},
        forms=(),
    ),
    Kind(
        "sword",
        sword,
        {
            "main": ("steel", "silver", "silver", "gray"),
            "guard": ("golden", "golden", "bark", "dark"),
            "handle": ("brown", "red", "blue", "dark"),
        },
        accents={"handle": "handle"},
        forms=ALL_FORMS,
    ),
    Kind("key", key, {"main": ("golden", "golden", "silver", "steel", "rust")}, forms=ALL_FORMS),
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
