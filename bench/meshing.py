"""What the mesh exporter loses: ``python bench/meshing.py [--limit 3]``, and ``--picture docs/meshing.png`` once it is done.

Splats are fitted to true renders of toys, so that neither prior nor optimisation is measured; they are meshed in several
ways, and compared with what is seen of the true surface: Chamfer distance (mean over both directions, in world units; the
object fits the unit sphere) and F-score at 0.01. The "exact" row fuses the true renders' depth instead, and shows what fusion
alone loses. Poisson is the screened one of pymeshlab (Kazhdan & Hoppe 2013) from the points and normals of the same renders.
Rows are kept; a second call does what is missing. Seconds are of CPU, all threads together, without the fit; of decimated and
closed meshes, those beyond the dense mesh's.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
import tyro
from jaxtyping import Float
from numpy import ndarray

from rl3d.cameras import lattice_cameras, look_at_origin
from rl3d.export.meshes.meshing import QUICK, Meshing, shape, to_mesh
from rl3d.export.pictures import png_bytes
from rl3d.export.splats.ply import ply_bytes, read_ply
from rl3d.files import write_whole
from rl3d.geometry.fit import fit_splats
from rl3d.geometry.hull import project, sample_pixels
from rl3d.geometry.remesh import decimate, watertight
from rl3d.geometry.tsdf import depth_bias, orbit_cameras, surface
from rl3d.render import mesh as raster
from rl3d.render.gaussians import look_at
from rl3d.render.surface import points_from_depth
from rl3d.render.textured import look_at_mesh
from rl3d.toybox.assemble import Toy, build
from rl3d.toybox.render import render, triangles
from rl3d.toybox.things import Item, Spec
from rl3d.types import Cameras, Look, Splats, Views

KINDS = ["mug", "chair", "lamp", "ladder", "box", "key", "umbrella", "tree", "windmill", "teapot", "castle", "airplane"]
POINTS = 50_000
TOLERANCE = 0.01
"""Of the F-score, in world units."""
WAYS = (
    "before",
    "quick",
    "256^3",
    "20k faces",
    "20k faces, watertight",
    "Poisson",
    "Poisson, bias removed",
    "exact depth, 256^3",
)


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    limit: int | None = None
    """Only the first so many toys."""
    rows: Path = Path("bench/results/meshing.json")
    cache: Path = Path(".cache/meshing")
    """Where fitted splats are kept."""
    picture: Path | None = None
    """Draw meshes side by side into this PNG instead."""


def toy_of(kind: str) -> Toy:
    """The same toy each time."""
    return build(Spec((Item(kind),)), np.random.default_rng(7))


def fitted(kind: str, cache: Path) -> Splats:
    """Splats fitted to 48 true renders of 128 pixels, once."""
    path = cache / f"{kind}.ply"
    if not path.is_file():
        views = render(toy_of(kind), lattice_cameras(48, 128))
        splats = fit_splats(views, rng=torch.Generator().manual_seed(0), steps=400, resolution=64, limit=8000)
        write_whole(path, ply_bytes(splats))
    return read_ply(path)


def exact(kind: str) -> Look:
    """True renders."""
    toy = toy_of(kind)
    return lambda cameras: render(toy, cameras, samples=2)


def visible_points(toy: Toy, size: int = 256) -> Float[ndarray, "n 3"]:
    """Points spread over what can be seen of a toy's surface; parts run into each other, and what is within counts nowhere."""
    points = np.asarray(trimesh.sample.sample_surface(toy.mesh(), 2 * POINTS, seed=0)[0], np.float32)
    cameras = lattice_cameras(96, size)
    inverse_depth = raster.rasterize(triangles(toy), cameras, samples=1).inverse_depth[0]
    pixels, far = project(torch.from_numpy(points), cameras)
    column, row = pixels.long().clamp(0, size - 1).unbind(-1)
    nearest = torch.from_numpy(inverse_depth)[torch.arange(len(far))[:, None], row, column]
    return points[((far * nearest - 1).abs() < 0.007).any(0).numpy()][:POINTS]


def compare(mesh: trimesh.Trimesh, truth: Float[ndarray, "n 3"]) -> dict[str, float]:
    """Chamfer distance and F-score of a mesh to points of the true surface."""
    from scipy.spatial import cKDTree

    own = trimesh.sample.sample_surface(mesh, POINTS, seed=1)[0]
    there, back = cKDTree(truth).query(own)[0], cKDTree(own).query(truth)[0]
    precision, recall = (there < TOLERANCE).mean(), (back < TOLERANCE).mean()
    f = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"chamfer": float(there.mean() + back.mean()) / 2, "f": float(f)}


def before(look: Look) -> trimesh.Trimesh:
    """The exporter as it was: 36 views of 128 pixels, 96^3 voxels; any view that shows nothing carves; depth's mean."""
    views = look(orbit_cameras(12, (-25.0, 15.0, 55.0), 128))
    assert views.depth is not None
    size, alpha, depth = 96, views.alpha[0], views.depth[0]
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    total, weight, empty = torch.zeros(len(points)), torch.zeros(len(points)), torch.zeros(len(points), dtype=torch.bool)
    for i in range(views.cameras.views):
        pixels, far = project(points, views.cameras.select(slice(i, i + 1)))
        coverage, along = sample_pixels(torch.cat([alpha[i : i + 1], (alpha * depth)[i : i + 1]], -1), pixels)[0].unbind(-1)
        empty |= coverage < 0.4
        distance = (along / coverage.clamp(min=1e-3) - far[0]) * (size / 2)
        seen = (coverage >= 0.4) & (distance > -4)
        total += torch.where(seen, distance.clamp(max=4), 0.0)
        weight += seen
    field = torch.where(weight > 0, total / weight.clamp(min=1), -4.0)
    field = torch.where(empty, field.abs().clamp(min=0.5), field)
    return surface(field.reshape(size, size, size).numpy())


def poisson(look: Look, *, unbiased: bool = False) -> trimesh.Trimesh:
    """Screened Poisson at depth 8 from the points that 64 renders of 256 pixels show, 200,000 of them, with their normals."""
    import pymeshlab

    views = look(lattice_cameras(64, 256))
    assert views.depth is not None
    assert views.normals is not None
    depth = views.depth - (depth_bias(views) if unbiased else 0.0)
    shown = (views.alpha[0, ..., 0] > 0.7) & (views.normals[0].norm(dim=-1) > 0.5)
    points, normals = points_from_depth(depth, views.cameras)[0][shown], views.normals[0][shown]
    some = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:200_000]
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(
        pymeshlab.Mesh(vertex_matrix=points[some].double().numpy(), v_normals_matrix=normals[some].double().numpy())
    )
    meshes.generate_surface_reconstruction_screened_poisson(depth=8, preclean=True, threads=1)
    made = meshes.current_mesh()
    return trimesh.Trimesh(made.vertex_matrix(), made.face_matrix(), process=False)


def ways(kind: str, cache: Path) -> dict[str, Callable[[], trimesh.Trimesh]]:
    """How a toy is meshed, by name. What is decimated, and then made a solid, is the same dense mesh, as in the exporter."""
    look = look_at(fitted(kind, cache))
    dense = functools.cache(lambda: shape(look, Meshing(faces=None))[0])
    makers: tuple[Callable[[], trimesh.Trimesh], ...] = (
        lambda: before(look),
        lambda: to_mesh(look, QUICK),
        dense,
        lambda: decimate(dense(), 20_000),
        lambda: watertight(dense(), faces=20_000),
        lambda: poisson(look),
        lambda: poisson(look, unbiased=True),
        lambda: shape(exact(kind), Meshing(faces=None))[0],
    )
    return dict(zip(WAYS, makers, strict=True))


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each way, over the toys that all ways have."""
    by = {(row["kind"], row["way"]): row for row in rows}
    kinds = [kind for kind in KINDS if all((kind, way) in by for way in WAYS)]
    lines = [f"{len(kinds)} toys: {', '.join(kinds)}"]
    lines += [f"{'':24}{'Chamfer':>10}{'worst':>10}{'F at 0.01':>11}{'faces':>9}{'closed':>8}{'CPU s':>8}"]
    for way in WAYS:
        some = [by[kind, way] for kind in kinds]
        c, f, n, s = (np.mean([row[key] for row in some]) for key in ("chamfer", "f", "faces", "seconds"))
        worst, closed = max(row["chamfer"] for row in some), sum(row["watertight"] for row in some)
        lines.append(f"{way:24}{c:10.4f}{worst:10.4f}{f:11.3f}{n:9.0f}{closed:8d}{s:8.1f}")
    return "\n".join(lines)


def light(look: Look, cameras: Cameras) -> Views:
    """Renders of shape alone: grey, lit from the camera and from above."""
    views = look(cameras)
    assert views.normals is not None
    towards = torch.nn.functional.normalize(cameras.centers[:, :, None, None] + torch.tensor([0.0, 0.0, 2.0]), dim=-1)
    shade = 0.15 + 0.8 * (views.normals * towards).sum(-1, keepdim=True).clamp(min=0)
    return replace(views, rgb=(shade * views.alpha).expand_as(views.rgb))


def draw(path: Path, cache: Path, kinds: tuple[str, ...] = ("mug", "chair", "windmill", "umbrella", "key", "teapot")) -> None:
    """Rows of ground truth, splats (their colours), this exporter's mesh in its colours and in grey, and Poisson in grey."""
    camera = look_at_origin(torch.tensor([[35.0]]), torch.tensor([[25.0]]), width=224, height=224)
    rows = []
    for kind in kinds:
        splats = look_at(fitted(kind, cache))
        mesh = to_mesh(splats)
        ours, theirs = look_at_mesh(mesh), look_at_mesh(poisson(splats))
        shown = [exact(kind)(camera), light(exact(kind), camera), splats(camera), ours(camera), light(ours, camera)]
        rows.append(torch.cat([x.over(1.0)[0, 0] for x in (*shown, light(theirs, camera))], 1))
    image = (255 * torch.cat(rows).clamp(0, 1)).round().byte().numpy()
    write_whole(path, png_bytes(image))


def main(s: Settings) -> None:
    if s.picture is not None:
        draw(s.picture, s.cache)
        return
    rows: list[dict[str, Any]] = json.loads(s.rows.read_text()) if s.rows.is_file() else []
    known = {(row["kind"], row["way"]) for row in rows}
    for kind in KINDS[: s.limit]:
        if all((kind, way) in known for way in WAYS):
            continue
        truth = visible_points(toy_of(kind))
        for way, make in ways(kind, s.cache).items():
            if (kind, way) in known:
                continue
            begun = time.process_time()
            mesh = make()
            seconds = time.process_time() - begun
            row = {"kind": kind, "way": way, **compare(mesh, truth), "faces": len(mesh.faces)}
            rows.append(row | {"watertight": bool(mesh.is_watertight), "seconds": round(seconds, 2)})
            write_whole(s.rows, (json.dumps(rows, indent=1) + "\n").encode())
            print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
