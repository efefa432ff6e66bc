"""Gaussian splats in glTF 2.0, by the Khronos extension ``KHR_gaussian_splatting``, as GLB.

The extension is a release candidate (its README of July 2026, https://github.com/KhronosGroup/glTF): its text may change in
details until it is ratified. Splats are points of a primitive with namespaced attributes: rotation (quaternions xyzw), scale
and opacity as they are rather than as logarithm and logit, and harmonics with the signs of 3DGS. Compression is left to
other extensions, none of which is settled: files that need one are refused.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation
from scipy.special import expit

from rl3d.export.splats.arrays import arrays, byte, finite, from_arrays, opacity_logits
from rl3d.geometry.turn import turned
from rl3d.math import SH_C0
from rl3d.types import Splats

EXTENSION = "KHR_gaussian_splatting"
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def _harmonic(i: int) -> str:
    """The name of coefficient i of 16."""
    degree = int(i**0.5)
    return f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{i - degree**2}"


def splat_glb_bytes(splats: Splats) -> bytes:
    """Splats as GLB with float32 attributes; values are stored as they are, so turn them to y up first, as glTF prescribes.

    Viewers that do not know the extension show points in the colours of degree 0. What is lost: float32's rounding of opacities
    close to 1 (logits beyond 14) and of scales.

    Raises:
        ValueError: if there is no Gaussian, which glTF cannot store.
    """
    if not len(splats):
        raise ValueError("there are no Gaussians, and glTF stores no empty array")
    s = arrays(splats)
    srgb = np.clip(0.5 + SH_C0 * s["sh"][:, 0], 0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    opacity = expit(s["opacity_logits"].astype(np.float64))
    attributes = {
        "POSITION": s["means"],
        "COLOR_0": byte(255 * np.concatenate([linear, opacity[:, None]], 1)),
        f"{EXTENSION}:ROTATION": s["quats"][:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(s["log_scales"]),
        f"{EXTENSION}:OPACITY": opacity.astype(np.float32)[:, None],
        **{_harmonic(i): s["sh"][:, i] for i in range(s["sh"].shape[1])},
    }
    views, accessors, binary = [], [], b""
    for name, x in attributes.items():
        data = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data), "target": 34962})
        of = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[x.shape[1]]
        accessor = {"bufferView": len(accessors), "componentType": 5126, "count": len(x), "type": of}
        if name == "POSITION":
            accessor |= {"min": x.min(0).tolist(), "max": x.max(0).tolist()}
        if x.dtype == np.uint8:
            accessor |= {"componentType": 5121, "normalized": True}
        accessors.append(accessor)
        binary += data
    primitive = {
        "mode": 0,
        "attributes": {name: i for i, name in enumerate(attributes)},
        "extensions": {
            EXTENSION: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "projection": "perspective",
                "sortingMethod": "cameraDistance",
            }
        },
    }
    document = {
        "asset": {"version": "2.0", "generator": "rl3d"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def splats_from_glb(data: bytes) -> Splats:
    """Read all splats of a GLB's scene, with the axes of the file: as its nodes move, turn and scale them.

    Attributes may be floats or integers of any kind that the extension allows. Primitives without the extension are left out.
    Where degrees of harmonics differ, the highest is taken. Projection and order of drawing are rl3d's own, whatever it says.

    Raises:
        ValueError: if it is broken, has no splats, or they are of another kernel or linear colours, or compressed by another
            extension; the message lacks the file's name.
    """
    try:
        document, binary = _chunks(data)
        needed = set(document.get("extensionsRequired", [])) - {EXTENSION, "KHR_mesh_quantization"}
        if needed:
            raise ValueError(f"needs extensions of glTF that cannot be read here: {', '.join(sorted(map(str, needed)))}")
        parts, total = [], 0
        for primitive, matrix in _primitives(document):
            count = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
            total += count
            # Each Gaussian takes 36 bytes or more; nodes may show the same ones again, but not without end.
            if total > len(binary) // 4:
                raise ValueError(f"is broken: it shows {total} Gaussians or more out of {len(binary)} bytes")
            parts.append(_placed(finite(_decoded(document, binary, primitive)), matrix))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, np.linalg.LinAlgError) as error:
        raise ValueError(f"is a broken GLB: {type(error).__name__}: {error}") from error
    if not parts:
        raise ValueError(f"holds no splats: none of its scene's meshes has the extension {EXTENSION}")
    k = max(part.sh.shape[1] for part in parts)
    parts = [replace(p, sh=torch.nn.functional.pad(p.sh, (0, 0, 0, k - p.sh.shape[1]))) for p in parts]
    return Splats(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in parts[0].tensors()})


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON of a GLB, and its binary chunk, if it has one (glTF 2.0, sec. 4)."""
    if len(data) < 20 or data[:8] != b"glTF\2\0\0\0" or data[16:20] != b"JSON":
        raise ValueError("is no GLB of version 2, or is cut short")
    (total, size), end = struct.unpack_from("<II", data, 8), len(data)
    if total > end or size > end - 20:
        raise ValueError(f"is cut short: its header announces {max(total, size)} bytes, got {end}")
    document = json.loads(data[20 : 20 + size])
    rest = data[20 + size :]
    if len(rest) < 8 or rest[4:8] != b"BIN\0":
        return document, b""
    size = int.from_bytes(rest[:4], "little")
    if size > len(rest) - 8:
        raise ValueError(f"is cut short: its binary chunk has {size} bytes, got {len(rest) - 8}")
    return document, rest[8 : 8 + size]


def _primitives(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Float[ndarray, "4 4"]]]:
    """The primitives with splats that the scene shows, and where: matrices from their space to the scene's."""
    meshes, nodes = document.get("meshes", []), document.get("nodes", [])
    scenes = document.get("scenes", [])
    if not scenes:
        found = [(mesh, np.eye(4)) for mesh in meshes]
    else:
        found, seen = [], set()
        queue = [(i, np.eye(4)) for i in scenes[_index(document.get("scene", 0))].get("nodes", [])]
        while queue:
            i, parent = queue.pop()
            if _index(i) in seen:
                raise ValueError(f"is broken: its node {i} has two parents")
            seen.add(i)
            with np.errstate(invalid="ignore", over="ignore"):
                matrix = parent @ _local(nodes[i])
            queue += [(child, matrix) for child in nodes[i].get("children", [])]
            if "mesh" in nodes[i]:
                found.append((meshes[_index(nodes[i]["mesh"])], matrix))
    for mesh, matrix in found:
        for primitive in mesh["primitives"]:
            if EXTENSION in primitive.get("extensions", {}):
                yield primitive, matrix


def _index(i) -> int:
    if type(i) is not int or i < 0:
        raise ValueError(f"is broken: {i!r} stands where an index must")
    return i


def _local(node: dict[str, Any]) -> Float[ndarray, "4 4"]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    turn = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
    matrix[:3, :3] = turn * np.array(node.get("scale", [1, 1, 1]), np.float64).reshape(3)
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def _decoded(document: dict[str, Any], binary: bytes, primitive: dict[str, Any]) -> Splats:
    """The Gaussians of a primitive in its own space."""
    about, attributes = primitive["extensions"][EXTENSION], primitive["attributes"]
    if about.get("extensions"):
        raise ValueError(f"has splats that are changed by other extensions: {', '.join(map(str, about['extensions']))}")
    if about.get("kernel", "ellipse") != "ellipse" or about.get("colorSpace") != "srgb_rec709_display":
        raise ValueError(
            f"has splats of kernel {about.get('kernel')!r} and colours {about.get('colorSpace')!r}: only 'ellipse' and "
            "'srgb_rec709_display' can be drawn here, since blending linear colours differs"
        )
    k = sum(name.startswith(f"{EXTENSION}:SH_") for name in attributes)
    if k not in (1, 4, 9, 16) or any(_harmonic(i) not in attributes for i in range(k)):
        raise ValueError(f"is broken: it has {k} coefficients of harmonics, not all of degrees 0 to 3 up to one")

    def read(name: str, width: int) -> Float[ndarray, "n d"]:
        x = _accessor(document, binary, document["accessors"][_index(attributes[name])])
        if x.shape[1] != width or len(x) != count:
            raise ValueError(f"is broken: attribute {name} is [{len(x)} {x.shape[1]}], not [{count} {width}]")
        return x

    count = document["accessors"][_index(attributes["POSITION"])]["count"]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(read(f"{EXTENSION}:SCALE", 3))
    return from_arrays(
        means=read("POSITION", 3),
        log_scales=log_scales,
        quats=read(f"{EXTENSION}:ROTATION", 4)[:, [3, 0, 1, 2]],
        opacity_logits=opacity_logits(read(f"{EXTENSION}:OPACITY", 1)[:, 0]),
        sh=np.stack([read(_harmonic(i), 3) for i in range(k)], 1),
    )


def _accessor(document: dict[str, Any], binary: bytes, accessor: dict[str, Any]) -> Float[ndarray, "n d"]:
    """An array of the binary chunk as float32; normalised integers in [0, 1] or [-1, 1] (glTF 2.0, sec. 3.6.2 and 3.11)."""
    if "sparse" in accessor or "bufferView" not in accessor:
        raise ValueError("has sparse or empty accessors for splats, which cannot be read here")
    view = document["bufferViews"][_index(accessor["bufferView"])]
    if view["buffer"] != 0 or "uri" in document["buffers"][0] or view.get("extensions"):
        raise ValueError("keeps splats outside its binary chunk, or compressed: pack it as one plain GLB")
    dtype, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
    n, row = _index(accessor["count"]), width * dtype.itemsize
    stride = _index(view.get("byteStride", row))
    start = _index(view.get("byteOffset", 0)) + (inner := _index(accessor.get("byteOffset", 0)))
    used = (n - 1) * stride + row if n else 0
    if stride < row or inner + used > _index(view["byteLength"]) or start + used > len(binary):
        raise ValueError(f"is broken or cut short: {n} rows of {row} bytes do not fit where they should lie")
    x = np.ndarray((n, width), dtype, binary, start, (stride, dtype.itemsize)) if n else np.zeros((0, width), dtype)
    if accessor.get("normalized") and dtype.kind in "iu":
        return np.maximum(x.astype(np.float32) / np.iinfo(dtype).max, -1)
    return x.astype(np.float32)


def _placed(splats: Splats, matrix: Float[ndarray, "4 4"]) -> Splats:
    """Gaussians moved by an affine matrix; harmonics turn with the nearest rotation (the extension, "Splat Reconstruction")."""
    if np.array_equal(matrix, np.eye(4)):
        return splats
    linear = matrix[:3, :3]
    if not np.isfinite(matrix).all() or np.linalg.det(linear) <= 1e-30:
        raise ValueError("has a node with splats that mirrors them, makes them flat, or is not finite")
    u, size, v = np.linalg.svd(linear)
    w, x, y, z = Rotation.from_matrix(u @ v).as_quat(scalar_first=True).tolist()
    found = turned(splats, (w, x, y, z))
    means = splats.means.double() @ torch.from_numpy(linear.T) + torch.from_numpy(matrix[:3, 3])
    found = replace(found, means=means.float())
    if size[0] - size[2] < 1e-5 * size[0]:
        return replace(found, log_scales=splats.log_scales + float(np.log(size.mean())))
    axes = Rotation.from_quat(arrays(splats)["quats"], scalar_first=True).as_matrix()
    axes = linear @ (axes * np.exp(splats.log_scales.double().numpy())[:, None])
    u, size, _ = np.linalg.svd(axes)
    u[:, :, 2] *= np.linalg.det(u)[:, None]
    quats = torch.from_numpy(Rotation.from_matrix(u).as_quat(scalar_first=True)).float()
    return replace(found, quats=quats, log_scales=torch.from_numpy(np.log(size.clip(1e-30))).float())
