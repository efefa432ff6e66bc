"""What text encoders made of texts is remembered, on disk too, so that they may leave memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rl3d.files import write_whole
from rl3d.priors.family import Read, Told

ENOUGH = 2**30
"""Bytes of texts that are remembered in memory, about."""


class Memory:
    """What was read, in memory: encoders are frozen, so each text is read once."""

    def __init__(self, read: Callable[[list[str]], list[Read]]):
        """``read`` makes it of what is new."""
        self._read, self._known = read, {}

    @torch.no_grad()
    def tell(self, texts: list[str], device: torch.device) -> Told:
        """What the network is told of these texts, in their order."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            size = max((one.words.nbytes for one in self._known.values()), default=0)
            if len(self._known) * size > ENOUGH:  # of a long training
                self._known.clear()
                new = list(dict.fromkeys(texts))
            self._known |= dict(zip(new, self._read(new), strict=True))
        rows = [self._known[text] for text in texts]

        def stacked(found: list[Tensor | None]) -> Tensor | None:
            there = [x for x in found if x is not None]
            return torch.stack(there).to(device) if there else None

        words = stacked([row.words for row in rows])
        assert words is not None
        return Told(words, stacked([row.pooled for row in rows]), stacked([row.mask for row in rows]))


class Kept:
    """Texts that were read once, on disk: under what the encoders' files are, so that other encoders' are never taken."""

    def __init__(self, folder: Path, read: Callable[[list[str]], list[Read]]):
        """``read`` loads the encoders, reads what is new, and lets them go."""
        files = sorted(p for p in folder.glob("t*_encoder*/*") if p.is_file()) + sorted(folder.glob("tokenizer*/*"))
        stats = [(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        self._about, self._read = repr((str(folder.resolve()), stats)), read

    def read(self, texts: list[str]) -> list[Read]:
        """Each text from disk, or from the encoders and then on disk."""
        new = [text for text in texts if self._from_disk(text) is None]
        if new:
            for text, one in zip(new, self._read(new), strict=True):
                tensors = {name: x.contiguous() for name, x in one._asdict().items() if x is not None}
                write_whole(self._path(text), save(tensors))
        found = [self._from_disk(text) for text in texts]
        assert all(one is not None for one in found)
        return found  # pyright: ignore[reportReturnType]

    def _from_disk(self, text: str) -> Read | None:
        try:
            return Read(**load_file(self._path(text)))
        except (FileNotFoundError, SafetensorError, TypeError):
            return None

    def _path(self, text: str) -> Path:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "rl3d" / "prompts" / f"{hashlib.sha256((self._about + text).encode()).hexdigest()}.safetensors"
