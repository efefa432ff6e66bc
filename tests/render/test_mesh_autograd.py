"""Meshes drawn differentiably: as others draw them, and with the gradients that differences and closed forms give."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import ConvexHull

from rl3d.cameras import Orbit, look_at_origin
from rl3d.render.mesh_autograd import Connectivity, Surface, corner_normals, in_camera, render_surface
from rl3d.render.mipmap import texture_at_level
from rl3d.render.textured import look_at_mesh, texture_at

FRONT = look_at_origin(torch.zeros(1, 1), torch.zeros(1, 1), width=32, height=32)


def surface(mesh, texture=None, dtype=torch.float64, uv=None):
    """A mesh that shows a texture through its corners' places, or one colour."""
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=dtype)
    faces = torch.tensor(np.asarray(mesh.faces))
    texture = torch.tensor([0.8, 0.4, 0.2]).expand(4, 4, 3).clone() if texture is None else texture
    if uv is None:
        uv = 0.5 + 0.4 * vertices[faces][..., 1:]
    return Surface(vertices, texture.to(dtype), uv.to(dtype), Connectivity.of(vertices, faces))


def quad(angle_deg=0.0, half=0.4, x=0.0, shift=(0.0, 0.0)):
    """An open square that faces the front camera."""
    turn = math.radians(angle_deg)
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    corners = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + shift
    return trimesh.Trimesh(np.insert(corners, 0, x, 1), [[0, 1, 2], [0, 2, 3]], process=False)


def moved(one, vertices):
    return Surface(vertices, one.texture, one.uv, one.connectivity)


def loss_of(one, cameras, samples=2, seed=0):
    """A random linear functional of all that is seen."""
    views = render_surface(one, cameras, samples=samples)
    rng = torch.Generator().manual_seed(seed)
    return sum((torch.rand(x.shape, generator=rng).to(x) * x).sum() for x in (views.rgb, views.alpha))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("angle", [0.0, 10.0, 33.0, 45.0, 80.0])
def test_coverage_is_the_area_and_its_gradient_that_of_the_area(angle, samples):
    one = surface(quad(angle, shift=(0.013, -0.02)))
    vertices = one.vertices.clone().requires_grad_()
    seen = render_surface(moved(one, vertices), FRONT, samples=samples).alpha.sum()
    (found,) = torch.autograd.grad(seen, vertices)
    local = in_camera(vertices, FRONT)[0]
    x, y = (local[:, :2] / local[:, 2:]).unbind(-1)
    area = 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum().abs()
    (wanted,) = torch.autograd.grad(area, vertices)
    assert seen.item() == pytest.approx(area.item(), rel=2e-3)
    # An edge is met once a row of samples: up to a row at its ends is one vertex's or the other's.
    torch.testing.assert_close(found[:, 1:], wanted[:, 1:], rtol=0.0, atol=0.15 / samples * float(wanted.abs().max()))


def test_a_quad_that_moves_by_parts_of_a_pixel_covers_what_it_should():
    pixel = 2 * 3 * math.tan(math.radians(20)) / 32
    shares = []
    for part in (0.0, 0.1, 0.35, 0.5, 0.8, 1.0):
        views = render_surface(surface(quad(half=4 * pixel, shift=(part * pixel, 0.0))), FRONT, samples=1)
        row = views.alpha[0, 0, 16, :, 0]
        shares.append((row[11].item(), row[12].item(), row[19].item(), row[20].item()))
    for part, (before, first, last, after) in zip((0.1, 0.35, 0.5, 0.8), shares[1:5], strict=True):
        # World y goes to the right: the camera looks along -x.
        assert before == pytest.approx(0.0, abs=1e-6)
        assert first == pytest.approx(1 - part, abs=1e-6)
        assert last == pytest.approx(1.0, abs=1e-6)
        assert after == pytest.approx(part, abs=1e-6)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "build", [lambda: trimesh.creation.icosphere(2, 0.5), lambda: trimesh.creation.icosphere(4, 0.5), quad]
)
def test_gradients_in_the_vertices_are_those_of_differences(build, samples):
    rng = np.random.default_rng(1)
    texture = torch.from_numpy(rng.random((8, 8, 3)))
    one = surface(build(), texture)
    cameras = Orbit(views=2, elevation_deg=23.0, start_deg=17.0, size=24).cameras()
    vertices = one.vertices.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss_of(moved(one, vertices), cameras, samples), vertices)
    smooth = torch.stack([torch.sin(3 * one.vertices[:, 1]), torch.cos(2 * one.vertices[:, 2]), one.vertices[:, 0]], -1)
    for direction in (torch.tensor([0.3, 1.0, -0.5]).expand_as(one.vertices), one.vertices, smooth):
        # Central differences over several steps: their middle is not thrown by the few samples that change faces on the way.
        steps = [2e-5, 5e-5, 1e-4, 2e-4, 4e-4]
        ahead, back = (
            [float(loss_of(moved(one, one.vertices + sign * step * direction), cameras, samples)) for step in steps]
            for sign in (1, -1)
        )
        differences = [(a - b) / (2 * s) for a, b, s in zip(ahead, back, steps, strict=True)]
        assert float((found * direction).sum()) == pytest.approx(float(np.median(differences)), rel=0.03, abs=0.3)


def test_outlines_alone_carry_a_gradient_where_the_colour_is_one():
    one = surface(trimesh.creation.icosphere(3, 0.5))
    vertices = one.vertices.clone().requires_grad_()
    seen = render_surface(moved(one, vertices), FRONT).alpha.sum()
    (found,) = torch.autograd.grad(seen, vertices)
    touched = found.abs().sum(1) > 1e-9
    rim = one.vertices[touched]
    assert 10 < int(touched.sum()) < len(vertices) / 3
    # The rim of a sphere of radius r from distance d lies in the plane at r^2 / d.
    assert (rim[:, 0] - 0.25 / 3).abs().max() < 0.12
    # It grows by its rim times the speed on the picture.
    focal, r, d = FRONT.intrinsics[0, 0, 0, 0].item(), 0.5, 3.0
    growth = 2 * math.pi * focal**2 * r * d**2 / (d**2 - r**2) ** 2
    assert float((found * one.vertices / r).sum()) == pytest.approx(growth, rel=0.03)


def test_gradients_in_the_texture_are_exact():
    rng = torch.Generator().manual_seed(0)
    texture = torch.rand(16, 16, 3, generator=rng, dtype=torch.float64)
    one = surface(trimesh.creation.icosphere(3, 0.5), texture)
    texture = one.texture.clone().requires_grad_()
    value = loss_of(Surface(one.vertices, texture, one.uv, one.connectivity), FRONT)
    (found,) = torch.autograd.grad(value, texture)
    change = torch.rand(16, 16, 3, generator=rng, dtype=torch.float64)
    after = loss_of(Surface(one.vertices, texture.detach() + change, one.uv, one.connectivity), FRONT)
    # What is seen is linear in the texture.
    assert float(after - value.detach()) == pytest.approx(float((found * change).sum()), rel=1e-9)


def test_it_sees_what_the_exporters_measure_see():
    mesh = trimesh.creation.icosphere(4, 0.6)
    rng = np.random.default_rng(0)
    picture = (255 * rng.random((6, 6, 3))).round().astype(np.uint8)
    uv = 0.5 + 0.4 * np.asarray(mesh.vertices)[:, 1:]
    from PIL import Image

    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    corner_uv = torch.tensor(uv)[torch.tensor(np.asarray(mesh.faces))]
    one = surface(mesh, torch.from_numpy(picture / 255), torch.float32, corner_uv)
    cameras = Orbit(views=3, size=48).cameras()
    ours, theirs = render_surface(one, cameras, samples=3), look_at_mesh(mesh, samples=3)(cameras)
    inside = ((ours.alpha > 0.999) & (theirs.alpha > 0.999))[..., 0]
    assert (ours.rgb - theirs.rgb)[inside].abs().max() < 1e-4
    assert (ours.depth - theirs.depth)[inside].abs().max() < 1e-4
    assert (ours.normals - theirs.normals)[inside].abs().max() < 0.06
    assert (ours.alpha - theirs.alpha).abs().max() < 0.34
    assert (ours.alpha - theirs.alpha).abs().mean() < 2e-3


def test_depth_and_normals_of_a_plane():
    views = render_surface(surface(quad(half=0.6, x=0.25)), FRONT)
    solid = views.alpha[..., 0] > 0.999
    torch.testing.assert_close(views.depth[solid], torch.full_like(views.depth[solid], 2.75), rtol=0, atol=1e-6)
    wanted = torch.tensor([1.0, 0, 0], dtype=torch.float64).expand_as(views.normals[solid])
    torch.testing.assert_close(views.normals[solid], wanted, rtol=0, atol=1e-6)
    assert (views.depth[views.alpha[..., 0] == 0] == 0).all()


def test_depth_moves_with_the_surface():
    one = surface(quad(half=0.6))
    vertices = one.vertices.clone().requires_grad_()
    views = render_surface(moved(one, vertices), FRONT)
    (found,) = torch.autograd.grad(views.depth[0, 0, 12:20, 12:20].sum(), vertices)
    assert float(found[:, 0].sum()) == pytest.approx(-64, abs=1e-6)


def test_what_is_hidden_and_what_goes_on_is_no_outline():
    """A square behind a larger one shows nothing, and neither does the diagonal of the larger."""
    near, far = quad(20.0, 0.6, 0.2), quad(0.0, 0.3, -0.2)
    both = trimesh.util.concatenate([near, far])
    one, alone = surface(both), surface(near)
    torch.testing.assert_close(render_surface(one, FRONT).alpha, render_surface(alone, FRONT).alpha)
    vertices = one.vertices.clone().requires_grad_()
    views = render_surface(moved(one, vertices), FRONT)
    (found,) = torch.autograd.grad(views.alpha.sum() + views.rgb.sum(), vertices)
    assert found[4:].abs().max() == 0
    inner = views.alpha[0, 0, 12:20, 12:20]
    assert inner.min() == inner.max() == 1


def test_a_square_before_another_mixes_their_colours():
    near, far = quad(0.0, 0.3, 0.2), quad(0.0, 0.9, -0.2)
    both = trimesh.util.concatenate([near, far])
    texture = torch.zeros(2, 4, 3)
    texture[:, :2, 0], texture[:, 2:, 2] = 1, 1
    uv = torch.tensor([0.125, 0.5]).expand(4, 3, 2).clone()
    uv[2:, :, 0] = 0.625
    one = surface(both, texture, uv=uv)
    views = render_surface(one, FRONT, samples=1)
    pixel = 3 * math.tan(math.radians(20)) / 16 * 2.8 / 3
    red = views.rgb[0, 0, 16, :, 0]
    assert float(red.sum()) == pytest.approx(0.6 / pixel, rel=1e-3)
    torch.testing.assert_close(views.rgb[0, 0, 16, 8:24].sum(-1), torch.ones(16, dtype=torch.float64))


def test_textures_are_read_as_gltf_has_it_and_coarser_by_means():
    rng = np.random.default_rng(0)
    picture, uv = rng.random((8, 16, 3), np.float32), rng.uniform(-1.5, 2.5, (200, 2))
    texture, places = torch.from_numpy(picture), torch.from_numpy(uv.astype(np.float32))
    found = texture_at_level(texture, places, torch.zeros(200))
    np.testing.assert_allclose(found.numpy(), texture_at(picture, uv.astype(np.float32)), atol=2e-5)
    half = picture.reshape(4, 2, 8, 2, 3).mean((1, 3))
    coarse = texture_at_level(texture, places, torch.ones(200))
    np.testing.assert_allclose(coarse.numpy(), texture_at(half, uv.astype(np.float32)), atol=2e-5)
    between = texture_at_level(texture, places, torch.full((200,), 0.25))
    torch.testing.assert_close(between, 0.75 * found + 0.25 * coarse)
    # As far as it can be halved, and no further.
    torch.testing.assert_close(
        texture_at_level(texture[:6], places, torch.full((200,), 9.0)), texture_at_level(texture[:6], places, torch.ones(200))
    )


def test_far_away_a_fine_texture_is_seen_as_its_mean():
    checks = torch.from_numpy(np.indices((256, 256)).sum(0) % 2 * 1.0)[..., None].expand(-1, -1, 3)
    one = surface(quad(half=0.5), checks.clone(), uv=torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1.0]]]))
    views = render_surface(one, FRONT, samples=1)
    solid = views.alpha[..., 0] > 0.999
    assert (views.rgb[solid] - 0.5).abs().max() < 0.01


def test_normals_part_at_creases_and_run_together_elsewhere():
    box = surface(trimesh.creation.box())
    normals = corner_normals(box.vertices, box.connectivity)
    assert torch.allclose(normals.abs().amax(-1), torch.ones(12, 3, dtype=torch.float64))
    ball = surface(trimesh.creation.icosphere(3, 0.5))
    normals = corner_normals(ball.vertices, ball.connectivity)
    torch.testing.assert_close(normals, 2 * ball.vertices[ball.connectivity.faces], rtol=0, atol=0.03)


def test_edges_have_their_faces():
    ball = surface(trimesh.creation.icosphere(1, 0.5)).connectivity
    assert len(ball.edges) == 120
    assert (ball.opposite >= 0).all()
    open_ = surface(quad()).connectivity
    assert len(open_.edges) == 5
    assert (open_.opposite[:, 1] < 0).sum() == 4
    # Three faces at one edge: it stands for each of them.
    fan = trimesh.Trimesh(
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, -1, 0]], [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False
    )
    assert len(surface(fan).connectivity.edges) == 9


def test_the_outline_of_a_turned_box_is_its_hull():
    box = trimesh.creation.box((0.8, 0.5, 0.3))
    cameras = look_at_origin(torch.tensor([[31.0]]), torch.tensor([[24.0]]), width=40, height=40)
    one = surface(box)
    local = in_camera(one.vertices, cameras)[0]
    hull = ConvexHull((local[:, :2] / local[:, 2:]).numpy())
    assert float(render_surface(one, cameras).alpha.sum()) == pytest.approx(hull.volume, rel=2e-3)


def test_nothing_in_view_is_nothing_seen():
    views = render_surface(surface(quad(shift=(5.0, 0.0))), FRONT)
    assert views.alpha.max() == 0
    assert views.rgb.max() == 0
