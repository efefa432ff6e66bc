"""Rounded bits that animals, plants and figures share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from rl3d.toybox.shapes import Mesh, bend, move, pair, sphere
from rl3d.toybox.things import Piece

Point = tuple[float, float, float]
FACE = {"eyes": ("white",), "pupils": ("dark",)}
"""The paint slots of :func:`eyes`."""

_unit = cache(sphere)


def blob(at: Point, radii: Point, n: int = 16) -> Mesh:
    """An ellipsoid with these half-axes around a point."""
    return bend(_unit(1.0, n), lambda p: p * radii + at)


def ball(at: Point, radius: float, n: int = 16) -> Mesh:
    """A sphere around a point."""
    return blob(at, (radius, radius, radius), n)


def stand(pieces: list[Piece], z: float = 0.0) -> list[Piece]:
    """Shift pieces together so that the lowest point lies at this height."""
    shift = z - min(p.mesh.vertices[:, 2].min() for p in pieces)
    return [replace(p, mesh=move(p.mesh, z=shift)) for p in pieces]


def eyes(head: Point, radii: Point, size: float, *, apart_deg: float = 32, up_deg: float = 22) -> list[Piece]:
    """Two white eyes with dark pupils on an ellipsoidal head that looks along +x.

    The pupils keep the face readable whatever the head's colour.
    """
    a, u = np.radians(apart_deg), np.radians(up_deg)
    outward = np.array([np.cos(a) * np.cos(u), np.sin(a) * np.cos(u), np.sin(u)])
    white = np.array(head) + outward * radii - outward * size * 0.3
    gaze = outward * (1.0, 0.7, 0.5)
    pupil = white + gaze / np.linalg.norm(gaze) * size * 0.6
    return [
        Piece("eye", pair(ball(tuple(white), size, 12)), "eyes"),
        Piece("eye", pair(ball(tuple(pupil), size * 0.66, 10)), "pupils"),
    ]
