"""Files that appear whole or not at all, records that are added line by line, and tensors with what is said of them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part; even after a power cut, if ``durable``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a folder of files by name, which takes an older one's place only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        for name, data in files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(data)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines, one process at a time; a line that a kill cut stays by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, none if there is no file. What a kill cut, or is no object, is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            if isinstance(record := json.loads(line), dict):
                records.append(record)
    return records


def tensor_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Tensors and plain JSON as the bytes of one safetensors file; tensors are copied to the CPU."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, x in tensors.items():
        x = x.detach().cpu().contiguous()
        place = x.untyped_storage().data_ptr()
        # The format refuses tensors that share memory, as cameras of several scenes may.
        plain[name] = x.clone() if place in places else x
        places.add(place)
    return safetensors.torch.save(plain, metadata={"rl3d": json.dumps(about)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what :func:`tensor_bytes` made, without running anything in it.

    Raises:
        ValueError: if the file is damaged, or not of this kind.
        FileNotFoundError: if there is none.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:  # pyright: ignore
            about = json.loads((file.metadata() or {})["rl3d"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if not isinstance(about, dict):
        raise ValueError(f"{path} is damaged (what it says of itself is a {type(about).__name__})")
    return tensors, about
