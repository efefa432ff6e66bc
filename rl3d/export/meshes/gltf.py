"""Meshes as glTF 2.0: GLB is written.

Sections are those of the Khronos Group's "glTF 2.0 Specification" (version 2.0.1, 2021). Its axes are y up and front along +z,
its unit is the metre (3.4).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from rl3d.export.meshes.corners import Corners, weld_corners
from rl3d.export.meshes.srgb import linear_from_srgb
from rl3d.export.pictures import png_bytes

GLTF_FROM_OURS = (1, 2, 0)
"""Our axis that each of glTF's is: x to the object's left is our y, y up our z, z to the front our x."""

MAGIC, JSON, BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT, USHORT, UINT = 5126, 5123, 5125


def glb_bytes(corners: Corners, name: str) -> bytes:
    """A mesh as GLB.

    Colours are baked, light and all, yet the material is a plain rough one that takes light (3.9), not ``KHR_materials_unlit``:
    so an object stands in a scene among others, its normal map counts, and it looks alike in all formats, most of which know no
    unlit material. Colours of vertices are linear in 16 bits (3.7.2.1): 8 would merge the darkest of sRGB.
    """
    first, faces = weld_corners(corners.faces, corners.normals, corners.uv)
    point = corners.faces.reshape(-1)[first]
    blobs: list[bytes] = []
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []

    def view(blob: bytes, **more: int) -> int:
        views.append({"buffer": 0, "byteOffset": sum(map(len, blobs)), "byteLength": len(blob), **more})
        blobs.append(blob + bytes(-len(blob) % 4))
        return len(views) - 1

    def accessor(values: ndarray, component: int, shape: str, *, target: int = 34962, **more: Any) -> int:
        at = view(np.ascontiguousarray(values).tobytes(), target=target)
        accessors.append({"bufferView": at, "componentType": component, "count": len(values), "type": shape, **more})
        return len(accessors) - 1

    places = corners.points[point][:, GLTF_FROM_OURS]
    normals = corners.normals.reshape(-1, 3)[first][:, GLTF_FROM_OURS]
    box = {"min": places.min(0).tolist(), "max": places.max(0).tolist()}
    attributes = {"POSITION": accessor(places, FLOAT, "VEC3", **box), "NORMAL": accessor(normals, FLOAT, "VEC3")}
    surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
    material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface, "doubleSided": not corners.watertight}
    pictures: list[Image.Image] = []
    if corners.texture is not None and corners.uv is not None:
        uv = corners.uv.reshape(-1, 2)[first] * np.array([1, -1], np.float32) + np.array(
            [0, 1], np.float32
        )  # down from the top
        attributes["TEXCOORD_0"] = accessor(uv, FLOAT, "VEC2")
        pictures.append(corners.texture)
        surface["baseColorTexture"] = {"index": 0}
        if corners.normal_map is not None:
            pictures.append(corners.normal_map)
            material["normalTexture"] = {"index": 1}
    elif corners.colours is not None:
        rgba = np.concatenate([linear_from_srgb(corners.colours[point]), np.ones((len(point), 1))], 1)
        attributes["COLOR_0"] = accessor(np.round(65535 * rgba).astype("<u2"), USHORT, "VEC4", normalized=True)
    kind, component = ("<u2", USHORT) if len(first) < 65535 else ("<u4", UINT)
    indices = accessor(faces.reshape(-1).astype(kind), component, "SCALAR", target=34963)
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "rl3d"},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
    }
    if pictures:
        wrap = 10497 if corners.tiled else 33071  # repeated, or clamped to the edge
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": wrap, "wrapT": wrap}]
        document["textures"] = [{"sampler": 0, "source": i} for i in range(len(pictures))]
        document["images"] = [
            {"mimeType": "image/png", "bufferView": view(png_bytes(np.asarray(picture)))} for picture in pictures
        ]
    document |= {"bufferViews": views, "buffers": [{"byteLength": sum(map(len, blobs))}]}
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(blobs)
    chunks = struct.pack("<II", len(text), JSON) + text + struct.pack("<II", len(binary), BIN) + binary
    return struct.pack("<III", MAGIC, 2, 12 + len(chunks)) + chunks
