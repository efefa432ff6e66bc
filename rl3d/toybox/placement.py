"""Where things stand: beside, upon and inside one another. Plain geometry on meshes, through maps of heights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray

from rl3d.toybox.things import Rng

CELLS = 40
"""Cells of a map of heights across the wider side of the thing below."""


@dataclass(frozen=True)
class Place:
    """Where a thing goes: its points are scaled about the origin, then shifted."""

    scale: float
    shift: Float[ndarray, "3"]

    def __call__(self, points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
        return points * self.scale + self.shift


def side_by_side(meshes: Sequence[trimesh.Trimesh], rng: Rng) -> list[Place]:
    """Stand one to four things on the ground without touching: in a row across the front, or in a loose cluster."""
    boxes = np.stack([mesh.bounds for mesh in meshes])
    width, depth = (boxes[:, 1] - boxes[:, 0]).max(0)[[1, 0]] + rng.uniform(0.1, 0.2) * _size(meshes[0])
    n = len(meshes)
    if n == 4:
        spots = [(0.5, -0.75), (0.5, 0.25), (-0.5, -0.25), (-0.5, 0.75)]
    elif n == 3 and rng.random() < 0.5:
        spots = [(0.5, -0.5), (0.5, 0.5), (-0.5, 0.0)]
    else:
        spots = [(rng.uniform(-0.1, 0.1) * (n > 1), k - (n - 1) / 2) for k in range(n)]
    spots = np.array(spots) * (depth, width)
    return [Place(1.0, np.array([*spot, 0.0]) - _foot(box)) for spot, box in zip(spots, boxes, strict=True)]


def next_to(first: trimesh.Trimesh, second: trimesh.Trimesh, rng: Rng) -> tuple[Place, Place]:
    """Stand two things of like size on the ground, one left of the other with a small gap."""
    scales = [rng.uniform(0.88, 1.12) / _size(mesh) for mesh in (first, second)]
    boxes = [mesh.bounds * scale for mesh, scale in zip((first, second), scales, strict=True)]
    left = rng.choice([-1.0, 1.0])
    gap = rng.uniform(0.08, 0.2)
    places = []
    for side, scale, box in zip((left, -left), scales, boxes, strict=True):
        spot = np.array([rng.uniform(-0.08, 0.08), side * (gap + box[1, 1] - box[0, 1]) / 2, 0.0])
        places.append(Place(scale, spot - _foot(box)))
    return places[0], places[1]


def on(first: trimesh.Trimesh, second: trimesh.Trimesh, rng: Rng) -> tuple[Place, Place]:
    """Rest the first thing on the upper side of the second, where that carries it best, near the middle."""
    above, below = np.ptp(first.bounds, 0), np.ptp(second.bounds, 0)
    scale = rng.uniform(0.5, 0.85) * below[:2].mean() / np.sqrt(above[0] * above[1])
    scale = min(scale, rng.uniform(0.9, 1.2) * below.max() / above.max())
    points = first.vertices * scale - _foot(first.bounds * scale)
    return Place(scale, _rest(points, first.faces, second, rng) - _foot(first.bounds * scale)), Place(1.0, np.zeros(3))


def inside(first: trimesh.Trimesh, second: trimesh.Trimesh, rng: Rng) -> tuple[Place, Place]:
    """Lay the first thing into the opening of the second, with 45 to 75 % of its height above the rim.

    What carries it may then be out of sight: deep containers are taken to be half full. ``second`` should come without a
    handle that arches over its opening.
    """
    cell = np.ptp(second.bounds, 0)[:2].max() / CELLS
    tops = _heights(second.vertices, second.faces, second.bounds.mean(0)[:2] - CELLS * cell / 2, cell, CELLS)
    rim, half = np.quantile(tops[np.isfinite(tops)], 0.95), CELLS // 2
    floor = tops[half - 1 : half + 1, half - 1 : half + 1].min()
    wall = tops > rim - 0.3 * (rim - floor)
    rays = (wall[half:, half], wall[half::-1, half], wall[half, half:], wall[half, half::-1])
    opening = cell * min(int(np.argmax(ray)) if ray.any() else half for ray in rays)
    reach = np.linalg.norm((first.vertices - first.bounds.mean(0))[:, :2], axis=1).max()
    tall = np.ptp(first.bounds, 0)[2]
    scale = min(rng.uniform(0.75, 0.95) * opening / reach, rng.uniform(1.2, 1.5) * np.ptp(second.bounds, 0).max() / tall)
    rest = max(floor, rim - rng.uniform(0.25, 0.5) * tall * scale)
    spot = np.array([*second.bounds.mean(0)[:2], rest])
    return Place(scale, spot - _foot(first.bounds * scale)), Place(1.0, np.zeros(3))


def _size(mesh: trimesh.Trimesh) -> float:
    """Half the diagonal of the bounding box."""
    return float(np.linalg.norm(np.ptp(mesh.bounds, 0)) / 2)


def _foot(bounds: Float[ndarray, "2 3"]) -> Float[ndarray, "3"]:
    """The middle of the bounding box's lower face."""
    return np.array([*bounds.mean(0)[:2], bounds[0, 2]])


def _rest(points: Float[ndarray, "n 3"], faces: ndarray, second: trimesh.Trimesh, rng: Rng) -> Float[ndarray, "3"]:
    """How to shift points that stand on the origin so that they rest on the second thing.

    Tries spots all over it, and takes one where most of the lower side is carried, rather near the middle.
    """
    extent, centre = np.ptp(second.bounds, 0), second.bounds.mean(0)
    cell = extent[:2].max() / CELLS
    n = 2 * int(np.ceil(np.abs(points[:, :2]).max() / cell)) + 3
    under = -_heights(points * (1, 1, -1), faces, np.full(2, -n * cell / 2), cell, n)
    around = CELLS + n - 1
    tops = _heights(second.vertices, second.faces, centre[:2] - around * cell / 2, cell, around)
    windows = np.lib.stride_tricks.sliding_window_view(tops, (n, n))[1::3, 1::3]
    spots = (np.arange(CELLS)[1::3] + 0.5 - CELLS / 2) * cell
    near = np.hypot(spots[:, None], spots[None]) / extent[:2].min()
    gaps = windows - under
    drop = gaps.max((2, 3))
    touching = under < under.min() + 0.05 * np.ptp(points[:, 2])
    carried = (gaps[..., touching] > drop[..., None] - 0.02 * extent.max()).mean(-1)
    score = np.where(np.isfinite(drop), carried - near, -np.inf) + rng.uniform(0, 0.1, drop.shape)
    i, j = np.unravel_index(score.argmax(), score.shape)
    return np.array([centre[0] + spots[i], centre[1] + spots[j], drop[i, j]])


@numba.njit(cache=True)
@no_type_check
def _heights(vertices, faces, corner, cell, n):
    """The highest point of a mesh over each cell of an ``n`` by ``n`` grid in x and y; -inf where there is none.

    Exact at cell centres and at vertices, so that thin feet count.
    """
    tops = np.full((n, n), -np.inf)
    for k in range(len(vertices)):
        i, j = int((vertices[k, 0] - corner[0]) / cell), int((vertices[k, 1] - corner[1]) / cell)
        if 0 <= i < n and 0 <= j < n:
            tops[i, j] = max(tops[i, j], vertices[k, 2])
    for k in range(len(faces)):
        a, b, c = vertices[faces[k, 0]], vertices[faces[k, 1]], vertices[faces[k, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-12:
            continue
        low_i = max(0, int((min(a[0], b[0], c[0]) - corner[0]) / cell))
        low_j = max(0, int((min(a[1], b[1], c[1]) - corner[1]) / cell))
        high_i = min(n, int((max(a[0], b[0], c[0]) - corner[0]) / cell) + 1)
        high_j = min(n, int((max(a[1], b[1], c[1]) - corner[1]) / cell) + 1)
        for i in range(low_i, high_i):
            x = corner[0] + (i + 0.5) * cell
            for j in range(low_j, high_j):
                y = corner[1] + (j + 0.5) * cell
                u = ((b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)) / area
                v = ((c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)) / area
                if u >= 0 and v >= 0 and u + v <= 1:
                    tops[i, j] = max(tops[i, j], u * a[2] + v * b[2] + (1 - u - v) * c[2])
    return tops
