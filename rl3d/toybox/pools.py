"""What is true of a toy and what is not: near misses, hard pools of captions, and the sets of prompts for evaluation.

``python -m rl3d.toybox.pools`` writes the sets of prompts anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from rl3d.toybox import kinds
from rl3d.toybox.grammar import COLOURS, PAINTS, RELATIONS, alike, canonical, caption, sample, split_of
from rl3d.toybox.things import Item, Rng, Spec

OPPOSITES = {"tall": "short", "short": "tall", "wide": "narrow", "narrow": "wide", "big": "small", "small": "big"}

LOOKALIKES = (
    ("ball", "egg", "apple", "donut", "ring"),
    ("cube", "box", "cylinder", "drum", "cake"),
    ("cone", "pyramid", "tent", "pine", "rocket", "carrot", "ice cream"),
    ("chair", "armchair", "stool", "bench"),
    ("table", "stool", "bench", "bed"),
    ("sofa", "armchair", "bed", "bench"),
    ("bookshelf", "ladder", "box", "book", "clock"),
    ("mug", "bowl", "bucket", "vase", "teapot", "bottle", "candle"),
    ("lamp", "umbrella", "mushroom", "tree", "flower"),
    ("tree", "pine", "cactus", "flower"),
    ("hammer", "axe", "sword", "key", "guitar"),
    ("hat", "mushroom", "bowl", "drum"),
    ("car", "truck", "bus", "train"),
    ("boat", "airplane", "rocket", "fish"),
    ("house", "tower", "castle", "windmill", "lighthouse", "tent"),
    ("duck", "rabbit", "turtle", "fish"),
    ("dog", "cat", "rabbit", "pig", "teddy bear"),
    ("robot", "teddy bear", "snowman", "ghost"),
)
"""Kinds that look alike in the dark."""

UNSURE = (
    *(("tree", "pine"), ("chair", "armchair"), ("chair", "stool"), ("bench", "stool"), ("sofa", "armchair"), ("box", "cube")),
    *(("castle", "tower"), ("tower", "lighthouse"), ("ball", "egg"), ("ring", "donut"), ("bowl", "mug"), ("vase", "bottle")),
)
"""Pairs of kinds of which one might be called by the other's name: never certainly false."""


def entails(truth: Spec, claim: Spec) -> bool:
    """Whether ``claim`` is certainly true of every toy that is built from ``truth``.

    A claim about one thing is true of a scene of two if it is true of either.
    """
    if claim.relation is None:
        return any(_entails(item, claim.items[0]) for item in truth.items)
    if claim.relation != truth.relation:
        return False
    return any(all(map(_entails, items, claim.items)) for items in _orders(truth))


def contradicts(truth: Spec, claim: Spec, differ: Callable[[Item, Item], bool] | None = None) -> bool:
    """Whether ``claim`` is certainly false of every toy that is built from ``truth``.

    What the truth leaves open (natural paints, proportions), and what people may name either way, is not certainly false.
    ``differ`` says when a claim about one thing is false of it; by default as toys are.
    """
    differ = differ or _contradicts
    if claim.relation is None:
        if truth.relation is not None and claim.items[0].count == len(truth.items):
            return any(differ(item, replace(claim.items[0], count=1)) for item in truth.items)
        return all(differ(item, claim.items[0]) for item in truth.items)
    if truth.relation is None:
        (item,) = truth.items
        single = replace(item, count=1)
        return item.count == 1 or any(differ(single, other) for other in claim.items)
    if claim.relation != truth.relation:
        return True
    return all(any(map(differ, items, claim.items)) for items in _orders(truth))


def _orders(spec: Spec) -> list[tuple[Item, ...]]:
    return [spec.items, spec.items[::-1]] if spec.relation == "next to" else [spec.items]


def _entails(truth: Item, claim: Item) -> bool:
    same = truth.kind == claim.kind and truth.count == claim.count
    return same and all(getattr(claim, name) in (None, getattr(truth, name)) for name in ("paint", "form", "accent"))


def _contradicts(truth: Item, claim: Item) -> bool:
    if claim.count != truth.count and claim.count > 1:
        return True
    if claim.kind != truth.kind:
        return not unsure(truth.kind, claim.kind)
    if _differ(truth.paint, claim.paint) or (truth.form is not None and claim.form == OPPOSITES[truth.form]):
        return True
    if truth.accent is None or claim.accent is None:
        return False
    return truth.accent[0] == claim.accent[0] and _differ(truth.accent[1], claim.accent[1])


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other and not alike(one, other)


def unsure(one: str, other: str) -> bool:
    """Whether two kinds share a name, or people might mix them up."""
    names = [{kind.name, *kind.synonyms} for kind in (kinds.KINDS[one], kinds.KINDS[other])]
    return bool(names[0] & names[1]) or (one, other) in UNSURE or (other, one) in UNSURE


def near_misses(spec: Spec, rng: Rng) -> list[Spec]:
    """Change a spec in one respect so that it is certainly false of its toys: all ways to do so, each once.

    Changes of structure come first (things or colours exchanged, another relation, part, count or form), then in random order
    other colours and look-alike kinds.
    """
    structure, rest = _changes(spec, rng)
    order = [*structure, *(rest[k] for k in rng.permutation(len(rest)))]
    unique = {canonical(claim): claim for claim in order if contradicts(spec, claim)}
    return list(unique.values())


def some_misses(spec: Spec, rng: Rng, count: int, split: str | None = None) -> list[Spec]:
    """Draw a few near misses without listing all: half of them of structure where there are any, half of colour or kind.

    Where a split is given, only claims of it: a training that sees held-out combinations as near misses alone learns that they
    are always wrong.
    """
    groups = [[group[k] for k in rng.permutation(len(group))] for group in _changes(spec, rng)]
    found: list[Spec] = []
    while len(found) < count and any(groups):
        group = groups[int(rng.integers(2))]
        if group and contradicts(spec, claim := group.pop()) and split in (None, split_of(claim)):
            found.append(claim)
    return found


def _changes(spec: Spec, rng: Rng) -> tuple[list[Spec], list[Spec]]:
    """What differs from a spec in one respect, true of its toys or not: in structure, and in colour or kind."""
    structure, rest = list(_exchanged(spec)), []
    for i, item in enumerate(spec.items):
        structure += [_with(spec, i, other) for other in _structural(item, rng)]
        rest += [_with(spec, i, other) for other in _repainted(item)]
    return structure, rest


def _with(spec: Spec, index: int, item: Item) -> Spec:
    return replace(spec, items=(*spec.items[:index], item, *spec.items[index + 1 :]))


def _exchanged(spec: Spec) -> Iterator[Spec]:
    """Scenes of the same two things, differently."""
    if spec.relation is None:
        return
    one, other = spec.items
    yield Spec((replace(one, paint=other.paint), replace(other, paint=one.paint)), spec.relation)
    yield Spec((other, one), spec.relation)
    yield Spec((replace(one, kind=other.kind), replace(other, kind=one.kind)), spec.relation)
    for relation in RELATIONS:
        if relation != spec.relation and (relation != "inside" or kinds.KINDS[other.kind].container):
            yield Spec(spec.items, relation)


def _structural(item: Item, rng: Rng) -> Iterator[Item]:
    """The same thing in another form, another number, or with the colours of its parts changed."""
    if item.form is not None:
        yield replace(item, form=OPPOSITES[item.form])
    if item.count > 1:
        yield from (replace(item, count=n) for n in (item.count - 1, item.count + 1) if 2 <= n <= 4)
    if item.accent is not None:
        part, paint = item.accent
        if item.paint is not None:
            yield replace(item, paint=paint, accent=(part, item.paint))
        yield from (replace(item, accent=(part, str(other))) for other in rng.permutation(COLOURS)[:5])


def _repainted(item: Item) -> Iterator[Item]:
    """The same thing in other colours, and look-alikes in the same, or in any where it has none."""
    if item.paint is not None:
        yield from (replace(item, paint=paint) for paint in PAINTS)
    for group in LOOKALIKES:
        if item.kind in group:
            paints = (None, *COLOURS) if item.paint is None else (item.paint,)
            yield from (replace(item, kind=kind, accent=None, paint=paint) for kind in group for paint in paints)


def pool(spec: Spec, rng: Rng, size: int = 100, near: int = 20) -> list[Spec]:
    """Gather the claims among which a judge must find ``spec``: itself first, then ``near`` near misses, then random ones.

    All but the first are certainly false of its toys, and no two are worded alike. Where near misses are few, near misses of
    near misses make up for it. The same generator state gives the same pool.
    """
    misses = near_misses(spec, rng)
    if len(misses) < near:
        misses += [claim for miss in misses for claim in near_misses(miss, rng) if contradicts(spec, claim)]
    chosen = {canonical(spec): spec}
    for claim in misses:
        if len(chosen) <= near:
            chosen.setdefault(canonical(claim), claim)
    while len(chosen) < size:
        claim = sample(rng, None)
        if contradicts(spec, claim):
            chosen.setdefault(canonical(claim), claim)
    return list(chosen.values())


def choose_prompts(split: str, size: int, rng: Rng) -> list[tuple[str, Spec]]:
    """Draw prompts of a split: a sixth of them relations, a sixth with a second colour, and every kind at most twice."""
    room = {"relation": size // 6, "accent": size // 6, "other": size - 2 * (size // 6)}
    chosen, used = {}, Counter()
    while any(room.values()):
        spec = sample(rng, split)
        fresh = Counter(item.kind for item in spec.items)
        sort = "relation" if spec.relation else "accent" if spec.items[0].accent else "other"
        if room[sort] and canonical(spec) not in chosen and all(used[kind] + n <= 2 for kind, n in fresh.items()):
            chosen[canonical(spec)] = spec
            used += fresh
            room[sort] -= 1
    return [(caption(spec, rng), spec) for spec in chosen.values()]


def main() -> None:
    """Write the sets of prompts: 48 to tune on, 72 sealed for the record."""
    folder = Path(__file__).parent / "prompts"
    folder.mkdir(exist_ok=True)
    for split, size in (("validation", 48), ("test", 72)):
        chosen = choose_prompts(split, size, np.random.default_rng(size))
        lines = [json.dumps({"prompt": text, "spec": asdict(spec)}) + "\n" for text, spec in chosen]
        (folder / f"{split}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
