"""What is put before the camera: from a run's folder, finished or not, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trimesh
from jaxtyping import Float
from numpy import ndarray
from rl3d.viewer.entries import Entry

from rl3d.assets import load_asset
from rl3d.export.meshes import reading
from rl3d.export.meshes.files import mesh_bytes
from rl3d.math import SH_C0, rotation_from_quat
from rl3d.start import fitted_mesh
from rl3d.types import Look, Splats

IN_BROWSER = 500_000
"""Gaussians at most that the browser draws itself; of more, and of radiance fields, the server sends pictures."""


Way = Literal["splats", "pictures", "mesh"]


@dataclass(frozen=True)
class Subject:
    """Something to look at."""

    look: Look
    splats: Splats | None
    """Gaussians that the browser can draw."""
    mesh: bytes | None = None
    """A GLB, in glTF's axes: the thing itself, or what was made of it."""
    about: str = ""
    """How large it is, in words."""
    streamed: bool = False
    """Whether the server draws it, and sends pictures: a radiance field, or too many Gaussians."""

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it can be shown, as what it is first."""
        own: tuple[Way, ...] = ("splats",) if self.splats is not None else ("pictures",) if self.streamed else ()
        return (*own, "mesh") if self.mesh is not None else own or ("pictures",)


def of_splats(splats: Splats, look: Look, mesh: bytes | None = None) -> Subject:
    """Gaussians, drawn by the browser unless they are too many."""
    small = len(splats) <= IN_BROWSER
    how = "" if small else ", rendered here: too many for most browsers"
    return Subject(look, splats if small else None, mesh, f"{len(splats):,} Gaussians{how}", streamed=not small)


def of_entry(entry: Entry) -> Subject | None:
    """What a file holds, or what a run has made; None where a run has made nothing yet.

    Raises:
        ValueError: if what there is is broken.
    """
    if entry.state == "file":
        asset = load_asset(entry.path)
        if asset.surface is None:
            return of_splats(asset.splats, asset.look)
        mesh = coloured_mesh(entry.path)
        return Subject(asset.look, None, mesh_of(mesh), f"{len(mesh.faces):,} triangles")
    if (entry.path / "asset.ply").is_file():
        asset, mesh = load_asset(entry.path), read_mesh(entry.path / "mesh.glb")
        if asset.surface is not None:
            return Subject(asset.look, None, mesh, f"{len(asset.surface.faces):,} triangles")
        return of_splats(asset.splats, asset.look, mesh)
    return None


def read_mesh(path: Path) -> bytes | None:
    """The mesh that a run made, if it made one."""
    return path.read_bytes() if path.is_file() else None


def coloured_mesh(path: Path) -> trimesh.Trimesh:
    """The mesh in a file, in the unit sphere and with its own colours, which an asset's surface lacks."""
    return fitted_mesh(reading.read_mesh(path))


def mesh_of(surface: trimesh.Trimesh) -> bytes:
    """A mesh in our axes as GLB."""
    made = mesh_bytes(surface, "glb")
    assert isinstance(made, bytes)
    return made


def covariances(splats: Splats) -> Float[ndarray, "n 3 3"]:
    """Second moments of Gaussians in world units squared."""
    axes = rotation_from_quat(splats.quats) * splats.log_scales.exp()[:, None]
    return (axes @ axes.mT).numpy()


def colours(splats: Splats) -> Float[ndarray, "n 3"]:
    """Give Gaussians' sRGB in [0, 1], without what depends on the side they are seen from: viser draws one colour of each."""
    return (0.5 + SH_C0 * splats.sh[:, 0]).clamp(0, 1).numpy()
