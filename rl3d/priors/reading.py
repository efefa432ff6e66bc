"""Text encoders of diffusers' pipelines: what they make of texts is remembered, on disk too, so that they may leave memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rl3d.files import write_whole

Read = tuple[Tensor, Tensor | None]
"""Embeddings ``[t d]`` of a text's words in float32, and its pooled one ``[p]`` where the network wants it."""


def encode(pipe: Any, texts: list[str], device: torch.device) -> list[Read]:
    """What a pipeline's text encoders make of texts."""
    how = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    if hasattr(pipe, "text_encoder_3"):
        text, _, pooled, _ = pipe.encode_prompt(texts, None, None, **how)
    elif hasattr(pipe, "text_encoder_2"):
        text, _, pooled, _ = pipe.encode_prompt(texts, **how)
        if pipe.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([text == "" for text in texts], device=device)
            text, pooled = text.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
    else:
        (text, _), pooled = pipe.encode_prompt(texts, **how), None
    return [(text[i].float(), None if pooled is None else pooled[i].float()) for i in range(len(texts))]


class Kept:
    """Texts that were read once, on disk: under what the encoders' files are, so that other encoders' are never taken."""

    def __init__(self, folder: Path, load: Callable[[], Any]):
        """``load`` makes the pipeline whose encoders read what is new; it is let go of at once."""
        files = sorted(p for p in folder.glob("t*_encoder*/*") if p.is_file()) + sorted(folder.glob("tokenizer*/*"))
        stats = [(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        self._about, self._load = repr((str(folder.resolve()), stats)), load

    def read(self, texts: list[str]) -> list[Read]:
        """Each text from disk, or from the encoders and then on disk."""
        new = [text for text in texts if self._from_disk(text) is None]
        if new:
            for text, (words, pooled) in zip(new, encode(self._load(), new, torch.device("cpu")), strict=True):
                tensors = {"words": words.contiguous()} | ({} if pooled is None else {"pooled": pooled.contiguous()})
                write_whole(self._path(text), save(tensors))
        found = [self._from_disk(text) for text in texts]
        assert all(one is not None for one in found)
        return found  # pyright: ignore[reportReturnType]

    def _from_disk(self, text: str) -> Read | None:
        try:
            found = load_file(self._path(text))
            return found["words"], found.get("pooled")
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def _path(self, text: str) -> Path:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "rl3d" / "prompts" / f"{hashlib.sha256((self._about + text).encode()).hexdigest()}.safetensors"
