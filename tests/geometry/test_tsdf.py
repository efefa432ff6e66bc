import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from helpers import sphere_views

from rl3d.cameras import lattice_cameras
from rl3d.geometry._tsdf_numba import contour_distances
from rl3d.geometry.points import from_points
from rl3d.geometry.tsdf import depth_bias, fuse, orbit_cameras, paint, surface
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh

CENTER = (0.1, 0.0, -0.05)


def test_a_sphere_is_fused_closed_and_true_to_size():
    views = sphere_views(orbit_cameras(12, (-30.0, 10.0, 50.0), 128), 0.6, CENTER)
    mesh = surface(fuse(views, resolution=64))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.03)
    radius = torch.from_numpy(mesh.vertices - CENTER).norm(dim=-1)
    assert (radius - 0.6).abs().max() < 0.03
    normals = torch.nn.functional.normalize(torch.from_numpy(mesh.vertices - CENTER).float(), dim=-1)
    colours = paint(torch.from_numpy(mesh.vertices).float(), normals, views)
    assert (colours - (0.5 + normals / 2)).abs().mean() < 0.05


def test_the_field_is_the_true_distance_of_a_sphere_near_it_and_cut_off_elsewhere():
    field = fuse(sphere_views(lattice_cameras(64, 192), 0.6), resolution=48, truncation=0.08, bias=0.0)
    axis = (np.arange(48) + 0.5) * (2 / 48) - 1
    true = np.sqrt((np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) ** 2).sum(-1)) - 0.6
    near = np.abs(true) < 0.05
    assert np.abs(field - true)[near].mean() < 0.008
    assert np.abs(field - true)[near].max() < 0.03
    assert (field[true > 0.15] == np.float32(0.08)).all()
    assert (field[true < -0.1] < -0.05).all()


def test_contours_lie_between_pixels():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    true = (torch.hypot(x - 19.3, y - 20.6) - 11.4).numpy()
    out = np.empty((1, 40, 40), np.float32)
    contour_distances(np.clip(0.5 - true, 0, 1)[None].astype(np.float32), np.float32(5), out)
    assert np.abs(out[0] - true.clip(-5, 5)).max() < 0.15


@pytest.mark.parametrize("thickness", [0.012, 0.03])
def test_thin_sheets_and_rods_neither_vanish_nor_grow(thickness):
    sheet = trimesh.creation.box((0.9, 0.7, thickness))
    rod = trimesh.creation.cylinder(thickness / 2 + 0.005, height=1.2)
    for true in (sheet, rod):
        true.visual = trimesh.visual.ColorVisuals(true, vertex_colors=np.full((len(true.vertices), 4), 200, np.uint8))
        views = look_at_mesh(true)(lattice_cameras(48, 256))
        mesh = surface(fuse(views, resolution=160, bias=0.0), smooth=0)
        np.testing.assert_allclose(mesh.extents, true.extents, atol=0.02)
        assert len(mesh.split()) == 1
        assert mesh.volume == pytest.approx(true.volume, rel=0.5)


def test_depth_that_lies_too_deep_is_found_out():
    views = sphere_views(lattice_cameras(64, 128), 0.6)
    assert depth_bias(views) < 0.012
    assert views.depth is not None
    assert 0.03 < depth_bias(replace(views, depth=views.depth + 0.03 * views.alpha)) < 0.075


def test_fog_is_as_large_as_its_silhouettes():
    rng = torch.Generator().manual_seed(0)
    points = 0.5 * torch.nn.functional.normalize(torch.randn(3000, 3, generator=rng), dim=-1)
    look = look_at(from_points(points, torch.full_like(points, 0.5), 0.03))
    views = look(lattice_cameras(32, 128))
    area = [(views.alpha[0, i] > 0.5).sum().item() for i in range(32)]
    true = math.sqrt(np.mean(area) / math.pi) / views.cameras.intrinsics[0, 0, 0, 0].item() * math.sqrt(9 - 0.5**2)
    mesh = surface(fuse(views, resolution=64))
    naive = surface(fuse(views, resolution=64, bias=0.0))
    assert abs(np.cbrt(mesh.volume / (4 / 3 * math.pi)) - true) < 0.015
    assert np.cbrt(naive.volume / (4 / 3 * math.pi)) < true - 0.015


def test_hollows_that_nobody_sees_are_filled():
    axis = (np.arange(48) + 0.5) * (2 / 48) - 1
    radius = np.sqrt((np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) ** 2).sum(-1)).astype(np.float32)
    shell = np.maximum(radius - 0.7, 0.4 - radius)
    mesh = surface(shell)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.02)
    assert mesh.body_count == 1
    open_shell = shell.copy()
    open_shell[22:26, 22:26, 24:] = 0.1
    assert surface(open_shell).volume < 0.9 * mesh.volume


def test_depth_that_differs_between_views_makes_no_hollows():
    """A ball's depth lies 0.05 too deep, and by blobs of a few pixels up to 0.06 more or less, other ones in each view."""
    views = sphere_views(lattice_cameras(48, 128), 0.6)
    assert views.depth is not None
    noise = torch.randn(48, 1, 12, 12, generator=torch.Generator().manual_seed(0)).clamp(-1.5, 1.5)
    noise = torch.nn.functional.interpolate(noise, size=(128, 128), mode="bicubic")[:, 0, ..., None]
    soft = replace(views, depth=views.depth + (0.05 + 0.04 * noise) * views.alpha)
    mesh = surface(fuse(soft, resolution=96))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.08)
    assert mesh.area < 1.15 * 4 * math.pi * 0.6**2


def test_one_bad_view_carves_nothing_where_two_votes_are_asked_for():
    views = sphere_views(lattice_cameras(24, 96), 0.6)
    alpha = views.alpha.clone()
    alpha[0, 7] = 0
    bad = replace(views, alpha=alpha)
    assert surface(fuse(bad, resolution=48)).volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.05)
    with pytest.raises(ValueError, match="empty"):
        surface(fuse(bad, resolution=48, votes=1))


def test_what_touches_the_border_is_closed_there():
    mesh = surface(fuse(sphere_views(lattice_cameras(24, 96), 0.5, (0.6, 0.0, 0.0)), resolution=48))
    assert mesh.is_watertight
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.05


def test_the_field_does_not_depend_on_the_order_of_views():
    views = sphere_views(lattice_cameras(15, 64), 0.6, CENTER)
    one = fuse(views, resolution=32)
    np.testing.assert_allclose(fuse(views.select(list(range(14, -1, -1))), resolution=32), one, atol=1e-4)


def test_nothing_to_mesh_is_said():
    views = sphere_views(orbit_cameras(4, (0.0,), 32), 1e-4)
    with pytest.raises(ValueError, match="empty"):
        surface(fuse(views, resolution=16))
