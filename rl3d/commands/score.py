"""``rl3d score``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from rl3d.assets import load_asset
from rl3d.commands.words import device_here
from rl3d.scoring import USUAL, reward_of, score, table
from rl3d.types import Prompt


@dataclass(frozen=True)
class Score:
    """Score an asset with any rewards, from eight sides that no optimization has seen, and print a table."""

    path: Positional[Path]
    """A run's folder, a PLY of Gaussians, or a .glb, .gltf or .obj mesh."""
    prompt: str = ""
    """What it should be; a run knows."""
    negative: str = ""
    rewards: tuple[str, ...] = USUAL
    """Names, such as encoder, judge, whole, stands, drop, verified (a wrong one lists all); clip:MODEL[:PRETRAINED];
    trained:FOLDER; FILE.py:NAME for one of your own."""
    json: bool = False
    """Print JSON."""
    device: str = "cpu"


def main(words: list[str]) -> None:
    """Score an asset."""
    asked = tyro.cli(Score, args=words, prog="rl3d score")
    parts = {name: reward_of(name) for name in asked.rewards}
    if not asked.path.exists():
        raise ValueError(f"there is no asset {asked.path}: check the path")
    asset = load_asset(asked.path)
    prompt = Prompt(asked.prompt.strip(), asked.negative) if asked.prompt.strip() else asset.prompt
    if prompt is None or not prompt.text:
        raise ValueError(f'{asked.path} does not say what it should be: add --prompt "a red mug"')
    scores = score(asset, prompt, parts, device_here(asked.device))
    if asked.json:
        # Without bounds there is no number that JSON could hold.
        for told in scores.values():
            told["range"] = [x if math.isfinite(x) else None for x in told["range"]]
        print(json.dumps({"path": str(asked.path), "prompt": prompt.plain(), "scores": scores}, indent=2, ensure_ascii=False))
        return
    print(f"{asked.path}: {prompt.text}\n\n{table(scores)}")
