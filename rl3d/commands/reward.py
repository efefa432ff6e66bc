"""``rl3d reward train`` and ``rl3d reward wins``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from rl3d.choices import read_pairs
from rl3d.contest import report, wins
from rl3d.preferences import train_reward
from rl3d.rewards.clip import Clip


@dataclass(frozen=True)
class Train:
    """Fit a reward to recorded preferences; its format is described in rl3d/choices.py."""

    pairs: Positional[Path]
    """JSON lines, one for each comparison: {"prompt": ..., "a": PATH, "b": PATH, "preferred": "a", "annotator": ...}, of
    assets or pictures; "preferred" is "a", "b" or "tie"."""
    out: Path | None = None
    """Where the reward goes. Default: beside the pairs, named after them."""
    encoder: Clip = field(default_factory=Clip)
    """Whose features are used."""
    joint: bool = True
    """Whether all views are looked at together too, not only each alone."""
    held_out: float = 0.2
    """The share of comparisons that it is tested on."""
    seed: int = 0


@dataclass(frozen=True)
class Wins:
    """Say which of two recipes people prefer, and how sure that is; of choices as `rl3d view --prefer` records them."""

    choices: Positional[Path]
    """JSON lines, as for `rl3d reward train`."""
    between: Annotated[Positional[tuple[Path, ...]], arg(metavar="[DIR ...]")] = ()
    """The folders that hold the assets of each recipe. Default: those that the compared assets lie in."""


def main(words: list[str]) -> None:
    """Make a reward, or count preferences: ``rl3d reward train`` and ``rl3d reward wins``."""
    match words:
        case ["train", *rest]:
            train(tyro.cli(Train, args=rest, prog="rl3d reward train"))
        case ["wins", *rest]:
            asked = tyro.cli(Wins, args=rest, prog="rl3d reward wins")
            for found in wins(read_pairs(asked.choices, exist=False), asked.between):
                print(report(found))
        case _:
            raise ValueError("say what to do: rl3d reward train PAIRS.jsonl, or rl3d reward wins CHOICES.jsonl (--help: more)")


def train(asked: Train) -> None:
    """Fit a reward and say how well it predicts."""
    out = asked.out or asked.pairs.with_name(f"{asked.pairs.stem}-reward")
    fitted = train_reward(asked.pairs, out, encoder=asked.encoder, joint=asked.joint, held_out=asked.held_out, seed=asked.seed)
    low, high = fitted.accuracy_interval
    print(f"{fitted.pairs} comparisons, {fitted.held_out} of them held out by {fitted.held_out_by}")
    print(f"accuracy {fitted.accuracy:.3f} [{low:.3f}, {high:.3f}] held out, {fitted.accuracy_in_training:.3f} in training")
    print(f"log-loss {fitted.log_loss:.3f} (a coin's: 0.693), calibration error {fitted.calibration_error:.3f}")
    for name, right in fitted.by_annotator.items():
        print(f"  {name}: {right:.3f}")
    print(f"{out}: use it as Trained({str(out)!r}) in a recipe, or rl3d score ASSET --rewards trained:{out}")
