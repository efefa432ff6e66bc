"""A reward that is hacked, and what tells: ``python bench/hacked.py [--prompt "a red mug"]``.

Reward ascent is run twice on the same drawn views: as the recipe has it, and with ten times the weight and without the shifts
and backgrounds that keep it honest. The figure has both assets, and what their rewards and guards said on the way.
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

HACKED = (
    *("--ratios.reward", "3", "--terms.reward.jitter", "0"),
    *("--terms.reward.backgrounds", "1", "--terms.reward.start", "0.2"),
)

SHOWN = {"reward": "reward (optimised)", "judge": "judge", "colours": "colour entropy, bits"}


@dataclass(frozen=True)
class Settings:
    prompt: str = "a red mug"
    steps: int = 240
    seed: int = 0
    work: Path = Path("runs/bench-hacked")
    out: Path = Path("docs/hacked.png")


def main(s: Settings) -> None:
    runs = {"as it should be": (), "hacked": HACKED}
    common = ("--recipe", "reward", "--draw.candidates", "1", "--steps", str(s.steps), "--seed", str(s.seed))
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6))
    for row, (name, flags) in enumerate(runs.items()):
        out = s.work / name.replace(" ", "-")
        command = [sys.executable, "-m", "rl3d", "generate", s.prompt, *common, *flags, "--out", str(out)]
        subprocess.run(command, check=True)
        picture = imageio.imread(out / "preview.png")
        axes[row, 0].imshow(picture[: picture.shape[0] // 2, : picture.shape[1] // 2])
        axes[row, 1].imshow(picture[picture.shape[0] // 2 :, : picture.shape[1] // 2])
        for axis in axes[row, :2]:
            axis.axis("off")
        alert = json.loads((out / "summary.json").read_text()).get("alert")
        told = f"alarm at step {alert['step']}: {', '.join(alert['fallen'])} fell" if alert else "no alarm"
        axes[row, 0].set_title(f"{name}: {told}", loc="left", fontsize=10)
        looks = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        looks = [(look["step"], look["guards"]) for look in looks if look.get("guards")]
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
