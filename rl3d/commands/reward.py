"""``rl3d reward train``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from tyro.conf import Positional

from rl3d.preferences import train_reward
from rl3d.rewards.clip import Clip


@dataclass(frozen=True)
class Train:
    """Fit a reward to recorded preferences; its format is described in rl3d/preferences.py."""

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


def main(words: list[str]) -> None:
    """Make a reward: ``rl3d reward train``."""
    if not words or words[0] != "train":
        raise ValueError("say what to do: rl3d reward train PAIRS.jsonl (--help: every setting)")
    asked = tyro.cli(Train, args=words[1:], prog="rl3d reward train")
    out = asked.out or asked.pairs.with_name(f"{asked.pairs.stem}-reward")
    fitted = train_reward(asked.pairs, out, encoder=asked.encoder, joint=asked.joint, held_out=asked.held_out, seed=asked.seed)
    low, high = fitted.accuracy_interval
    print(f"{fitted.pairs} comparisons, {fitted.held_out} of them held out by {fitted.held_out_by}")
    print(f"accuracy {fitted.accuracy:.3f} [{low:.3f}, {high:.3f}] held out, {fitted.accuracy_in_training:.3f} in training")
    print(f"log-loss {fitted.log_loss:.3f} (a coin's: 0.693), calibration error {fitted.calibration_error:.3f}")
    for name, right in fitted.by_annotator.items():
        print(f"  {name}: {right:.3f}")
    print(f"{out}: use it as Trained({str(out)!r}) in a recipe, or rl3d score ASSET --rewards trained:{out}")
