"""What the published networks say of true renders: ``python bench/published.py --networks FOLDER [--limit 40]``.

One true object of each held-out prompt stands in the place of an asset, two others are what it is compared with: how far the
judges that are not ours can be believed in a world, and whether their files are whole. "Same prompt" is how often the nearest
true object in DINOv2's features, by the mean of its views, is one of the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch.nn import functional as F

from rl3d.cameras import evaluation_cameras
from rl3d.evaluate.benchmark import ROWS, summarize
from rl3d.evaluate.independent import Panel, table
from rl3d.evaluate.worlds import RealWorld, ToyWorld, evenly, questions_of


@dataclass(frozen=True)
class Settings:
    """Whom to ask about what."""

    networks: Path = Path(".cache/networks")
    world: Literal["toys", "real"] = "toys"
    objects: Path = Path(".cache/world/debian")
    prompts: str = "validation"
    limit: int = 40
    """Prompts, spread evenly over the set."""
    seed: int = 5


def main(s: Settings) -> None:
    panel, cameras = Panel(s.networks), evaluation_cameras()
    world = RealWorld.open(s.objects) if s.world == "real" else ToyWorld()
    records = []
    for question in evenly(questions_of(world, s.prompts), s.limit):
        first, *others = [truth.views for truth in world.truths(question, cameras, s.seed, 3)]
        key = (world.name, question.prompt)
        records.append(panel.examine(key, question.spec, world.language, first, others))
    kinds = sum(kind is not None for kind in world.language.answers()["kind"])
    print(
        f"{len(records)} prompts of {s.prompts}, {s.world}; {kinds} nouns, {sum('conse_r1' in r for r in records)} asked for\n"
    )
    for (title, (own, true)), (*_, form) in zip(summarize(records).items(), ROWS, strict=True):
        if own is not None and true is not None:
            print(f"{title:26}{form.format(own):>10}{form.format(true):>10}")
    print(table(panel.compare(panel.seen)))
    some = [seen for seen in panel.seen.values() if seen.true]
    own, true = (F.normalize(torch.stack(x).mean(1), dim=-1) for x in ([s.own for s in some], [s.true[0] for s in some]))
    print(f"{'same prompt':26}{float(((own @ true.T).argmax(1) == torch.arange(len(some))).float().mean()):>10.1%}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
