"""SPZ of version 4, made of version 3: the same attributes, each in a Zstandard stream of its own."""

import struct
import zlib

import pytest


def as_version_4(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    body = zlib.decompress(data, wbits=31)
    n, degree, bits, flags = struct.unpack_from("<IBBB", body, 8)
    sizes = [n * width for width in (9, 1, 3, 3, 4, 3 * ((degree + 1) ** 2 - 1)) if width]
    at, streams = 16, []
    for size in sizes:
        streams.append(zstandard.ZstdCompressor().compress(body[at : at + size]))
        at += size
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, n, degree, bits, flags, len(sizes), 32)
    contents = b"".join(struct.pack("<QQ", len(x), size) for x, size in zip(streams, sizes, strict=True))
    return head + contents + b"".join(streams)
