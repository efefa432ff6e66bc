"""Choose the held-out prompts about real objects: ``python -m rl3d.world.prompts FOLDER``, of what ``rl3d world fetch`` made.

Each prompt is about objects that no training sees, and names them. A sixth are relations, a third other combinations of
attributes that are held out as well, and the rest are objects as they are; these last are other objects in each set.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rl3d.toybox.things import Rng, Spec
from rl3d.world.dataset import Draw, Stock

SIZES = {"validation": 48, "test": 72}
"""To tune on, and sealed for the record."""

SHARE = 40
"""Percent of the objects that only the validation set shows as they are."""


def choose(
    draw: Draw, split: str, size: int, rng: Rng, most: int = 3, tries: int = 200_000
) -> list[tuple[str, Spec, list[str]]]:
    """Draw prompts of a split, with their specs and the ids of what they are about; no two alike, every noun at most ``most``
    times. A stock of too few objects gives fewer.
    """
    language = draw.stock.language
    room = {"relation": size // 6, "combination": size // 3, "plain": size - size // 6 - size // 3}
    chosen: dict[str, tuple[str, Spec, list[str]]] = {}
    used: Counter[str] = Counter()
    for _ in range(tries):
        if not any(room.values()):
            break
        spec, some = draw.spec(rng)
        nouns = Counter(item.kind for item in spec.items)
        own = language.split_of(spec)
        if own == "train":
            sort, fits = "plain", spec.relation is None and split == _set_of(some[0].id)
        else:
            sort, fits = "relation" if spec.relation else "combination", own == split
        plain = language.canonical(spec)
        if fits and room[sort] and plain not in chosen and all(used[noun] + n <= most for noun, n in nouns.items()):
            chosen[plain] = language.caption(spec, rng), spec, [thing.id for thing in some]
            used += nouns
            room[sort] -= 1
    return list(chosen.values())


def _set_of(id: str) -> str:
    return "validation" if zlib.crc32(f"prompts {id}".encode()) % 100 < SHARE else "test"


def main() -> None:
    """Write both sets into the package."""
    parser = argparse.ArgumentParser(prog="python -m rl3d.world.prompts", description=__doc__)
    parser.add_argument("folder", type=Path)
    draw = Draw(Stock.open(parser.parse_args().folder, "unseen"))
    for split, size in SIZES.items():
        chosen = choose(draw, split, size, np.random.default_rng(size))
        lines = [json.dumps({"prompt": text, "spec": asdict(spec), "things": ids}) + "\n" for text, spec, ids in chosen]
        path = Path(__file__).parent / "prompts" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))


if __name__ == "__main__":
    main()
