"""Gaussian splats as SPZ (Niantic, https://github.com/nianticlabs/spz): about 17 bytes for each of an asset of rl3d.

Its README describes the format and ``load-spz.cc`` settles it. Attributes lie one after another behind a header: places as
24-bit fixed-point numbers, opacities, colours, logarithms of scale in steps of 1/16, quaternions, harmonics. Versions 1 to 3
are one gzip stream; version 4 has a Zstandard stream for each attribute. Version 3 is written: the newest that viewers
in use (Spark, PlayCanvas, Niantic's) all read, and the first with good rotations. All four are read.

SPZ prescribes axes: x right, y up, z back (RUB), "the OpenGL and three.js convention", in which a viewer looks along -z. We
take an object's front to be +z there, which faces that viewer, as in glTF; the README does not say. Not all programs keep to
it: splat-transform of version 3 writes SPZ in the axes of PLY, and reads it so.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from rl3d.export.splats.arrays import (
    arrays,
    byte,
    from_arrays,
    from_smallest_three,
    opacity_bytes,
    opacity_logits,
    smallest_three,
)
from rl3d.types import Splats

MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")
"""Magic, version, Gaussians, degree of harmonics, fractional bits, flags, and in version 4 the number of streams."""
_COLOR = 0.15
"""A byte holds 0.5 + this times a coefficient: less than the harmonic itself, so that colours may leave [0, 1] a little."""
_RATIO, _SLACK = 64, 1 << 16
"""Bytes that one byte of a file may become, and that any file may: real ones reach about 8 for one, gzip bombs 1000."""


def spz_bytes(splats: Splats) -> bytes:
    """Splats as SPZ, version 3; the values are stored as they are, so turn them to y up first, as SPZ prescribes.

    What is lost: places are rounded to 2^-16 (less finely if something lies beyond 128 units), logarithms of scale to 1/16 and
    cut to [-10, 5.9], opacities to 1/255, colours to 0.0074 and cut to [-0.44, 1.44], quaternions to 0.0014, harmonics of
    degree 1 to 1/16, higher ones to 1/8, all cut to [-1, 1] (the defaults of Niantic's library, which is what compresses).

    Raises:
        ValueError: if a place lies beyond 2^23 units.
    """
    s = arrays(splats)
    n, k = s["sh"].shape[:2]
    reach = float(np.abs(s["means"]).max(initial=1))
    bits = min(16, 22 - math.floor(math.log2(reach)))
    if bits < 0:
        raise ValueError(f"a Gaussian lies {reach:.3g} units from the origin: SPZ stores places up to 2^23 units")
    fixed = np.rint(s["means"].astype(np.float64) * 2**bits).clip(-(2**23), 2**23 - 1).astype("<i4")
    quats = s["quats"][:, [1, 2, 3, 0]]
    largest, three = smallest_three(quats)
    magnitude = np.floor(511 * np.abs(three) * math.sqrt(2) + 0.5).astype(np.uint32).clip(0, 511)
    codes = ((three < 0).astype(np.uint32) << 9) | magnitude
    rotation = (largest.astype(np.uint32) << 30) | (codes[:, 0] << 20) | (codes[:, 1] << 10) | codes[:, 2]
    rest = s["sh"][:, 1:]
    step = np.where(np.arange(k - 1) < 3, 8, 16)[:, None]
    streams = [
        fixed.view(np.uint8).reshape(n, 3, 4)[..., :3],
        opacity_bytes(s["opacity_logits"]),
        byte(255 * (_COLOR * s["sh"][:, 0] + 0.5)),
        byte(16 * (s["log_scales"] + 10)),
        rotation.astype("<u4"),
        # Zero lies in the middle of a step.
        byte(step * np.floor((np.rint(128 * rest) + 128 + step // 2) / step)),
    ]
    header = _HEADER.pack(MAGIC, 3, n, math.isqrt(k) - 1, bits, 0, 0)
    pack = zlib.compressobj(wbits=31)
    return pack.compress(header + b"".join(np.ascontiguousarray(x).tobytes() for x in streams)) + pack.flush()


def splats_from_spz(data: bytes) -> Splats:
    """Read SPZ of versions 1 to 4, with the axes of the file; harmonics of degree 4 are left out, with a warning.

    Vendors' extensions and the flag of antialiased training are ignored, the former with a warning, since one of them
    (``SPZ_ADOBE_coordinate_system``) names other axes. Version 4 needs the package ``zstandard``.

    Raises:
        ValueError: if it is none, is broken, or would unpack to more than 64 times its size; the message lacks the file's name.
    """
    gzip = zlib.decompressobj(wbits=31) if data[:2] == b"\x1f\x8b" else None
    head = _inflated(gzip, data, _HEADER.size) if gzip else data[: _HEADER.size]
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise ValueError("is no SPZ file: it does not hold the letters NGSP where it must")
    _, version, n, degree, bits, flags, streams = _HEADER.unpack(head)
    if version not in (range(1, 4) if gzip else (4,)):
        raise ValueError(f"is SPZ of version {version}, or not compressed as that is: 1 to 4 can be read")
    if not n or degree > 4 or bits > 31:
        raise ValueError(f"is broken SPZ: {n} Gaussians, harmonics of degree {degree}, {bits} fractional bits of places")
    k = (degree + 1) ** 2
    widths = 6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4, 3 * (k - 1)
    size = n * sum(widths)
    if size > _RATIO * len(data) + _SLACK:
        raise ValueError(f"is broken SPZ: {n} Gaussians need {size} bytes, more than {len(data)} packed ones can hold")
    body = _inflated(gzip, gzip.unconsumed_tail, size + _SLACK) if gzip else _streams(data, [n * w for w in widths], streams)
    if len(body) < size or (gzip and not gzip.eof):
        raise ValueError(f"is cut short or padded: {n} Gaussians need {size} bytes unpacked, got {len(body)}")
    if flags & 2:
        warnings.warn("an SPZ file holds vendors' extensions, one of which may name other axes: they are ignored", stacklevel=2)
    if degree == 4:
        warnings.warn("an SPZ file holds harmonics of degree 4: they are left out", stacklevel=2)
    parts = np.split(np.frombuffer(body, np.uint8, size), n * np.cumsum(widths)[:-1])
    place, opacity, color, scale, quat, rest = (part.reshape(n, width) for part, width in zip(parts, widths, strict=True))
    dc = (color / 255 - 0.5) / _COLOR
    return from_arrays(
        means=place.view("<f2") if version == 1 else _fixed(place) / 2**bits,
        log_scales=scale / 16 - 10,
        quats=_quats(quat),
        opacity_logits=opacity_logits(opacity[:, 0] / 255),
        sh=np.concatenate([dc[:, None], (rest.reshape(n, k - 1, 3)[:, :15] - 128.0) / 128], 1),
    )


def _inflated(gzip, data: bytes, most: int) -> bytes:
    """What a gzip stream goes on with, of ``most`` bytes and more only these."""
    try:
        return gzip.decompress(data, most)
    except zlib.error as error:
        raise ValueError(f"is broken gzip: {error}") from error


def _streams(data: bytes, sizes: list[int], count: int) -> bytes:
    """The streams of version 4 unpacked; those of no bytes are not there."""
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("is SPZ of version 4: `pip install zstandard` to read it") from error
    sizes = [size for size in sizes if size]
    start = int.from_bytes(data[16:20], "little")
    at = start + 16 * len(sizes)
    if count != len(sizes) or start < 32 or at > len(data):
        raise ValueError(f"is broken SPZ: it has {count} streams from byte {start}, for {len(sizes)} attributes")
    parts = []
    for i, size in enumerate(sizes):
        packed, unpacked = struct.unpack_from("<QQ", data, start + 16 * i)
        if unpacked != size or packed > len(data) - at:
            raise ValueError(f"is broken SPZ or cut short: stream {i} unpacks to {unpacked} bytes, not {size}")
        # Frames name the memory that they need, and a hostile one needs all.
        window = max(1 << 23, 1 << size.bit_length())
        try:
            part = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(data[at : at + packed]).read(size + 1)
        except zstandard.ZstdError as error:
            raise ValueError(f"is broken SPZ: stream {i}: {error}") from error
        if len(part) != size:
            raise ValueError(f"is broken SPZ: stream {i} unpacks to {len(part)} bytes or more, not {size}")
        parts.append(part)
        at += packed
    return b"".join(parts)


def _fixed(place: UInt8[ndarray, "n 9"]) -> Int[ndarray, "n 3"]:
    """Signed 24-bit numbers."""
    low, middle, high = place.reshape(-1, 3, 3).astype(np.int32).transpose(2, 0, 1)
    unsigned = low | middle << 8 | high << 16
    return unsigned - ((unsigned & 0x800000) << 1)


def _quats(codes: UInt8[ndarray, "n w"]) -> Float[ndarray, "n 4"]:
    """Quaternions wxyz: of 3 bytes, their x, y and z; of 4, the three smaller of x, y, z, w, each a sign and 9 bits."""
    if codes.shape[1] == 3:
        xyz = codes / 127.5 - 1
        w = np.sqrt(np.clip(1 - np.square(xyz).sum(1, keepdims=True), 0, None))
        return np.concatenate([w, xyz], 1)
    words = np.ascontiguousarray(codes).view("<u4")
    shifted = (words >> np.array([20, 10, 0], np.uint32)) & 1023
    three = np.where(shifted >> 9, -1, 1) * (shifted & 511) / 511 * math.sqrt(0.5)
    return from_smallest_three((words[:, 0] >> 30).astype(np.int64), three)[:, [3, 0, 1, 2]]
