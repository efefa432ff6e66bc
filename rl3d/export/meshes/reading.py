"""Read meshes of anyone's making: GLB, glTF, OBJ, STL and PLY."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from rl3d.export.meshes.corners import weld
from rl3d.export.meshes.gltf import GLTF_FROM_OURS
from rl3d.export.meshes.gltf_reading import read_gltf
from rl3d.export.meshes.limits import FARTHEST, MOST_CORNERS, MOST_PIXELS, check_text, read_beside, read_bytes, read_picture

MESHES = (".glb", ".gltf", ".obj", ".stl", ".ply")
"""The suffixes of files that are read."""

MOST_PICTURES = 200
"""Pictures that are packed into one."""


def read_mesh(path: str | Path, up: Literal["auto", "y", "z"] = "auto") -> trimesh.Trimesh:
    """Read a mesh in our axes (z up, front along +x) and in metres, with a texture, or colours of vertices, or none.

    What has y up, and its front along +z, is turned; "auto" takes glTF and OBJ for that, and STL and PLY for z up. STL's unit
    is taken for the millimetre. All parts of a file become one mesh; several textures are packed into one. Equal
    vertices are welded.

    Raises:
        ValueError: if it is no such file or is broken, holds no surface, or is too large (:mod:`rl3d.export.meshes.limits`).
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in MESHES:
        raise ValueError(f"a mesh is read from {', '.join(MESHES)}; got {path}")
    data = read_bytes(path)
    try:
        with np.errstate(all="ignore"):
            parts = read_gltf(data, lambda uri: read_beside(path, uri)) if kind in (".glb", ".gltf") else _others(path, data)
            mesh = _checked(_joined([part for part in parts if len(part.faces)]))
    except Exception as error:  # each reader raises its own
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"cannot read {path}: {why}") from error
    if kind == ".stl":
        mesh.apply_scale(0.001)
    if up == "y" or (up == "auto" and kind not in (".stl", ".ply")):
        mesh.vertices = mesh.vertices[:, np.argsort(GLTF_FROM_OURS)]
    return mesh


def holds_mesh(path: str | Path) -> bool:
    """Whether a file is a mesh by its suffix; a PLY is one if it has faces, rather than Gaussians."""
    kind = Path(path).suffix.lower()
    if kind != ".ply":
        return kind in MESHES
    with open(path, "rb") as file:
        return b"\nelement face " in file.read(1 << 16).partition(b"end_header")[0]


def _others(path: Path, data: bytes) -> list[trimesh.Trimesh]:
    """The parts of an OBJ, an STL or a PLY, as trimesh reads them."""
    kind = path.suffix.lower()[1:]
    if kind == "ply":
        _check_ply(data)
    is_binary_stl = kind == "stl" and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")
    is_binary_ply = kind == "ply" and b"format ascii" not in data.partition(b"end_header")[0]
    if not is_binary_stl and not is_binary_ply:
        check_text(data)
    beside = _Beside(path)
    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=beside, process=False)
    if beside.refused is not None:
        raise beside.refused
    parts = [part for part in scene.geometry.values() if isinstance(part, trimesh.Trimesh)]
    for part in parts:
        if isinstance(part.visual, TextureVisuals):
            part.visual = _plain(part)
    return parts


def _check_ply(data: bytes) -> None:
    """Refuse headers that promise more than the file has, before anything is made of them."""
    for line in data.partition(b"end_header")[0].splitlines():
        words = line.split()
        if words[:1] == [b"element"] and not 0 <= int(words[2]) <= len(data):
            raise ValueError(f"its header promises {int(words[2])} elements, in {len(data)} bytes")


class _Beside(trimesh.resolvers.Resolver):
    """What trimesh asks for the other files of a mesh: materials and pictures beside it, and nothing else."""

    def __init__(self, path: Path):
        self.path = path
        self.refused: ValueError | None = None
        self.pixels = 0

    def get(self, name: str) -> bytes:
        """Read one. What is not there is passed over, as in most readers; what is wrong with it is remembered."""
        if not (self.path.parent / name.strip()).exists():
            raise FileNotFoundError(name)
        try:
            data = read_beside(self.path, name)
            if name.strip().lower().endswith(".mtl"):
                check_text(data)
            else:
                picture = read_picture(data)
                self.pixels += picture.width * picture.height
                if self.pixels > MOST_PIXELS:
                    raise ValueError(f"its pictures have more than {MOST_PIXELS} pixels together")
            return data
        except ValueError as error:
            self.refused = error
            raise

    def keys(self):
        return []

    def namespaced(self, namespace: str):
        return self

    def write(self, name: str, data):
        raise OSError("nothing is written while reading")


def _plain(part: trimesh.Trimesh) -> TextureVisuals | ColorVisuals:
    """A part's texture; or, without one, the colour of its material."""
    material, uv = part.visual.material, part.visual.uv
    picture = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if picture is not None and uv is not None and len(uv) == len(part.vertices):
        return TextureVisuals(uv=np.asarray(uv, np.float64), material=_material(picture))
    if getattr(material, "diffuse", None) is None:
        return ColorVisuals()
    return ColorVisuals(part, vertex_colors=np.tile(material.main_color, (len(part.vertices), 1)))


def _material(picture: Image.Image | None) -> PBRMaterial:
    assert picture is not None
    return PBRMaterial(baseColorTexture=picture.convert("RGB"), metallicFactor=0, roughnessFactor=1)


def _joined(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh of all parts: those without a texture first become one, then pictures are packed into one."""
    if not parts:
        raise ValueError("it holds no surface: give it a mesh with faces")
    textured = [part for part in parts if isinstance(part.visual, TextureVisuals)]
    plain = [part for part in parts if not isinstance(part.visual, TextureVisuals)]
    if len(plain) > 1 or (plain and textured):
        plain = [_coloured(plain)]
    if len({id(part.visual.material) for part in textured}) > 1 or (plain and textured):
        if len(textured) > MOST_PICTURES:
            raise ValueError(f"it has more than {MOST_PICTURES} parts with textures: join them first")
        for part in textured:  # packing knows no normal maps that some lack
            part.visual = TextureVisuals(
                uv=part.visual.uv, material=SimpleMaterial(image=part.visual.material.baseColorTexture)
            )
    parts = plain + textured
    if len(parts) == 1:
        return parts[0]
    made = trimesh.util.concatenate(parts)
    assert isinstance(made, trimesh.Trimesh)
    if isinstance(made.visual.material, SimpleMaterial):
        made.visual = TextureVisuals(uv=made.visual.uv, material=_material(made.visual.material.image))
    return made


def _coloured(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh with colours of vertices, grey where a part has none; without, if all have none."""
    faces = np.concatenate([part.faces + k for part, k in zip(parts, _starts(parts), strict=True)])
    mesh = trimesh.Trimesh(np.concatenate([part.vertices for part in parts]), faces, process=False)
    if any(part.visual.kind is not None for part in parts):
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.concatenate([_colours(part) for part in parts]))
    return mesh


def _colours(part: trimesh.Trimesh) -> UInt8[ndarray, "n 4"]:
    plain = part.visual.kind is None
    return np.full((len(part.vertices), 4), 128, np.uint8) if plain else np.asarray(part.visual.vertex_colors)


def _starts(parts: list[trimesh.Trimesh]) -> list[int]:
    return np.cumsum([0, *(len(part.vertices) for part in parts[:-1])]).tolist()


def _checked(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """A mesh of finite size whose faces have corners, without vertices that none has, and with equal ones welded."""
    vertices, faces, visual = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), mesh.visual
    if faces.size > MOST_CORNERS:
        raise ValueError(f"it has more than {MOST_CORNERS} corners of faces")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"its faces refer to vertices from {faces.min()} to {faces.max()}, of {len(vertices)}")
    if visual.kind == "face":  # as vertices of their own
        vertices, colours = vertices[faces].reshape(-1, 3), np.repeat(np.asarray(visual.face_colors), 3, axis=0)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    else:
        colours = np.asarray(visual.vertex_colors) if visual.kind == "vertex" else None
    uv = np.asarray(visual.uv, np.float64) if isinstance(visual, TextureVisuals) else None
    used = np.unique(faces)
    columns = [vertices, *(x.astype(np.float64) for x in (colours, uv) if x is not None)]
    rows = np.concatenate(columns, 1)[used]
    if not np.isfinite(rows).all() or np.abs(rows[:, :3]).max() > FARTHEST:
        raise ValueError("its vertices are not finite numbers, or too far away")
    first, index = weld(rows)
    keep, place = used[first], np.zeros(len(vertices), np.int64)
    place[used] = index
    made = trimesh.Trimesh(vertices[keep], place[faces], process=False)
    if not made.area > 0:
        raise ValueError("it holds no surface: its faces have no area")
    if colours is not None:
        made.visual = ColorVisuals(made, vertex_colors=colours[keep])
    elif uv is not None:
        made.visual = TextureVisuals(uv=uv[keep], material=visual.material)
    return made
