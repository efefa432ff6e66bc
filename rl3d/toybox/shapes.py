"""Clean, closed meshes from which toys are built, and ways to place them.

Every function returns a new watertight :class:`trimesh.Trimesh` (outward faces, no duplicate vertices) around or above the
origin; ``n`` is the number of segments around. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray

Mesh = trimesh.Trimesh
Points2 = Sequence[tuple[float, float]] | Float[ndarray, "k 2"]
Points3 = Sequence[tuple[float, float, float]] | Float[ndarray, "k 3"]


def _mesh(vertices, faces) -> Mesh:
    return Mesh(vertices=np.asarray(vertices, np.float64), faces=np.asarray(faces, np.int64), process=False, validate=False)


def loft(rings: Float[ndarray, "r k 3"], *, closed: bool = False) -> Mesh:
    """Skin rings of ``k`` points each, in order, counter-clockwise as seen from the end that the rings move towards.

    A ring of zero size becomes a pole; other ends get a flat fan. ``closed`` joins the last ring to the first (a torus).
    """
    rings = np.asarray(rings, np.float64)
    r, k, _ = rings.shape
    poles = (np.ptp(rings, axis=1).max(1) < 1e-9) & (not closed)
    sizes = np.where(poles, 1, k)
    starts = np.cumsum(sizes) - sizes
    # Vertex numbers of each ring's points; all points of a pole are one vertex.
    index = starts[:, None] + np.where(poles[:, None], 0, np.arange(k))
    points = rings.reshape(-1, 3)[np.repeat(~poles, k) | (np.arange(r * k) % k == 0)]
    following = np.roll(index, -1, 1)
    low, high = slice(0, r if closed else r - 1), np.arange(1, r + 1 if closed else r) % r
    a, a1, b, b1 = index[low], following[low], index[high], following[high]
    lower = np.stack([a, a1, b1], -1)[~poles[low]].reshape(-1, 3)
    upper = np.stack([a, b1, b], -1)[~poles[high]].reshape(-1, 3)
    vertices, faces = [points], [lower, upper]
    if not closed:
        for ring, hub, order in ((0, len(points), (1, 0, 2)), (-1, len(points) + (not poles[0]), (0, 1, 2))):
            if not poles[ring]:
                vertices.append(rings[ring].mean(0)[None])
                faces.append(np.stack([index[ring], following[ring], np.full(k, hub)], 1)[:, order])
    return _mesh(np.concatenate(vertices), np.concatenate(faces))


def circle(radius: float = 1.0, n: int = 24) -> Float[ndarray, "n 2"]:
    """Points on a circle, counter-clockwise from (radius, 0)."""
    angle = np.arange(n) * (2 * np.pi / n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def lathe(profile: Points2, n: int = 24) -> Mesh:
    """Turn a profile of (radius, z) points about the z axis.

    Listed from bottom to top it is a solid; a profile that comes back down inside makes a hollow thing (a cup): start and
    end it on the axis.
    """
    around = circle(1, n)
    rings = [np.column_stack([around * radius, np.full(n, z)]) for radius, z in np.asarray(profile, float)]
    return loft(np.stack(rings))


def cylinder(radius: float, height: float, n: int = 24, top: float | None = None) -> Mesh:
    """A cylinder on the plane z = 0, or with ``top`` as its upper radius a frustum, or with ``top=0`` a cone."""
    return lathe([(radius, 0), (radius if top is None else top, height)], n)


def cone(radius: float, height: float, n: int = 24) -> Mesh:
    """A cone on the plane z = 0."""
    return cylinder(radius, height, n, top=0.0)


def sphere(radius: float = 1.0, n: int = 24) -> Mesh:
    """A sphere around the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, n // 2 + 1)
    profile = np.stack([np.cos(angle), np.sin(angle)], 1) * radius
    profile[[0, -1], 0] = 0
    return lathe(profile, n)


def ellipsoid(rx: float, ry: float, rz: float, n: int = 24) -> Mesh:
    """An ellipsoid around the origin with these half-axes."""
    return scale(sphere(1, n), (rx, ry, rz))


def dome(radius: float, height: float, n: int = 24) -> Mesh:
    """The upper half of an ellipsoid, closed below, on the plane z = 0."""
    angle = np.linspace(0, np.pi / 2, n // 3 + 1)
    profile = np.stack([radius * np.cos(angle), height * np.sin(angle)], 1)
    profile[-1, 0] = 0
    return lathe(profile, n)


def capsule(radius: float, length: float, n: int = 20) -> Mesh:
    """A cylinder of this length on z, from 0 to ``length``, with a half sphere beyond each end."""
    angle = np.linspace(0, np.pi / 2, n // 4 + 1)
    cap = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    cap[-1, 0] = 0
    return lathe(np.concatenate([cap[::-1] * (1, -1), cap + np.array([0, length])]), n)


def box(x: float, y: float, z: float, *, taper: tuple[float, float] = (1.0, 1.0)) -> Mesh:
    """A box of these sizes standing on z = 0, centred in x and y; ``taper`` scales its upper face in x and y."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (x / 2, y / 2)
    rings = [np.column_stack([corners, np.zeros(4)]), np.column_stack([corners * taper, np.full(4, z)])]
    return loft(np.stack(rings))


def rounded_box(x: float, y: float, z: float, radius: float = 0.15, n: int = 3) -> Mesh:
    """A box like :func:`box` with rounded edges of this radius, at most half the smallest side."""
    radius = min(radius, 0.499 * min(x, y, z))
    angle = np.linspace(0, np.pi / 2, n + 1)
    inset, rise = radius * (1 - np.sin(angle)), radius * (1 - np.cos(angle))
    levels = [(i, h) for i, h in zip(inset, rise, strict=True)]
    levels += [(i, z - h) for i, h in zip(inset[::-1], rise[::-1], strict=True)]
    rings = [
        np.column_stack([rounded_rectangle(x - 2 * i, y - 2 * i, radius - i, n), np.full(4 * (n + 1), h)]) for i, h in levels
    ]
    return loft(np.stack(rings))


def rounded_rectangle(x: float, y: float, radius: float, n: int = 3) -> Float[ndarray, "k 2"]:
    """A rectangle's outline, centred, counter-clockwise, with ``n + 1`` points at each corner."""
    radius = max(radius, 1e-4)
    corners = [(x / 2 - radius, y / 2 - radius, 0), (radius - x / 2, y / 2 - radius, 1)]
    corners += [(radius - x / 2, radius - y / 2, 2), (x / 2 - radius, radius - y / 2, 3)]
    angle = np.linspace(0, np.pi / 2, n + 1)
    turns = [(cx, cy, angle + quarter * np.pi / 2) for cx, cy, quarter in corners]
    return np.concatenate([np.stack([cx + radius * np.cos(a), cy + radius * np.sin(a)], 1) for cx, cy, a in turns])


def torus(radius: float, thickness: float, n: int = 32, m: int = 14) -> Mesh:
    """A ring in the plane z = 0: ``radius`` to the middle of a tube of radius ``thickness``."""
    angle = np.arange(n) * (2 * np.pi / n)
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], 1)
    return tube(path, thickness, m, closed=True)


def tube(
    path: Points3,
    radius: float | Sequence[float] | Float[ndarray, "k"],
    n: int = 12,
    *,
    closed: bool = False,
    flat: float = 1.0,
) -> Mesh:
    """Sweep a circle along a path of points; ``radius`` may differ at each point.

    ``flat`` squeezes the section across the path's own plane of bending. The frame is carried by parallel transport.
    """
    path = np.asarray(path, float)
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent[0], np.eye(3)[np.argmin(np.abs(tangent[0]))])
    section = circle(1, n)
    rings = []
    for point, direction, size in zip(path, tangent, np.broadcast_to(radius, len(path)), strict=True):
        side = side - direction * (side @ direction)
        side /= np.linalg.norm(side)
        other = np.cross(direction, side)
        rings.append(point + size * (section[:, :1] * side + section[:, 1:] * other * flat))
    return loft(np.stack(rings), closed=closed)


def arc(radius: float, start_deg: float, stop_deg: float, n: int = 16) -> Float[ndarray, "n 3"]:
    """Points on an arc in the x-z plane (angle 0 along +x, 90 along +z): a path for :func:`tube`."""
    angle = np.radians(np.linspace(start_deg, stop_deg, n))
    return radius * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1)


def extrude(outline: Points2, thickness: float) -> Mesh:
    """Raise a simple polygon, counter-clockwise, from z = 0 to ``thickness``. It need not be convex."""
    outline = np.asarray(outline, float)
    k = len(outline)
    caps = _ear_clip(outline)
    side = np.arange(k)
    nxt = np.roll(side, -1)
    faces = [caps[:, ::-1], caps + k, np.stack([side, nxt, nxt + k], 1), np.stack([side, nxt + k, side + k], 1)]
    vertices = np.concatenate([np.column_stack([outline, np.full(k, z)]) for z in (0.0, thickness)])
    return _mesh(vertices, np.concatenate(faces))


def slab(outline: Points2, width: float) -> Mesh:
    """Sweep a side view, (x, z) counter-clockwise, across y, half of ``width`` to either side of y = 0."""
    return move(turn(extrude(outline, width), "x", 90), y=width / 2)


def facade(outline: Points2, depth: float) -> Mesh:
    """Sweep a front view, (y, z) counter-clockwise, from x = 0 to ``depth``."""
    return turn(turn(extrude(outline, depth), "x", 90), "z", 90)


def _ear_clip(outline: Float[ndarray, "k 2"]) -> ndarray:
    """Triangulate a simple counter-clockwise polygon by cutting ears. Quadratic, for a few dozen points."""

    def cross(o, a, b):
        return (a[..., 0] - o[..., 0]) * (b[..., 1] - o[..., 1]) - (a[..., 1] - o[..., 1]) * (b[..., 0] - o[..., 0])

    left, faces = list(range(len(outline))), []
    while len(left) > 3:
        for i in range(len(left)):
            ia, ib, ic = left[i - 1], left[i], left[(i + 1) % len(left)]
            a, b, c = outline[[ia, ib, ic]]
            if cross(a, b, c) <= 1e-12:
                continue
            rest = outline[[j for j in left if j not in (ia, ib, ic)]]
            inside = (cross(a, b, rest) >= 0) & (cross(b, c, rest) >= 0) & (cross(c, a, rest) >= 0)
            if not inside.any():
                break
        else:
            raise ValueError("the outline crosses itself, or runs clockwise")
        faces.append((ia, ib, ic))
        left.remove(ib)
    return np.array([*faces, tuple(left)])


def bend(mesh: Mesh, shape: Callable[[Float[ndarray, "n 3"]], Float[ndarray, "n 3"]]) -> Mesh:
    """Move every vertex by a function of all positions (twists, bulges)."""
    return _mesh(shape(np.array(mesh.vertices)), mesh.faces)


def move(mesh: Mesh, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
    """Shift."""
    return _mesh(mesh.vertices + np.array([x, y, z]), mesh.faces)


def scale(mesh: Mesh, factor: float | tuple[float, float, float]) -> Mesh:
    """Stretch about the origin. Negative factors mirror, and keep faces outward."""
    factors = np.broadcast_to(np.asarray(factor, float), 3)
    return _mesh(mesh.vertices * factors, mesh.faces if np.prod(factors) > 0 else mesh.faces[:, ::-1])


def turn(mesh: Mesh, axis: str, degrees: float) -> Mesh:
    """Rotate about the ``"x"``, ``"y"`` or ``"z"`` axis through the origin, by the right-hand rule."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.eye(3)
    rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = c, -s, s, c
    return _mesh(mesh.vertices @ rotation.T, mesh.faces)


def along(mesh: Mesh, start: Sequence[float], stop: Sequence[float]) -> Mesh:
    """Turn and shift a mesh so that its z axis runs from ``start`` towards ``stop``; sizes stay."""
    direction = np.subtract(stop, start)
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z], 1)
    return _mesh(mesh.vertices @ rotation.T + np.asarray(start, float), mesh.faces)


def rod(start: Sequence[float], stop: Sequence[float], radius: float, top: float | None = None, n: int = 14) -> Mesh:
    """A cylinder (or frustum) between two points."""
    return along(cylinder(radius, float(np.linalg.norm(np.subtract(stop, start))), n, top), start, stop)


def join(*meshes: Mesh) -> Mesh:
    """Put meshes side by side in one, without merging their surfaces."""
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    faces = [m.faces + offset for m, offset in zip(meshes, offsets, strict=True)]
    return _mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(faces))


def pair(mesh: Mesh) -> Mesh:
    """A mesh on the left (y > 0), and its mirror image on the right."""
    return join(mesh, scale(mesh, (1, -1, 1)))


def twins(mesh: Mesh, x: float, y: float, z: float) -> Mesh:
    """The mesh at (x, y, z) and again, not mirrored, at (x, -y, z)."""
    return join(move(mesh, x, y, z), move(mesh, x, -y, z))
