"""Cameras of others show the same point on the same pixel; objects are the same as trimesh has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from globes import globe
from scipy.spatial import cKDTree

from rl3d.cameras import RandomOrbit
from rl3d.export.meshes.files import write_mesh
from rl3d.export.meshes.meshing import Meshing
from rl3d.export.meshes.texture import Baking
from rl3d.geometry.surfels import on_surface
from rl3d.interop import from_opengl, from_pytorch3d, to_opengl, to_pytorch3d, to_trimesh
from rl3d.render.textured import colours_of
from rl3d.representations.gaussians import Gaussians
from rl3d.representations.mesh import Mesh
from rl3d.takeaway import Settings


def ours(cameras, points):
    """Pixels and depths of world points, ``[v n 3]``."""
    pose, matrix = cameras.cam_from_world[0], cameras.intrinsics[0]
    local = points @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
    image = local @ matrix.mT
    return torch.cat([image[..., :2] / image[..., 2:], local[..., 2:]], -1)


def theirs(R, T, focal_length, principal_point, image_size, points):
    """The same by what pytorch3d's notes say of its spaces."""
    local = points @ R + T[:, None]
    ndc = focal_length[:, None] * local[..., :2] / local[..., 2:] + principal_point[:, None]
    height, width = image_size[0]
    short = min(width, height)
    pixels = torch.stack([width / 2 - ndc[..., 0] * short / 2, height / 2 - ndc[..., 1] * short / 2], -1)
    return torch.cat([pixels, local[..., 2:]], -1)


@pytest.fixture
def cameras():
    drawn = RandomOrbit(views=5, size=64).cameras(torch.Generator().manual_seed(0)).resized(96, 64)
    drawn.intrinsics[..., 0, 2] += 3.5
    return drawn


@pytest.fixture
def points():
    return 0.5 * torch.randn(20, 3)


def test_points_fall_on_the_same_pixels(cameras, points):
    torch.testing.assert_close(theirs(**to_pytorch3d(cameras), points=points), ours(cameras, points), rtol=1e-4, atol=1e-3)


def test_there_and_back(cameras):
    back = from_pytorch3d(**to_pytorch3d(cameras))
    assert (back.width, back.height) == (96, 64)
    torch.testing.assert_close(back.cam_from_world, cameras.cam_from_world)
    torch.testing.assert_close(back.intrinsics, cameras.intrinsics)


def test_pictures_of_different_sizes_are_refused(cameras):
    said = to_pytorch3d(cameras)
    with pytest.raises(ValueError, match="one size"):
        from_pytorch3d(**said | {"image_size": said["image_size"] + torch.arange(5.0)[:, None]})


def test_pytorch3d_agrees(cameras, points):
    renderer = pytest.importorskip("pytorch3d.renderer", reason="pytorch3d is not installed")
    found = renderer.PerspectiveCameras(**to_pytorch3d(cameras)).transform_points_screen(points.expand(5, -1, -1))
    torch.testing.assert_close(found[..., :2], ours(cameras, points)[..., :2], rtol=1e-4, atol=1e-3)


def test_opengl_cameras_see_the_point_where_ours_do(cameras, points):
    matrices = to_opengl(cameras)[0]
    local = (points - matrices[:, None, :3, 3]) @ matrices[:, :3, :3]  # x right, y up, z backward
    k = cameras.intrinsics[0]
    across = k[:, None, 0, 0] * local[..., 0] / -local[..., 2] + k[:, None, 0, 2]
    down = k[:, None, 1, 1] * -local[..., 1] / -local[..., 2] + k[:, None, 1, 2]
    seen = torch.stack([across, down, -local[..., 2]], -1)
    torch.testing.assert_close(seen, ours(cameras, points), atol=1e-3, rtol=1e-4)


def test_there_and_back_to_opengl_is_the_same_camera(cameras):
    for rows in (3, 4):
        back = from_opengl(to_opengl(cameras)[0, :, :rows], cameras.intrinsics[0], cameras.width, cameras.height)
        torch.testing.assert_close(back.cam_from_world, cameras.cam_from_world, atol=1e-5, rtol=0)
        torch.testing.assert_close(back.intrinsics, cameras.intrinsics)
        assert (back.width, back.height) == (cameras.width, cameras.height)


def test_a_live_mesh_keeps_its_faces_and_texture():
    made = to_trimesh(Mesh().build(globe()))
    assert made.visual.material.baseColorTexture.size == (64, 64)
    assert made.triangles == pytest.approx(globe().triangles, abs=1e-6)


def test_a_file_of_a_mesh_stays_what_it_is(tmp_path):
    write_mesh(tmp_path / "a.glb", globe())
    for path in (tmp_path / "a.glb", str(tmp_path / "a.glb")):
        made = to_trimesh(path)
        assert np.sort(made.area_faces) == pytest.approx(np.sort(globe().area_faces), rel=1e-3)
        assert made.visual.kind == "texture"


@pytest.mark.parametrize("live", [False, True])
def test_gaussians_become_a_mesh_in_their_colours(live):
    splats = on_surface(globe(0.5), 1500, torch.Generator().manual_seed(0))
    thing = Gaussians(strategy=None).build(splats) if live else splats
    quick = Meshing(resolution=40, views=16, size=64, faces=800)
    made = to_trimesh(thing, Settings(colours="vertices", mesh=quick))
    assert made.is_watertight
    assert made.volume > 0
    # Gaussians of 0.03 around a ball of radius 0.5 reach a little further.
    assert (made.extents > 0.98).all()
    assert (made.extents < 1.16).all()
    assert made.visual.kind == "vertex"
    wanted = colours_of(globe(0.5))(torch.arange(1280), torch.full((1280, 3), 1 / 3))
    near = cKDTree(globe(0.5).triangles_center).query(made.vertices)[1]
    shown = np.asarray(made.visual.vertex_colors)[:, :3] / 255
    assert np.abs(shown - wanted.numpy()[near]).mean() < 0.1


def test_gaussians_get_a_texture_unless_told_otherwise():
    splats = on_surface(globe(0.5), 1500, torch.Generator().manual_seed(0))
    quick = Meshing(resolution=32, views=12, size=48, faces=300)
    made = to_trimesh(splats, Settings(mesh=quick, texture=Baking(size=64, views=8, view_size=48, refine=2)))
    assert made.visual.material.baseColorTexture.size == (64, 64)
    assert made.visual.uv.min() >= 0
    assert made.visual.uv.max() <= 1


def test_nothing_is_no_mesh(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        to_trimesh(tmp_path / "none.glb")
    few = on_surface(globe(0.5), 10, torch.Generator().manual_seed(0))
    clear = replace(few, opacity_logits=torch.full((10,), -9.0))
    with pytest.raises(ValueError, match=r"."):
        to_trimesh(clear, Settings(colours="vertices", mesh=Meshing(resolution=16, views=6, size=24)))
