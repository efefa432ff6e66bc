"""What toys are called: random specs, their captions with paraphrases, the vocabulary, and the splits."""

from __future__ import annotations

import difflib
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

from rl3d.toybox import kinds
from rl3d.toybox.things import Item, Kind, Rng, Spec

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "turquoise")
MATERIALS = ("wooden", "golden", "silver", "stone")
PAINTS = COLOURS + MATERIALS
SOLIDS = ("ball", "cube", "cylinder", "cone", "pyramid", "ring")
SIZES = ("small", "big")
RELATIONS = ("on", "next to", "inside")
LONGEST = 16
"""Captions have at most this many words."""

SHARES = {"plain": 0.40, "unpainted": 0.10, "form": 0.12, "accent": 0.13, "count": 0.08, "relation": 0.17}
"""How often a random spec is of which sort."""
RICH = {"plain": 0.18, "unpainted": 0.08, "form": 0.12, "accent": 0.24, "count": 0.12, "relation": 0.26}
"""The same, to learn from: the hard sorts more often."""

ALIKE = (("golden", "yellow"), ("golden", "orange"), ("golden", "brown"), ("silver", "gray"), ("silver", "white"),
         ("stone", "gray"), ("stone", "silver"), ("wooden", "brown"), ("wooden", "orange"), ("wooden", "golden"),
         ("turquoise", "green"), ("turquoise", "blue"))  # fmt: skip
"""Paints that a person might call by each other's name."""

SPLITS = ("train", "validation", "test")
_T = TypeVar("_T")

# The first of several ways to say something is the plain one.
_WORDS = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "violet"),
    "turquoise": ("turquoise", "teal"),
    "golden": ("golden", "gold"),
    "tall": ("tall", "high"),
    "short": ("short", "low"),
    "wide": ("wide", "broad"),
    "narrow": ("narrow", "thin", "slim"),
    "big": ("big", "large", "huge"),
    "small": ("small", "little", "tiny"),
}
_STUFF = {"wooden": "wood", "golden": "gold", "silver": "silver", "stone": "stone"}
_NUMBERS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_RELATIONS = {
    "on": ("on", "on top of", "sitting on", "standing on", "placed on top of"),
    "next to": ("next to", "beside", "standing next to", "by the side of"),
    "inside": ("inside", "in", "sitting in", "inside of"),
}
_ARTICLES = ("a", "", "one", "the")
_NOUNS = ("{noun}", "toy {noun}")
_PAINTED = ("{paint} {noun}", "{noun} that is {paint}", "{noun} in {paint}")
_MADE = ("{paint} {noun}", "{noun} made of {stuff}", "{noun} made out of {stuff}")
_ACCENTS = ("with {a}{paint} {part}", "whose {part} {be} {paint}", "that has {a}{paint} {part}")
_COUNTED = ("{number} {paint} {noun}", "{number} {noun} that are {paint}", "a group of {number} {paint} {noun}")
_BE = ("is", "are")


def sample(rng: Rng, split: str | None = "train", shares: Mapping[str, float] = SHARES) -> Spec:
    """Draw a random spec of this split, or of any for None; ``shares`` say how often of which sort (:data:`SHARES`)."""
    if split not in (*SPLITS, None):
        raise ValueError(f"the toybox has no split {split!r}; it has {', '.join(SPLITS)}")
    while True:
        spec = _draw(rng, shares)
        if split is None or split == split_of(spec):
            return spec


def _draw(rng: Rng, shares: Mapping[str, float]) -> Spec:
    dice, bounds = rng.random(), itertools.accumulate(shares.values())
    sort = next((sort for sort, bound in zip(shares, bounds, strict=True) if dice < bound), "relation")
    kind, paint = _any(list(kinds.KINDS.values()), rng), _any(PAINTS, rng)
    if sort == "plain":
        return Spec((Item(kind.name, paint),))
    if sort == "unpainted":
        return Spec((Item(kind.name),))
    maybe = paint if rng.random() < 0.6 else None
    if sort == "form":
        return Spec((Item(kind.name, maybe, _any((*kind.forms, *kind.forms, *SIZES), rng)),))
    if sort == "accent":
        kind = _any([kind for kind in kinds.KINDS.values() if kind.accents], rng)
        part = _any(list(kind.accents), rng)
        accent = _any([other for other in PAINTS if other != paint and not alike(other, paint)], rng)
        return Spec((Item(kind.name, maybe, accent=(part, accent)),))
    loose = [kind for kind in kinds.KINDS.values() if kind.loose]
    if sort == "count":
        paint = paint if rng.random() < 0.9 else None
        return Spec((Item(_any(loose, rng).name, paint, count=int(rng.integers(2, 5))),))
    relation = RELATIONS[rng.choice(3, p=(0.4, 0.35, 0.25))]
    fits = {"on": "flat_top", "next to": "loose", "inside": "container"}[relation]
    below = [kind for kind in kinds.KINDS.values() if getattr(kind, fits)]
    first, second = (Item(_mostly_solid(options, rng).name, _any(PAINTS, rng)) for options in (loose, below))
    if rng.random() < 0.15:
        first = replace(first, paint=None)
    if rng.random() < 0.15:
        second = replace(second, paint=None)
    return _draw(rng, shares) if relation != "next to" and first.kind == second.kind else Spec((first, second), relation)


def _mostly_solid(options: Sequence[Kind], rng: Rng) -> Kind:
    solids = [kind for kind in options if kind.name in SOLIDS]
    return _any(solids if solids and rng.random() < 0.5 else options, rng)


def _any(options: Sequence[_T], rng: Rng) -> _T:
    return options[int(rng.integers(len(options)))]


def alike(one: str, other: str) -> bool:
    """Whether a person might call one paint by the other's name."""
    return (one, other) in ALIKE or (other, one) in ALIKE


def split_of(spec: Spec) -> str:
    """Which split a spec belongs to, by its rarest combination of attributes.

    About 6 % of all combinations are held out for validation and 6 % for testing: of paint and kind; of form or count, paint
    and kind; of part, its paint and kind; and of what stands how to what. A paint that a kind has by nature is never held
    out with it, since a toy may wear it unnamed. Stable: it depends on names alone.
    """
    marks = {zlib.crc32(" ".join(key).encode()) % 100 // 6 for key in _keys(spec)}
    return "test" if 0 in marks else "validation" if 1 in marks else "train"


def _keys(spec: Spec) -> Iterator[tuple[str, ...]]:
    for item in spec.items:
        kind = kinds.KINDS[item.kind]
        if item.paint is not None:
            if item.paint not in kind.slots["main"]:
                yield item.paint, item.kind
            if item.form is not None:
                yield item.form, item.paint, item.kind
            if item.count > 1:
                yield str(item.count), item.paint, item.kind
        if item.accent is not None and item.accent[1] not in kind.slots[kind.accents[item.accent[0]]]:
            yield *item.accent, item.kind
    if spec.relation is not None:
        pairs = [(item.paint, item.kind) for item in spec.items if item.paint is not None]
        if len(pairs) == 2:
            (one, other) = sorted(pairs) if spec.relation == "next to" else pairs
            yield *one, spec.relation, *other


def canonical(spec: Spec) -> str:
    """The plainest wording."""
    return _phrase(spec, lambda options: options[0])


def caption(spec: Spec, rng: Rng) -> str:
    """Word a spec in one of many ways, the plain ones more often."""

    def pick(options: Sequence[str]) -> str:
        return options[0] if rng.random() < 0.4 else _any(options, rng)

    while len((text := _phrase(spec, pick)).split()) > LONGEST:
        pass
    return text


Pick = Callable[[Sequence[str]], str]


def _phrase(spec: Spec, pick: Pick) -> str:
    text = _item(spec.items[0], pick)
    if spec.relation is not None:
        text += f" {pick(_RELATIONS[spec.relation])} {_item(spec.items[1], pick)}"
    return re.sub(r"\ba (?=[aeiou](?!ni))", "an ", re.sub(" +", " ", text).strip())


def _item(item: Item, pick: Pick) -> str:
    kind = kinds.KINDS[item.kind]
    paint = item.paint and pick(_WORDS.get(item.paint, (item.paint,)))
    form = item.form and pick(_WORDS.get(item.form, (item.form,)))
    if item.count > 1:
        noun = pick(_NOUNS).format(noun=plural(kind))
        template = pick(_COUNTED if paint else (_COUNTED[0], _COUNTED[2]))
        return template.format(number=pick(_NUMBERS[item.count]), paint=paint or "", noun=noun)
    noun = pick(_NOUNS).format(noun=pick((kind.name, *kind.synonyms)))
    if paint:
        template = pick(_PAINTED if item.paint in COLOURS else _MADE)
        noun = template.format(paint=paint, noun=noun, stuff=_STUFF.get(item.paint or "", ""))
    text = f"{pick(_ARTICLES)} {form or ''} {noun}"
    if item.accent is None:
        return text
    part, accent = item.accent
    many = part.endswith("s")
    accent = pick(_WORDS.get(accent, (accent,)))
    return f"{text} {pick(_ACCENTS).format(a='' if many else 'a ', paint=accent, part=part, be=_BE[many])}"


def plural(kind: Kind) -> str:
    """The kind's name for several."""
    return kind.plural or kind.name + "s"


def words(text: str) -> list[str]:
    """Split a text into lower-case words and numbers, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can use, sorted."""
    return tuple(sorted(_vocabulary()))


@cache
def _vocabulary() -> frozenset[str]:
    templates = (*_ARTICLES, *_NOUNS, *_PAINTED, *_MADE, *_ACCENTS, *_COUNTED, *_BE, "an")
    said = [re.sub(r"{\w+}", " ", template) for template in templates]
    for ways in (*_WORDS.values(), *_NUMBERS.values(), *_RELATIONS.values()):
        said.extend(ways)
    said.extend((*PAINTS, *_STUFF.values()))
    for kind in kinds.KINDS.values():
        said.extend((kind.name, *kind.synonyms, *kind.accents, *((plural(kind),) if kind.loose else ())))
    return frozenset(word for text in said for word in words(text))


def unknown(text: str) -> dict[str, list[str]]:
    """Find the words of a text that no caption uses, each with the nearest known words, at most three."""
    known = vocabulary()
    return {word: difflib.get_close_matches(word, known, n=3, cutoff=0.5) for word in words(text) if word not in _vocabulary()}
