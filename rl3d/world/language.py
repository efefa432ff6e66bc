"""How real objects are worded, and what is false of them: the language of named objects, alone or together with the toybox's.

Specs are the toybox's own. A real thing's paint was measured or given to it, its stuff is what its maker says it is made of,
and its form compares it with others of its kind. What was not measured for certain is left open, and what people would call
either way is never certainly false.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from rl3d.toybox import grammar, kinds, pools
from rl3d.toybox.language import FORMS, TOYS
from rl3d.toybox.things import Item, Rng, Spec
from rl3d.world import colours
from rl3d.world.nouns import Noun, may_be
from rl3d.world.things import STUFF

PAINTS = tuple(colours.COLOURS)
BOTH_FORMS = ("tall narrow", "short wide")
RELATIONS = ("on", "next to")
LONGEST = 20
"""Captions have at most this many words."""

SHARES = {"plain": 0.36, "paint": 0.26, "form": 0.12, "both": 0.08, "count": 0.05, "relation": 0.13}
"""How often a random spec is of which sort: as it is, painted, stretched, both, several, or two things."""

_WAYS = grammar.WAYS | {
    "beige": ("beige", "cream", "tan"),
    "tall narrow": ("tall narrow", "tall and narrow", "tall thin", "high and slim"),
    "short wide": ("short wide", "low and wide", "low broad", "wide and low"),
}
_MADE = {
    "wooden": "wood",
    "metal": "metal",
    "leather": "leather",
    "glass": "glass",
    "plastic": "plastic",
    "fabric": "fabric",
    "stone": "stone",
    "ceramic": "ceramic",
    "wicker": "wicker",
}

_WHOLE = (
    "{a} {form} {paint} {stuff} {noun}",
    "{a} {form} {paint} {noun} made of {made}",
    "{a} {form} {stuff} {noun} in {paint}",
    "{a} {form} {stuff} {noun} that is {paint}",
    "{a} {paint} {stuff} {noun} that is {form}",
)
_COUNTED = (
    "{number} {paint} {stuff} {noun}",
    "{number} {stuff} {noun} in {paint}",
    "a group of {number} {paint} {stuff} {noun}",
)
_FRAMES = ("{}", "{}", "{}", "a 3d model of {}", "a picture of {}", "a rendering of {}")
_NUMBERS = {2: (*grammar.NUMBERS[2], "a pair of"), 3: grammar.NUMBERS[3]}

_OPPOSITE = pools.OPPOSITES | {"tall narrow": "short wide", "short wide": "tall narrow"}
_MIXED_UP = (
    *(("metal", "plastic"), ("glass", "plastic"), ("stone", "ceramic"), ("leather", "fabric"), ("glass", "ceramic")),
    *(("wooden", "wicker"), ("plastic", "leather"), ("plastic", "fabric"), ("metal", "ceramic"), ("plastic", "ceramic")),
)
"""Pairs that people mix up."""

Pick = Callable[[Sequence[str]], str]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Words:
    """The language of real objects."""

    nouns: Mapping[str, Noun]
    toys: bool = False
    """Whether the toybox belongs to the world, too. What both have goes by one name."""

    # ---- wordings

    def canonical(self, spec: Spec) -> str:
        """The plainest wording."""
        if self._toy(spec):
            return TOYS.canonical(spec)
        return self._scene(spec, lambda options: options[0])

    def caption(self, spec: Spec, rng: Rng) -> str:
        """Word a spec in one of many ways, the plain ones more often."""
        if self._toy(spec):
            return TOYS.caption(spec, rng)

        def pick(options: Sequence[str]) -> str:
            return options[0] if rng.random() < 0.35 else _any(options, rng)

        for _ in range(20):
            text = self._scene(spec, pick)
            if len(grammar.words(text)) <= LONGEST:
                return text
        return self.canonical(spec)

    def _toy(self, spec: Spec) -> bool:
        """Whether only the toybox can say it: things, parts or paints that the real world does not have."""
        if not self.toys:
            return False
        strange = (item.kind not in self.nouns or item.accent or item.paint in grammar.MATERIALS for item in spec.items)
        return any(strange) or spec.relation == "inside" or spec.items[0].count > max(_NUMBERS)

    def _scene(self, spec: Spec, pick: Pick) -> str:
        single = spec.relation is None and not self._noun(spec.items[0].kind).phrase
        frame = pick(_FRAMES) if single else "{}"
        text = self._item(spec.items[0], pick, bare=frame == "{}")
        if spec.relation is not None:
            text += f" {pick(grammar.RELATING[spec.relation])} {self._item(spec.items[1], pick, bare=True)}"
        return grammar.tidy(frame.format(text))

    def _item(self, item: Item, pick: Pick, bare: bool) -> str:
        """Word one thing; ``bare``: perhaps without an article."""
        noun = self._noun(item.kind)
        if noun.phrase:
            return pick((noun.name, *noun.synonyms))
        said = {
            "paint": pick(_WAYS.get(item.paint, (item.paint,))) if item.paint else "",
            "form": pick(_WAYS.get(item.form, (item.form,))) if item.form else "",
            "stuff": item.stuff or "",
            "made": _MADE.get(item.stuff or "", ""),
        }
        if item.count > 1:
            fit = [way for way in _COUNTED if item.paint or not way.endswith("{paint}")]
            return pick(fit).format(**said, number=pick(_NUMBERS[item.count]), noun=noun.plural)
        name = pick((noun.name, *noun.synonyms))
        fit = [way for way in _WHOLE if _complete(way, item)]
        last = name.split()[-1]
        many = last.endswith("s") and not last.endswith(("ss", "us", "is"))
        articles = ("", "the") if many else ("a", "", "one", "the") if bare else ("a", "one", "the")
        article = pick(articles)
        return pick(fit).format(**said, noun=name, a=article).replace(" that is ", " that are " if many else " that is ")

    def _noun(self, kind: str) -> Noun:
        if kind in self.nouns:
            return self.nouns[kind]
        toy = kinds.KINDS[kind]
        return Noun(toy.name, toy.synonyms)

    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a caption can use, sorted."""
        ways = (*_WHOLE, *_COUNTED, *_FRAMES, "that are", "an", *itertools.chain(*grammar.RELATING.values()))
        said = [*(re.sub(r"{\w*}", " ", way) for way in ways), "a", "the", "one", *PAINTS, *STUFF, *_MADE.values()]
        said += [way for options in (*_WAYS.values(), *_NUMBERS.values()) for way in options]
        if all(noun.phrase for noun in self.nouns.values()):
            said = []
        for noun in self.nouns.values():
            said += [noun.name, *noun.synonyms, noun.plural]
        known = {word for text in said for word in grammar.words(text)}
        return tuple(sorted(known | set(TOYS.vocabulary() if self.toys else ())))

    def unseen(self) -> tuple[str, ...]:
        """Words for things that no caption ever uses, sorted: to test what was not taught."""
        words = {word for noun in self.nouns.values() for text in noun.unseen for word in grammar.words(text)}
        return tuple(sorted(words - set(self.vocabulary())))

    def in_unseen_words(self, spec: Spec) -> str | None:
        """The plainest wording, but with a word for the first thing that no caption uses; None where there is none."""
        noun = self.nouns.get(spec.items[0].kind)
        if noun is None or not noun.unseen:
            return None
        other = replace(noun, name=noun.unseen[0])
        return replace(self, nouns={**self.nouns, noun.name: other}).canonical(spec)

    # ---- random specs and their splits

    def sample(self, rng: Rng, split: str | None = "train") -> Spec:
        """Draw a random spec of a split, or of any for None; whether there is such an object is not asked."""
        if split not in (*grammar.SPLITS, None):
            raise ValueError(f"the world has no split {split!r}; it has {', '.join(grammar.SPLITS)}")
        if self.toys and rng.random() < 0.5:
            return TOYS.sample(rng, split)
        while True:
            spec = self._draw(rng)
            if split is None or split == self.split_of(spec):
                return spec

    def _draw(self, rng: Rng) -> Spec:
        sort = draw_sort(rng)
        noun = _any(self._names, rng)
        item = self._random_item(noun, rng)
        if self.nouns[noun].phrase:
            return Spec((item,))
        if sort in ("form", "both") and not self.nouns[noun].natural:
            item = replace(item, form=_any((*FORMS, *BOTH_FORMS), rng))
        if sort == "count" and self.nouns[noun].plural:
            return Spec((replace(item, count=int(rng.integers(2, 4)), form=None),))
        other = _any(self._names, rng)
        if sort == "relation" and other != noun and not self.nouns[other].phrase:
            second = self._random_item(other, rng)
            pair = (replace(item, form=None, stuff=None), replace(second, form=None, stuff=None))
            return Spec(pair, _any(RELATIONS, rng))
        return Spec((item,))

    def _random_item(self, noun: str, rng: Rng) -> Item:
        known = self.nouns[noun]
        if known.phrase:
            return Item(noun)
        natural = known.colours or (None,)
        paint = _any(natural if known.natural or rng.random() < 0.4 else PAINTS, rng)
        stuff = _any(tuple(STUFF), rng) if rng.random() < 0.15 and not known.natural else None
        return Item(noun, paint if rng.random() < 0.75 else None, stuff=stuff)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.nouns)

    def split_of(self, spec: Spec) -> str:
        """Which split a spec belongs to, by its rarest combination of attributes, as in the toybox: about 6 % of paints and
        nouns, of forms and nouns, and of nouns in a relation are held out for validation, and 6 % for testing.

        Paints that a noun's objects have by themselves are never held out. Stable: it depends on names alone.
        """
        if self._toy(spec):
            return grammar.split_of(spec)
        marks = {zlib.crc32(" ".join(key).encode()) % 100 // 6 for key in self._keys(spec)}
        return "test" if 0 in marks else "validation" if 1 in marks else "train"

    def _keys(self, spec: Spec) -> Iterator[tuple[str, ...]]:
        for item in spec.items:
            if item.paint is not None and item.paint not in self._noun(item.kind).colours:
                yield item.paint, item.kind
            if item.form is not None:
                yield item.form, item.kind
            if item.count > 1:
                yield str(item.count), item.kind
        if spec.relation is not None:
            names = [item.kind for item in spec.items]
            first, second = sorted(names) if spec.relation == "next to" else names
            yield first, spec.relation, second

    # ---- what is false

    def contradicts(self, truth: Spec, claim: Spec) -> bool:
        """Whether a claim is certainly false of what a spec describes."""
        return pools.contradicts(truth, claim, self._differ)

    def _differ(self, truth: Item, claim: Item) -> bool:
        if claim.count != truth.count and claim.count > 1:
            return True
        if claim.kind != truth.kind and not self._may_be(truth.kind, claim.kind):
            return True
        if _unlike(truth.paint, claim.paint, _same_paint) or _unlike(truth.stuff, claim.stuff, _same_stuff):
            return True
        if claim.kind != truth.kind:
            return False  # forms compare a thing with its own kind, and parts are named by it
        if truth.form is not None and claim.form is not None and _opposed(truth.form, claim.form):
            return True
        if truth.accent is None or claim.accent is None or truth.accent[0] != claim.accent[0]:
            return False
        return _unlike(truth.accent[1], claim.accent[1], _same_paint)

    def _may_be(self, one: str, other: str) -> bool:
        key = (one, other) if one < other else (other, one)
        if key not in self._kinship:
            toy = self.toys and one in kinds.KINDS and other in kinds.KINDS
            known = {name: self._noun(name) for name in key} | dict(self.nouns)
            found = may_be(one, other, known) or (toy and pools.unsure(one, other))
            self._kinship[key] = found or _says_as_much(known[one], known[other])
        return self._kinship[key]

    @cached_property
    def _kinship(self) -> dict[tuple[str, str], bool]:
        return {}

    def some_misses(self, spec: Spec, rng: Rng, count: int, split: str | None = None) -> list[Spec]:
        """Draw a few near misses, of a split or of any: half of structure if there are any, half of colour, stuff or kind."""
        if self._toy(spec):
            return [claim for claim in TOYS.some_misses(spec, rng, count, split) if self.contradicts(spec, claim)]
        groups = [[group[k] for k in rng.permutation(len(group))] for group in self._changes(spec)]
        found: list[Spec] = []
        while len(found) < count and any(groups):
            group = groups[int(rng.integers(2))]
            if group and self.contradicts(spec, claim := group.pop()) and split in (None, self.split_of(claim)):
                found.append(claim)
        return found

    def pool(self, spec: Spec, rng: Rng, size: int = 100, near: int = 20) -> list[Spec]:
        """Gather the claims among which a judge must find ``spec``: itself first, then near misses, then random ones; no two
        are worded alike. A world of too few words gives fewer.
        """
        chosen = {self.canonical(spec): spec}
        for claim in self.some_misses(spec, rng, 2 * near):
            if len(chosen) <= near:
                chosen.setdefault(self.canonical(claim), claim)
        for _ in range(100 * size):
            if len(chosen) >= size:
                break
            claim = self.sample(rng, None)
            if self.contradicts(spec, claim):
                chosen.setdefault(self.canonical(claim), claim)
        return list(chosen.values())

    def _changes(self, spec: Spec) -> tuple[list[Spec], list[Spec]]:
        """What differs from a spec in one respect: in structure, and in colour, stuff or kind."""
        structure, rest = list(_exchanged(spec)), []
        for i, item in enumerate(spec.items):

            def put(other: Item, i: int = i) -> Spec:
                return replace(spec, items=(*spec.items[:i], other, *spec.items[i + 1 :]))

            if item.form is not None and item.form in _OPPOSITE:
                structure.append(put(replace(item, form=_OPPOSITE[item.form])))
            if item.count > 1:
                structure += [put(replace(item, count=n)) for n in _NUMBERS if n != item.count]
            if item.paint is not None:
                rest += [put(replace(item, paint=paint)) for paint in PAINTS]
            if item.stuff is not None:
                rest += [put(replace(item, stuff=stuff)) for stuff in STUFF]
            rest += [put(replace(item, kind=other)) for other in self._siblings(item.kind)]
        return structure, rest

    def _siblings(self, kind: str) -> list[str]:
        """Nouns of the same section."""
        group = self._noun(kind).group
        return [name for name, noun in self.nouns.items() if noun.group == group and name != kind]

    def answers(self) -> Mapping[str, Sequence[Any]]:
        """The possible values of an item's attributes, by field, and of "relation"; the first means that nothing is said."""
        toys = TOYS.answers() if self.toys else {}
        return {
            "kind": _union((None, *self.nouns), toys.get("kind", ())),
            "paint": _union((None, *PAINTS), toys.get("paint", ())),
            "form": (None, *FORMS, *BOTH_FORMS),
            "accent": toys.get("accent", (None,)),
            "count": toys.get("count", (1, 2, 3)),
            "stuff": (None, *STUFF),
            "relation": _union((None, *RELATIONS), toys.get("relation", ())),
        }


def _says_as_much(one: Noun, other: Noun) -> bool:
    """Whether a whole caption and another, or a noun, may be true of the same thing: all words of one are among the other's."""
    if not (one.phrase or other.phrase):
        return False
    ways = [[set(grammar.words(text)) - {"a", "an", "the"} for text in (x.name, *x.synonyms)] for x in (one, other)]
    return any(a <= b or b <= a for a in ways[0] for b in ways[1])


def draw_sort(rng: Rng) -> str:
    """Draw which sort of spec to make (:data:`SHARES`)."""
    dice, bounds = rng.random(), itertools.accumulate(SHARES.values())
    return next((sort for sort, bound in zip(SHARES, bounds, strict=True) if dice < bound), "relation")


def _union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _any(options: Sequence[_T], rng: Rng) -> _T:
    return options[int(rng.integers(len(options)))]


def _complete(way: str, item: Item) -> bool:
    """Whether a template says all that is known of an item, and leaves no gap where its sense needs a word."""
    needs = {"{made}": item.stuff, "in {paint}": item.paint, "that is {paint}": item.paint, "that is {form}": item.form}
    if any(part in way and value is None for part, value in needs.items()):
        return False
    says = {"{paint}": item.paint, "{form}": item.form}
    if any(value is not None and part not in way for part, value in says.items()):
        return False
    return item.stuff is None or "{stuff}" in way or "{made}" in way


def _exchanged(spec: Spec) -> Iterator[Spec]:
    """Scenes of the same two things, differently."""
    if spec.relation is None:
        return
    one, other = spec.items
    yield Spec((replace(one, paint=other.paint), replace(other, paint=one.paint)), spec.relation)
    yield Spec((other, one), spec.relation)
    yield from (Spec(spec.items, relation) for relation in RELATIONS if relation != spec.relation)


def _unlike(one: str | None, other: str | None, same: Callable[[str, str], bool]) -> bool:
    return one is not None and other is not None and one != other and not same(one, other)


def _same_paint(one: str, other: str) -> bool:
    return colours.alike(one, other) or grammar.alike(one, other)


def _same_stuff(one: str, other: str) -> bool:
    return (one, other) in _MIXED_UP or (other, one) in _MIXED_UP


def _opposed(one: str, other: str) -> bool:
    return any(pools.OPPOSITES[word] in other.split() for word in one.split())
