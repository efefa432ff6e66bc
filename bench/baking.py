"""What is lost from an asset to its textured mesh, and how long it takes: ``python bench/baking.py RUNS [RUNS ...]``.

RUNS are folders of finished runs. Each asset is meshed, unwrapped and baked with the exporters' own settings, then looked at
from 20 sides that were not baked. Rows go to a JSON file as they come; a second call does what is missing. ``--picture`` draws
the worst.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import trimesh
import tyro
from PIL import Image

from rl3d.export.meshes.meshing import Meshing, shape
from rl3d.export.meshes.report import report, unseen_cameras
from rl3d.export.meshes.texture import Baking, textured
from rl3d.export.splats.ply import read_ply
from rl3d.files import write_whole
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh
from rl3d.types import Look

COLUMNS = (
    ("IoU", "silhouette_iou", "{:.3f}"),
    ("PSNR white", "psnr_white", "{:.1f}"),
    ("black", "psnr_black", "{:.1f}"),
    ("limit white", "psnr_limit_white", "{:.1f}"),
    ("black", "psnr_limit_black", "{:.1f}"),
    ("solid white", "psnr_solid_white", "{:.1f}"),
    ("black", "psnr_solid_black", "{:.1f}"),
    ("core", "psnr_core", "{:.1f}"),
    ("SSIM white", "ssim_white", "{:.3f}"),
)


@dataclass(frozen=True)
class Settings:
    """Which assets, and how."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs."""
    baking: Baking = field(default_factory=Baking)
    meshing: Meshing = field(default_factory=Meshing)
    limit: int | None = None
    """Only the first so many assets."""
    rows: Path = Path("bench/results/baking.json")
    cache: Path = Path(".cache/baking")
    """Where pictures are kept."""
    picture: Path | None = None
    """Where to draw the five of the lowest IoU, beside their representations."""


def measured(s: Settings, run: Path) -> dict[str, Any]:
    """A row of one run; pictures of its mesh go to the cache."""
    look = look_at(read_ply(run / "asset.ply"))
    marks = [(time.process_time(), time.monotonic())]
    mesh, _ = shape(look, s.meshing)
    marks.append((time.process_time(), time.monotonic()))
    baked = textured(mesh, look, s.baking)
    marks.append((time.process_time(), time.monotonic()))
    cpu, wall = (np.diff([mark[i] for mark in marks]).round(1).tolist() for i in (0, 1))
    seconds = {"shape_cpu_s": cpu[0], "bake_cpu_s": cpu[1], "shape_s": wall[0], "bake_s": wall[1]}
    s.cache.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(look, baked)).save(s.cache / f"{run.name}.png")
    return {"run": run.name, **seconds, **report(baked, look)}


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each asset, the worst silhouette first, and the means."""
    head = f"{'':42}" + "".join(f"{title:>12}" for title, _, _ in COLUMNS) + f"{'seconds':>9}{'faces':>7}{'cuts':>6}"
    lines = [head]
    for row in sorted(rows, key=lambda row: row["bake_gap"]["silhouette_iou"]):
        gap, faces = row["bake_gap"], row["topology"]
        cells = "".join(f"{form.format(gap[key]):>12}" for _, key, form in COLUMNS)
        seconds = row["shape_s"] + row["bake_s"]
        lines.append(f"{row['run'][:41]:42}{cells}{seconds:9.1f}{faces['faces']:7d}{faces['self_intersections']:6d}")
    means = "".join(f"{form.format(np.mean([row['bake_gap'][key] for row in rows])):>12}" for _, key, form in COLUMNS)
    seconds = [row["shape_s"] + row["bake_s"] for row in rows]
    lines.append(f"{f'mean of {len(rows)}':42}{means}{np.mean(seconds):9.1f}")
    good = [row["bake_gap"]["silhouette_iou"] >= 0.97 for row in rows]
    closed = sum(row["topology"]["watertight"] for row in rows)
    lines.append(f"IoU at least 0.97: {sum(good)} of {len(rows)}; watertight: {closed}; longest: {max(seconds):.1f} s")
    return "\n".join(lines)


def drawn(look: Look, mesh: trimesh.Trimesh) -> np.ndarray:
    """Three unseen views of the representation, and of its mesh beside."""
    cameras = unseen_cameras().resized(144, 144).select([5, 8, 12])
    shown = [torch.cat(list(some(cameras).over(1.0)[0].clamp(0, 1)), 1) for some in (look, look_at_mesh(mesh))]
    return (255 * torch.cat(shown, 1)).round().byte().numpy()


def main(s: Settings) -> None:
    runs = [run for folder in s.runs for run in sorted(folder.iterdir()) if (run / "asset.ply").is_file()][: s.limit]
    if not runs:
        raise SystemExit("no finished runs in " + ", ".join(map(str, s.runs)))
    done = {row["run"]: row for row in json.loads(s.rows.read_text())} if s.rows.is_file() else {}
    for run in runs:
        if run.name not in done:
            done[run.name] = measured(s, run)
            write_whole(s.rows, (json.dumps(list(done.values()), indent=1) + "\n").encode())
            print(run.name, done[run.name]["bake_gap"], flush=True)
    rows = [done[run.name] for run in runs]
    print(table(rows))
    if s.picture is not None:
        worst = sorted(runs, key=lambda run: done[run.name]["bake_gap"]["silhouette_iou"])[:5]
        rows_of_pixels = [np.asarray(Image.open(s.cache / f"{run.name}.png")) for run in worst]
        Image.fromarray(np.concatenate(rows_of_pixels)).save(s.picture, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
