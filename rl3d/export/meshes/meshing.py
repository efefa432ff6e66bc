"""An object as a mesh with vertex colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh

from rl3d.cameras import lattice_cameras
from rl3d.geometry.remesh import bilateral, decimate, watertight
from rl3d.geometry.tsdf import fuse, paint, surface
from rl3d.types import Look, Views


@dataclass(frozen=True)
class Meshing:
    """How a mesh is made of an object."""

    resolution: int = 256
    """Voxels along each side of the cube around the sphere."""
    views: int = 64
    """Renders that are fused, spread evenly over the sphere."""
    size: int = 256
    """Pixels along each side of the renders."""
    faces: int | None = 20_000
    """How many are left at most; None keeps all that the grid gives."""
    watertight: bool = False
    """Whether to insist on a closed manifold that encloses a volume, or else refuse."""
    smooth: int = 10
    """Rounds of smoothing that keeps edges; 0 for none."""
    debris: float = 0.01
    """Components with less than this fraction of the largest one's area are dropped; 0 keeps all."""

    def __post_init__(self) -> None:
        bounds = {"resolution": (8, 512), "views": (4, 1024), "size": (16, 2048), "smooth": (0, 1000), "debris": (0, 1)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")
        if self.faces is not None and self.faces < 4:
            raise ValueError(f"faces must be 4 or more, or None to keep all; got {self.faces}")


QUICK = Meshing(resolution=128, views=36, size=128, faces=20_000)
"""For the end of a run, and for measures: a few seconds."""

EXTENT = 1.15
"""Half of the side of what is meshed, in world units. Splats stray beyond the unit sphere; cut at it, they would be lids."""


def shape(look: Look, settings: Meshing = Meshing()) -> tuple[trimesh.Trimesh, Views]:
    """Make the mesh of an object without colours, in our axes, and give the views that it was fused from, too.

    Args:
        look: The object, within the unit sphere; it must show depth.
        settings: How.

    Raises:
        ValueError: if there is nothing to mesh, or no solid can be made of it.
    """
    views = look(lattice_cameras(settings.views, settings.size))
    if views.depth is None:
        raise ValueError("a mesh is made of depth, and these views have none: render them with depth")
    field = fuse(views, resolution=settings.resolution, extent=EXTENT)
    mesh = surface(field, extent=EXTENT, smooth=min(settings.smooth, 2), debris=settings.debris)
    mesh = bilateral(mesh, rounds=settings.smooth)
    if settings.watertight:
        return watertight(mesh, faces=settings.faces), views
    return (mesh if settings.faces is None else decimate(mesh, settings.faces)), views


def to_mesh(look: Look, settings: Meshing = Meshing()) -> trimesh.Trimesh:
    """Make the mesh of an object with vertex colours (:func:`shape`): sRGB as the views that see each vertex show it.

    Raises:
        ValueError: as :func:`shape` does.
    """
    mesh, views = shape(look, settings)
    points = torch.from_numpy(np.asarray(mesh.vertices, np.float32).copy())
    normals = torch.from_numpy(np.asarray(mesh.vertex_normals, np.float32).copy())
    colours = paint(points, normals, views).numpy()
    rgba = np.concatenate([colours, np.ones_like(colours[:, :1])], 1)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=(255 * rgba).round().astype(np.uint8))
    return mesh
