"""Lay a mesh out in a square, for a texture: by xatlas where it answers in time, by a plain projection of our own elsewhere.

xatlas takes seconds for most meshes and hours, or all memory, for some; so it works in a process of its own, with a limit on
time. The plain way always works, is fast, and cuts more.
"""

from __future__ import annotations

import io
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import no_type_check
from zipfile import BadZipFile

import numpy as np
import trimesh
from jaxtyping import Float, Int
from numba import njit
from numpy import ndarray

from rl3d.export.meshes import xatlas_process

XATLAS = (sys.executable, str(Path(xatlas_process.__file__)))


@dataclass(frozen=True)
class Unwrapped:
    """A mesh whose vertices are doubled where charts were cut apart."""

    sources: Int[ndarray, "n"]
    """Which vertex of the mesh each one is."""
    faces: Int[ndarray, "m 3"]
    """The mesh's faces, in their order."""
    uv: Float[ndarray, "n 2"]
    """Places in the unit square; v grows upwards."""
    how: str
    """What made it, and why not xatlas if it was not."""


def unwrap(
    mesh: trimesh.Trimesh, *, size: int = 1024, padding: int = 4, limit_s: float = 60.0, command: Sequence[str] = XATLAS
) -> Unwrapped:
    """Unwrap a mesh by xatlas, or, if that takes longer than ``limit_s``, fails or answers nonsense, by :func:`project`.

    Args:
        mesh: At least one face.
        size: Texels along each side of the texture to come.
        padding: Texels between charts, about.
        limit_s: Seconds of CPU, or ten times as many by the clock; then the process is killed. 0 does without xatlas.
        command: The program that speaks as :mod:`rl3d.export.meshes.xatlas_process` does.

    Raises:
        ValueError: if the mesh has no face.
    """
    if len(mesh.faces) == 0:
        raise ValueError("there is nothing to unwrap: the mesh has no faces")
    found = _by_xatlas(mesh, size, padding, limit_s, command) if limit_s > 0 else "not asked for"
    if isinstance(found, Unwrapped):
        return found
    return project(mesh, size=size, padding=padding, how=f"projections along six axes (xatlas: {found})")


def _by_xatlas(mesh: trimesh.Trimesh, size: int, padding: int, limit_s: float, command: Sequence[str]) -> Unwrapped | str:
    """What xatlas makes of a mesh, or why there is nothing."""
    asked, begun = io.BytesIO(), time.monotonic()
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32)
    np.savez(asked, vertices=vertices, faces=faces, settings=[size, padding, math.ceil(limit_s)])
    try:
        # On a timeout, run() kills the process before it raises.
        done = subprocess.run(command, input=asked.getvalue(), capture_output=True, timeout=10 * limit_s, check=True)
        answer = np.load(io.BytesIO(done.stdout))
        sources, cut, uv = (answer[name] for name in ("vmapping", "faces", "uv"))
        sources, cut = sources.astype(np.int64), cut.astype(np.int64)
    except subprocess.TimeoutExpired:
        return f"stopped after {10 * limit_s:g} s by the clock"
    except subprocess.CalledProcessError as error:
        over = error.returncode == -getattr(signal, "SIGXCPU", 0)
        return f"stopped after {limit_s:g} s of CPU" if over else f"failed with status {error.returncode}"
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        return f"gave no answer, {type(error).__name__}"
    if cut.shape != faces.shape or len(sources) != len(uv) or not np.array_equal(sources[cut], faces):
        return "lost faces"
    if not np.isfinite(uv).all() or uv.min() < 0 or uv.max() > 1:
        return "left the unit square"
    return Unwrapped(sources, cut, uv.astype(np.float64), f"xatlas in {time.monotonic() - begun:.1f} s")


def project(mesh: trimesh.Trimesh, *, size: int = 1024, padding: int = 4, how: str = "projections along six axes") -> Unwrapped:
    """Cut a mesh into charts that face one of the six axes each, project them along it, and pack them on shelves.

    A chart grows from face to face over edges. It stops where faces turn to another axis, and where a face would fall onto
    one that the chart already has, so charts never overlap. Lengths shrink by no more than the square root of 3, but for
    faces without area.

    Args:
        mesh: At least one face.
        size: Texels along each side of the texture to come.
        padding: Texels between charts.
        how: What the result says of itself.
    """
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normals).argmax(1)
    side = np.take_along_axis(normals, axis[:, None], 1)[:, 0] < 0
    # Seen from the front of each axis, so that faces stay counter-clockwise: (y, z), (z, x), (x, y), mirrored behind.
    first, second = (axis + 1) % 3, (axis + 2) % 3
    plane = np.stack([np.take_along_axis(corners, i[:, None, None], 2)[..., 0] for i in (first, second)], -1)
    plane[side, :, 0] *= -1
    neighbours = _neighbours(faces)
    cell = max(float(np.median(np.ptp(plane, axis=1))) * 2, float(np.ptp(vertices, axis=0).max()) / 512, 1e-9)
    chart = _grow(plane, 2 * axis + side, neighbours, cell)
    low = np.full((chart.max() + 1, 2), np.inf)
    high = -low
    for corner in range(3):
        np.minimum.at(low, chart, plane[:, corner])
        np.maximum.at(high, chart, plane[:, corner])
    places, scale = _shelves(high - low, size, padding)
    uv = ((plane - low[chart][:, None]) * scale + places[chart][:, None]) / size
    keys = np.stack([faces.ravel(), np.repeat(chart, 3)], 1)
    _, index, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return Unwrapped(faces.ravel()[index], inverse.reshape(-1, 3), uv.reshape(-1, 2)[index].clip(0, 1), how)


def _neighbours(faces: Int[ndarray, "m 3"]) -> Int[ndarray, "m 3"]:
    """The face across each edge (from corner k to k + 1), -1 where there is none or several."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    order = np.lexsort(edges.T)
    _, start, count = np.unique(edges[order], axis=0, return_index=True, return_counts=True)
    pairs = order[start[count == 2][:, None] + [0, 1]]
    out = np.full(3 * len(faces), -1, np.int64)
    out[pairs] = pairs[:, ::-1] // 3
    return out.reshape(-1, 3)


def _shelves(sizes: Float[ndarray, "n 2"], side: int, padding: int) -> tuple[Float[ndarray, "n 2"], float]:
    """Where boxes go on shelves in a square, the tallest first, and the largest scale found by which they fit."""
    order = np.argsort(-sizes[:, 1], kind="stable")

    def pack(scale: float) -> Float[ndarray, "n 2"] | None:
        places, x, y, shelf = np.empty_like(sizes), 0.0, 0.0, 0.0
        for i in order:
            w, h = sizes[i] * scale + gap
            if x + w > side and x > 0:
                x, y, shelf = 0.0, y + shelf, 0.0
            if w > side or y + h > side:
                return None
            places[i] = x + gap / 2, y + gap / 2
            x, shelf = x + w, max(shelf, h)
        return places

    # Where there are more charts than room for what lies between them, they move closer.
    gap = min(float(padding), 0.5 * side / np.sqrt(len(sizes)))
    low, high = 0.0, side / max(float(np.sqrt(sizes.prod(1).sum())), float(sizes.max()), 1e-12)
    best = pack(low)
    assert best is not None
    for _ in range(20):
        middle = (low + high) / 2
        if (found := pack(middle)) is None:
            high = middle
        else:
            low, best = middle, found
    return best, low


@njit(cache=True)
@no_type_check
def _grow(plane, label, neighbours, cell):
    """The chart of each face. Faces already in a chart are kept in the cells of a grid that their boxes touch."""
    m = len(plane)
    chart, queued = np.full(m, -1, np.int64), np.full(m, -1, np.int64)
    entries = {(0, 0, 0): 0}  # the newest entry of each cell of each chart; entries are linked lists
    entries.clear()
    faces, following = [0], [0]
    queue = np.empty(m, np.int64)
    name = 0
    for seed in range(m):
        if chart[seed] >= 0:
            continue
        first, last = 0, 1
        queue[0] = seed
        queued[seed] = name
        while first < last:
            f = queue[first]
            first += 1
            box = _cells(plane[f], cell)
            free = True
            for i in range(box[0], box[2] + 1):
                for j in range(box[1], box[3] + 1):
                    entry = entries.get((name, i, j), 0)
                    while entry > 0 and free:
                        free = not overlap(plane[f], plane[faces[entry]])
                        entry = following[entry]
            if not free:
                continue
            chart[f] = name
            for i in range(box[0], box[2] + 1):
                for j in range(box[1], box[3] + 1):
                    following.append(entries.get((name, i, j), 0))
                    entries[(name, i, j)] = len(faces)
                    faces.append(f)
            for k in range(3):
                g = neighbours[f, k]
                if g >= 0 and chart[g] < 0 and queued[g] != name and label[g] == label[f]:
                    queued[g] = name
                    queue[last] = g
                    last += 1
        name += 1
    return chart


@njit(cache=True)
@no_type_check
def _cells(triangle, cell):
    """The first and the last cell of a triangle's box, per axis."""
    return (
        int(np.floor(triangle[:, 0].min() / cell)),
        int(np.floor(triangle[:, 1].min() / cell)),
        int(np.floor(triangle[:, 0].max() / cell)),
        int(np.floor(triangle[:, 1].max() / cell)),
    )


@njit(cache=True)
@no_type_check
def overlap(a, b):
    """Say whether two counter-clockwise triangles [3 2] share more than a border: no edge of either separates them."""
    for p, q in ((a, b), (b, a)):
        for k in range(3):
            ex, ey = p[(k + 1) % 3, 0] - p[k, 0], p[(k + 1) % 3, 1] - p[k, 1]
            farthest = -np.inf
            for c in range(3):
                farthest = max(farthest, ex * (q[c, 1] - p[k, 1]) - ey * (q[c, 0] - p[k, 0]))
            if farthest <= 1e-9 * (ex * ex + ey * ey):
                return False
    return True
