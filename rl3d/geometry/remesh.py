"""What is done to a mesh that was taken from a grid: debris, holes, noise, too many faces, and whether it is a solid.

Every function takes a ``trimesh.Trimesh`` and returns another; positions and faces alone are kept.
"""

from __future__ import annotations

import math

import numpy as np
import trimesh
from jaxtyping import Float, Int
from numpy import ndarray

from rl3d.geometry._collapse_numba import collapse
from rl3d.geometry._smooth_numba import filter_normals, follow_normals
from rl3d.render._threads import follow_torch


def components(mesh: trimesh.Trimesh, *, least: float = 0.01, most: int | None = None) -> trimesh.Trimesh:
    """Keep the connected components whose area is at least this fraction of the largest one's, and of these the largest few.

    Faces hang together where they share a vertex.

    Args:
        mesh: Any mesh with faces.
        least: A fraction in [0, 1].
        most: How many components at most; None keeps all.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faces, count = np.asarray(mesh.faces), len(mesh.vertices)
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(ends), bool), ends.T), shape=(count, count))
    number, part = connected_components(graph, directed=False)
    areas = np.bincount(part[faces[:, 0]], mesh.area_faces, number)
    good = areas >= least * areas.max()
    if most is not None:
        good[np.argsort(-areas, kind="stable")[most:]] = False
    good &= np.bincount(part[faces[:, 0]], minlength=number) > 0
    return _without_loose(mesh.vertices, faces[good[part[faces[:, 0]]]])


def fill_holes(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Close every hole: a fan from the middle of each loop of border edges, turned as its neighbours are."""
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    loops = _borders(faces)
    fans, middles = [], []
    for loop in loops:
        middle = len(vertices) + len(middles)
        middles.append(vertices[loop].mean(0))
        # A border runs with its face; the face on the other side runs against it.
        fans.append(np.stack([np.roll(loop, -1), loop, np.full(len(loop), middle)], 1))
    if not loops:
        return mesh
    return trimesh.Trimesh(np.concatenate([vertices, middles]), np.concatenate([faces, *fans]), process=False)


def taubin(mesh: trimesh.Trimesh, *, rounds: int = 5, forth: float = 0.5, back: float = 0.53) -> trimesh.Trimesh:
    """Smooth noise away and keep the volume: a step to the neighbours' mean, and a longer one back (Taubin 1995)."""
    from scipy.sparse import coo_matrix

    count, edges = len(mesh.vertices), mesh.edges_unique
    ends = np.concatenate([edges, edges[:, ::-1]])
    mean = coo_matrix((np.ones(len(ends)), ends.T), shape=(count, count)).tocsr()
    degree = np.maximum(np.asarray(mean.sum(1)), 1)
    points = np.array(mesh.vertices)
    for _ in range(rounds):
        for step in (forth, -back):
            points += step * (mean @ points / degree - points)
    return trimesh.Trimesh(points, mesh.faces, process=False)


def bilateral(mesh: trimesh.Trimesh, *, rounds: int = 10, angle_deg: float = 25.0) -> trimesh.Trimesh:
    """Smooth noise away and keep edges: normals are averaged with those like them, then vertices follow.

    The local iterative scheme of Zheng et al. 2011, "Bilateral normal filtering for mesh denoising", sec. 3.1, and the vertex
    update of Sun et al. 2007, as often as normals were filtered. Faces that share an edge count twice.

    Args:
        mesh: With outward faces.
        rounds: Of the filter; 0 changes nothing.
        angle_deg: Normals that differ by as much count e^-1/2 of what equal ones do.
    """
    if rounds == 0:
        return mesh
    faces = np.ascontiguousarray(mesh.faces, np.int64)
    points = np.array(mesh.vertices, np.float64)
    first, around = _faces_around(faces, len(points))
    follow_torch()
    normals, centers, areas = _planes(points, faces)
    spread = float(np.linalg.norm(np.diff(centers[mesh.face_adjacency], axis=1), axis=-1).mean())
    tell = 2 * math.sin(math.radians(angle_deg) / 2)
    filtered, moved = np.empty_like(normals), np.empty_like(points)
    for _ in range(rounds):
        filter_normals(faces, first, around, normals, centers, areas, spread, tell, filtered)
        normals, filtered = filtered, normals
    for _ in range(rounds):
        follow_normals(points, first, around, normals, points[faces].mean(1), moved)
        points, moved = moved, points
    return trimesh.Trimesh(points, faces, process=False)


def decimate(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """Collapse edges by quadric error until at most so many faces are left (Garland & Heckbert 1997), as far as it can be done.

    Only edges go that leave a manifold what it is (:func:`rl3d.geometry._collapse_numba.collapse`), and borders stay. Slivers
    and faces that turn are avoided; where too few faces could go, slivers are let be.

    Raises:
        ValueError: if fewer than four faces are asked for.
    """
    if faces < 4:
        raise ValueError(f"a solid has 4 faces at least, got {faces}: ask for more, or None to keep all")
    points, kept = np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64)
    for least_cosine, least_quality in ((0.5, 0.05), (0.0, 1e-4)):
        if len(kept) <= faces:
            break
        kept = kept[collapse(points, kept, faces, least_cosine, least_quality)]
    return mesh if len(kept) == len(mesh.faces) else _without_loose(points, kept)


def watertight(mesh: trimesh.Trimesh, *, faces: int | None = None) -> trimesh.Trimesh:
    """Make a closed, oriented 2-manifold with a positive volume, of at most so many faces, out of a mesh with outward faces.

    Holes are filled, edges collapsed where there are too many (:func:`decimate`), and manifold3d checks every edge. Surfaces
    that run through each other stay so: it is the topology that is sure.

    Args:
        mesh: Such as :func:`rl3d.geometry.tsdf.surface` gives.
        faces: How many at most, as far as it can be done; None keeps all.

    Raises:
        ValueError: if the mesh is no manifold even with its holes filled, or encloses nothing.
    """
    import manifold3d

    closed = fill_holes(mesh)
    closed = closed if faces is None else decimate(closed, faces)
    data = manifold3d.Mesh(np.ascontiguousarray(closed.vertices, np.float32), np.ascontiguousarray(closed.faces, np.uint32))
    solid = manifold3d.Manifold(data)
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        raise ValueError("the mesh is no manifold, so no solid can be made of it: mesh it anew at another resolution")
    out = solid.to_mesh()
    made = trimesh.Trimesh(np.asarray(out.vert_properties, np.float64)[:, :3], out.tri_verts.astype(np.int64), process=False)
    if not made.volume > 0:
        raise ValueError(
            f"the mesh encloses a volume of {made.volume:.3g}, so it is no solid: its faces look inwards, or it is flat"
        )
    return made


def _without_loose(vertices: ndarray, faces: ndarray) -> trimesh.Trimesh:
    """A mesh without the vertices that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return trimesh.Trimesh(np.asarray(vertices)[used], index.reshape(-1, 3), process=False)


def _borders(faces: Int[ndarray, "m 3"]) -> list[Int[ndarray, "k"]]:
    """The loops of directed edges that no face runs against."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    base = int(faces.max(initial=0)) + 1
    alone = directed[~np.isin(directed[:, 0] * base + directed[:, 1], directed[:, 1] * base + directed[:, 0])]
    following: dict[int, list[int]] = {}
    for a, b in alone:
        following.setdefault(int(a), []).append(int(b))
    loops = []
    while following:
        start = next(iter(following))
        loop, at = [], start
        while at in following:
            loop.append(at)
            ahead = following[at].pop()
            if not following[at]:
                del following[at]
            at = ahead
            if at == start:
                break
        if at == start and len(loop) > 2:
            loops.append(np.array(loop))
    return loops


def _faces_around(faces: Int[ndarray, "m 3"], count: int) -> tuple[Int[ndarray, "n1"], Int[ndarray, "k"]]:
    """The faces around vertex n: ``around[first[n]:first[n + 1]]``."""
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(faces.ravel(), minlength=count), out=first[1:])
    return first, np.argsort(faces.ravel(), kind="stable") // 3


def _planes(points: Float[ndarray, "n 3"], faces: Int[ndarray, "m 3"]):
    """Unit normals, middles and areas of faces."""
    a, b, c = points[faces].transpose(1, 0, 2)
    across = np.cross(b - a, c - a)
    size = np.linalg.norm(across, axis=1)
    return across / np.maximum(size, 1e-30)[:, None], (a + b + c) / 3, size / 2
