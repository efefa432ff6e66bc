"""Files that anyone may have made: what is read of them, and what is too much."""

from __future__ import annotations

import io
import re
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

MOST_BYTES = 1 << 29
"""Bytes of a file."""

MOST_TEXT = 1 << 28
"""Bytes of text, which takes many times as much memory while it is read."""

MOST_LINES = 10_000_000
"""Lines of text, however they end."""

MOST_PARTS = 5_000
"""Meshes, counted as often as they are used."""

MOST_CORNERS = 60_000_000
"""Vertices and corners of faces, counted as often as they are used."""

MOST_PIXELS = 8192 * 8192
"""Pixels of all pictures of a mesh."""

FARTHEST = 1e9
"""Metres from the origin: beyond, areas and distances are no float32 any more."""


def read_bytes(path: Path) -> bytes:
    """Read a plain file.

    Raises:
        ValueError: if it is not there, or larger than :data:`MOST_BYTES`.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: check the path")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES >> 20} MiB: make it smaller")
    return path.read_bytes()


def read_beside(path: Path, uri: str) -> bytes:
    """Read a file that ``path`` names, which must lie in the same folder or below it.

    Raises:
        ValueError: if it is elsewhere, is not there, or is too large.
    """
    if re.match(r"[a-zA-Z][\w+.-]+:", uri):
        raise ValueError(f"{path} refers to {uri[:80]}: only files beside it are read")
    folder = path.parent.resolve()
    target = (folder / unquote(uri).strip()).resolve()
    if not target.is_relative_to(folder):
        raise ValueError(f"{path} refers to {uri[:80]}, outside its folder: put all of its files beside it")
    return read_bytes(target)


def check_text(text: bytes) -> None:
    """Refuse text that is too long to be read (``ValueError``)."""
    ends = (b"\n", b"\r", b"\v", b"\f", b"\x1c", b"\x1d", b"\x1e", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
    if len(text) > MOST_TEXT or sum(map(text.count, ends)) > MOST_LINES:
        raise ValueError(f"it has more than {MOST_TEXT >> 20} MiB or {MOST_LINES} lines of text: use a GLB")


def read_picture(data: bytes | memoryview) -> Image.Image:
    """Decode a PNG, JPEG or WebP picture to RGB.

    Raises:
        ValueError: if it is none, is broken, or has more than :data:`MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels, more than {MOST_PIXELS}")
            return picture.convert("RGB")
    except Exception as error:  # each decoder raises its own
        raise ValueError(f"cannot read a picture: {error}") from error
