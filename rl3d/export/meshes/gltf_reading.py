"""Read meshes of glTF 2.0, GLB or JSON, from anyone.

Nothing in the file is believed: indices and offsets are checked before they are used, so that what is read is never larger
than the file says it is, nor than :mod:`rl3d.export.meshes.limits` allows. Sections are those of Khronos' "glTF 2.0
Specification".
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Num
from numpy import ndarray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from rl3d.export.meshes.gltf import BIN, JSON, MAGIC
from rl3d.export.meshes.limits import MOST_BYTES, MOST_CORNERS, MOST_PARTS, MOST_PIXELS, check_text, read_picture
from rl3d.export.meshes.srgb import linear_from_srgb, srgb_from_linear

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
"""Of the types that meshes have (3.6.2.2); matrices are for skins."""

UNDERSTOOD = ("KHR_texture_transform", "KHR_mesh_quantization", "EXT_texture_webp", "KHR_lights_punctual")
"""Extensions that may be required, besides all ``KHR_materials_*``, which change how light is taken."""

DEEPEST = 500
"""Nodes above one another."""


def read_gltf(data: bytes, beside: Callable[[str], bytes]) -> list[trimesh.Trimesh]:
    """Read the triangles of all nodes of the scene, in glTF's axes, with colours in sRGB.

    A mesh has a texture, in which the factor of its material is, or else colours of vertices. Alpha, skins, morphs and all
    but the base colour and the normal map are ignored.

    Args:
        data: The bytes of a GLB, or JSON.
        beside: Reads another file by its URI.

    Raises:
        ValueError: if something is wrong; whatever the json and numpy raise at values of the wrong kind.
    """
    document, binary = _chunks(data) if data[:4] == b"glTF" else (data, b"")
    check_text(document)
    doc = json.loads(document)
    if not isinstance(doc, dict) or not str(doc.get("asset", {}).get("version", "")).startswith("2."):
        raise ValueError("it is not glTF 2.0")
    for name in doc.get("extensionsRequired", []):
        if name not in UNDERSTOOD and not name.startswith("KHR_materials_"):
            raise ValueError(f"it needs {name}, which is not read here: export it without compression or extensions")
    reader = _Reader(doc, binary, beside)
    primitives = [(entry, place) for mesh, place in _placed(doc) for entry in _at(doc["meshes"], mesh)["primitives"]]
    if len(primitives) > MOST_PARTS:
        raise ValueError(f"it shows {len(primitives)} meshes, more than {MOST_PARTS}: join them first")
    if sum(_corners(doc, entry) for entry, _ in primitives) > MOST_CORNERS:
        raise ValueError(f"it shows more than {MOST_CORNERS} vertices and corners of faces")
    return [part for entry, place in primitives if (part := reader.primitive(entry, place)) is not None]


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the binary chunk of a GLB (4.4)."""
    magic, version, length = struct.unpack_from("<III", data)
    if magic != MAGIC or version != 2 or length > len(data):
        raise ValueError(f"it is cut short, or no GLB of version 2: it says {length} bytes, version {version}; has {len(data)}")
    found, at = {}, 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > length:
            raise ValueError(f"it is cut short: a chunk of {size} bytes goes beyond its end")
        found.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    return found.get(JSON, b""), found.get(BIN, b"")


def _placed(doc: dict[str, Any]) -> list[tuple[int, Float[ndarray, "4 4"]]]:
    """The meshes of the scene's nodes, each with its way to the world. Nodes are a tree (3.5.2)."""
    nodes = doc.get("nodes", [])
    roots = _at(doc["scenes"], doc.get("scene", 0)).get("nodes", []) if "scenes" in doc else range(len(nodes))
    children = {child for node in nodes for child in node.get("children", [])}
    todo = [(root, np.eye(4), 0) for root in roots if "scenes" in doc or root not in children]
    found, seen = [], set()
    while todo:
        index, above, depth = todo.pop()
        if index in seen or depth > DEEPEST:
            raise ValueError(f"node {index} is below itself, below two others, or too deep: nodes must be a tree")
        seen.add(index)
        node = _at(nodes, index)
        place = above @ _transform(node)
        if "mesh" in node:
            found.append((node["mesh"], place))
        todo += [(child, place, depth + 1) for child in node.get("children", [])]
    return found


def _transform(node: dict[str, Any]) -> Float[ndarray, "4 4"]:
    """A node's matrix, column by column, or its translation, rotation (xyzw) and scale (3.5.3)."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    made = np.eye(4)
    if "rotation" in node:
        x, y, z, w = np.array(node["rotation"], np.float64)
        made = trimesh.transformations.quaternion_matrix([w, x, y, z])
    made[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    made[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return made


def _at(items: list[Any], index: Any) -> Any:
    """An item by its index, which is a whole number within the list."""
    if not isinstance(index, int) or not 0 <= index < len(items):
        raise ValueError(f"it refers to number {index} of {len(items)}")
    return items[index]


def _count(value: Any) -> int:
    """A length or an offset, which is a whole number that a file could have."""
    if not isinstance(value, int) or not 0 <= value <= MOST_BYTES:
        raise ValueError(f"a count or an offset in it is {value}")
    return value


def _corners(doc: dict[str, Any], primitive: dict[str, Any]) -> int:
    """How many vertices and corners of faces a primitive says that it has."""
    used = [primitive["attributes"].get("POSITION"), primitive.get("indices")]
    return sum(_count(_at(doc["accessors"], index)["count"]) for index in used if index is not None)


@dataclass(frozen=True)
class _Material:
    """What we use of a material (3.9)."""

    factor: Float[ndarray, "3"] | None
    """Its colour in linear light, None where it says none."""
    pictures: PBRMaterial | None
    """Its texture, in which the factor is, and normal map."""
    info: dict[str, Any]
    """What the file says of the texture's use."""

    @property
    def uv(self) -> str:
        """The attribute with the places in the texture."""
        moved = self.info.get("extensions", {}).get("KHR_texture_transform", {})
        return f"TEXCOORD_{moved.get('texCoord', self.info.get('texCoord', 0))}"


@dataclass
class _Reader:
    """What has been read so far of a file, once for all that use it, and how much."""

    doc: dict[str, Any]
    binary: bytes
    beside: Callable[[str], bytes]
    buffers: dict[int, bytes] = field(default_factory=dict)
    accessors: dict[int, ndarray] = field(default_factory=dict)
    pictures: dict[int, Image.Image] = field(default_factory=dict)
    materials: dict[int | None, _Material] = field(default_factory=dict)
    loaded: int = 0
    values: int = 0
    pixels: int = 0

    # ---- bytes

    def uri(self, uri: str) -> bytes:
        inline = uri.startswith("data:")
        data = base64.b64decode(uri.partition("base64,")[2], validate=True) if inline else self.beside(uri)
        self.loaded += len(data)
        if self.loaded > MOST_BYTES:
            raise ValueError(f"its files have more than {MOST_BYTES >> 20} MiB together")
        return data

    def buffer(self, index: Any) -> bytes:
        if index not in self.buffers:
            entry = _at(self.doc["buffers"], index)
            self.buffers[index] = self.uri(entry["uri"]) if "uri" in entry else self.binary
        return self.buffers[index]

    def view(self, index: Any) -> memoryview:
        entry = _at(self.doc["bufferViews"], index)
        data, start, size = self.buffer(entry["buffer"]), _count(entry.get("byteOffset", 0)), _count(entry["byteLength"])
        if start + size > len(data):
            raise ValueError(f"it is cut short: bytes {start} to {start + size} of a buffer of {len(data)}")
        return memoryview(data)[start : start + size]

    def rows(self, view: Any, offset: Any, count: int, width: int, kind: Any) -> ndarray:
        """``count`` rows of a buffer's view, which may lie apart (3.6.2.4)."""
        data, start, dtype = self.view(view), _count(offset), np.dtype(COMPONENTS[kind])
        step = _count(self.doc["bufferViews"][view].get("byteStride", 0)) or width * dtype.itemsize
        if step < width * dtype.itemsize or start + (count - 1) * step + width * dtype.itemsize > len(data):
            raise ValueError(f"{count} rows of {step} bytes from byte {start} on go beyond a view of {len(data)} bytes")
        return np.ndarray((count, width), dtype, data, start, (step, dtype.itemsize))

    def accessor(self, index: Any) -> Num[ndarray, "n c"]:
        """The values of an accessor, normalized ones as floats (3.6.2)."""
        if index not in self.accessors:
            entry = _at(self.doc["accessors"], index)
            count, width, kind = _count(entry["count"]), WIDTHS[entry["type"]], entry["componentType"]
            self.values += count * width
            if count < 1 or self.values > 4 * MOST_CORNERS:
                raise ValueError(f"an accessor of it has {count} values")
            if "bufferView" in entry:
                values = self.rows(entry["bufferView"], entry.get("byteOffset", 0), count, width, kind)
            elif "sparse" in entry:
                values = np.zeros((count, width), COMPONENTS[kind])
            else:
                raise ValueError("it has values without bytes: export it without compression")
            if "sparse" in entry:
                at, to = entry["sparse"]["indices"], entry["sparse"]["values"]
                some = _count(entry["sparse"]["count"])
                where = self.rows(at["bufferView"], at.get("byteOffset", 0), some, 1, at["componentType"])[:, 0]
                values = values.copy()
                values[where] = self.rows(to["bufferView"], to.get("byteOffset", 0), some, width, kind)
            if entry.get("normalized", False):
                values = np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
            self.accessors[index] = values
        return self.accessors[index]

    # ---- pictures

    def picture(self, info: dict[str, Any]) -> Image.Image:
        texture = _at(self.doc["textures"], info["index"])
        index = texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source", texture.get("source"))
        if index not in self.pictures:
            entry = _at(self.doc["images"], index)
            made = read_picture(self.uri(entry["uri"]) if "uri" in entry else self.view(entry["bufferView"]))
            self.pictures[index] = self.counted(made)
        return self.pictures[index]

    def counted(self, picture: Image.Image) -> Image.Image:
        self.pixels += picture.width * picture.height
        if self.pixels > MOST_PIXELS:
            raise ValueError(f"its pictures have more than {MOST_PIXELS} pixels together")
        return picture

    def material(self, index: int | None) -> _Material:
        """A material with what we use of it; None is the default one."""
        if index not in self.materials:
            entry = {} if index is None else _at(self.doc["materials"], index)
            surface = entry.get("pbrMetallicRoughness", {})
            factor = surface.get("baseColorFactor")
            factor = None if factor is None else np.clip(np.array(factor[:3], np.float64).reshape(3), 0, 1)
            info, pictures = surface.get("baseColorTexture"), None
            if info is not None:
                texture = self.picture(info)
                if factor is not None and factor.min() < 1:
                    levels = linear_from_srgb(np.arange(256, dtype=np.uint8)) * factor[:, None]
                    texture = self.counted(texture.point(srgb_from_linear(levels).reshape(-1).tolist()))
                normal_map = self.picture(entry["normalTexture"]) if "normalTexture" in entry else None
                pictures = PBRMaterial(baseColorTexture=texture, normalTexture=normal_map, metallicFactor=0, roughnessFactor=1)
            self.materials[index] = _Material(factor, pictures, info or {})
        return self.materials[index]

    # ---- triangles

    def primitive(self, entry: dict[str, Any], place: Float[ndarray, "4 4"]) -> trimesh.Trimesh | None:
        """One primitive, or None if it is points or lines (3.7.2)."""
        mode, attributes = entry.get("mode", 4), entry["attributes"]
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            return None
        local = self.accessor(attributes["POSITION"])
        flat = self.accessor(entry["indices"])[:, 0] if "indices" in entry else np.arange(len(local))
        faces = _faces(flat.astype(np.int64), mode)
        if np.linalg.det(place[:3, :3]) < 0:
            faces = faces[:, ::-1]
        if local.shape[1] != 3 or faces.max(initial=0) >= len(local):
            raise ValueError(f"its faces refer to vertex {faces.max(initial=0)} of {len(local)}, or these are not in space")
        used, index = np.unique(faces, return_inverse=True)
        vertices = local[used].astype(np.float64) @ place[:3, :3].T + place[:3, 3]
        mesh = trimesh.Trimesh(vertices, index.reshape(-1, 3), process=False)
        material = self.material(entry.get("material"))
        if material.pictures is not None and material.uv in attributes:
            uv = _moved(self.accessor(attributes[material.uv])[used].astype(np.float64), material.info)
            mesh.visual = TextureVisuals(uv=np.stack([uv[:, 0], 1 - uv[:, 1]], 1), material=material.pictures)
        elif "COLOR_0" in attributes or material.factor is not None:
            linear = np.ones((len(used), 3)) * (1 if material.factor is None else material.factor)
            if "COLOR_0" in attributes:
                linear *= self.accessor(attributes["COLOR_0"])[used, :3]
            mesh.visual = ColorVisuals(mesh, vertex_colors=srgb_from_linear(linear))
        return mesh


def _faces(flat: ndarray, mode: int) -> ndarray:
    """Corners of triangles, from a list (4), a strip (5) or a fan (6) of vertices."""
    if mode == 4:
        return flat[: len(flat) // 3 * 3].reshape(-1, 3)
    if mode == 5:  # every other one runs the other way round
        strip = np.stack([flat[:-2], flat[1:-1], flat[2:]], 1)
        strip[1::2] = strip[1::2, [1, 0, 2]]
        return strip
    return np.stack([np.broadcast_to(flat[:1], len(flat) - 2), flat[1:-1], flat[2:]], 1)


def _moved(uv: Float[ndarray, "n 2"], info: dict[str, Any]) -> Float[ndarray, "n 2"]:
    """Places in a texture after KHR_texture_transform, in glTF's convention (down from the top)."""
    moved = info.get("extensions", {}).get("KHR_texture_transform", {})
    angle = float(moved.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scaled = uv * np.array(moved.get("scale", (1, 1)), np.float64).reshape(2)
    return scaled @ turn.T + np.array(moved.get("offset", (0, 0)), np.float64).reshape(2)
