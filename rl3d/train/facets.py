"""Attributes as questions: what a labelled world can ask of an embedding, for models that learn to read or to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.things import Item, Spec


class Facets(nn.Module):
    """Reads a spec's attributes off an embedding, of views or of text, by the same linear map.

    A labelled shortcut to what contrast alone finds slowly: where both modalities must answer the same questions from the same
    coordinates, they come to agree. It is thrown away after training.
    """

    def __init__(self, width: int, seed: int, language: Language = TOYS):
        super().__init__()
        possible = dict(language.answers())
        relations = possible.pop("relation")
        self.asked = tuple(possible)
        questions: list[Sequence[Any]] = [*possible.values(), *possible.values(), relations]
        self.answers = [{answer: i for i, answer in enumerate(answers)} for answers in questions]
        self.nothing = [answers[0] for answers in possible.values()]
        self.unseen = [i for i, name in enumerate(self.asked * 2) if name in ("paint", "accent", "stuff")]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.read = nn.Linear(width, sum(map(len, self.answers)))

    def right(self, specs: Sequence[Spec], *, seen: bool) -> Int[Tensor, "n f"]:
        """The right answers; -1 where views (``seen``) cannot tell: colours and stuff that a spec leaves open."""
        rows = []
        for spec in specs:
            row: list[Any] = []
            for item in sorted(spec.items, key=repr) if spec.relation == "next to" else spec.items:
                row += [_value(item, name) for name in self.asked]
            row += self.nothing * (2 - len(spec.items)) + [spec.relation]
            rows.append([answers[x] for answers, x in zip(self.answers, row, strict=True)])
        right = torch.tensor(rows)
        if seen:
            left_open = right[:, self.unseen]
            right[:, self.unseen] = left_open.masked_fill(left_open == 0, -1)
        return right

    def of_colours(self, right: Int[Tensor, "n f"]) -> Int[Tensor, "n f"]:
        """The answers of what views still tell where shapes are lost: colours and stuff."""
        asked = torch.zeros(right.shape[1], dtype=torch.bool)
        asked[self.unseen] = True
        return right.masked_fill(~asked, -1)

    def forward(self, embeddings: Float[Tensor, "n d"], right: Int[Tensor, "n f"]) -> Float[Tensor, ""]:
        """The cross-entropy of all questions that have an answer, summed over questions, and the mean over rows."""
        logits = self.read(embeddings * embeddings.shape[1] ** 0.5).split([len(a) for a in self.answers], dim=1)
        losses = [F.cross_entropy(x, y, ignore_index=-1, reduction="sum") for x, y in zip(logits, right.T, strict=True)]
        return torch.stack(losses).sum() / len(right)

    @torch.no_grad()
    def hits(self, embeddings: Float[Tensor, "n d"], right: Int[Tensor, "n f"]) -> float:
        """How often the first thing's kind is named rightly, where it can be told."""
        asked = right[:, 0] >= 0
        kinds = self.read(embeddings)[:, : len(self.answers[0])].argmax(1)
        return float((kinds == right[:, 0])[asked].float().mean())


def _value(item: Item, name: str) -> Any:
    return item.accent and item.accent[1] if name == "accent" else getattr(item, name)
