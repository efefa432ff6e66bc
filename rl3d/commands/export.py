"""``rl3d export``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from rl3d.takeaway import Settings, Source, check, compare, gallery, open_source, take_away


@dataclass(frozen=True)
class Export:
    """Write objects as files for other programs, as films and pictures, as a data set, or as a page to share.

    Splats: ply, compressed.ply, splat, spz, splats.glb. Meshes: glb, obj, stl, mesh.ply, usdz. To look at: mp4 and gif
    (turntables), png (eight sides), html (one page that needs no network). For training: nerfstudio (posed renders).
    """

    paths: Positional[tuple[Path, ...]]
    """Runs' folders, finished or not; files of splats or of a mesh."""
    format: str
    """One or several formats, with commas: ply,glb,mp4."""
    out: Path | None = None
    """The folder for what is made; in it each of several objects gets its own. Default: the run's, or beside the file."""
    compare: bool = False
    """For png: one sheet of all objects, a row each, from the same sides, with their scores."""
    settings: Annotated[Settings, arg(name="")] = field(default_factory=Settings)


def main(words: list[str]) -> None:
    """Export objects."""
    asked = tyro.cli(Export, args=words, prog="rl3d export")
    if not asked.paths:
        raise ValueError("say what to export, for example: rl3d export runs/a-red-mug --format glb,mp4")
    formats = check([name.strip().lower() for name in asked.format.split(",") if name.strip()], asked.settings)
    if asked.compare and ("png" not in formats or asked.settings.sheet.background == "transparent"):
        raise ValueError("--compare makes a png over a colour: add --format png, and no transparent background")
    if asked.out is not None and asked.out.exists() and not asked.out.is_dir():
        raise ValueError(f"{asked.out} is a file: name a folder")
    sources = [open_source(path) for path in asked.paths]
    console = Console(stderr=True)
    for source in sources:
        if source.note:
            console.print(f"[yellow]{source.name}: {source.note}[/yellow]", highlight=False)
    several = len(sources) > 1
    together = asked.out or _common(sources)
    # One page for several objects, and one sheet that compares them.
    each = [kind for kind in formats if not (kind == "html" and several) and not (kind == "png" and asked.compare)]
    with console.status("exporting") as status:
        for source, folder in zip(sources, _folders(sources, asked.out), strict=True):
            status.update(f"exporting {source.title}")
            _tell(take_away(source, each, asked.settings, folder))
        if "png" in formats and asked.compare:
            _tell([compare(sources, asked.settings, together / "comparison.png")])
        if "html" in formats and several:
            _tell([gallery(sources, asked.settings, together / "page.html")])


def _common(sources: list[Source]) -> Path:
    """The folder in which all runs lie, or the present one."""
    parents = {
        source.folder.resolve().parent if (source.folder / "run.json").is_file() else source.folder for source in sources
    }
    return parents.pop() if len(parents) == 1 else Path()


def _folders(sources: list[Source], out: Path | None) -> list[Path]:
    """Where each object's files go; of equal names the second gets a number."""
    if out is None:
        return [source.folder for source in sources]
    if len(sources) == 1:
        return [out]
    found: list[Path] = []
    for source in sources:
        names = (out / f"{Path(source.name).stem}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 10_000))))
        found.append(next(name for name in names if name not in found))
    return found


def _tell(paths: Iterable[Path]) -> None:
    for path in paths:
        size = sum(part.stat().st_size for part in (path.rglob("*") if path.is_dir() else [path]) if part.is_file())
        print(f"{path}  {size / 2**20:.2f} MB" if size >= 2**20 else f"{path}  {size / 2**10:.1f} KB")
