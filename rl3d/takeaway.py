"""What a user takes away of an object, from a run or a file: splats, meshes, films, pictures, a data set, a page."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import trimesh

from rl3d.assets import load_asset
from rl3d.export.meshes.files import mesh_bytes
from rl3d.export.meshes.meshing import Meshing, shape, to_mesh
from rl3d.export.meshes.reading import holds_mesh, read_mesh
from rl3d.export.meshes.report import report, report_page
from rl3d.export.meshes.texture import Baking, textured
from rl3d.export.nerfstudio import Posed, data_set
from rl3d.export.page import Exhibit, page
from rl3d.export.pictures import (
    Entry,
    Turntable,
    check_mp4,
    colour_of,
    comparison_sheet,
    contact_sheet,
    gif_bytes,
    mp4_bytes,
    png_bytes,
    thumbnail,
)
from rl3d.export.splats.files import splat_bytes
from rl3d.files import write_folder, write_whole
from rl3d.representations.mesh import TexturedMesh
from rl3d.run import Run
from rl3d.snapshot import Snapshot, read_checkpoint, read_snapshot, saved_steps, scene_path
from rl3d.start import fitted_mesh
from rl3d.types import Look, Splats

Format = Literal[
    *("ply", "compressed.ply", "splat", "spz", "splats.glb"),
    *("glb", "obj", "stl", "mesh.ply", "usdz"),
    *("mp4", "gif", "png", "nerfstudio", "html"),
]
"""Splats, meshes, and what is looked at."""

MESHES = {"glb", "obj", "stl", "mesh.ply", "usdz"}
TEXTURED = {"glb", "obj", "usdz", "html"}
"""Formats that show a texture; for others none is made."""


@dataclass(frozen=True)
class Sheet:
    """A picture of eight sides, or one that compares objects."""

    size: int = 256
    """Pixels along each side of a view."""
    background: str = "white"
    """A colour ("white", "#aabbcc"), or "transparent", but for comparisons."""

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"a view has 1 pixel or more, got {self.size}")
        colour_of(self.background)


@dataclass(frozen=True)
class Settings:
    """How things are made."""

    colours: Literal["texture", "vertices"] = "texture"
    """Where a mesh's colours are."""
    report: bool = True
    """Whether a mesh comes with a report of its quality, mesh-report.json and mesh-report.html."""
    metres: float = 1.0
    """What a unit of ours, the radius of the sphere that an object fits in, is in files of meshes."""
    mesh: Meshing = field(default_factory=Meshing)
    """For meshes, of what is none."""
    texture: Baking = field(default_factory=Baking)
    """For textures."""
    turntable: Turntable = field(default_factory=Turntable)
    """For mp4 and gif."""
    sheet: Sheet = field(default_factory=Sheet)
    """For png."""
    posed: Posed = field(default_factory=Posed)
    """For nerfstudio."""

    def __post_init__(self):
        if not 0 < self.metres < float("inf"):
            raise ValueError(f"a unit is more than 0 metres, got {self.metres}")


@dataclass(frozen=True)
class Source:
    """An object to take away."""

    folder: Path
    """Where its files go unless told otherwise."""
    prefix: str
    """What their names begin with: nothing in a run's own folder."""
    name: str
    title: str
    """What was asked for, or else the name."""
    look: Look
    splats: Callable[[], Splats]
    mesh: trimesh.Trimesh | None = None
    """Its own, where it is a mesh."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What is not as it should be."""


def open_source(path: Path) -> Source:
    """Open a run's folder or an asset's file, as data alone: no recipe is run.

    A radiance field is seen itself, and its splats are those that the run fitted to it. A run that is not finished is seen as
    its newest checkpoint has it.

    Raises:
        ValueError: if it is neither, is damaged, or has no checkpoint yet.
    """
    if not path.exists():
        raise ValueError(f"there is no {path}: name a run's folder, or a file of splats or of a mesh")
    if path.is_dir():
        return _from_run(Run(path))
    asset = load_asset(path)
    mesh = fitted_mesh(read_mesh(path)) if holds_mesh(path) else None
    size = {"Faces": f"{len(mesh.faces):,}"} if mesh is not None else {"Gaussians": f"{len(asset.splats):,}"}
    named = {"folder": path.parent, "prefix": f"{path.stem}-", "name": path.name, "title": path.stem}
    return Source(**named, look=asset.look, splats=lambda: asset.splats, mesh=mesh, facts=size)  # pyright: ignore


def _from_run(run: Run) -> Source:
    about, summary = run.about, run.summary
    named: dict[str, Any] = {"folder": run.folder, "name": run.folder.resolve().name, "title": run.title}
    facts = {"Recipe": about["recipe"], "Seed": str(about["seed"])}
    if summary is None:
        now = read_checkpoint(run)
        facts["Steps so far"] = f"{now.step:,}"
        prefix = f"step_{now.step:05d}-"
        return Source(**named, prefix=prefix, look=now.look, splats=cache(now.splats), mesh=_own_mesh(now), facts=facts)
    facts |= {"Steps": f"{summary['steps']:,}", "Gaussians": f"{summary['gaussians']:,}", "Time": _time(summary["seconds"])}
    if "faces" in summary:
        facts["Faces"] = f"{summary['faces']:,}"
    asset, note = load_asset(run.folder), ""
    mesh = None
    try:
        final = _final_scene(run, summary["steps"])
        look, mesh = final.look, _own_mesh(final)
    except ValueError as error:
        mesh = read_mesh(run.folder / "mesh.glb") if "faces" in summary else None
        whole = "splats" if mesh is None else "mesh"
        look, note = asset.look, f"seen by its {whole} alone: {error}"
    named |= {"mesh": mesh, "scores": summary["scores"], "facts": facts, "note": note}
    return Source(**named, prefix="", look=look, splats=lambda: asset.splats)


def _own_mesh(now: Snapshot) -> trimesh.Trimesh | None:
    """The scene's mesh, where it is one."""
    return now.scene.to_trimesh() if isinstance(now.scene, TexturedMesh) else None


def _final_scene(run: Run, step: int) -> Snapshot:
    """The scene that a run ended with: in its checkpoint, unless it was stopped after it or went back to an earlier state."""
    try:
        found = read_checkpoint(run)
        if found.step == step:
            return found
    except ValueError:
        if step not in saved_steps(run):
            raise
    if step not in saved_steps(run):
        raise ValueError(f"{run.folder} keeps no scene of step {step}")
    return read_snapshot(scene_path(run, step))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def check(formats: Sequence[str], settings: Settings) -> list[Format]:
    """Refuse what cannot be had before anything is made.

    Raises:
        ValueError: if there is no such format, it needs a package that is missing, or the settings do not suit it.
    """
    known = get_args(Format)
    unknown = [name for name in formats if name not in known]
    if unknown or not formats:
        raise ValueError(f"there is no format {', '.join(unknown) or '(none given)'}: choose some of {', '.join(known)}")
    if "usdz" in formats and importlib.util.find_spec("pxr") is None:
        raise ValueError("usdz needs usd-core: pip install 'rl3d[usd]', or leave out usdz")
    if "mp4" in formats:
        check_mp4(settings.turntable)
    return list(dict.fromkeys(formats))  # pyright: ignore[reportReturnType]


def take_away(source: Source, formats: Sequence[Format], settings: Settings, folder: Path) -> Iterator[Path]:
    """Write an object in some formats; yields each file (or folder) when it is whole.

    Raises:
        ValueError: if there is nothing to write, such as no surface for a mesh; what was yielded before stays.
    """
    if not TEXTURED & set(formats):
        settings = replace(settings, colours="vertices")
    mesh = cache(lambda: made_mesh(source, settings))

    def path(name: str) -> Path:
        return folder / f"{source.prefix}{name}"

    def whole(name: str, data: bytes) -> Path:
        write_whole(path(name), data)
        return path(name)

    for kind in formats:
        match kind:
            case "ply" | "compressed.ply" | "splat" | "spz":
                yield whole(f"asset.{kind}", splat_bytes(source.splats(), kind))
            case "splats.glb":
                yield whole("splats.glb", splat_bytes(source.splats(), "glb"))
            case "glb" | "stl" | "usdz" | "obj" | "mesh.ply":
                suffix = kind.removeprefix("mesh.")
                stem = f"{source.prefix}mesh".replace(" ", "_")
                made = mesh_bytes(mesh(), suffix, metres=settings.metres, name=source.title, stem=stem)
                # Of an OBJ's files the one that names the others comes last, so that it finds them.
                for name, data in ({f"{stem}.{suffix}": made} if isinstance(made, bytes) else made).items():
                    write_whole(folder / name, data)
                    yield folder / name
            case "mp4":
                yield whole("turntable.mp4", mp4_bytes(source.look, settings.turntable))
            case "gif":
                yield whole("turntable.gif", gif_bytes(source.look, settings.turntable))
            case "png":
                yield whole("sheet.png", png_bytes(contact_sheet(source.look, settings.sheet.size, settings.sheet.background)))
            case "nerfstudio":
                target = path("nerfstudio")
                if target.exists() and not (target / "transforms.json").is_file():
                    raise ValueError(f"{target} is there, and is no data set: move it away, or choose another --out")
                write_folder(target, data_set(source.look, settings.posed))
                yield target
            case "html":
                yield whole("page.html", page([exhibit(source, mesh)]).encode())
    if settings.report and source.mesh is None and MESHES & set(formats):
        facts = report(mesh(), source.look)
        yield whole("mesh-report.json", (json.dumps(facts, indent=2) + "\n").encode())
        yield whole("mesh-report.html", report_page(facts, mesh(), source.look, title=source.title).encode())


def made_mesh(source: Source, settings: Settings) -> trimesh.Trimesh:
    """The object's own mesh, or one made of what it looks like."""
    if source.mesh is not None:
        return source.mesh
    if settings.colours == "vertices":
        return to_mesh(source.look, settings.mesh)
    return textured(shape(source.look, settings.mesh)[0], source.look, settings.texture)


def exhibit(source: Source, mesh: Callable[[], trimesh.Trimesh]) -> Exhibit:
    """An object for the page: its splats and mesh, or its mesh alone where it is one; splats alone where it has no surface."""
    picture = thumbnail(source.look)
    if source.mesh is not None:
        return Exhibit(source.title, picture, mesh=source.mesh, scores=source.scores, facts=source.facts)
    facts = dict(source.facts)
    try:
        surface = mesh()
        facts["Faces"] = f"{len(surface.faces):,}"
    except ValueError as error:
        surface, facts["Mesh"] = None, f"none: {error}"
    return Exhibit(source.title, picture, source.splats(), surface, source.scores, facts)


def gallery(sources: Sequence[Source], settings: Settings, path: Path) -> Path:
    """Write one page of several objects."""
    write_whole(path, page([exhibit(source, lambda s=source: made_mesh(s, settings)) for source in sources]).encode())
    return path


def compare(sources: Sequence[Source], settings: Settings, path: Path) -> Path:
    """Write one picture of several objects, all from the same sides."""
    entries = [Entry(s.look, s.title, s.name if s.name != s.title else "", s.scores) for s in sources]
    write_whole(path, png_bytes(comparison_sheet(entries, settings.sheet.size, settings.sheet.background)))
    return path
