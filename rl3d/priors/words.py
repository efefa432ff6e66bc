"""A word-level tokenizer: a list of words, and nothing learned."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

SPECIAL = ("<pad>", "<unknown>", "<end>")
"""Tokens 0, 1 and 2; words follow."""
UNKNOWN = SPECIAL.index("<unknown>")


@dataclass(frozen=True)
class Tokenizer:
    """Turn texts into tokens, one a word; case and punctuation do not matter."""

    words: tuple[str, ...]
    context: int = 24
    """Tokens of each text: its words, one that ends it, and padding."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate((*SPECIAL, *self.words))}

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    def __call__(self, texts: list[str], *, allow_unknown: bool = False) -> Int[Tensor, "b t"]:
        """Tokenize, or raise ``ValueError`` for texts that are too long or, unless allowed, have unknown words."""
        rows = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            words = split(text)
            if len(words) >= self.context:
                raise ValueError(f"prompts have at most {self.context - 1} words, got {len(words)}: {text[:80]!r}; shorten it")
            if not allow_unknown and (strange := self.unknown(text)):
                near = "; ".join(f"{word!r} (near: {', '.join(close) or 'none'})" for word, close in strange.items())
                fix = "use words it knows, go on with --allow-unknown, or take a larger prior (--prior.folder)"
                raise ValueError(f"the prior does not know {near}, in {text[:80]!r}; {fix}")
            row[: len(words) + 1] = torch.tensor([*(self._ids.get(word, UNKNOWN) for word in words), 2])
        return rows

    def unknown(self, text: str) -> dict[str, list[str]]:
        """Find the words of a text that it does not know, each with the nearest known ones, at most three."""
        return {word: difflib.get_close_matches(word, self.words, n=3) for word in split(text) if word not in self._ids}

    def save(self, folder: Path) -> None:
        """Write ``vocab.json`` (words and their tokens) and ``tokenizer_config.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self._ids, indent=0) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": self.context}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what :meth:`save` wrote."""
        ids = json.loads((folder / "vocab.json").read_text())
        context = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
        return cls(tuple(sorted(ids, key=ids.__getitem__))[len(SPECIAL) :], context)


def split(text: str) -> list[str]:
    """Split a text into lower-case words and numbers, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())
