"""Five hundred spoilt files of splats: each is read, or refused with a ValueError, within a bound of memory."""

import random
import re
import struct
import tracemalloc
import warnings
import zlib
from typing import get_args

import pytest
import torch
from spz4 import as_version_4

from rl3d.export.splats.files import SplatKind, read_splats, splat_bytes
from rl3d.types import Splats

KINDS = get_args(SplatKind)
EACH = 100


def some(n=300):
    rng = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    return Splats(0.3 * draw(n, 3), 0.5 * draw(n, 3) - 4, draw(n, 4), draw(n), 0.2 * draw(n, 4, 3))


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def flip(data, rng, *, where=None):
    data = bytearray(data)
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(min(len(data), where or len(data)))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_head(data, rng):
    return flip(data, rng, where=64)


def other_number(data, rng):
    """Another number where the header has one: in text, or as four bytes."""
    new = rng.choice((0, 1, 3, 255, 65536, 2**31 - 1, 2**32 - 1, 10**12, 10**18))
    numbers = [m for m in re.finditer(rb"-?\d+", data[:4096]) if b"\n" in data[:80] or data[:4] == b"glTF"]
    if numbers:
        at = rng.choice(numbers)
        return data[: at.start()] + str(rng.choice((new, -new, f"{new}.5", "1e99"))).encode() + data[at.end() :]
    at = 4 * rng.randrange(4)
    return data[:at] + struct.pack("<I", new % 2**32) + data[at + 4 :]


def other_magic(data, rng):
    return rng.choice((b"ply\n", b"glTF", b"NGSP", b"\x1f\x8b\x08\x00", b"\0\0\0\0")) + data[4:]


def twice(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data[: rng.randrange(len(data))] + data[at:]


def unpacked(change):
    """The change made to what an SPZ file has packed."""

    def inside(data, rng):
        pack = zlib.compressobj(9, wbits=31)
        return pack.compress(change(zlib.decompress(data, wbits=31), rng)) + pack.flush()

    return inside


CHANGES = [cut, flip, flip_head, other_number, other_magic, twice]


@pytest.mark.parametrize("kind", [*KINDS, "v4.spz"])
def test_it_reads_or_refuses(tmp_path, kind):
    rng = random.Random(f"spoilt {kind}")
    whole = as_version_4(splat_bytes(some(), "spz")) if kind == "v4.spz" else splat_bytes(some(), kind)
    changes = CHANGES + ([unpacked(change) for change in (cut, flip, flip_head, other_number)] if kind == "spz" else [])
    outcomes = set()
    path = tmp_path / f"a.{kind}"
    read_splats_of(path, whole)
    tracemalloc.start()
    try:
        for i in range(EACH):
            data = changes[i % len(changes)](whole, rng)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            outcomes.add(read_splats_of(path, data))
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 64 * len(data) + 4_000_000, f"{peak} bytes for a file of {len(data)}"
    finally:
        tracemalloc.stop()
    assert outcomes == {"read", "refused"}


def read_splats_of(path, data):
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_splats(path)
        except ValueError:
            return "refused"
    assert all(x.isfinite().all() for x in found.tensors().values())
    assert found.means.shape == (len(found), 3)
    assert found.sh_degree <= 3
    return "read"
