import numpy as np
import pytest
import torch
import trimesh
from helpers import sphere_views

from rl3d.cameras import lattice_cameras
from rl3d.export.meshes.meshing import Meshing, shape
from rl3d.export.meshes.normal_map import directions, tangent_space
from rl3d.export.meshes.texture import Baking, textured
from rl3d.math import sh_from_rgb
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh
from rl3d.types import Splats, Views

SMALL = Baking(size=256, views=16, view_size=96, refine=6)
RADIUS = 0.6


def ball(radius=RADIUS):
    return trimesh.creation.icosphere(4, radius)


def inner_difference(a, b):
    """The mean absolute difference of colours well within both silhouettes."""
    solid = (a.alpha == 1) & (b.alpha == 1)
    solid = -torch.nn.functional.max_pool2d(-solid[0].float().movedim(-1, 1), 3, 1, 1).movedim(1, -1)[None] > 0.5
    return float((a.rgb - b.rgb).abs()[solid[..., 0]].mean())


@pytest.mark.parametrize("settings", [SMALL, Baking(**{**vars(SMALL), "refine": 0})], ids=["refined", "blended"])
def test_a_sphere_gets_the_colours_that_it_shows(settings):
    baked = textured(ball(), sphere_views, settings)
    cameras = lattice_cameras(5, 96, turn_deg=50.0)
    assert inner_difference(sphere_views(cameras), look_at_mesh(baked)(cameras)) < 0.012
    picture = baked.visual.material.baseColorTexture
    assert (picture.mode, picture.size) == ("RGB", (256, 256))
    assert (baked.visual.material.metallicFactor, baked.visual.material.roughnessFactor) == (0, 1)
    assert baked.metadata["unwrapped"].startswith("xatlas")
    # Every texel, between charts too, shows 0.5 + normal / 2 of some unit normal: nothing is black.
    lengths = np.linalg.norm(np.asarray(picture) / 127.5 - 1, axis=-1)
    assert np.abs(lengths - 1).max() < 0.15
    assert np.abs(lengths - 1).mean() < 0.02


def striped(cameras):
    views = sphere_views(cameras)
    points = views.normals * RADIUS
    shade = 0.5 + 0.4 * torch.sin(40 * points[..., 2:])
    return Views(views.alpha * shade.expand_as(views.rgb), views.alpha, views.depth, views.normals, cameras)


def test_fitting_to_the_renders_sharpens_what_blending_blurred():
    cameras = lattice_cameras(5, 96, turn_deg=50.0)
    true = striped(cameras)
    gaps = []
    for refine in (0, 10):
        baked = textured(ball(), striped, Baking(**{**vars(SMALL), "view_size": 64, "refine": refine}))
        gaps.append(inner_difference(true, look_at_mesh(baked)(cameras)))
    assert gaps[1] < 0.8 * gaps[0]


def test_a_faint_border_does_not_darken_the_texture():
    """Premultiplied colours fade to black at silhouettes; the surface does not."""

    def faint(cameras):
        views = sphere_views(cameras)
        towards = torch.nn.functional.normalize(cameras.centers[:, :, None, None] - views.normals * RADIUS, dim=-1)
        alpha = views.alpha * ((views.normals * towards).sum(-1, keepdim=True) * 3).clamp(0, 1)
        return Views(alpha * torch.tensor([0.9, 0.5, 0.2]), alpha, views.depth, views.normals, cameras)

    picture = np.asarray(textured(ball(), faint, SMALL).visual.material.baseColorTexture).astype(int)
    assert np.abs(picture - np.round(255 * np.array([0.9, 0.5, 0.2]))).max() <= 3


def test_what_no_view_sees_takes_the_colour_beside_it_and_nothing_bleeds_through():
    """A small ball within a shell: only the shell is seen, in its own colour; the ball gets that of its neighbourhood."""

    def red(cameras):
        views = sphere_views(cameras)
        return Views(views.alpha * torch.tensor([1.0, 0.0, 0.0]), views.alpha, views.depth, views.normals, cameras)

    both = trimesh.util.concatenate([ball(), trimesh.creation.icosphere(2, 0.2)])
    picture = np.asarray(textured(both, red, SMALL).visual.material.baseColorTexture)
    assert (picture == [255, 0, 0]).all()


def test_a_hidden_side_is_not_painted_with_what_stands_before_it():
    """Two balls, red and green: each keeps its own colour where one hides the other."""
    centers = {(-0.4, 0.0, 0.0): (1.0, 0.0, 0.0), (0.4, 0.0, 0.0): (0.0, 1.0, 0.0)}

    def two(cameras):
        parts = [(sphere_views(cameras, 0.35, center), torch.tensor(rgb)) for center, rgb in centers.items()]
        (a, red), (b, green) = parts
        first = (a.alpha > 0) & ((b.alpha == 0) | (a.depth < b.depth))
        alpha = torch.maximum(a.alpha, b.alpha)
        return Views(
            torch.where(first, red, b.alpha * green) * alpha, alpha, torch.where(first, a.depth, b.depth), None, cameras
        )

    balls = [trimesh.creation.icosphere(3, 0.35) for _ in centers]
    for mesh, center in zip(balls, centers, strict=True):
        mesh.apply_translation(center)
    baked = textured(trimesh.util.concatenate(balls), two, SMALL)
    picture = np.asarray(baked.visual.material.baseColorTexture)
    texel = (baked.visual.uv * [1, -1] + [0, 1]) * 256
    colours = picture[tuple(texel.astype(int).clip(0, 255).T[::-1])]
    red = baked.vertices[:, 0] < 0
    assert (colours[red] == [255, 0, 0]).all(1).mean() > 0.98
    assert (colours[~red] == [0, 255, 0]).all(1).mean() > 0.98


def test_splats_are_baked_too():
    torch.manual_seed(0)
    n = 600
    means = torch.nn.functional.normalize(torch.randn(n, 3), dim=1) * 0.5
    rgb = 0.5 + means
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    splats = Splats(means, torch.full((n, 3), -2.8), quats, torch.full((n,), 4.0), sh_from_rgb(rgb)[:, None])
    look = look_at(splats)
    baked = textured(shape(look, Meshing(resolution=64, views=24, size=96, faces=2000))[0], look, SMALL)
    cameras = lattice_cameras(4, 96, turn_deg=50.0)
    made, mesh = look(cameras), look_at_mesh(baked)(cameras)
    iou = ((made.alpha >= 0.5) & (mesh.alpha >= 0.5)).sum() / ((made.alpha >= 0.5) | (mesh.alpha >= 0.5)).sum()
    assert iou > 0.95
    solid = ((made.alpha > 0.99) & (mesh.alpha > 0.99))[..., 0]
    assert float((made.rgb - mesh.rgb).abs()[solid].mean()) < 0.04


def test_a_normal_map_shows_the_fine_surface_on_the_coarse_one():
    """An icosahedron's subdivision seen through a ball's normals: shading with the map gives the ball's normals back."""
    coarse = trimesh.creation.icosphere(1, RADIUS)
    baked = textured(coarse, sphere_views, Baking(**{**vars(SMALL), "normal_map": True, "unwrap_limit_s": 0.0}))
    picture = np.asarray(baked.visual.material.normalTexture).astype(np.float64) / 255 * 2 - 1
    corners, uv = baked.vertices[baked.faces], baked.visual.uv[baked.faces]
    along = directions(np.float32(corners), np.float32(uv))
    # At the middle of each face, in the frame built from its own normal as all viewers do.
    texel = ((uv.mean(1) * [1, -1] + [0, 1]) * 256).astype(int)
    local = picture[texel[:, 1], texel[:, 0]]
    n = baked.vertex_normals[baked.faces].mean(1)
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    t = along[0] - (along[0] * n).sum(1, keepdims=True) * n
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    world = local[:, :1] * t + local[:, 1:2] * np.cross(n, t) + local[:, 2:] * n
    middle = corners.mean(1)
    expected = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    assert ((world * expected).sum(1) / np.linalg.norm(world, axis=1)).min() > 0.99


def test_tangent_space_has_x_along_u_y_along_v_and_z_outwards():
    corners = np.float32([[[0, 0, 0], [0, 2, 0], [0, 0, 2]]])  # faces +x; u along y, v along z
    along, up = directions(corners, np.float32([[[0, 0], [0.5, 0], [0, 0.5]]]))
    np.testing.assert_allclose(along, [[0, 4, 0]], atol=1e-6)
    np.testing.assert_allclose(up, [[0, 0, 4]], atol=1e-6)
    smooth = np.float32([[1, 0, 0]])
    fine = np.float32([[0.8, 0.6, 0]])
    np.testing.assert_allclose(tangent_space(fine, smooth, along, up), [[0.6, 0, 0.8]], atol=1e-6)
    # Mirrored charts keep y along v.
    np.testing.assert_allclose(tangent_space(np.float32([[0.8, 0, 0.6]]), smooth, -along, up), [[0, 0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(tangent_space(-fine, smooth, along, up), [[0, 0, 1]])


def test_what_cannot_be_baked_is_refused():
    with pytest.raises(ValueError, match="no faces"):
        textured(trimesh.Trimesh(), sphere_views, SMALL)

    def plain(cameras):
        views = sphere_views(cameras)
        return Views(views.rgb, views.alpha, None, None, cameras)

    with pytest.raises(ValueError, match="shows normals"):
        textured(ball(), plain, Baking(**{**vars(SMALL), "normal_map": True}))


def test_cameras_all_around_look_from_everywhere_and_meet_no_others():
    from rl3d.export.meshes.report import unseen_cameras

    baked = torch.nn.functional.normalize(lattice_cameras(64, 8).centers[0], dim=-1)
    unseen = torch.nn.functional.normalize(unseen_cameras().centers[0], dim=-1)
    assert float((baked @ unseen.T).max()) < np.cos(np.radians(1))
    assert float(baked.mean(0).norm()) < 0.02
    away = (baked @ baked.T).fill_diagonal_(-1).amax(1)
    assert float(away.max()) < np.cos(np.radians(15))
