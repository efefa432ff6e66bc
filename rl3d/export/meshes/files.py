"""Meshes as files: GLB, OBJ, STL, PLY and USDZ, each in the axes and units that its readers expect.

| file | up, front | unit | colours |
|---|---|---|---|
| GLB | y, +z | metre | a texture in sRGB, or vertices in linear 16 bits |
| OBJ | y, +z | metre | a texture, or vertices, in sRGB |
| STL | z, +x | millimetre | none: it is for printing |
| PLY | z, +x | metre | vertices in sRGB |
| USDZ | y, +z | metre | a texture in sRGB, or vertices in linear floats |

An object of ours fits the unit sphere; ``metres`` says how long that sphere's radius is to be. GLB, OBJ and USDZ hold normals,
smooth but for creases; the others have none, or one for each face.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import UInt8
from numpy import ndarray

from rl3d.export.meshes.corners import Corners, corners, weld
from rl3d.export.meshes.gltf import GLTF_FROM_OURS, glb_bytes
from rl3d.export.pictures import png_bytes
from rl3d.files import write_whole
from rl3d.render.textured import texture_at

KINDS = ("glb", "obj", "stl", "ply", "usdz")
"""What is written: the suffixes of the files."""


def mesh_bytes(
    mesh: trimesh.Trimesh, kind: str, *, metres: float = 1.0, name: str = "object", stem: str = "mesh"
) -> bytes | dict[str, bytes]:
    """Encode a mesh in our axes, with a texture, or colours of vertices, or none.

    Args:
        mesh: The mesh; a texture is a ``PBRMaterial``'s, with a normal map or without.
        kind: The format, one of :data:`KINDS`.
        metres: The length of a world unit.
        name: What the object is called inside, such as its prompt: what is no letter or digit becomes ``_``.
        stem: What the files of an OBJ are called, which name each other.

    Returns:
        The file; of an OBJ, which is several files, each by its name, and the one that refers to the others last.

    Raises:
        ValueError: if there is no such format, there is nothing to write, or usd-core is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"a mesh is written as one of {', '.join(KINDS)}, got {kind}")
    made = corners(mesh, metres)
    called = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60] or "object"
    if kind == "glb":
        return glb_bytes(made, called)
    if kind == "obj":
        return _obj_files(made, called, stem)
    if kind == "stl":
        return _stl_bytes(made, called)
    if kind == "ply":
        return _ply_bytes(made, called)
    from rl3d.export.meshes.usd import usdz_bytes

    return usdz_bytes(made, called)


def write_mesh(path: Path, mesh: trimesh.Trimesh, *, metres: float = 1.0, name: str = "object") -> list[Path]:
    """Write a mesh in the format of the path's suffix, whole or not at all; see :func:`mesh_bytes`.

    An OBJ's pictures and materials are written before the .obj, so that an .obj always finds them.

    Returns:
        The files, the one asked for last.
    """
    kind = path.suffix.lower().removeprefix(".")
    made = mesh_bytes(mesh, kind, metres=metres, name=name, stem=path.stem)
    files = {path.name: made} if isinstance(made, bytes) else made
    written = [path if file == f"{path.stem}.{kind}" else path.with_name(file) for file in files]
    for target, data in zip(written, files.values(), strict=True):
        write_whole(target, data)
    return written


def _obj_files(made: Corners, name: str, stem: str) -> dict[str, bytes]:
    """The files of an OBJ (Wavefront, "Object Files (.obj)", version 3.0), the .obj last.

    Colours of vertices stand behind their places, as MeshLab, Blender and trimesh read them.
    """
    if re.search(r"\s", stem):
        raise ValueError(
            f"an OBJ's name has no spaces, since it names its other files: got {stem!r}, try {'_'.join(stem.split())}"
        )
    points = made.points[:, GLTF_FROM_OURS]
    files: dict[str, bytes] = {}
    lines = ["# rl3d: y up, front along +z, metres"]
    if made.texture is not None:
        mtl = ["newmtl " + name, "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {stem}.png"]
        files[f"{stem}.png"] = png_bytes(np.asarray(made.texture))
        if made.normal_map is not None:
            files[f"{stem}_normal.png"] = png_bytes(np.asarray(made.normal_map))
            mtl.append(f"norm {stem}_normal.png")
        files[f"{stem}.mtl"] = ("\n".join(mtl) + "\n").encode()
        lines.append(f"mtllib {stem}.mtl")
    lines.append(f"o {name}")
    if made.colours is None:
        lines += ["v {:.9g} {:.9g} {:.9g}".format(*p) for p in points.tolist()]
    else:
        rows = np.concatenate([points.astype(np.float64), made.colours / 255], 1)
        lines += ["v {:.9g} {:.9g} {:.9g} {:.6f} {:.6f} {:.6f}".format(*row) for row in rows.tolist()]
    normals = made.normals.reshape(-1, 3)[:, GLTF_FROM_OURS]
    first, normal = weld(np.round(1e4 * normals).astype(np.int64))
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*n) for n in normals[first].tolist()]
    point, normal = made.faces.reshape(-1) + 1, normal + 1
    if made.uv is None:
        rows = np.stack([point, normal], 1).reshape(-1, 6)
        template = "f {}//{} {}//{} {}//{}"
    else:
        first, place = weld(made.uv.reshape(-1, 2))
        lines += ["vt {:.9g} {:.9g}".format(*p) for p in made.uv.reshape(-1, 2)[first].tolist()]
        lines.append(f"usemtl {name}")
        rows = np.stack([point, place + 1, normal], 1).reshape(-1, 9)
        template = "f {}/{}/{} {}/{}/{} {}/{}/{}"
    lines += [template.format(*row) for row in rows.tolist()]
    files[f"{stem}.obj"] = ("\n".join(lines) + "\n").encode()
    return files


def _stl_bytes(made: Corners, name: str) -> bytes:
    """A binary STL (3D Systems, "StereoLithography Interface Specification", 1989), in millimetres."""
    triangles = 1000 * made.points[made.faces]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    table = np.zeros(len(triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    table["normal"], table["corners"] = normals, triangles
    # A binary file's first word is never "solid", which begins text.
    return f"rl3d {name}, millimetres, z up".encode().ljust(80) + np.uint32(len(table)).tobytes() + table.tobytes()


def _ply_bytes(made: Corners, name: str) -> bytes:
    """A binary little-endian PLY (Turk, "The PLY Polygon File Format", 1994)."""
    colours = made.colours if made.texture is None else _painted(made)
    fields = [("place", "<f4", 3), *([("rgb", "u1", 3)] if colours is not None else [])]
    vertices = np.zeros(len(made.points), fields)
    vertices["place"] = made.points
    properties = [f"property float {axis}" for axis in "xyz"]
    if colours is not None:
        vertices["rgb"] = colours
        properties += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    faces = np.zeros(len(made.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, made.faces
    header = [
        *("ply", "format binary_little_endian 1.0", f"comment rl3d {name}, metres, z up"),
        *(f"element vertex {len(vertices)}", *properties),
        *(f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""),
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _painted(made: Corners) -> UInt8[ndarray, "n 3"]:
    """The texture's colours at the points; where a seam shows two, their mean."""
    assert made.texture is not None
    assert made.uv is not None
    rgb = texture_at(np.asarray(made.texture), made.uv.reshape(-1, 2))
    total = np.zeros((len(made.points), 3))
    np.add.at(total, made.faces.reshape(-1), rgb)
    count = np.bincount(made.faces.reshape(-1), minlength=len(made.points))
    return np.round(total / np.maximum(count, 1)[:, None]).astype(np.uint8)
