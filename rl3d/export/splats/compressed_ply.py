"""Gaussian splats as compressed PLY, the layout of PlayCanvas and SuperSplat: 16 bytes for each, and a byte for a harmonic.

The layout has no specification but its programs; this follows splat-transform (``decompress-ply.ts``, ``compressed-chunk.ts``).
Gaussians come in chunks of 256 (element ``chunk``), whose bounds of place, scale and colour are floats. Within them one
Gaussian (element ``vertex``) is four words: place and logarithm of scale as 11, 10 and 11 bits, the three smaller components
of the quaternion as 10 bits behind the number of the largest, and red, green, blue and opacity as 8 bits. Harmonics (element
``sh``) are bytes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt32
from numpy import ndarray

from rl3d.export.splats.arrays import (
    LIMIT,
    arrays,
    from_arrays,
    from_smallest_three,
    opacity_bytes,
    opacity_logits,
    smallest_three,
)
from rl3d.export.splats.ply import Header, columns, tables
from rl3d.math import SH_C0
from rl3d.types import Splats

CHUNK = 256
_PACKED = [f"packed_{what}" for what in ("position", "rotation", "scale", "color")]
_BITS = np.array([11, 10, 11])
_SHIFTS = np.array([21, 11, 0])


def _bounds(what: str, axes: str) -> list[str]:
    return [f"{side}_{what}{axis}" for side in ("min", "max") for axis in axes]


def is_compressed(header: Header) -> bool:
    """Whether a PLY's header announces this layout."""
    return set(_PACKED) <= header.names("vertex") and bool(header.names("chunk"))


def compressed_ply_bytes(splats: Splats) -> bytes:
    """Splats as a compressed PLY, in another order: along a Morton curve, so that those of a chunk lie close together.

    What is lost: a chunk's places, logarithms of scale (cut to [-20, 20]) and colours are rounded to 1/2047 (1/1023 for y) and
    1/255 of the chunk's extent, quaternions to 0.0014, opacities to 1/255, higher harmonics to 1/32 within [-4, 4].
    """
    s = arrays(splats)
    order = _morton(s["means"])
    s = {name: x[order] for name, x in s.items()}
    n, k = s["sh"].shape[:2]
    bounds, units = [], {}
    for what, x in (
        ("position", s["means"]),
        ("scale", s["log_scales"].clip(-LIMIT, LIMIT)),
        ("color", 0.5 + SH_C0 * s["sh"][:, 0]),
    ):
        starts = np.arange(0, n, CHUNK)
        low, high = (f.reduceat(x, starts).astype(np.float32) for f in (np.minimum, np.maximum))
        bounds += [low, high]
        extent = (high - low).repeat(CHUNK, 0)[:n]
        units[what] = np.where(extent > 0, (x - low.repeat(CHUNK, 0)[:n]) / np.where(extent > 0, extent, 1), 0)
    largest, three = smallest_three(s["quats"])
    rotation = largest.astype(np.uint32) << 30
    for i, shift in enumerate((20, 10, 0)):
        rotation |= _steps(three[:, i] * np.sqrt(0.5) + 0.5, 10) << shift
    color = opacity_bytes(s["opacity_logits"]).astype(np.uint32)
    for i, shift in enumerate((24, 16, 8)):
        color |= _steps(units["color"][:, i], 8) << shift
    words = [_packed(units["position"]), rotation, _packed(units["scale"]), color]
    rest = s["sh"][:, 1:].transpose(0, 2, 1).reshape(n, 3 * (k - 1))
    harmonics = np.clip(256 * (rest / 8 + 0.5), 0, 255).astype(np.uint8)
    names = [*_bounds("", "xyz"), *_bounds("scale_", "xyz"), *_bounds("", "rgb")]
    lines = ["ply", "format binary_little_endian 1.0", "comment rl3d", f"element chunk {-(-n // CHUNK)}"]
    lines += [*(f"property float {name}" for name in names), f"element vertex {n}"]
    lines += [f"property uint {name}" for name in _PACKED]
    if k > 1:
        lines += [f"element sh {n}", *(f"property uchar f_rest_{i}" for i in range(rest.shape[1]))]
    header = "\n".join([*lines, "end_header\n"]).encode()
    body = np.concatenate(bounds, 1).astype("<f4"), np.stack(words, 1).astype("<u4"), harmonics
    return header + b"".join(x.tobytes() for x in body)


def splats_from_compressed_ply(data: bytes) -> Splats:
    """Read a compressed PLY, with or without bounds of colour and harmonics of degrees 1 to 3.

    Raises:
        ValueError: if it is none, or is cut short; the message lacks the file's name.
    """
    found = tables(data)
    for element, names in (("chunk", [*_bounds("", "xyz"), *_bounds("scale_", "xyz")]), ("vertex", _PACKED)):
        missing = set(names) - set(found[element].dtype.names or ()) if element in found else {element}
        if missing:
            raise ValueError(f"is not a compressed splat PLY: it lacks {', '.join(sorted(missing))}")
    chunks, vertices = found["chunk"], found["vertex"]
    n = len(vertices)
    if any(vertices.dtype[name].newbyteorder("=") != np.uint32 for name in _PACKED):
        raise ValueError("is not a compressed splat PLY: its packed properties must be of type uint")
    if len(chunks) != -(-n // CHUNK):
        raise ValueError(f"is broken: {n} Gaussians need {-(-n // CHUNK)} chunks of {CHUNK}, got {len(chunks)}")

    def between(names: list[str], units: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
        low, high = columns(chunks, names)[np.arange(n) // CHUNK].reshape(n, 2, 3).swapaxes(0, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            return low * (1 - units) + high * units

    position, rotation, scale, color = (vertices[name].astype(np.uint32) for name in _PACKED)
    three = np.stack([((rotation >> shift) & 1023) / 1023 for shift in (20, 10, 0)], 1)
    colors = np.stack([((color >> shift) & 255) / 255 for shift in (24, 16, 8)], 1)
    if "min_r" in (chunks.dtype.names or ()):
        wanted = _bounds("", "rgb")
        if not set(wanted) <= set(chunks.dtype.names or ()):
            raise ValueError("is not a compressed splat PLY: it has some bounds of colour, but not all")
        colors = between(wanted, colors)
    dc = (colors - 0.5) / SH_C0
    return from_arrays(
        means=between(_bounds("", "xyz"), _unpacked(position)),
        log_scales=between(_bounds("scale_", "xyz"), _unpacked(scale)),
        quats=from_smallest_three((rotation >> 30).astype(np.int64), (three - 0.5) * np.sqrt(2)),
        opacity_logits=opacity_logits((color & 255) / 255),
        sh=np.concatenate([dc[:, None], _harmonics(found.get("sh"), n)], 1),
    )


def _harmonics(table: ndarray | None, n: int) -> Float[ndarray, "n k 3"]:
    if table is None:
        return np.zeros((n, 0, 3), np.float32)
    rest = len(table.dtype.names or ())
    names = [f"f_rest_{i}" for i in range(rest)]
    if rest not in (9, 24, 45) or set(names) != set(table.dtype.names or ()) or len(table) != n:
        raise ValueError(f"is broken: its element 'sh' has {len(table)} rows of {rest} properties, not {n} of 9, 24 or 45")
    bytes_ = columns(table, names)
    # The outermost steps stand for the ends of the range, all others for their middles.
    units = np.where(bytes_ <= 0, 0, np.where(bytes_ >= 255, 1, (bytes_ + 0.5) / 256))
    return (8 * (units - 0.5)).reshape(n, 3, rest // 3).transpose(0, 2, 1)


def _steps(units: Float[ndarray, "*n"], bits: Int[ndarray, "..."] | int) -> UInt32[ndarray, "*n"]:
    """Numbers in [0, 1] as integers of so many bits."""
    most = 2**bits - 1
    return np.floor(np.clip(units, 0, 1) * most + 0.5).astype(np.uint32)


def _packed(units: Float[ndarray, "n 3"]) -> UInt32[ndarray, "n"]:
    return (_steps(units, _BITS) << _SHIFTS.astype(np.uint32)).sum(1, dtype=np.uint32)


def _unpacked(words: UInt32[ndarray, "n"]) -> Float[ndarray, "n 3"]:
    most = 2**_BITS - 1
    return ((words[:, None] >> _SHIFTS.astype(np.uint32)) & most.astype(np.uint32)) / most


def _morton(points: Float[ndarray, "n 3"]) -> Int[ndarray, "n"]:
    """The order of points along a Morton curve of 1024 cells to a side: the bits of their cells' numbers interleaved."""
    low, high = points.min(0), points.max(0)
    cells = (1023 * (points - low) / np.where(high > low, high - low, 1)).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(kind="stable")
