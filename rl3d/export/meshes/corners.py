"""A mesh as files store it: welded points, and a normal and a place in the texture for each corner of each face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float, Float32, Int, Int32, Num, UInt8
from numpy import ndarray
from PIL import Image

from rl3d.export.meshes.limits import FARTHEST
from rl3d.render.mesh import corner_normals


@dataclass(frozen=True)
class Corners:
    """Triangles in our axes, in metres. Points are stored once, even where the texture has a seam."""

    points: Float32[ndarray, "n 3"]
    faces: Int32[ndarray, "m 3"]
    normals: Float32[ndarray, "m 3 3"]
    """Unit normals of each face's corners, smooth but for creases, as :func:`~rl3d.render.mesh.corner_normals` makes them."""
    colours: UInt8[ndarray, "n 3"] | None
    """sRGB of the points, where they have colours and no texture."""
    uv: Float32[ndarray, "m 3 2"] | None
    """Places in the texture, where there is one: to the right and up, as in trimesh, OBJ and USD."""
    texture: Image.Image | None
    normal_map: Image.Image | None
    """Normals in tangent space, y up in the picture (OpenGL's, which glTF and USD prescribe)."""

    @property
    def watertight(self) -> bool:
        """Whether each edge has two faces that run along it in opposite directions."""
        return bool(trimesh.Trimesh(self.points, self.faces, process=False).is_watertight)

    @property
    def tiled(self) -> bool:
        """Whether the texture is repeated."""
        return self.uv is not None and bool(self.uv.min() < 0 or self.uv.max() > 1)


def corners(mesh: trimesh.Trimesh, metres: float = 1.0) -> Corners:
    """Take what files store of a mesh. A world unit becomes ``metres``.

    Raises:
        ValueError: if it has no faces, or values that are not finite, or ``metres`` is no length.
    """
    if not (0 < metres < np.inf):
        raise ValueError(f"a world unit is more than 0 metres long, got {metres}")
    if not len(mesh.faces):
        raise ValueError("there is no mesh to write: it has no faces")
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    points = (metres * vertices).astype(np.float32)
    if not np.abs(points).max() <= FARTHEST:
        raise ValueError(f"the mesh has vertices that are not finite numbers, or beyond {FARTHEST:g} metres: make it again")
    colours = uv = texture = normal_map = None
    visual = mesh.visual
    if isinstance(visual, trimesh.visual.TextureVisuals):
        texture, normal_map, uv = _pictures(visual)
        if texture is None:
            plain = np.asarray(visual.material.main_color)[:3]
            colours = np.broadcast_to(plain, (len(vertices), 3)).astype(np.uint8)
    elif visual.kind in ("vertex", "face"):
        colours = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
    key = points if colours is None else np.concatenate([points, colours.astype(np.float32)], 1)
    first, index = weld(key)
    faces = index[faces].astype(np.int32)
    return Corners(
        points[first],
        faces,
        # Of the places alone: a seam of colours is no crease.
        _normals(points[first], faces),
        None if colours is None else colours[first],
        None if uv is None else uv.astype(np.float32)[np.asarray(mesh.faces)],
        texture,
        normal_map,
    )


def weld(rows: Num[ndarray, "n c"]) -> tuple[Int[ndarray, "k"], Int[ndarray, "n"]]:
    """Find rows that are equal to the bit: where each kind stands first, in order, and which kind each row is."""
    whole = np.ascontiguousarray(rows + 0)  # no negative zeros
    _, first, index = np.unique(whole.view([("", whole.dtype)] * whole.shape[1])[:, 0], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    order = np.argsort(first)
    rank[order] = np.arange(len(first))
    return first[order], rank[index.reshape(-1)]


def weld_corners(
    faces: Int[ndarray, "m 3"], normals: Float[ndarray, "m 3 3"], uv: Float[ndarray, "m 3 2"] | None
) -> tuple[Int[ndarray, "k"], Int[ndarray, "m 3"]]:
    """Find corners that share point, normal and place in the texture: the first of each kind, and the kind of each corner."""
    rows = [faces.reshape(-1, 1).astype(np.int64), np.round(1e3 * normals).astype(np.int64).reshape(-1, 3)]
    if uv is not None:
        rows.append(np.ascontiguousarray(uv.reshape(-1, 2), np.float32).view(np.int32).astype(np.int64))
    first, index = weld(np.concatenate(rows, 1))
    return first, index.reshape(-1, 3)


def _normals(points: Float32[ndarray, "n 3"], faces: Int32[ndarray, "m 3"]) -> Float32[ndarray, "m 3 3"]:
    first, index = weld(points)
    normals = corner_normals(points[first], index[faces].astype(np.int32))
    normals[np.linalg.norm(normals, axis=-1) < 0.5] = (0, 0, 1)  # a face without area, nor neighbours
    return normals


def _pictures(visual: trimesh.visual.TextureVisuals) -> tuple[Image.Image | None, Image.Image | None, ndarray | None]:
    """The texture, the normal map and the places of the vertices; all None where one lacks."""
    material, uv = visual.material, visual.uv
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if texture is None or uv is None:
        return None, None, None
    if not np.isfinite(uv).all():
        raise ValueError("the mesh has places in its texture that are not finite numbers: unwrap it again")
    normal_map = getattr(material, "normalTexture", None)
    return texture.convert("RGB"), None if normal_map is None else normal_map.convert("RGB"), np.asarray(uv)
