"""Furniture: things to sit, sleep, eat and read at. Each builder returns its pieces standing on z = 0, about a unit large."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.shapes import (
    Mesh,
    bend,
    box,
    capsule,
    cylinder,
    extrude,
    join,
    lathe,
    move,
    pair,
    rod,
    rounded_box,
    scale,
    sphere,
    torus,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _arch(width: float, height: float, thickness: float, rise: float, n: int = 12) -> Mesh:
    """An upright panel in the y-z plane, standing on z = 0, whose upper edge is half an ellipse that rises this high."""
    angle = np.linspace(0, np.pi, n)
    top = np.stack([width / 2 * np.cos(angle), height - rise + rise * np.sin(angle)], 1)
    outline = np.concatenate([[(width / 2, 0.0)], top, [(-width / 2, 0.0)]])
    return bend(move(extrude(outline, thickness), z=-thickness / 2), lambda p: p[:, [2, 0, 1]])


def _legs(x: float, y: float, height: float, radius: float, *, splay: float = 0.0, square: bool = False) -> Mesh:
    """Four legs whose upper ends are at (+-x, +-y, height); the lower ones stand further out by ``splay``."""
    out = 1 + splay
    if square:
        left = [move(box(2 * radius, 2 * radius, height), sx * x, y) for sx in (1, -1)]
    else:
        left = [rod((sx * x * out, y * out, 0), (sx * x, y, height), radius * 0.85, radius * 1.1, 12) for sx in (1, -1)]
    return pair(join(*left))


def chair(rng: Rng, form: Form) -> list[Piece]:
    """Four legs, a coloured seat, and a back: a board, bars, rungs or a rounded shield."""
    width, depth, thick = rng.uniform(0.46, 0.56) * form.wide, rng.uniform(0.46, 0.54), rng.uniform(0.036, 0.048)
    seat, back = rng.uniform(0.4, 0.48) * form.tall, rng.uniform(0.54, 0.66) * form.tall
    style, square = int(rng.integers(4)), bool(rng.integers(2))
    splay = 0.0 if square else rng.uniform(0, 0.25)
    legs = _legs(depth / 2 - thick, width / 2 - thick, seat + 0.02, thick, splay=splay, square=square)
    posts = pair(move(rounded_box(2 * thick, 2 * thick, back, thick * 0.8, 1), y=width / 2 - thick))
    if style == 0:
        frame = [posts, move(rounded_box(0.06, width, back * 0.58, 0.03), z=back * 0.45)]
    elif style == 1:
        count = max(2, round(width / 0.19))
        bars = [
            move(box(0.05, 0.065, back), y=(i / (count + 1) * 2 - 1) * (width / 2 - thick) * 0.95) for i in range(1, count + 1)
        ]
        frame = [posts, *bars, move(rounded_box(0.09, width + 0.04, 0.14, 0.04), z=back - 0.12)]
    elif style == 2:
        rungs = [move(rounded_box(0.06, width, back * 0.17, 0.03), z=back * at) for at in (0.25, 0.54, 0.83)]
        frame = [posts, *rungs]
    else:
        frame = [_arch(width, back, 0.07, min(width / 2, back * 0.6))]
    lean = move(turn(join(*frame), "y", -rng.uniform(5, 12)), thick - depth / 2, z=seat)
    cushion = move(rounded_box(depth + 0.03, width + 0.03, 0.09, 0.04), z=seat)
    return [Piece("legs", legs), Piece("back", lean, smooth=style != 1), Piece("seat", cushion, "seat")]


def armchair(rng: Rng, form: Form) -> list[Piece]:
    """A single padded seat between fat arms."""
    return _padded(rng, form, width=rng.uniform(0.86, 0.98), seats=1)


def sofa(rng: Rng, form: Form) -> list[Piece]:
    """Two, three or more padded seats between fat arms."""
    width = rng.uniform(1.6, 1.95) * form.wide
    return _padded(rng, form, width=width, seats=max(2, round(width / rng.uniform(0.6, 0.85))))


def _padded(rng: Rng, form: Form, *, width: float, seats: int) -> list[Piece]:
    """An upholstered seat: base, back, two arms (square, rolled or low), cushions and feet."""
    depth, foot = rng.uniform(0.78, 0.9), rng.uniform(0.08, 0.13)
    seat, arm = 0.36, rng.uniform(0.17, 0.22)
    back, height = seat + rng.uniform(0.5, 0.62) * form.tall, seat + rng.uniform(0.2, 0.26) * (form.tall + 1) / 2
    style, arched = rng.integers(3), bool(rng.integers(2))
    base = move(rounded_box(depth, width - arm, seat - foot, 0.05), z=foot)
    inner = width - 2 * arm
    if arched:
        rest = move(_arch(width - arm, back - foot, 0.22, 0.3 if seats == 1 else 0.16), 0.11 - depth / 2, z=foot)
    else:
        rest = move(rounded_box(0.24, width - arm * rng.uniform(0, 1), back - foot, 0.1), 0.12 - depth / 2, z=foot)
    if style == 0:
        side = move(rounded_box(depth * 1.02, arm, height - foot, 0.06), z=foot)
    elif style == 1:
        roll = move(turn(capsule(arm * 0.62, depth * 0.9, 16), "y", 90), -depth * 0.45, z=height - arm * 0.5)
        side = join(move(box(depth, arm * 0.85, height - foot - arm * 0.4), z=foot), roll)
    else:
        side = move(_arch(depth, height - foot, arm, 0.2, 10), z=foot)
        side = turn(side, "z", 90)
    sides = pair(move(side, y=(width - arm) / 2))
    feet = _legs(depth / 2 - 0.09, width / 2 - 0.12, foot + 0.05, 0.05)
    wide = inner / seats
    places = [(i + 0.5) * wide - inner / 2 for i in range(seats)]
    cushion = rounded_box(depth - 0.16, wide - 0.015, 0.19, 0.07, 2)
    cushions = [move(cushion, 0.1, y, seat - 0.04) for y in places]
    if rng.random() < 0.6 or seats > 1:
        lean = turn(rounded_box(0.16, wide - 0.03, (back - seat) * 0.72, 0.07, 2), "y", -10)
        rest = join(rest, *(move(lean, 0.28 - depth / 2, y, seat + 0.1) for y in places))
    pieces = [Piece("base", base), Piece("back", rest), Piece("arms", sides), Piece("feet", feet, "feet")]
    pieces.append(Piece("cushions", join(*cushions), "cushions"))
    if seats > 1 and rng.random() < 0.5:
        pillow = turn(turn(move(rounded_box(0.14, 0.34, 0.34, 0.07), z=-0.17), "x", 45), "y", -20)
        pillow = move(pillow, 0.44 - depth / 2, inner / 2 - 0.22, seat + 0.33)
        pieces.append(Piece("pillows", pair(pillow) if rng.random() < 0.5 else pillow, "pillow"))
    return pieces


def stool(rng: Rng, form: Form) -> list[Piece]:
    """A small thick seat, round or square, on three or four splayed legs; no back."""
    height, radius = rng.uniform(0.52, 0.64) * form.tall, rng.uniform(0.3, 0.36) * form.wide
    count, leg, splay = int(rng.integers(3, 5)), rng.uniform(0.042, 0.052), rng.uniform(1.2, 1.55)
    style = rng.integers(3)
    if style == 0:
        seat = lathe([(0, 0), (radius * 0.93, 0), (radius, 0.04), (radius, 0.13), (radius * 0.93, 0.17), (0, 0.17)], 28)
    elif style == 1:
        count, seat = 4, rounded_box(radius * 1.8, radius * 1.8, 0.17, 0.05, 2)
    else:
        seat = lathe([(0, 0), (radius * 0.9, 0), (radius * 1.04, 0.08), (radius, 0.17), (radius * 0.8, 0.23), (0, 0.25)], 28)
    angle = np.arange(count) * 2 * np.pi / count + (np.pi / 4 if count == 4 else np.pi / 3)
    around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * (0.85 if style == 1 else 0.68)
    legs = [rod((*(p * splay), 0), (*p, height), leg * 0.9, leg * 1.1, 12) for p in around]
    low = around * (splay + (1 - splay) * 0.35)
    z = height * 0.35
    if style == 0:
        rungs = [move(torus(float(np.linalg.norm(low[0])), 0.028, 24, 8), z=z)]
    else:
        rungs = [rod((*a, z), (*b, z), 0.028, n=8) for a, b in zip(low, np.roll(low, 1, 0), strict=True)]
    if rng.random() < 0.25:
        rungs = []
    return [
        Piece("seat", move(scale(seat, (1, 1, form.tall**0.5)), z=height - 0.02)),
        Piece("legs", join(*legs, *rungs), "legs"),
    ]


def table(rng: Rng, form: Form) -> list[Piece]:
    """A wide top, square or round, on four legs, on one fat foot or on two end boards."""
    width, depth, height = (
        rng.uniform(1.15, 1.45) * form.wide,
        rng.uniform(0.75, 0.95),
        rng.uniform(0.62, 0.74) * form.tall**0.8,
    )
    top, leg, apron = rng.uniform(0.08, 0.11), rng.uniform(0.05, 0.068), 0.09 * form.tall
    style = int(rng.integers(4))
    x, y = depth / 2 - 0.1, width / 2 - 0.1
    if style in (1, 2):
        radius = width * rng.uniform(0.44, 0.5)
        board = lathe([(0, 0), (radius * 0.97, 0), (radius, 0.03), (radius, top - 0.03), (radius * 0.97, top), (0, top)], 36)
        x = y = radius * 0.6
        board = join(board, move(cylinder(radius * 0.78, apron + 0.02, 32), z=-apron))
    else:
        board = rounded_box(depth, width, top, 0.03 if rng.random() < 0.5 else 0.04)
        board = join(board, move(box(2 * x, 2 * y if style == 0 else width * 0.7, apron + 0.02), z=-apron))
    if style == 0:
        legs = _legs(x, y, height, leg, square=bool(rng.integers(2)))
    elif style == 1:
        legs = _legs(x, y, height, leg, splay=rng.uniform(0, 0.25))
    elif style == 2:
        foot = radius * rng.uniform(0.55, 0.65)
        legs = lathe(
            [
                (0, 0),
                (foot, 0),
                (foot, 0.06),
                (foot * 0.35, 0.14),
                (0.085, 0.3 * height),
                (0.11, 0.8 * height),
                (0.2, height),
                (0, height),
            ]
        )
    else:
        ends = [box(depth * 0.8, 0.09, height * 1.0, taper=(0.7, 1)), move(box(depth * 0.9, 0.14, 0.08), z=0)]
        legs = join(pair(move(join(*ends), y=width * 0.33)), move(box(0.08, width * 0.66, 0.09), z=height * 0.35))
    return [Piece("top", move(board, z=height)), Piece("legs", legs, "legs", smooth=style != 3)]


def bed(rng: Rng, form: Form) -> list[Piece]:
    """A frame with a high head and a low foot end, a blanket and pillows. The foot end is the front."""
    length, width = rng.uniform(1.55, 1.75), rng.uniform(0.92, 1.1) * form.wide
    head, foot = rng.uniform(0.8, 0.98) * form.tall, rng.uniform(0.46, 0.56) * (form.tall + 1) / 2
    style, low, thick = int(rng.integers(4)), 0.16, 0.1
    rails = move(box(length, width + 0.04, 0.25), z=low)
    if style == 0:
        ends = [rounded_box(thick, width + 0.06, tall, 0.05) for tall in (head, foot)]
    elif style == 1:
        ends = [_arch(width + 0.06, tall, thick, rise) for tall, rise in ((head + 0.08, 0.34), (foot, 0.14))]
    else:
        ends = []
        for tall in (head, foot):
            post = join(cylinder(0.06, tall, 12), move(sphere(0.085, 12), z=tall + 0.04))
            panel = move(box(0.07, width, (tall - low) * 0.85), z=low)
            if style == 3:
                bars = [move(cylinder(0.036, tall - low, 10), y=at * width, z=low) for at in (-0.3, -0.1, 0.1, 0.3)]
                panel = join(*bars, *(move(box(0.08, width, 0.11), z=z) for z in (low, tall - 0.13)))
            ends.append(join(pair(move(post, y=width / 2)), panel))
    frame = join(move(ends[0], -length / 2), move(ends[1], length / 2))
    corner = _legs(length / 2 - 0.07, width / 2 - 0.07, low + 0.05, 0.06)
    mattress = move(rounded_box(length - 0.08, width - 0.07, 0.18, 0.06), z=low + 0.16)
    reach = rng.uniform(0.58, 0.72)
    blanket = move(rounded_box(length * reach, width - 0.02, 0.16, 0.07), length * (1 - reach) / 2 - 0.05, z=low + 0.22)
    count = int(rng.integers(1, 3))
    wide = (width - 0.2) / count
    pillow = rounded_box(0.3, min(wide, 0.62) - 0.03, 0.17, 0.08)
    pillows = [move(turn(pillow, "y", 12), 0.28 - length / 2, (i - (count - 1) / 2) * wide, low + 0.32) for i in range(count)]
    pieces = [
        Piece("rails", join(rails, corner)),
        Piece("frame", frame, smooth=style != 3),
        Piece("mattress", mattress, "mattress"),
    ]
    return [*pieces, Piece("blanket", blanket, "blanket"), Piece("pillows", join(*pillows), "pillow")]


def bench(rng: Rng, form: Form) -> list[Piece]:
    """A park bench: a long seat and a back of planks on two side frames, with or without arm rests."""
    width, depth = rng.uniform(1.45, 1.75) * form.wide, rng.uniform(0.44, 0.52)
    seat, back = rng.uniform(0.38, 0.44) * form.tall, rng.uniform(0.42, 0.5) * form.tall
    style, count = rng.integers(3), 3
    board = depth / count
    planks = [move(box(board - 0.03, width, 0.075), (i + 0.5) * board - depth / 2, 0, seat) for i in range(count)]
    lean = -rng.uniform(8, 15)
    if style == 0:
        rest = [move(box(0.07, width, back * 0.3), z=back * at) for at in (0.3, 0.7)]
    elif style == 1:
        rest = [move(box(0.07, width, back * 0.2), z=back * at) for at in (0.16, 0.46, 0.76)]
    else:
        bars = max(6, round(width / 0.2))
        rest = [move(box(0.06, 0.085, back), y=((i + 0.5) / bars - 0.5) * width) for i in range(bars)]
        rest += [move(box(0.09, width + 0.02, 0.12), z=back - 0.08)]
    y = width / 2 - 0.14
    side = [move(box(0.085, 0.085, seat + 0.02), sx * (depth / 2 - 0.06)) for sx in (1, -1)]
    side.append(move(box(depth, 0.085, 0.08), z=seat - 0.07))
    side.append(move(turn(box(0.07, 0.085, back * 0.95), "y", lean), -depth / 2 - 0.02, z=seat))
    if rng.random() < 0.6:
        side.append(move(box(0.08, 0.085, 0.24), depth / 2 - 0.06, z=seat))
        side.append(move(rounded_box(depth + 0.12, 0.1, 0.075, 0.03, 2), -0.03, z=seat + 0.22))
    slats = move(turn(join(*rest), "y", lean), 0.03 - depth / 2, z=seat + 0.05)
    frame = pair(move(join(*side), y=y))
    return [
        Piece("seat", join(*planks), smooth=False),
        Piece("back", slats, smooth=False),
        Piece("legs", frame, "legs", smooth=False),
    ]


def lamp(rng: Rng, form: Form) -> list[Piece]:
    """A table lamp: a fat or slender base below a cone, a drum or a bell as shade, open below."""
    body, shade = rng.uniform(0.58, 0.68) * form.tall, rng.uniform(0.3, 0.35)
    wide = rng.uniform(0.29, 0.34) * form.wide
    style, hood = rng.integers(3), rng.integers(3)
    neck = [(0.045, body * 0.92), (0.045, body + shade * 0.6), (0, body + shade * 0.6)]
    if style == 0:
        belly = np.linspace(0, 1, 9)
        round_ = [(0.09 + 0.22 * np.sin(np.pi * t**0.8) ** 0.8, 0.08 + t * (body * 0.86 - 0.08)) for t in belly]
        stand = lathe([(0, 0), (0.22, 0), (0.22, 0.06), *round_, *neck], 24)
    elif style == 1:
        stand = lathe([(0, 0), (0.3, 0), (0.3, 0.08), (0.24, 0.13), (0.12, 0.22), (0.09, body * 0.92), *neck], 24)
    else:
        stacked = [move(sphere(r, 18), z=z) for r, z in ((0.23, 0.24), (0.18, 0.24 + body * 0.36), (0.13, 0.24 + body * 0.62))]
        stand = join(cylinder(0.25, 0.07), *stacked, move(cylinder(0.045, body + shade * 0.6 - 0.1, 12), z=0.1))
    edge = ([(1.05, 0), (0.5, 1)], [(1.05, 0), (0.85, 1)], [(1.15, 0), (0.86, 0.22), (0.68, 0.55), (0.5, 1)])[hood]
    outer = [*((wide * r, shade * z) for r, z in edge), (0.0, shade)]
    inner = [(max(r - 0.035, 0.0), max(z - 0.035, 0.0)) for r, z in reversed(outer)]
    cover = move(lathe([*inner, *outer], 28), z=body)
    knob = move(sphere(0.05, 12), z=body + shade + 0.03)
    bulb = move(sphere(0.11, 14), z=body + 0.08)
    stand = scale(stand, (form.wide**0.7, form.wide**0.7, 1))
    return [Piece("base", stand), Piece("knob", knob), Piece("shade", cover, "shade"), Piece("bulb", bulb, "bulb")]


def bookshelf(rng: Rng, form: Form) -> list[Piece]:
    """An open case of shelves with rows of colourful books."""
    width, depth, height = rng.uniform(0.74, 0.86) * form.wide, rng.uniform(0.3, 0.36), rng.uniform(1.05, 1.25) * form.tall
    shelves, wall = max(2, round(height / rng.uniform(0.34, 0.44))), 0.055
    gap = (height - wall) / shelves
    unit = box(1, 1, 1)

    def block(x: float, y: float, z: float, size: tuple[float, float, float]) -> Mesh:
        return move(scale(unit, size), x, y, z)

    boards = [block(0, 0, i * gap, (depth, width, wall)) for i in range(shelves + 1)]
    walls = pair(block(0, width / 2, 0, (depth, wall, height)))
    case = [*boards, walls, block(0.02 - depth / 2, 0, 0, (0.04, width, height))]
    foot = 0.1 if rng.random() < 0.4 else 0.0
    if foot:
        case += [pair(block(sx * (depth / 2 - 0.04), width / 2 - 0.02, -foot, (0.08, 0.1, foot + 0.02))) for sx in (1, -1)]
    if rng.random() < 0.4:
        case.append(block(0.02, 0, height - 0.01, (depth + 0.1, width + 0.16, 0.07)))
    books: list[list[Mesh]] = [[], [], []]
    room, last = gap - wall, -1
    for i in range(shelves):
        y, stop = -width / 2 + wall * 0.5, width / 2 - wall * 0.5 - rng.uniform(0, 0.3) * width
        while y < stop - 0.05:
            thick = min(rng.uniform(0.06, 0.12), stop - y)
            last = (last + int(rng.integers(1, 3))) % 3
            tall, deep = room * rng.uniform(0.62, 0.92), depth * rng.uniform(0.72, 0.86)
            books[last].append(
                block(deep / 2 - depth / 2 + 0.02, y + thick / 2, i * gap + wall * 0.9, (deep, thick - 0.008, tall))
            )
            y += thick
    rows = [Piece("books", move(join(*row), z=foot), f"books {i + 1}", smooth=False) for i, row in enumerate(books) if row]
    return [Piece("case", move(join(*case), z=foot), smooth=False), *rows]


_CLOTH = ("red", "blue", "green", "gray", "brown", "turquoise", "purple", "orange", "navy", "rust")

KINDS: tuple[Kind, ...] = (
    Kind(
        "chair",
        chair,
        {
            "main": ("wooden", "wooden", "white", "brown", "blue", "red", "green"),
            "seat": ("straw", "cream", "red", "turquoise", "tan", "orange"),
        },
        accents={"seat": "seat"},
        front=True,
    ),
    Kind(
        "armchair",
        armchair,
        {"main": _CLOTH, "cushions": ("cream", "sand", "white", "yellow", "rose"), "feet": ("wooden", "dark")},
        accents={"cushion": "cushions"},
        front=True,
        loose=False,
    ),
    Kind(
        "stool",
        stool,
        {"main": ("wooden", "white", "red", "yellow", "blue", "brown"), "legs": ("wooden", "tan", "white", "steel", "dark")},
        accents={"legs": "legs"},
        flat_top=True,
    ),
    Kind(
        "table",
        table,
        {"main": ("wooden", "wooden", "white", "brown", "tan"), "legs": ("wooden", "brown", "white", "dark", "tan")},
        accents={"legs": "legs"},
        forms=("tall", "short", "wide"),
        flat_top=True,
        loose=False,
    ),
    Kind(
        "sofa",
        sofa,
        {
            "main": _CLOTH,
            "cushions": ("cream", "sand", "white", "yellow", "rose"),
            "feet": ("wooden", "dark"),
            "pillow": ("orange", "ivory", "coral", "navy"),
        },
        accents={"cushions": "cushions"},
        forms=("wide",),
        synonyms=("couch",),
        front=True,
        loose=False,
    ),
    Kind(
        "bed",
        bed,
        {
            "main": ("wooden", "wooden", "white", "brown", "tan"),
            "blanket": ("red", "blue", "green", "purple", "turquoise", "pink", "yellow", "orange"),
            "mattress": ("white", "ivory"),
            "pillow": ("white", "ivory", "cream"),
        },
        accents={"blanket": "blanket", "pillow": "pillow"},
        forms=("wide", "narrow"),
        front=True,
        loose=False,
    ),
    Kind(
        "bench",
        bench,
        {"main": ("wooden", "wooden", "brown", "green", "tan"), "legs": ("dark", "black", "gray", "stone")},
        accents={"legs": "legs"},
        forms=("wide",),
        plural="benches",
        synonyms=("park bench",),
        front=True,
        loose=False,
    ),
    Kind(
        "lamp",
        lamp,
        {
            "main": ("golden", "wooden", "blue", "green", "red", "turquoise", "black"),
            "shade": ("cream", "yellow", "white", "ivory", "orange"),
            "bulb": ("yellow", "white"),
        },
        accents={"shade": "shade"},
        synonyms=("table lamp",),
    ),
    Kind(
        "bookshelf",
        bookshelf,
        {
            "main": ("wooden", "wooden", "brown", "white"),
            "books 1": ("red", "orange", "coral", "yellow"),
            "books 2": ("blue", "navy", "turquoise", "purple"),
            "books 3": ("green", "cream", "lime", "rose"),
        },
        forms=("tall", "short", "wide", "narrow"),
        plural="bookshelves",
        synonyms=("bookcase",),
        front=True,
        loose=False,
    ),
)
