"""Small scenes that the tests of rewards look at."""

from functools import cache

import numpy as np
import torch
import trimesh

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.points import from_points
from rl3d.protocols import Shown
from rl3d.render.gaussians import render_splats
from rl3d.rewards.base import MeshScene, SplatScene, together
from rl3d.toybox import Item, Spec, assemble
from rl3d.toybox.render import render
from rl3d.types import Cameras, Splats, Views


def spec(kind: str, paint: str | None = None, **fields) -> Spec:
    return Spec((Item(kind, paint, **fields),))


@cache
def toy(of: Spec, seed: int = 0) -> assemble.Toy:
    return assemble.build(of, np.random.default_rng(seed))


@cache
def toy_shown(of: Spec, seed: int = 0, size: int = 32, views: int = 4, elevation: float = 20.0) -> Shown:
    """A toy's views with depth and normals, and its mesh."""
    made = toy(of, seed)
    return Shown(render(made, Orbit(views, elevation, 15.0, size=size).cameras()), (MeshScene(made.mesh()),))


def random_views(b=3, v=2, size=16, seed=1, dtype=torch.float32) -> Views:
    rng = torch.Generator().manual_seed(seed)
    alpha = torch.rand(b, v, size, size, 1, generator=rng, dtype=dtype)
    rgb = alpha * torch.rand(b, v, size, size, 3, generator=rng, dtype=dtype)
    azimuth = torch.tensor([[0.0, 100.0, 200.0, 300.0][:v]] * b)
    return Views(rgb, alpha, None, None, look_at_origin(azimuth, torch.full((b, v), 10.0), width=size, height=size))


def splats_of(mesh: trimesh.Trimesh, count: int = 600, colour=(0.8, 0.3, 0.2), scale: float = 0.04, seed: int = 0) -> Splats:
    """Round Gaussians all over a mesh's surface."""
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
    points = torch.from_numpy(np.asarray(points, np.float32))
    return from_points(points, torch.tensor(colour).expand(len(points), 3), scale, opacity=0.9)


def splat_shown(splats: Splats, cameras: Cameras | None = None) -> Shown:
    """Gaussians and their views."""
    cameras = cameras or Orbit(3, 20.0, size=24).cameras()
    with torch.no_grad():
        views, _ = render_splats(splats, cameras)
    return Shown(views, (SplatScene(splats),))


def mesh_shown(*meshes: trimesh.Trimesh) -> Shown:
    """Meshes, each with views of no interest."""
    return together([Shown(random_views(1, seed=i), (MeshScene(mesh),)) for i, mesh in enumerate(meshes)])
