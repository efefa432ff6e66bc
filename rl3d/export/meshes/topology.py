"""What is right and wrong with a mesh's faces: holes, seams, places where it cuts itself, and how its texture lies on it."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import trimesh
from jaxtyping import Float, Int
from numba import njit
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def welded(mesh: trimesh.Trimesh) -> tuple[Float[ndarray, "n 3"], Int[ndarray, "m 3"]]:
    """Vertices and faces with vertices at the same place made one: what was cut for a texture is whole again."""
    places, which = np.unique(np.asarray(mesh.vertices, np.float64), axis=0, return_inverse=True)
    return places, which.reshape(-1)[np.asarray(mesh.faces, np.int64)]


def topology(mesh: trimesh.Trimesh) -> dict[str, Any]:
    """Count faces, vertices and what is wrong with them, after :func:`welded`.

    ``watertight``: each edge has two faces that pass it in opposite directions. ``manifold``: no edge has more than two, and
    the faces around each vertex hang together over edges. ``self_intersections`` counts pairs of faces without a common
    vertex that cut through each other (:func:`intersections`).
    """
    vertices, faces = welded(mesh)
    whole = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    edges = np.stack([whole, np.roll(whole, -1, 1)], -1).reshape(-1, 2)
    _, edge, uses = np.unique(np.sort(edges, 1), axis=0, return_inverse=True, return_counts=True)
    edge = edge.reshape(-1)
    forwards = np.bincount(edge, edges[:, 0] < edges[:, 1], minlength=len(uses))
    # Faces that share an edge, two by two in its list; and the corners of faces that share an edge, at each of its ends.
    order = np.argsort(edge, kind="stable")
    next_to = np.nonzero(edge[order][1:] == edge[order][:-1])[0]
    a, b = order[next_to], order[next_to + 1]
    parts = connected_components(coo_matrix((np.ones(len(a)), (a // 3, b // 3)), shape=(len(whole),) * 2))[0]
    corners = np.concatenate([_corner_links(whole, a, b, end) for end in (0, 1)])
    fans = connected_components(coo_matrix((np.ones(len(corners)), corners.T), shape=(3 * len(whole),) * 2))[1]
    around = np.unique(np.stack([whole.ravel(), fans], 1), axis=0)[:, 0]
    several = int((np.bincount(around, minlength=len(vertices)) > 1).sum())
    return {
        "faces": len(faces),
        "vertices": len(vertices),
        "components": int(parts),
        "watertight": bool(len(uses) and (uses == 2).all() and (forwards == 1).all()),
        "manifold": bool((uses <= 2).all() and several == 0),
        "open_edges": int((uses == 1).sum()),
        "edges_of_many_faces": int((uses > 2).sum()),
        "vertices_of_many_fans": several,
        "faces_without_area": len(faces) - len(whole),
        "self_intersections": len(intersections(vertices, whole)),
    }


def _corner_links(faces: Int[ndarray, "m 3"], a: Int[ndarray, "k"], b: Int[ndarray, "k"], end: int) -> Int[ndarray, "k 2"]:
    """The corners (3 times the face plus its place) that two half-edges have at one end of their common edge."""
    corner = 3 * (a // 3) + (a % 3 + end) % 3
    vertex = faces.ravel()[corner]
    start = 3 * (b // 3) + b % 3
    same = faces.ravel()[start] == vertex
    return np.stack([corner, np.where(same, start, 3 * (b // 3) + (b % 3 + 1) % 3)], 1)


def intersections(vertices: Float[ndarray, "n 3"], faces: Int[ndarray, "m 3"]) -> Int[ndarray, "k 2"]:
    """Find the pairs of faces without a common vertex, where an edge of one passes through the inside of the other.

    Signs of volumes decide (the segment's ends on two sides of the plane, its line within the three edges), in float64, so
    faces that only touch, or lie in one plane, are not counted. A grid of cells finds the candidates.
    """
    if len(faces) == 0:
        return np.zeros((0, 2), np.int64)
    corners = vertices[faces]
    low, high = corners.min(1), corners.max(1)
    cell = max(float(np.median((high - low).max(1))) * 2, float(np.ptp(vertices, axis=0).max()) / 256, 1e-12)
    first, last = (np.floor((x - vertices.min(0)) / cell).astype(np.int64) for x in (low, high))
    counts = (last - first + 1).prod(1)
    face = np.repeat(np.arange(len(faces)), counts)
    slot = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    span = (last - first + 1)[face]
    place = np.stack([slot // (span[:, 1] * span[:, 2]), slot // span[:, 2] % span[:, 1], slot % span[:, 2]], 1) + first[face]
    key = (place[:, 0] * 2**42) + (place[:, 1] * 2**21) + place[:, 2]
    order = np.argsort(key, kind="stable")
    starts = np.concatenate([[0], np.nonzero(np.diff(key[order]))[0] + 1, [len(key)]])
    return np.array(_pairs(corners, faces, first, face[order], place[order], starts), np.int64).reshape(-1, 2)


@njit(cache=True)
@no_type_check
def _pairs(corners, faces, first, face, place, starts):
    """Pairs that cut each other, flat; each is looked at in the first cell that both touch."""
    found = [0]
    found.clear()
    for s in range(len(starts) - 1):
        for i in range(starts[s], starts[s + 1]):
            for j in range(i + 1, starts[s + 1]):
                f, g = face[i], face[j]
                own = True
                for d in range(3):
                    own &= place[i, d] == max(first[f, d], first[g, d])
                if not own:
                    continue
                shared = False
                for k in range(3):
                    for c in range(3):
                        shared |= faces[f, k] == faces[g, c]
                if not shared and (_pierces(corners[f], corners[g]) or _pierces(corners[g], corners[f])):
                    found.append(f)
                    found.append(g)
    return found


@njit(cache=True)
@no_type_check
def _pierces(a, b):
    """Whether an edge of triangle ``a`` passes through the inside of triangle ``b``."""
    for k in range(3):
        p, q = a[k], a[(k + 1) % 3]
        if _volume(p, b[0], b[1], b[2]) * _volume(q, b[0], b[1], b[2]) >= 0:
            continue
        x, y, z = _volume(p, q, b[0], b[1]), _volume(p, q, b[1], b[2]), _volume(p, q, b[2], b[0])
        if (x > 0 and y > 0 and z > 0) or (x < 0 and y < 0 and z < 0):
            return True
    return False


@njit(cache=True)
@no_type_check
def _volume(a, b, c, d):
    """Six times the signed volume of a tetrahedron."""
    x0, y0, z0 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    x1, y1, z1 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    x2, y2, z2 = d[0] - a[0], d[1] - a[1], d[2] - a[2]
    return x0 * (y1 * z2 - z1 * y2) - y0 * (x1 * z2 - z1 * x2) + z0 * (x1 * y2 - y1 * x2)


def layout(mesh: trimesh.Trimesh) -> dict[str, Any] | None:
    """How a texture lies on a mesh, or None if it has none.

    ``stretch_l2`` and ``stretch_linf`` are those of Sander et al., "Texture Mapping Progressive Meshes" (2001), sec. 3:
    lengths on the surface for a length in the texture, root mean square and largest, scaled so that 1 is the least there is.
    Of the largest, ``stretch_p99`` says what 99 % of the surface keep. ``coverage`` is the share of the square that faces take,
    ``overlap`` the share of it that two or more take (both sampled at 1024 x 1024 places); ``uncovered_faces`` have no area
    there; ``texels_per_unit`` is the mean number along a world unit, where the texture has a picture.
    """
    visual = mesh.visual
    if visual.kind != "texture" or visual.uv is None:
        return None
    faces = np.asarray(mesh.faces)
    corners, uv = np.asarray(mesh.vertices, np.float64)[faces], np.asarray(visual.uv, np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    s, t = uv[..., 0], uv[..., 1]
    flat = ((s[:, 1] - s[:, 0]) * (t[:, 2] - t[:, 0]) - (s[:, 2] - s[:, 0]) * (t[:, 1] - t[:, 0])) / 2
    lost = np.abs(flat) < 1e-14
    use = ~lost & (area > 0)
    twice = 2 * np.where(lost, 1, flat)[:, None]
    turned = [(x[:, [1, 2, 0]] - x[:, [2, 0, 1]])[..., None] for x in (t, s)]
    along_s, along_t = (corners * turned[0]).sum(1) / twice, -(corners * turned[1]).sum(1) / twice
    a, b, c = (along_s**2).sum(1), (along_s * along_t).sum(1), (along_t**2).sum(1)
    square = (a + c) / 2
    largest = np.sqrt(square + np.sqrt(np.maximum((a - c) ** 2 / 4 + b**2, 0)))
    total, share = float(area[use].sum()), area[use]
    scale = np.sqrt(np.abs(flat[use]).sum() / max(total, 1e-30))
    hits = _hits(uv, 1024)
    order = np.argsort(largest[use])
    rank = np.searchsorted(np.cumsum(share[order]), 0.99 * total)
    picture = getattr(visual.material, "baseColorTexture", None)
    return {
        "stretch_l2": float(np.sqrt((square[use] * share).sum() / max(total, 1e-30)) * scale),
        "stretch_linf": float(largest[use].max(initial=0) * scale),
        "stretch_p99": float(largest[use][order][min(rank, len(order) - 1)] * scale) if len(order) else 0.0,
        "coverage": float((hits > 0).mean()),
        "overlap": float((hits > 1).mean()),
        "uncovered_faces": int(lost.sum()),
        "texels_per_unit": None if picture is None else float(scale * np.sqrt(picture.width * picture.height)),
        "unwrapped": mesh.metadata.get("unwrapped"),
    }


@njit(cache=True)
@no_type_check
def _hits(uv, size):
    """How many faces lie on each place of a square grid, strictly within."""
    out = np.zeros((size, size), np.int32)
    for f in range(len(uv)):
        p = uv[f] * size
        area = (p[1, 0] - p[0, 0]) * (p[2, 1] - p[0, 1]) - (p[2, 0] - p[0, 0]) * (p[1, 1] - p[0, 1])
        if area == 0:
            continue
        side = 1 if area > 0 else -1
        left, right = max(0, int(np.ceil(p[:, 0].min() - 0.5))), min(size - 1, int(np.floor(p[:, 0].max() - 0.5)))
        low, high = max(0, int(np.ceil(p[:, 1].min() - 0.5))), min(size - 1, int(np.floor(p[:, 1].max() - 0.5)))
        for row in range(low, high + 1):
            for column in range(left, right + 1):
                x, y = column + 0.5, row + 0.5
                inside = True
                for k in range(3):
                    q, r = p[k], p[(k + 1) % 3]
                    inside &= side * ((r[0] - q[0]) * (y - q[1]) - (r[1] - q[1]) * (x - q[0])) > 1e-6
                if inside:
                    out[row, column] += 1
    return out
