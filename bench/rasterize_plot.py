"""Draw how the rasterizer's cost grows: ``python bench/rasterize_plot.py``, from what ``bench/rasterize.py --json`` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro


@dataclass(frozen=True)
class Settings:
    json: Path = Path("bench/results/rasterize.json")
    out: Path = Path("docs/rasterizer.png")


def short(n: int) -> str:
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}k" if n >= 1000 else str(n)


def main(s: Settings) -> None:
    cases = json.loads(s.json.read_text())["cases"].values()
    rows = [x for x in cases if "blending_ms" in x and x["gaussians"] != 2_000 and x.get("large", 1) == 1]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True)

    def draw(axis, x: str, line: str, chosen: Callable[[dict[str, Any]], bool], label: Callable[[int], str]) -> None:
        kept = [row for row in rows if chosen(row)]
        for i, value in enumerate(sorted({row[line] for row in kept})):
            points = sorted((row[x], row["ms"]["forward_backward"], row["blending_ms"]) for row in kept if row[line] == value)
            if len(points) < 2:
                continue
            across, whole, blending = zip(*points, strict=True)
            color = plt.get_cmap("viridis")(0.85 * i / max(1, len({row[line] for row in kept}) - 1))
            axis.plot(across, whole, "o-", color=color, label=label(value), markersize=4)
            axis.plot(across, blending, ":", color=color)
        ticks = sorted({row[x] for row in kept})
        axis.set(xscale="log", yscale="log", xticks=ticks)
        axis.set_xticks([], minor=True)
        axis.set_xticklabels([short(tick) if x == "gaussians" else tick for tick in ticks])
        axis.grid(color="0.9")
        axis.legend(frameon=False, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)

    draw(axes[0], "gaussians", "size", lambda row: row["cameras"] == 1, lambda size: f"{size} x {size}")
    draw(axes[1], "size", "gaussians", lambda row: row["cameras"] == 1, lambda n: f"{short(n)} Gaussians")
    draw(axes[2], "cameras", "size", lambda row: row["gaussians"] == 10_000, lambda size: f"{size} x {size}")
    axes[0].set(xlabel="Gaussians (one camera)", ylabel="forward + backward, ms")
    axes[1].set(xlabel="width and height in pixels (one camera)")
    axes[2].set(xlabel="cameras (10k Gaussians)")
    figure.suptitle("Whole call (lines) and blending alone (dots), two cores", fontsize=11)
    figure.tight_layout()
    figure.savefig(s.out, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Settings))
