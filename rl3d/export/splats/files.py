"""Gaussian splats in files of every kind that is in use: which kind a file is, reading any, and writing each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, assert_never

from rl3d.export.splats.arrays import finite
from rl3d.export.splats.compressed_ply import compressed_ply_bytes, is_compressed, splats_from_compressed_ply
from rl3d.export.splats.dot_splat import dot_splat_bytes, splats_from_dot_splat
from rl3d.export.splats.gltf import EXTENSION, splat_glb_bytes, splats_from_glb
from rl3d.export.splats.ply import HEADER, header, ply_bytes, splats_from_ply
from rl3d.export.splats.spz import MAGIC, splats_from_spz, spz_bytes
from rl3d.geometry.turn import UPRIGHT, turned
from rl3d.types import Splats

SplatKind = Literal["ply", "compressed.ply", "splat", "spz", "glb"]
"""What a file of splats is, by the end of its name."""

Y_UP: tuple[SplatKind, ...] = ("spz", "glb")
"""Kinds that prescribe axes: y up. Their z is our front. The others prescribe none, and keep what axes there are."""


def splat_kind(path: str | Path) -> SplatKind | None:
    """Tell what kind of splats a file holds by its first bytes; None if it holds none, such as a mesh does.

    ``.splat`` files begin with nothing that tells them, so there the name counts.

    Raises:
        ValueError: if it cannot be read, or is a PLY with a broken header.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER)
            if head[:4] == b"glTF":
                more = 20 + int.from_bytes(head[12:16], "little") - len(head)
                head += file.read(max(0, min(more, path.stat().st_size)))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if head.startswith(b"ply"):
        try:
            found = header(head)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        if is_compressed(found):
            return "compressed.ply"
        return "ply" if {"f_dc_0", "opacity", "scale_0"} & found.names("vertex") else None
    if head.startswith((b"\x1f\x8b", MAGIC)):
        return "spz"
    if head.startswith(b"glTF"):
        return "glb" if f'"{EXTENSION}"'.encode() in head else None
    return "splat" if path.suffix.lower() == ".splat" else None


def read_splats(path: str | Path, up: Literal["auto", "y", "z"] = "auto") -> Splats:
    """Read splats from a file of any kind, told by its content, into our axes.

    Args:
        path: 3DGS PLY, compressed PLY, ``.splat``, SPZ, or GLB with ``KHR_gaussian_splatting``.
        up: The axis that is up in the file: "auto" takes what its kind prescribes, y for SPZ and GLB, and z for the others.
            What has y up is turned: its z becomes our x, the front.

    Raises:
        ValueError: if it holds no splats, saying what it is instead, or is broken or cut short.
    """
    path = Path(path)
    kind = splat_kind(path)
    data = path.read_bytes()
    if kind is None:
        raise ValueError(f"{path} holds no Gaussian splats: it {_instead(path, data)}")
    try:
        splats = finite(_decoded(data, kind))
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    is_y_up = kind in Y_UP if up == "auto" else up == "y"
    return turned(splats, UPRIGHT) if is_y_up else splats


def splat_bytes(splats: Splats, kind: SplatKind) -> bytes:
    """Splats as a file of this kind; SPZ and GLB get y up and our front along z, the others our axes as they are.

    Only PLY is exact: what each other kind loses is said where it is made (:func:`~rl3d.export.splats.gltf.splat_glb_bytes`
    next to nothing, :func:`~rl3d.export.splats.compressed_ply.compressed_ply_bytes`,
    :func:`~rl3d.export.splats.spz.spz_bytes`, and :func:`~rl3d.export.splats.dot_splat.dot_splat_bytes`, which has no
    harmonics). NaN and infinite values are treated as in reading (:func:`~rl3d.export.splats.arrays.finite`).

    Raises:
        ValueError: if there is no Gaussian to write.
    """
    if not len(splats):
        raise ValueError("there are no Gaussians to write")
    try:
        splats = finite(splats)
    except ValueError as error:
        raise ValueError(f"what is to be written {error}") from error
    w, x, y, z = UPRIGHT
    splats = turned(splats, (w, -x, -y, -z)) if kind in Y_UP else splats
    match kind:
        case "ply":
            return ply_bytes(splats)
        case "compressed.ply":
            return compressed_ply_bytes(splats)
        case "splat":
            return dot_splat_bytes(splats)
        case "spz":
            return spz_bytes(splats)
        case "glb":
            return splat_glb_bytes(splats)
        case _:
            assert_never(kind)


def _decoded(data: bytes, kind: SplatKind) -> Splats:
    match kind:
        case "ply":
            return splats_from_ply(data)
        case "compressed.ply":
            return splats_from_compressed_ply(data)
        case "splat":
            return splats_from_dot_splat(data)
        case "spz":
            return splats_from_spz(data)
        case "glb":
            return splats_from_glb(data)
        case _:
            assert_never(kind)


def _instead(path: Path, data: bytes) -> str:
    """What a file is that holds no splats."""
    if data.startswith(b"ply"):
        elements = [element.name for element in header(data).elements]
        return f"is a PLY of {'a mesh' if 'face' in elements else 'points'} (its elements: {', '.join(elements)})"
    if data.startswith(b"glTF"):
        return f"is a GLB without the extension {EXTENSION}, so a mesh"
    if data.lstrip().startswith(b"{"):
        return "is JSON; a glTF with splats must be packed as one .glb"
    if not data:
        return "is empty"
    return "is neither a PLY, a compressed PLY, SPZ, GLB, nor named .splat"
