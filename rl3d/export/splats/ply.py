"""Gaussian splats as PLY files, in the layout of Kerbl et al. 2023 that every splat viewer reads; and PLY's tables."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rl3d.export.splats.arrays import arrays, finite, from_arrays
from rl3d.files import write_whole
from rl3d.types import Splats

HEADER = 1 << 16
"""Bytes that a PLY's header has at most."""
_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8"}
_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES |= {"float32": "f4", "float64": "f8"}


class Element(NamedTuple):
    """A table that a PLY's header announces."""

    name: str
    count: int
    dtype: np.dtype | None
    """A row; None if it has lists, and so no fixed size."""


class Header(NamedTuple):
    """What a PLY's header says."""

    format: str
    """binary_little_endian, binary_big_endian or ascii."""
    elements: list[Element]
    size: int
    """Bytes of the header: where the first table begins."""

    def names(self, element: str) -> set[str]:
        """The properties of an element; none if it is not there or has lists."""
        return {name for e in self.elements if e.name == element and e.dtype for name in e.dtype.names or ()}


def header(data: bytes) -> Header:
    """Read the header of a PLY (Turk, "The PLY Polygon File Format", 1994) from the file's first :data:`HEADER` bytes, or all.

    Raises:
        ValueError: if it is broken or longer; the message lacks the file's name.
    """
    head = data[:HEADER]
    lines, size = [], 0
    while not lines or lines[-1] != "end_header":
        end = head.find(b"\n", size)
        if end < 0:
            raise ValueError(f"is no PLY: its header does not end within {HEADER} bytes")
        lines.append(head[size:end].decode("ascii", "replace").strip())
        size = end + 1
    if lines[0] != "ply":
        raise ValueError("is no PLY: it does not begin with 'ply'")
    kind, tables = "", []
    for line in lines[1:-1]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", "binary_little_endian" | "binary_big_endian" | "ascii" as kind, "1.0"]:
                pass
            case ["element", name, count] if count.isascii() and count.isdigit() and len(count) < 16:
                tables.append((name, int(count), {}))
            case ["property", "list", a, b, name] if tables and a in _TYPES and b in _TYPES:
                tables[-1][2][name] = None
            case ["property", kind_of, name] if tables and kind_of in _TYPES and name not in tables[-1][2]:
                tables[-1][2][name] = _TYPES[kind_of]
            case _:
                raise ValueError(f"has a line in its PLY header that is wrong here: {line[:60]!r}")
    if not kind:
        raise ValueError("has no PLY format 'binary_little_endian 1.0', 'binary_big_endian 1.0' or 'ascii 1.0'")
    order = ">" if kind == "binary_big_endian" else "<"
    elements = []
    for name, count, row in tables:
        fixed = None if None in row.values() else np.dtype([(column, order + code) for column, code in row.items()])
        elements.append(Element(name, count, fixed))
    return Header(kind, elements, size)


def tables(data: bytes) -> dict[str, ndarray]:
    """Read a binary PLY's elements as structured arrays, which share the data's memory.

    Lists have no fixed size, so an element that has some is left out, and all after it.

    Raises:
        ValueError: if it is broken, in text, cut short or padded; the message lacks the file's name.
    """
    head = header(data)
    if head.format == "ascii":
        raise ValueError("is a PLY in text form: save it as a binary one")
    found, at = {}, head.size
    for name, count, row in head.elements:
        if row is None:
            return found
        size = count * row.itemsize
        if size > len(data) - at:
            raise ValueError(f"is cut short: {count} rows of '{name}' need {size} bytes, got {len(data) - at}")
        found[name] = np.frombuffer(data, row, count, at) if size else np.zeros(0, row)
        at += size
    if at != len(data):
        raise ValueError(f"is padded: {len(data) - at} bytes follow its last element")
    return found


def columns(table: ndarray, names: list[str]) -> Float[ndarray, "n c"]:
    """Columns of a structured array, of any numeric type, as float32."""
    out = np.empty((len(table), len(names)), np.float32)
    with np.errstate(over="ignore"):
        for i, name in enumerate(names):
            out[:, i] = table[name]
    return out


def _names(rest: int) -> list[str]:
    """Property names, in the order of the file."""
    f_rest = [f"f_rest_{i}" for i in range(rest)]
    scale, rot = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *f_rest, "opacity", *scale, *rot]


def ply_bytes(splats: Splats) -> bytes:
    """Splats as a binary little-endian PLY: logits of opacity, logarithms of scale, quaternions wxyz, all float32.

    Nothing is lost but the lengths of quaternions. Higher harmonics are stored channel by channel (all of red's, then green's,
    then blue's), as the original does.
    """
    s = arrays(splats)
    n = len(splats)
    rest = s["sh"][:, 1:].transpose(0, 2, 1).reshape(n, 3 * (s["sh"].shape[1] - 1))
    columns = [s["means"], np.zeros((n, 3)), s["sh"][:, 0], rest, s["opacity_logits"][:, None], s["log_scales"], s["quats"]]
    table = np.concatenate(columns, axis=1).astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _names(rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


def write_ply(path: Path, splats: Splats) -> None:
    """Write a splat PLY, whole or not at all."""
    write_whole(path, ply_bytes(splats))


def splats_from_ply(data: bytes) -> Splats:
    """Read a splat PLY: properties in any order, of any numeric type, 0 to 3 degrees of harmonics; others are ignored.

    Raises:
        ValueError: if it is no binary PLY of Gaussians, or is cut short; the message lacks the file's name.
    """
    table = tables(data).get("vertex")
    if table is None:
        raise ValueError("is not a splat PLY: it has no element 'vertex', or lists in it or before it")
    names = table.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = set(_names(rest)) - set(names) - {"nx", "ny", "nz"}
    if missing or rest not in (0, 9, 24, 45):
        some = ", ".join(sorted(missing)[:8]) + ("" if len(missing) <= 8 else " ...")
        what = f"lacks {some}" if missing else f"has {rest} f_rest properties, not 0, 9, 24 or 45"
        raise ValueError(f"is not a splat PLY: it {what}")
    dc = columns(table, ["f_dc_0", "f_dc_1", "f_dc_2"])[:, None]
    higher = columns(table, [f"f_rest_{i}" for i in range(rest)]).reshape(len(table), 3, rest // 3).transpose(0, 2, 1)
    return from_arrays(
        means=columns(table, ["x", "y", "z"]),
        log_scales=columns(table, ["scale_0", "scale_1", "scale_2"]),
        quats=columns(table, ["rot_0", "rot_1", "rot_2", "rot_3"]),
        opacity_logits=columns(table, ["opacity"])[:, 0],
        sh=np.concatenate([dc, higher], 1),
    )


def read_ply(path: Path) -> Splats:
    """Read a splat PLY, as :func:`splats_from_ply` does; :func:`rl3d.export.splats.arrays.finite` says what of NaN.

    Raises:
        ValueError: if it is no binary PLY of Gaussians, or is cut short.
    """
    try:
        return finite(splats_from_ply(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
