"""A reward that is hacked, and what tells: ``python bench/hacked.py [--prompt "a red mug"]``.

The default and reward ascent alone (``bench/reward_alone.py``) start from the same drawn views. The figure has both assets, and
what the reward and the guards said on the way; the alarm is the run's own (:func:`rl3d.rewards.guards.alarm`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import imageio.v3 as imageio
import matplotlib.pyplot as plt
import tyro

from rl3d.run import Run

SHOWN = {"reward": "reward", "judge": "judge", "colours": "colour entropy, bits"}


@dataclass(frozen=True)
class Settings:
    prompt: str = "a red mug"
    steps: int = 240
    seed: int = 0
    least: float = 0.02
    """Of the alarm: a guard that falls by less than this fraction has not fallen."""
    work: Path = Path("runs/bench-hacked")
    out: Path = Path("docs/hacked.png")


def main(s: Settings) -> None:
    runs = {"default": "default", "reward alone": str(Path(__file__).with_name("reward_alone.py"))}
    common = ("--draw.candidates", "1", "--steps", str(s.steps), "--seed", str(s.seed), "--watch.least", str(s.least))
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6))
    for row, (name, recipe) in enumerate(runs.items()):
        out = s.work / name.replace(" ", "-")
        command = [sys.executable, "-m", "rl3d", "generate", s.prompt, "--recipe", recipe, *common, "--out", str(out)]
        subprocess.run(command, check=True)
        picture = imageio.imread(out / "preview.png")
        axes[row, 0].imshow(picture[: picture.shape[0] // 2, : picture.shape[1] // 2])
        axes[row, 1].imshow(picture[picture.shape[0] // 2 :, : picture.shape[1] // 2])
        for axis in axes[row, :2]:
            axis.axis("off")
        alert = json.loads((out / "summary.json").read_text()).get("alert")
        told = f"alarm at step {alert['step']}: {', '.join(alert['fallen'])} fell" if alert else "no alarm"
        axes[row, 0].set_title(f"{name}: {told}", loc="left", fontsize=10)
        looks = [(look["step"], look["guards"]) for look in Run(out).metrics() if look.get("guards")]
        for axis, keys in ((axes[row, 2], ("reward", "judge")), (axes[row, 3], ("colours",))):
            for key in keys:
                axis.plot([step for step, _ in looks], [guards[key] for _, guards in looks], label=SHOWN[key])
            axis.legend(frameon=False, fontsize=9)
            axis.grid(color="0.9")
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel("step")
    for column in (2, 3):
        low = min(axis.get_ylim()[0] for axis in axes[:, column])
        high = max(axis.get_ylim()[1] for axis in axes[:, column])
        for axis in axes[:, column]:
            axis.set_ylim(low, high)
    figure.tight_layout()
    figure.savefig(s.out, dpi=90)


if __name__ == "__main__":
    main(tyro.cli(Settings))
