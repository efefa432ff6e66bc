"""A run is a folder. Whole files appear in it at once or not at all; a kill at any moment loses nothing reported as saved."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from rl3d.files import append_record, read_records, read_tensors, tensor_bytes, write_whole
from rl3d.types import Prompt

CHECKPOINT = "checkpoint.safetensors"

IMAGE = "image"
"""A copy of the prompt's picture, in whatever format it has: a run goes on wherever its folder lies."""

LOCK_SECONDS = 1.0
"""A folder that could not be locked for so long is in use."""


def short_name(prompt: str, limit: int = 48) -> str:
    """A folder name for a prompt: readable, safe on any file system, unique enough when it had to be cut."""
    name = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    if name and name.replace("-", " ") == prompt.lower() and len(name) <= limit:
        return name
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:6]
    return f"{name[: limit - 7].rstrip('-')}-{digest}".lstrip("-")


@dataclass(frozen=True)
class Run:
    """A run's folder and the names in it."""

    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """What ``run.json`` says: prompt, seed, recipe, arguments, and what the bytes depend on."""
        try:
            return json.loads((self.folder / "run.json").read_text())
        except FileNotFoundError:
            raise ValueError(
                f"{self.folder} is not a run: it has no run.json; name a folder that `rl3d generate` made"
            ) from None
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.folder / 'run.json'} is damaged ({error}); start the run anew") from None

    @property
    def prompt(self) -> Prompt:
        """What was asked for; its picture is the run's own copy."""
        asked = Prompt(**self.about["prompt"])
        return replace(asked, image=str(self.folder / IMAGE)) if asked.image else asked

    @property
    def title(self) -> str:
        """What to call what was asked for: its text, or the name of its picture."""
        asked = self.about["prompt"]
        return asked["text"] or Path(asked.get("image", "")).stem

    @property
    def summary(self) -> dict[str, Any] | None:
        """What ``summary.json`` says; None before the run is done."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def write_json(self, name: str, value: Any) -> None:
        write_whole(self.folder / name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder: two processes never write to one run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as file:
            until = time.monotonic() + LOCK_SECONDS
            while not _taken(file, fcntl.LOCK_EX):
                # Whoever asks whether it is busy holds it for an instant, and several may keep asking.
                if time.monotonic() > until:
                    raise ValueError(f"{self.folder} is in use by another process: wait for it, or choose another --out")
                time.sleep(0.002)
            yield

    @property
    def busy(self) -> bool:
        """Whether a process is at work on this run now."""
        try:
            with open(self.folder / ".lock") as file:
                return not _taken(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def save(self, tensors: dict[str, Tensor], plain: dict, name: str = CHECKPOINT) -> None:
        """Write the checkpoint, or a state of another name, after the records that it covers have reached the disk."""
        for record in ("metrics.jsonl", "control.jsonl"):
            if (self.folder / record).is_file():
                with open(self.folder / record, "rb") as file:
                    os.fsync(file.fileno())
        write_whole(self.folder / name, tensor_bytes(tensors, plain))

    def load(self, name: str = CHECKPOINT) -> tuple[dict[str, Tensor], dict] | None:
        """Read the checkpoint, or a state of another name, back; None if there is none yet."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return read_tensors(path)
        except ValueError as error:
            raise ValueError(f"{error}. Delete it to start this run anew from its seed: the result will be the same") from None

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        append_record(self.folder / "metrics.jsonl", record)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut by a kill is left out."""
        return read_records(self.folder / "metrics.jsonl")

    def cut_metrics(self, step: int) -> None:
        """Drop what was logged after this step: a resumed run logs it again."""
        kept = [r for r in self.metrics() if r["step"] <= step]
        write_whole(self.folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in kept).encode())


def _taken(file: IO[str], how: int) -> bool:
    """Try to lock a file without waiting; closing it gives it back."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def circumstances() -> dict[str, Any]:
    """What a run's bytes depend on beside its recipe and seed."""
    from importlib.metadata import version

    from rl3d.priors.embedded import fastest_dtype

    packages = ("rl3d", "torch", "numpy", "numba", "diffusers", "open_clip_torch")
    return {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "fastest_type": str(fastest_dtype()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
