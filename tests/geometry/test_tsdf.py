import math

import pytest
import torch
from helpers import sphere_views

from rl3d.geometry.tsdf import fuse, orbit_cameras, paint, surface


def test_a_sphere_is_fused_closed_and_true_to_size():
    views = sphere_views(orbit_cameras(12, (-30.0, 10.0, 50.0), 128), 0.6, (0.1, 0.0, -0.05))
    mesh = surface(fuse(views, resolution=64))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.06)
    radius = torch.from_numpy(mesh.vertices - [0.1, 0.0, -0.05]).norm(dim=-1)
    assert (radius - 0.6).abs().max() < 0.05
    normals = torch.nn.functional.normalize(torch.from_numpy(mesh.vertices).float() - torch.tensor([0.1, 0.0, -0.05]), dim=-1)
    colours = paint(torch.from_numpy(mesh.vertices).float(), normals, views)
    assert (colours - (0.5 + normals / 2)).abs().mean() < 0.05


def test_nothing_to_mesh_is_said():
    views = sphere_views(orbit_cameras(4, (0.0,), 32), 1e-4)
    with pytest.raises(ValueError, match="empty"):
        surface(fuse(views, resolution=16))
