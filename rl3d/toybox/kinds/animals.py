"""Animals on four legs. All face +x; their marks (snout, ears, tail) are larger than life, so that 64 pixels show them."""

from __future__ import annotations

import numpy as np

from rl3d.toybox.kinds.blobs import FACE, ball, blob, eyes, stand
from rl3d.toybox.shapes import (
    Mesh,
    along,
    capsule,
    cone,
    cylinder,
    join,
    lathe,
    move,
    pair,
    rod,
    scale,
    torus,
    tube,
    turn,
)
from rl3d.toybox.things import Form, Kind, Piece, Rng


def _standing(length: float, girth: float, legs: float, thick: float) -> tuple[Mesh, Mesh]:
    """A barrel on four legs, paws forward."""
    body = move(turn(capsule(girth, length), "y", 90), -length / 2, 0, legs + girth * 0.85)
    reach, side = length / 2 + girth * 0.3, girth * 0.6
    feet = [
        join(
            rod((x, side, 0.02), (x, side, legs + girth), thick),
            blob((x + thick * 0.4, side, thick * 0.7), (thick * 1.4, thick * 1.2, thick * 0.7), 10),
        )
        for x in (-reach, reach)
    ]
    return body, pair(join(*feet))


def _sitting(height: float, girth: float, thick: float) -> tuple[Mesh, Mesh]:
    """An upright body on its haunches, with straight forelegs."""
    body = move(
        turn(
            lathe(
                [
                    (0, 0),
                    (girth * 0.75, 0.02),
                    (girth, height * 0.25),
                    (girth * 0.9, height * 0.5),
                    (girth * 0.62, height * 0.85),
                    (0, height),
                ],
                20,
            ),
            "y",
            12,
        ),
        -0.08,
    )
    hind = join(
        blob((-0.02, girth * 0.85, girth * 0.62), (girth * 0.75, girth * 0.4, girth * 0.62), 14),
        blob((girth * 0.75, girth * 0.95, thick * 0.7), (thick * 1.8, thick * 1.1, thick * 0.7), 10),
    )
    fore = join(
        rod((girth * 0.95, girth * 0.4, 0.02), (girth * 0.45, girth * 0.42, height * 0.75), thick),
        blob((girth * 1.05, girth * 0.4, thick * 0.7), (thick * 1.5, thick * 1.1, thick * 0.7), 10),
    )
    return move(body, z=0.01), pair(join(hind, fore))


def dog(rng: Rng, form: Form) -> list[Piece]:
    """A dog, standing or sitting, with floppy or pricked ears."""
    girth, r = rng.uniform(0.15, 0.19), rng.uniform(0.17, 0.195)
    sits = rng.random() < 0.4
    if sits:
        height = rng.uniform(0.5, 0.58) * form.tall
        body, legs = _sitting(height, girth * 1.15, 0.062)
        head, rump = (0.1, 0.0, height + 0.1), (-0.25, 0.0, 0.1)
    else:
        length, stance = rng.uniform(0.36, 0.55), rng.uniform(0.16, 0.27) * form.tall
        body, legs = _standing(length, girth, stance, 0.062)
        top = stance + girth * 1.85
        head, rump = (length / 2 + girth * 0.75, 0.0, top + 0.1), (-length / 2 - girth * 0.7, 0.0, top - 0.1)
    x, _, z = head
    muzzle = rng.uniform(0.11, 0.16)
    pieces = [
        Piece("body", join(body, rod((x - girth * 0.7, 0, z - 0.3), (x - 0.02, 0, z), girth * 0.75, girth * 0.6))),
        Piece("leg", legs),
        Piece("head", blob(head, (r, r, r * 0.95), 18)),
        Piece("muzzle", blob((x + r * 0.6 + muzzle * 0.4, 0, z - 0.06), (muzzle + 0.02, 0.105, 0.085), 16), "muzzle"),
        Piece("nose", blob((x + r * 0.6 + muzzle * 1.35, 0, z - 0.015), (0.045, 0.058, 0.045), 10), "nose"),
        *eyes(head, (r, r, r), 0.048, apart_deg=34, up_deg=30),
    ]
    if rng.random() < 0.75:
        ear = turn(blob((0, 0, -0.12), (0.085, 0.04, rng.uniform(0.15, 0.19)), 14), "x", rng.uniform(10, 30))
        ear = move(ear, x - 0.03, r * 0.85, z + r * 0.55)
    else:
        ear = along(blob((0, 0, 0.09), (0.04, 0.075, 0.14)), (x - 0.04, r * 0.55, z + r * 0.6), (x - 0.06, r * 0.9, z + r * 2))
    pieces.append(Piece("ear", pair(ear), "ears"))
    up, curl = rng.uniform(0.12, 0.26), rng.uniform(0.02, 0.16)
    back, _, low = rump
    path = [
        (back + 0.08, 0, low - 0.02),
        (back - 0.08, 0, low + up * 0.3),
        (back - 0.15, 0, low + up * 0.8),
        (back - 0.15 + curl, 0, low + up * 1.25),
    ]
    pieces.append(Piece("tail", join(tube(path, [0.055, 0.05, 0.042, 0.035], 10), ball(path[-1], 0.036, 8))))
    collar = along(torus(girth * 0.72, 0.035, 20, 8), (x - girth * 0.27, 0, z - 0.15), (x, 0, z))
    pieces.append(Piece("collar", collar, "collar"))
    if rng.random() < 0.35:
        pieces.append(Piece("tongue", blob((x + r * 0.6 + muzzle * 0.9, 0, z - 0.15), (0.04, 0.05, 0.075), 10), "tongue"))
    return stand(pieces)


def cat(rng: Rng, form: Form) -> list[Piece]:
    """A cat, standing or sitting, with pointed ears, whiskers and a long tail."""
    girth, r = rng.uniform(0.12, 0.15), rng.uniform(0.175, 0.2)
    if rng.random() < 0.5:
        height = rng.uniform(0.42, 0.52) * form.tall
        body, legs = _sitting(height, girth * 1.25, 0.05)
        head, rump = (0.09, 0.0, height + 0.13), (-0.22, 0.0, 0.07)
    else:
        length, stand = rng.uniform(0.4, 0.52), rng.uniform(0.17, 0.24) * form.tall
        body, legs = _standing(length, girth, stand, 0.048)
        head, rump = (
            (length / 2 + girth * 0.9, 0.0, stand + girth * 2 + 0.1),
            (-length / 2 - girth * 0.7, 0.0, stand + girth * 1.2),
        )
    x, _, z = head
    pieces = [
        Piece("body", join(body, rod((x - girth, 0, z - 0.26), (x - 0.02, 0, z), girth * 0.9, girth * 0.8))),
        Piece("leg", legs),
        Piece("head", blob(head, (r * 0.88, r * 1.12, r * 0.92), 18)),
        Piece("muzzle", pair(blob((x + r * 0.8, 0.04, z - r * 0.36), (0.06, 0.06, 0.048), 10)), "muzzle"),
        Piece("nose", blob((x + r * 0.8 + 0.055, 0, z - r * 0.16), (0.03, 0.042, 0.03), 8), "nose"),
        *eyes(head, (r * 0.88, r * 1.12, r * 0.92), 0.052, apart_deg=30, up_deg=24),
    ]
    lean, tall = rng.uniform(1.0, 1.25), rng.uniform(0.19, 0.26)
    foot, tip = (x - 0.03, r * 0.62, z + r * 0.5), (x - 0.03, r * lean, z + r * 0.5 + tall)
    outer, inner = (scale(cone(size, tall * part, 16), (0.55, 1, 1)) for size, part in ((0.105, 1.0), (0.062, 0.78)))
    pieces.append(Piece("ear", pair(along(outer, foot, tip))))
    pieces.append(Piece("ear", pair(move(along(inner, foot, tip), 0.035, 0, 0.02)), "inner ears"))
    whisker = [
        rod((x + r * 0.78, 0.05, z - r * (0.35 + 0.1 * k)), (x + r * 0.85, 0.3, z - r * (0.2 + 0.4 * k)), 0.014, n=6)
        for k in (0, 1)
    ]
    pieces.append(Piece("whiskers", pair(join(*whisker)), "whiskers"))
    back, _, low = rump
    if rng.random() < 0.6:
        high = rng.uniform(0.4, 0.55)
        path = [
            (back + 0.06, 0, low),
            (back - 0.1, 0, low + 0.04),
            (back - 0.19, 0, low + high * 0.35),
            (back - 0.15, 0, low + high * 0.7),
            (back - 0.2, 0, low + high),
            (back - 0.29, 0, low + high * 1.08),
        ]
    else:
        side = rng.choice([-1, 1])
        path = [
            (back + 0.06, 0, low),
            (back - 0.12, side * 0.02, low + 0.02),
            (back - 0.26, side * 0.1, low + 0.14),
            (back - 0.28, side * 0.2, low + 0.3),
            (back - 0.2, side * 0.27, low + 0.38),
        ]
    pieces.append(Piece("tail", join(tube(path, 0.042, 10), ball(path[-1], 0.043, 8))))
    return pieces


def rabbit(rng: Rng, form: Form) -> list[Piece]:
    """A rabbit with long ears, sitting up or crouching."""
    r = rng.uniform(0.165, 0.19)
    if rng.random() < 0.5:
        high = rng.uniform(0.25, 0.29) * form.tall
        body = join(blob((-0.02, 0, high), (0.2, 0.2, high), 20), pair(blob((0.17, 0.1, high * 1.25), (0.09, 0.05, 0.05), 10)))
        head, tail = (0.06, 0.0, high * 2 + 0.1), (-0.22, 0.0, 0.13)
    else:
        high = rng.uniform(0.18, 0.22) * form.tall
        body = join(blob((-0.08, 0, high), (0.32, 0.21, high), 20), pair(blob((0.18, 0.1, 0.045), (0.09, 0.055, 0.045), 10)))
        head, tail = (0.24, 0.0, high * 1.6 + 0.1), (-0.4, 0.0, 0.2)
    x, _, z = head
    feet = pair(
        join(
            blob((tail[0] + 0.26, 0.16, 0.05), (0.17, 0.07, 0.05), 12),
            blob((tail[0] + 0.2, 0.15, 0.13), (0.14, 0.08, 0.12), 12),
        )
    )
    pieces = [
        Piece("body", body),
        Piece("leg", feet),
        Piece("head", blob(head, (r, r, r * 0.95), 18)),
        Piece("muzzle", pair(blob((x + r * 0.84, 0.04, z - 0.06), (0.06, 0.062, 0.05), 10)), "muzzle"),
        Piece("nose", blob((x + r + 0.03, 0, z - 0.01), (0.03, 0.04, 0.03), 8), "nose"),
        Piece("tail", ball(tail, rng.uniform(0.085, 0.11), 14), "tail"),
        *eyes(head, (r, r, r), 0.05, apart_deg=40, up_deg=24),
    ]
    long, lean, back = rng.uniform(0.2, 0.26), rng.uniform(0.08, 0.2), rng.uniform(0.0, 0.15)
    droops = rng.random() < 0.3
    for side in (1, -1):
        tip = (0.02, 0.45, 0.12) if droops and side > 0 else (-back, side * lean, 0.5)
        outer, inner = (
            blob((0, 0, long * 0.85), (0.04, 0.078, long), 14),
            blob((0.022, 0, long * 0.9), (0.03, 0.042, long * 0.75), 10),
        )
        for mesh, slot in ((outer, "main"), (inner, "inner ears")):
            pieces.append(Piece("ear", move(along(mesh, (0, 0, 0), tip), x - 0.03, side * 0.07, z + r * 0.7), slot))
    return pieces


def pig(rng: Rng, form: Form) -> list[Piece]:
    """A fat pig with a snout and a curly tail, its ears up or flopping; patched at times."""
    fat, r = rng.uniform(0.23, 0.28) * form.wide, rng.uniform(0.2, 0.225)
    leg_length = rng.uniform(0.1, 0.16) * form.tall
    long, height = rng.uniform(0.34, 0.42), 0.27 * form.tall
    middle = leg_length + height * 0.85
    legs = [rod((x, 0.13, 0), (x, 0.13, middle), 0.075) for x in (-0.2, 0.2)]
    hooves = [rod((x, 0.13, 0), (x, 0.13, 0.06), 0.08) for x in (-0.2, 0.2)]
    head = (long * 0.95, 0.0, middle + rng.uniform(0.04, 0.14))
    x, _, z = head
    snout = move(turn(cylinder(0.1, 0.14, 18, top=0.095), "y", 90), x + r * 0.72, 0, z - 0.05)
    pieces = [
        Piece("body", blob((0, 0, middle), (long, fat, height), 22)),
        Piece("leg", pair(join(*legs))),
        Piece("foot", pair(join(*hooves)), "hooves"),
        Piece("head", blob(head, (r, r * 1.05, r), 20)),
        Piece("snout", snout, "snout"),
        Piece("nostril", pair(blob((x + r * 0.72 + 0.14, 0.042, z - 0.05), (0.015, 0.024, 0.036), 8)), "hooves"),
        *eyes(head, (r, r * 1.05, r), 0.05, apart_deg=38, up_deg=32),
    ]
    floppy = rng.uniform(-0.08, 0.02) if rng.random() < 0.5 else rng.uniform(0.1, 0.16)
    foot = np.array([x - 0.02, r * 0.6, z + r * 0.62])
    tip = foot + np.array([0.08 + floppy, 0.1, 0.2 - floppy])
    pieces.append(Piece("ear", pair(along(scale(cone(0.1, 0.2, 14), (0.5, 1, 1)), tuple(foot), tuple(tip))), "snout"))
    t = np.linspace(0, 1, 20)
    a = t * 2 * np.pi * 1.4
    curl = np.stack([-t * 0.2, 0.075 * np.sin(a), 0.075 * (1 - np.cos(a))], 1)
    pieces.append(Piece("tail", move(tube(curl, 0.03, 8), -long * 0.97, 0, middle), "snout"))
    if rng.random() < 0.35:
        patches = []
        for side, a in ((1, rng.uniform(0.2, 0.9)), (-1, rng.uniform(0.2, 0.9)), (1, rng.uniform(2.0, 2.7))):
            out = np.array([0.55 * np.cos(a) - 0.1, side * 0.75, 0.55 * np.sin(a)])
            out *= np.array([long, fat, height]) / np.linalg.norm(out)
            patches.append(blob((out[0], out[1], out[2] + middle), (0.12, 0.04, 0.09), 12))
        pieces.append(Piece("patches", join(*patches), "hooves"))
    return stand(pieces)


KINDS = (
    Kind(
        "dog",
        dog,
        {
            "main": ("brown", "tan", "cream", "rust", "gray", "white"),
            "muzzle": ("cream", "ivory", "tan"),
            "nose": ("dark",),
            "ears": ("bark", "dark", "brown"),
            "collar": ("red", "blue", "green"),
            "tongue": ("rose",),
            **FACE,
        },
        {"ears": "ears", "collar": "collar"},
        forms=("tall", "short"),
        synonyms=("puppy",),
        front=True,
    ),
    Kind(
        "cat",
        cat,
        {
            "main": ("orange", "gray", "black", "white", "tan"),
            "muzzle": ("ivory", "tan"),
            "nose": ("rose",),
            "inner ears": ("rose",),
            "whiskers": ("ivory", "gray"),
            **FACE,
        },
        forms=(),
        synonyms=("kitten",),
        front=True,
    ),
    Kind(
        "rabbit",
        rabbit,
        {
            "main": ("white", "gray", "tan", "brown"),
            "muzzle": ("ivory", "tan"),
            "nose": ("rose",),
            "tail": ("white", "tan"),
            "inner ears": ("pink",),
            **FACE,
        },
        forms=(),
        synonyms=("bunny",),
        front=True,
    ),
    Kind(
        "pig",
        pig,
        {"main": ("pink", "pink", "skin"), "snout": ("coral", "rose"), "hooves": ("brown", "dark"), **FACE},
        {"snout": "snout"},
        forms=(),
        synonyms=("piglet",),
        front=True,
    ),
)
