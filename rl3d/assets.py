"""Assets as something to look at and to judge: a run's folder, a file of Gaussians, a mesh; and pictures from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image, UnidentifiedImageError

from rl3d.cameras import Orbit
from rl3d.export.meshes.reading import read_mesh
from rl3d.export.splats.ply import read_ply
from rl3d.geometry.surfels import on_surface
from rl3d.protocols import Shown, Situation
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh
from rl3d.rewards.base import SplatScene
from rl3d.run import Run
from rl3d.start import FromFile, fitted_mesh, is_mesh_run
from rl3d.types import Cameras, Look, Prompt, Splats, Views


@dataclass(frozen=True)
class Asset:
    """An object that somebody made."""

    splats: Splats
    """Its Gaussians; of a mesh, Gaussians on its surface."""
    look: Look
    surface: object = None
    """Its ``trimesh.Trimesh`` in our axes, without colours, where it is a mesh."""
    prompt: Prompt | None = None
    """What was asked for, where a run says so."""

    def show(self, cameras: Cameras) -> Shown:
        """What rewards look at."""
        return Shown(self.look(cameras), (SplatScene(self.splats, self.surface),))


def load_asset(path: str | Path) -> Asset:
    """Load a run's folder, splats in any file that :mod:`rl3d.export.splats.files` reads, or a mesh (GLB, glTF, OBJ, STL, PLY);
    in the unit sphere, z up.

    A run's Gaussians, or its mesh where the scene was one, stay where the run left them. Meshes are drawn as triangles
    in their own colours, without light.

    Raises:
        ValueError: if it is none of these, or its file is broken.
    """
    path = Path(path)
    if path.is_dir():
        prompt, made = Run(path).prompt, path / "asset.ply"
        if made.is_file() and is_mesh_run(path):
            return _of_mesh(read_mesh(path / "mesh.glb"), prompt)
        if not made.is_file():
            raise ValueError(f"{path} holds no asset.ply yet: finish the run with `rl3d resume {path}`")
        splats = read_ply(made)
        return Asset(splats, look_at(splats), prompt=prompt)
    start, rng = FromFile(str(path), limit=10**9), torch.Generator().manual_seed(0)
    start.check()
    if start.is_splats:
        splats = start.build(Situation(Prompt(""), None, None, rng, torch.device("cpu")))
        return Asset(splats, look_at(splats))
    return _of_mesh(fitted_mesh(read_mesh(path)))


def _of_mesh(mesh: trimesh.Trimesh, prompt: Prompt | None = None) -> Asset:
    # Welded: what a texture's seams cut hangs together.
    splats = on_surface(mesh, 6000, torch.Generator().manual_seed(0))
    return Asset(splats, look_at_mesh(mesh), trimesh.Trimesh(mesh.vertices, mesh.faces), prompt)


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def load_pictures(paths: Sequence[str | Path], size: int = 128) -> Views:
    """Pictures from files as views of one sample, squeezed to squares of ``size`` pixels; what is transparent shows nothing.

    Their cameras are not known: a ring of evenly spaced ones stands for them.

    Raises:
        ValueError: if one is no picture.
    """
    pixels = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                small = picture.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)
        except FileNotFoundError:
            raise ValueError(f"there is no picture {path}") from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"cannot read the picture {path}: {error}") from error
        pixels.append(torch.from_numpy(np.asarray(small, np.float32) / 255))
    rgba = torch.stack(pixels)[None]
    cameras = Orbit(views=len(pixels), size=size).cameras()
    return Views(rgba[..., :3] * rgba[..., 3:], rgba[..., 3:], None, None, cameras)
