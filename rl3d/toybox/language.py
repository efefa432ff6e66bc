"""What a training must know of a world of captioned objects beside its views: the toybox is one, real objects are another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rl3d.toybox import grammar, kinds, pools
from rl3d.toybox.things import Rng, Spec

FORMS = ("tall", "short", "wide", "narrow", "big", "small")


@runtime_checkable
class Language(Protocol):
    """How specs are worded, and what else is true or false of what they describe."""

    def vocabulary(self) -> tuple[str, ...]:
        """Every word of captions, sorted."""
        ...

    def sample(self, rng: Rng, split: str | None = "train") -> Spec:
        """Draw a random spec of a split, or of any for None."""
        ...

    def canonical(self, spec: Spec) -> str:
        """The plainest wording."""
        ...

    def caption(self, spec: Spec, rng: Rng) -> str:
        """One of many wordings."""
        ...

    def contradicts(self, truth: Spec, claim: Spec) -> bool:
        """Whether a claim is certainly false of what a spec describes."""
        ...

    def some_misses(self, spec: Spec, rng: Rng, count: int, split: str | None = None) -> list[Spec]:
        """A few near misses, of a split or of any: specs that differ in one respect and are certainly false."""
        ...

    def pool(self, spec: Spec, rng: Rng, size: int = 100, near: int = 20) -> list[Spec]:
        """The spec itself, then ``near`` near misses, then other claims that are certainly false."""
        ...

    def answers(self) -> Mapping[str, Sequence[Any]]:
        """The possible values of an item's attributes, by field, and of "relation"; the first means that nothing is said."""
        ...


@dataclass(frozen=True)
class Toys:
    """The language of the toybox."""

    def vocabulary(self) -> tuple[str, ...]:
        return grammar.vocabulary()

    def sample(self, rng: Rng, split: str | None = "train") -> Spec:
        return grammar.sample(rng, split)

    def canonical(self, spec: Spec) -> str:
        return grammar.canonical(spec)

    def caption(self, spec: Spec, rng: Rng) -> str:
        return grammar.caption(spec, rng)

    def contradicts(self, truth: Spec, claim: Spec) -> bool:
        return pools.contradicts(truth, claim)

    def some_misses(self, spec: Spec, rng: Rng, count: int, split: str | None = None) -> list[Spec]:
        return pools.some_misses(spec, rng, count, split)

    def pool(self, spec: Spec, rng: Rng, size: int = 100, near: int = 20) -> list[Spec]:
        return pools.pool(spec, rng, size, near)

    def answers(self) -> Mapping[str, Sequence[Any]]:
        paints = (None, *grammar.PAINTS)
        return {
            "kind": (None, *kinds.KINDS),
            "paint": paints,
            "form": (None, *FORMS),
            "accent": paints,
            "count": (1, 2, 3, 4),
            "relation": (None, *grammar.RELATIONS),
        }


TOYS = Toys()
