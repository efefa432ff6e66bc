"""An object as a mesh with vertex colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh

from rl3d.files import write_whole
from rl3d.geometry.tsdf import fuse, orbit_cameras, paint, surface
from rl3d.types import Look


def to_mesh(look: Look, *, resolution: int = 96, size: int = 128) -> trimesh.Trimesh:
    """Fuse depth rendered from 36 sides, take its surface, and paint its vertices.

    Args:
        look: The object, within the unit sphere; it must show depth.
        resolution: Voxels along each side of the sphere's cube.
        size: Pixels along each side of the renders.

    Raises:
        ValueError: if there is nothing to mesh.
    """
    views = look(orbit_cameras(12, (-25.0, 15.0, 55.0), size))
    mesh = surface(fuse(views, resolution=resolution))
    points = torch.from_numpy(np.asarray(mesh.vertices, np.float32).copy())
    normals = torch.from_numpy(np.asarray(mesh.vertex_normals, np.float32).copy())
    colours = paint(points, normals, views).numpy()
    rgba = np.concatenate([colours, np.ones_like(colours[:, :1])], 1)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=(255 * rgba).round().astype(np.uint8))
    return mesh


def glb_bytes(mesh: trimesh.Trimesh) -> bytes:
    """A mesh as GLB: glTF's y is up and its front looks along +z, so our z-up, x-front axes are turned."""
    turned = mesh.copy()
    turned.apply_transform(np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]))
    # glTF multiplies linear colours; ours are sRGB.
    rgba = turned.visual.vertex_colors / 255.0
    linear = np.where(rgba <= 0.04045, rgba / 12.92, ((rgba + 0.055) / 1.055) ** 2.4)
    linear[:, 3] = 1
    turned.visual.vertex_colors = (255 * linear).round().astype(np.uint8)
    return trimesh.Scene(turned).export(file_type="glb")  # pyright: ignore[reportReturnType]


def write_glb(path: Path, mesh: trimesh.Trimesh) -> None:
    """Write a GLB file, whole or not at all."""
    write_whole(path, glb_bytes(mesh))
