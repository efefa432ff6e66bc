"""Surfaces of real objects: triangles with pictures on them, cleaned until they can be drawn fast and seen from any side.

Meshes of many makers come with faces twice, inside out, without area, or see-through; with pictures far finer than is ever
drawn; and in any unit. :func:`read` makes one kind of value of all of them, and :func:`clean` mends it. What cannot be mended
is a ``ValueError`` that says why.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
from numpy import ndarray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from rl3d.files import write_whole

GLASS = (199, 219, 230)
"""The colour towards which see-through materials go, as much as they let through: views have no transparency."""

COAL = 30
"""The sRGB level of the blackest paint: light tells nothing of the shape of what is blacker."""

UNSEEN = 0.06
"""Materials more transparent than that are not there at all."""

FINEST = 1 / 160
"""Side of a texel and of the finest detail, as a part of the surface's radius: half a pixel of a view of 128."""

MOST = 24_000
"""Triangles beyond which near vertices are merged, within :data:`FINEST` at first."""


@dataclass(frozen=True)
class Surface:
    """Triangles with a picture for each material. Plain colours are pictures of one texel."""

    vertices: Float32[ndarray, "n 3"]
    faces: Int32[ndarray, "m 3"]
    uv: Float32[ndarray, "m 3 2"]
    """Places of the corners in their picture: 0 to 1 from left to right and from top to bottom, repeated beyond."""
    labels: Int32[ndarray, "m"]
    """The material of each face, counted from 0; each has a face."""
    shapes: Int32[ndarray, "p 2"]
    """Height and width of each material's picture."""
    texels: UInt8[ndarray, "k 3"]
    """The pictures' sRGB albedo, row by row, one after the other."""
    names: tuple[str, ...]
    """What the maker called each material."""

    @property
    def starts(self) -> Int[ndarray, "p"]:
        """Where each picture begins in the texels."""
        sizes = self.shapes.prod(1)
        return np.cumsum(sizes) - sizes

    @property
    def bounds(self) -> Float32[ndarray, "2 3"]:
        """The lowest and highest corner of the bounding box."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])

    def areas(self) -> Float[ndarray, "m"]:
        """The area of each face."""
        return _areas(self.vertices, self.faces)

    def picture(self, material: int) -> UInt8[ndarray, "h w 3"]:
        """One material's picture."""
        h, w = self.shapes[material]
        start = self.starts[material]
        return self.texels[start : start + h * w].reshape(h, w, 3)

    def moved(self, vertices: Float[ndarray, "n 3"]) -> Surface:
        """The same with other places."""
        return replace(self, vertices=np.ascontiguousarray(vertices, np.float32))

    def only(self, keep: Bool[ndarray, "m"]) -> Surface:
        """Keep some faces, and the vertices and materials that they need."""
        used, faces = np.unique(self.faces[keep], return_inverse=True)
        materials, labels = np.unique(self.labels[keep], return_inverse=True)
        pictures = [self.picture(k).reshape(-1, 3) for k in materials.tolist()]
        return Surface(
            self.vertices[used],
            faces.reshape(-1, 3).astype(np.int32),
            self.uv[keep],
            labels.astype(np.int32),
            self.shapes[materials],
            np.concatenate(pictures) if pictures else np.zeros((0, 3), np.uint8),
            tuple(self.names[k] for k in materials.tolist()),
        )

    def save(self, file: Path) -> None:
        """Write to an .npz file."""
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name) for name in ("vertices", "faces", "uv", "labels", "shapes", "texels")}
        np.savez(buffer, names=np.array(self.names, str), **arrays)
        write_whole(file, buffer.getvalue())

    @classmethod
    def load(cls, file: Path) -> Surface:
        """Read what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in ("vertices", "faces", "uv", "labels", "shapes", "texels")}
            return cls(**fields, names=tuple(str(name) for name in arrays["names"]))


# ---- reading


@dataclass(frozen=True)
class _Paint:
    """A material as it is read: a picture, and how much of it is there."""

    name: str
    picture: UInt8[ndarray, "h w 3"]
    cover: Float32[ndarray, "h w"] | None = None
    """Where the picture has holes (leaves, fences): below one half there is nothing."""


def read(scene: trimesh.Scene | trimesh.Trimesh, *, least: float = UNSEEN) -> Surface:
    """Take all triangles of a scene, with materials, pictures or colours of faces and vertices. Axes stay as they are.

    Parts that are there by less than ``least`` are left out: 0.5 takes away panes, to show what is behind them. Points,
    lines, and triangles with values that are not finite are ignored; nothing to see is a ``ValueError``.
    """
    if isinstance(scene, trimesh.Trimesh):
        scene = trimesh.Scene(scene)
    parts: list[Surface] = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        vertices = trimesh.transform_points(mesh.vertices, transform).astype(np.float32)
        faces = np.asarray(mesh.faces, np.int32)
        if np.linalg.det(transform[:3, :3]) < 0:
            faces = faces[:, ::-1]
        made = _painted(mesh, faces, least)
        if made is not None:
            parts.append(_part(vertices, faces, *made))
    if not parts:
        raise ValueError("it has no visible triangles")
    surface = join(parts)
    finite = np.all(np.isfinite(surface.vertices), axis=1)[surface.faces].all(1)
    if not finite.any():
        raise ValueError("none of its triangles has finite corners")
    return surface.only(finite)


def _part(vertices: ndarray, faces: ndarray, uv: ndarray, paint: _Paint) -> Surface:
    h, w, _ = paint.picture.shape
    if paint.cover is not None:
        vertices, faces, uv = _cut_out(vertices, faces, uv, paint.cover)
    labels = np.zeros(len(faces), np.int32)
    texels = np.ascontiguousarray(paint.picture).reshape(-1, 3)
    return Surface(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        np.ascontiguousarray(uv, np.float32),
        labels,
        np.array([[h, w]], np.int32),
        texels,
        (paint.name,),
    )


def join(parts: Sequence[Surface]) -> Surface:
    """Put surfaces into one."""
    counts = np.array([(len(part.vertices), len(part.shapes)) for part in parts], np.int32)
    first = np.cumsum(counts, axis=0, dtype=np.int32) - counts
    return Surface(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + k for part, k in zip(parts, first[:, 0], strict=True)]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate([part.labels + k for part, k in zip(parts, first[:, 1], strict=True)]),
        np.concatenate([part.shapes for part in parts]),
        np.concatenate([part.texels for part in parts]),
        tuple(name for part in parts for name in part.names),
    )


def _painted(mesh: trimesh.Trimesh, faces: ndarray, least: float) -> tuple[ndarray, _Paint] | None:
    """Corner places and the paint of a mesh, or None if it is invisible."""
    visual = mesh.visual
    nowhere = np.full((len(faces), 3, 2), 0.5, np.float32)
    if isinstance(visual, ColorVisuals):
        return _by_colours(visual, faces)
    assert isinstance(visual, TextureVisuals)
    material = visual.material
    name = str(material.name or "")
    colour, through = np.asarray(material.main_color[:3], np.float64), 0.0
    if isinstance(material, PBRMaterial):
        image, mode = material.baseColorTexture, material.alphaMode or "OPAQUE"
        factor = np.ones(4) if material.baseColorFactor is None else np.asarray(material.main_color) / 255
        if mode == "BLEND":
            through = 1 - float(factor[3])
        tint = _srgb(factor[:3])  # glTF's factors are linear; they multiply a picture
        colour = 255 * tint
    else:
        image, mode, tint = material.image, "MASK", np.ones(3)  # in .obj files the colour beside a picture is mostly left over
        through = 1 - float((material.kwargs or {}).get("d", [1.0])[-1])
    if 1 - through < least:
        return None
    own = visual.vertex_attributes.get("color")
    if own is not None and image is None and len(own) == len(mesh.vertices):
        return _by_colours(ColorVisuals(vertex_colors=own), faces)
    if image is None or visual.uv is None:
        return nowhere, _Paint(name, np.round(_glassy(colour, through)).astype(np.uint8).reshape(1, 1, 3))
    pixels = np.asarray(image.convert("RGBA"))
    picture = np.round(_glassy(pixels[..., :3] * tint, through)).astype(np.uint8)
    holes = mode != "OPAQUE" and pixels[..., 3].min() < 128
    uv = np.asarray(visual.uv, np.float32)[faces]
    uv = np.where(np.abs(uv) < 1e4, uv, 0.5)  # also where it is no number
    cover = (pixels[..., 3] / 255).astype(np.float32) if holes else None
    return np.stack([uv[..., 0], 1 - uv[..., 1]], -1), _Paint(name, picture, cover)


def _srgb(linear: ndarray) -> ndarray:
    """Encode linear light (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _glassy(colour: ndarray, through: float) -> ndarray:
    return COAL + (1 - COAL / 255) * (colour + through * (np.array(GLASS) - colour))


def _by_colours(visual: ColorVisuals, faces: ndarray) -> tuple[ndarray, _Paint]:
    """A texel for each colour; faces whose corners differ get their mean."""
    if visual.kind == "vertex":
        rgb = np.asarray(visual.vertex_colors)[faces][..., :3].mean(1)
    elif visual.kind == "face":
        rgb = np.asarray(visual.face_colors)[:, :3].astype(np.float64)
    else:
        rgb = np.full((len(faces), 3), 160.0)
    colours, index = np.unique(np.round(_glassy(rgb, 0.0)).astype(np.uint8), axis=0, return_inverse=True)
    uv = np.full((len(faces), 3, 2), 0.5, np.float32)
    uv[..., 0] = (index.reshape(-1, 1) + 0.5) / len(colours)
    return uv, _Paint("", colours[None])


def _cut_out(vertices: ndarray, faces: ndarray, uv: ndarray, cover: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Cut the holes of a picture out of the faces, by splitting these finely and leaving out what is empty."""
    reach = np.linalg.norm(np.ptp(vertices, axis=0)) / 2
    corners = vertices[faces].astype(np.float64)
    places = uv.astype(np.float64)
    done: list[tuple[ndarray, ndarray]] = []
    room = 60_000  # split no further when there are so many
    for _ in range(7):
        full, empty = _covered(places, cover)
        done.append((corners[full], places[full]))
        mixed = ~(full | empty)
        corners, places = corners[mixed], places[mixed]
        longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)
        big = longest > 2 * FINEST * reach
        if not big.any() or 4 * big.sum() > room:
            break
        done.append((corners[~big][_filled(places[~big], cover)], places[~big][_filled(places[~big], cover)]))
        corners, places = _quartered(corners[big]), _quartered(places[big])
    keep = _filled(places, cover)
    done.append((corners[keep], places[keep]))
    corners, places = (np.concatenate(x) for x in zip(*done, strict=True))
    return corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), places


_GRID = np.array([(i, j) for i in range(5) for j in range(5 - i)]) / 4
_WEIGHTS = np.column_stack([1 - _GRID.sum(1), _GRID])


def _covered(places: ndarray, cover: ndarray) -> tuple[ndarray, ndarray]:
    """Which triangles of a picture are filled and which are empty at all of some points."""
    at = _look(np.einsum("sk,mkd->msd", _WEIGHTS, places), cover) > 0.5
    share = at.mean(1)
    return share == 1, share == 0


def _filled(places: ndarray, cover: ndarray) -> ndarray:
    return _look(places.mean(1), cover) > 0.5


def _look(places: ndarray, cover: ndarray) -> ndarray:
    h, w = cover.shape
    index = np.floor(places * (w, h)).astype(np.int64) % (w, h)
    return cover[index[..., 1], index[..., 0]]


def _quartered(triangles: ndarray) -> ndarray:
    a, b, c = triangles.swapaxes(0, 1)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.concatenate([np.stack(x, 1) for x in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])


# ---- mending


def clean(surface: Surface) -> Surface:
    """Weld equal corners; drop faces without area, or laid twice; merge what is finer than can be seen; and shrink pictures to
    what can be seen. Nothing left, or no extent, is a ``ValueError``.
    """
    reach = float(np.linalg.norm(np.ptp(surface.vertices, axis=0)) / 2)
    if not reach > 0:
        raise ValueError("it has no extent: all its corners are in one place")
    surface = merged(surface, 1e-5 * reach)
    cell = FINEST * reach
    while len(surface.faces) > MOST and cell < 0.05 * reach:
        surface = merged(surface, cell)
        cell *= 1.3
    if not len(surface.faces):
        raise ValueError("none of its triangles has an area")
    return shrunk(surface)


def merged(surface: Surface, cell: float) -> Surface:
    """Merge vertices in the same cell of a grid, into their mean; faces that collapse, or come to lie on another, go."""
    keys = np.round((surface.vertices - surface.vertices.min(0)) / cell).astype(np.int64)
    _, index = np.unique(keys[:, 0] << 42 | keys[:, 1] << 21 | keys[:, 2], return_inverse=True)
    index = index.reshape(-1)
    count = np.bincount(index)
    vertices = np.stack([np.bincount(index, surface.vertices[:, d]) / count for d in range(3)], 1).astype(np.float32)
    faces = index[surface.faces].astype(np.int32)
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    alone = np.zeros(len(faces), bool)
    alone[first] = True
    alone &= _areas(vertices, faces) > 1e-6 * cell**2
    return replace(surface, vertices=vertices, faces=faces).only(alone)


def shrunk(surface: Surface) -> Surface:
    """Shrink each picture until its texels are as fine as what can be seen, by the area that it covers."""
    reach = float(np.linalg.norm(np.ptp(surface.vertices, axis=0)) / 2)
    inside = np.abs(_cross(surface.uv[:, 1] - surface.uv[:, 0], surface.uv[:, 2] - surface.uv[:, 0])) / 2
    area, plane = (np.bincount(surface.labels, x, len(surface.shapes)) for x in (surface.areas(), inside))
    pictures = []
    for k, (h, w) in enumerate(surface.shapes):
        # A whole picture, once across its own unit square, covers this area of the surface.
        side = np.sqrt(area[k] / max(plane[k], 1e-12)) / (FINEST * reach)
        scale = min(1.0, side / np.sqrt(h * w), 512 / max(h, w))
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        picture = surface.picture(k)
        if size != (w, h):
            picture = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BOX))
        pictures.append(picture)
    return replace(
        surface,
        shapes=np.array([p.shape[:2] for p in pictures], np.int32),
        texels=np.concatenate([p.reshape(-1, 3) for p in pictures]),
    )


def _cross(u: ndarray, v: ndarray) -> ndarray:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _areas(vertices: ndarray, faces: ndarray) -> ndarray:
    a, b, c = vertices[faces].astype(np.float64).swapaxes(0, 1)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


# ---- placing


def upright(surface: Surface, turn: Float[ndarray, "3 3"] | None = None, size: Iterable[float] | None = None) -> Surface:
    """Bring a mesh whose y axis is up and whose front is +z to this world's axes: z up, the front towards +x, the middle of its
    foot at the origin.

    ``turn`` is applied first, in the mesh's own axes. ``size``: width, depth and height to stretch it to, in metres.
    """
    points = surface.vertices.astype(np.float64)
    if turn is not None:
        points = points @ turn.T
    points = points[:, [2, 0, 1]]
    low, high = points.min(0), points.max(0)
    points -= [*(low + high)[:2] / 2, low[2]]
    if size is not None:
        width, depth, height = size
        extent = np.maximum(high - low, 1e-9)
        points *= np.array([depth, width, height]) / extent
    if turn is not None and np.linalg.det(turn) < 0:
        surface = replace(surface, faces=surface.faces[:, ::-1].copy(), uv=surface.uv[:, ::-1].copy())
    return surface.moved(points)
