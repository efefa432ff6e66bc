"""Recorded preferences: what somebody chose of two assets or samples of one prompt, as JSON lines, one for each comparison.

::

    {"prompt": "a red mug", "a": "runs/one", "b": "runs/two/asset.ply", "preferred": "a", "annotator": "kim"}
    {"prompt": "a red mug", "a": ["one/front.png", "one/back.png"], "b": "two.png", "preferred": "tie"}

``a`` and ``b`` are assets (a run's folder, splats, a mesh) or one picture or several; paths are taken from the file's folder.
Where they were shown side by side, ``a`` stood on the left. ``preferred`` is "a", "b" or "tie"; ``annotator`` may be left out.

Files only ever grow. What is taken back is a line too: ``"preferred": null`` withdraws the latest choice of this annotator
about this prompt, a and b. Several processes may write at once: each line is added under a lock and has reached the disk when
:func:`record` returns. What a crash left of a line is never read: it has no end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from rl3d.assets import PICTURES

PREFERRED = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Pair:
    """One comparison."""

    prompt: str
    a: tuple[str, ...]
    """An asset's path, or those of pictures."""
    b: tuple[str, ...]
    preferred: float
    """1 if ``a`` is, 0 if ``b`` is, 0.5 for a tie."""
    annotator: str = ""


def read_pairs(path: Path, *, exist: bool = True) -> list[Pair]:
    """Read preferences in the format above, without those that were withdrawn; empty lines are left out.

    Args:
        path: a file of JSON lines.
        exist: whether all that was compared must still be there.

    Raises:
        ValueError: if there is no file, or a line is wrong, by its number.
    """
    if not path.is_file():
        raise ValueError(f"there is no file of preferences {path}")
    data, pairs = path.read_bytes(), []
    for number, line in enumerate(data[: _sound(data)].split(b"\n"), 1):
        if line.strip():
            try:
                pair, withdrawn = _pair(json.loads(line), path.parent, exist=exist)
                if withdrawn:
                    _withdraw(pairs, pair)
                else:
                    pairs.append(pair)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: this is no JSON: {error}") from None
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: this is no text in UTF-8: {error}") from None
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return pairs


def record(path: Path, pair: Pair) -> None:
    """Add a choice to a file, which is made if there is none; it is on the disk when this returns.

    Paths inside the file's folder are written relative to it, so that both can be moved together, others in full.

    Raises:
        OSError: if it cannot be written; then the file is as it was.
    """
    word = next(word for word, value in PREFERRED.items() if value == pair.preferred)
    _append(path, pair, word)


def withdraw(path: Path, pair: Pair) -> None:
    """Take back a choice that was recorded."""
    _append(path, pair, None)


def _append(path: Path, pair: Pair, preferred: str | None) -> None:
    a, b = (_names(side, path) for side in (pair.a, pair.b))
    line = {"prompt": pair.prompt, "a": a, "b": b, "preferred": preferred, "annotator": pair.annotator}
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        end = _mend(file)
        try:
            rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            # A full disk may have taken a part.
            os.ftruncate(file.fileno(), end)
            raise
    if new:
        # The file's name is on the disk once its folder is.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """Hold a file that only grows, for this opening of it alone."""
    # Unbuffered, so that nothing is left to be written when a write has failed.
    with open(path, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _mend(file: FileIO) -> int:
    """Cut what a crash left of the last line, or end a last line that is whole; gives the file's size."""
    file.seek(0)
    data = file.read()
    sound = _sound(data)
    if sound < len(data):
        os.ftruncate(file.fileno(), sound)
    elif data and not data.endswith(b"\n"):
        file.write(b"\n")
    return file.seek(0, os.SEEK_END)


def _sound(data: bytes) -> int:
    """How many bytes there are before the start of a line that a crash cut: one that has no end and is no JSON."""
    start = data.rfind(b"\n") + 1
    try:
        json.loads(data[start:] or b"0")
    except ValueError:
        return start
    return len(data)


def _names(paths: Sequence[str], file: Path) -> str | list[str]:
    folder = Path(os.path.abspath(file.parent))
    full = [Path(os.path.abspath(path)) for path in paths]
    names = [str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in full]
    return names[0] if len(names) == 1 else names


def _pair(line: Any, folder: Path, *, exist: bool) -> tuple[Pair, bool]:
    """A line as a choice, and whether it is withdrawn."""
    if not isinstance(line, dict):
        raise ValueError(f'a line is an object like {{"prompt": ..., "a": ..., "b": ..., "preferred": "a"}}; got {line!r}')
    known = {"prompt", "a", "b", "preferred", "annotator"}
    missing, unknown = known - {"annotator"} - line.keys(), line.keys() - known
    if missing or unknown:
        said = [f"lacks {', '.join(sorted(missing))}"] * bool(missing) + [f"has {', '.join(sorted(unknown))}"] * bool(unknown)
        raise ValueError(f"it {' and '.join(said)}; the keys are {', '.join(sorted(known))}")
    if not isinstance(line["prompt"], str) or not line["prompt"].strip():
        raise ValueError(f"`prompt` must be a text that is not empty, got {line['prompt']!r}")
    withdrawn = line["preferred"] is None
    # Looked up by its text, so that what cannot be a key is wrong like any other.
    if not withdrawn and str(line["preferred"]) not in PREFERRED:
        raise ValueError(f'`preferred` must be "a", "b" or "tie" (null: withdrawn), got {line["preferred"]!r}')
    one, other = (_paths(key, line[key], folder, exist=exist and not withdrawn) for key in ("a", "b"))
    preferred = PREFERRED.get(str(line["preferred"]), 0.5)
    return Pair(line["prompt"], one, other, preferred, str(line.get("annotator", ""))), withdrawn


def _withdraw(pairs: list[Pair], pair: Pair) -> None:
    for i in reversed(range(len(pairs))):
        one = pairs[i]
        if (one.prompt, one.a, one.b, one.annotator) == (pair.prompt, pair.a, pair.b, pair.annotator):
            del pairs[i]
            return
    raise ValueError("it withdraws a choice that was not made: there is none of this annotator, prompt, a and b before it")


def _paths(key: str, value: Any, folder: Path, *, exist: bool) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"`{key}` must be a path, or a list of paths of pictures, got {value!r}")
    if len(names) > 1 and not all(name.lower().endswith(PICTURES) for name in names):
        raise ValueError(f"`{key}` is a list, so all in it must be pictures ({', '.join(PICTURES)}); got {value!r}")
    paths = [folder / name for name in names]
    for path in paths:
        if exist and not path.exists():
            raise ValueError(f"`{key}`: there is no {path}")
    return tuple(map(str, paths))
