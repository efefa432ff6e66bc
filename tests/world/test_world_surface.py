"""Surfaces: what is read of meshes of many makers, how it is mended, and how it looks."""

import numpy as np
import pytest
import torch
import trimesh
from tiny_world import BLUE, RED, box, pbr, picture, quad
from trimesh.visual.material import SimpleMaterial

from rl3d.cameras import Orbit, look_at_origin
from rl3d.world.render import render_many
from rl3d.world.shading import Light
from rl3d.world.surface import COAL, GLASS, MOST, Surface, clean, join, merged, read, shrunk, upright
from rl3d.world.things import unit

DARK = Light(key=(0.0, 0.0, 0.0), sky=(0.5, 0.5, 0.5), floor=(0.5, 0.5, 0.5))
"""The same from everywhere."""


def painted(rgb) -> np.ndarray:
    """A colour as it is kept: nothing is blacker than coal."""
    return COAL + (1 - COAL / 255) * np.array(rgb, float)


def front(surface: Surface, size: int = 64, samples: int = 2):
    """One view from the front: rgba and albedo."""
    cameras = look_at_origin(torch.zeros(1, 1), torch.zeros(1, 1), width=size, height=size)
    rgba, albedo = render_many([surface], cameras, [DARK], samples=samples)
    return rgba[0, 0], albedo[0, 0]


def test_colours_of_faces_and_vertices_are_albedo():
    surface = clean(upright(read(box(1, 1, 1, RED))))
    rgba, albedo = front(unit(surface, 0.6))
    assert rgba[32, 32, 3] == 255
    np.testing.assert_allclose(albedo[32, 32], painted(RED), atol=2)
    # Light of one half, with a gamma of 2.
    np.testing.assert_allclose(rgba[32, 32, :3], painted(RED) * 0.5**0.5, atol=2)
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = [*BLUE, 255]
    np.testing.assert_allclose(read(mesh).texels, [painted(BLUE)], atol=1)


def test_pictures_stand_upright():
    pixels = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    surface = upright(read(quad(picture(np.kron(pixels, np.ones((8, 8, 1)))))))
    _, albedo = front(surface.moved((surface.vertices - surface.bounds.mean(0)) * 0.6))
    corners = albedo[[[20, 20], [44, 44]], [[20, 44], [20, 44]]]
    np.testing.assert_allclose(corners, painted(pixels), atol=3)


def test_the_front_turns_to_x_and_up_to_z():
    tip = trimesh.Trimesh([(0, 0, 3.0), (1, 0, 0), (-1, 0, 0), (0, 2, 0)], [(0, 1, 2), (0, 1, 3), (0, 2, 3)])
    surface = upright(read(tip), size=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(surface.bounds, [(-1, -0.5, 0), (1, 0.5, 3)], atol=1e-6)
    foremost = surface.vertices[surface.vertices[:, 0].argmax()]
    np.testing.assert_allclose(foremost, (1, 0, 0), atol=1e-6)  # depth is 2: the middle is at 0
    half_turn = np.diag([-1.0, 1, -1])
    assert upright(read(tip), half_turn).vertices[:, 0].min() == pytest.approx(-1.5)


def test_doubled_and_empty_faces_go_and_corners_are_welded():
    mesh = box(1, 1, 1)
    faces = np.concatenate([mesh.faces, mesh.faces[:, ::-1], [(0, 0, 1)]])
    vertices = mesh.vertices[faces].reshape(-1, 3)
    soup = trimesh.Trimesh(vertices, np.arange(len(vertices)).reshape(-1, 3), process=False)
    surface = clean(read(soup))
    assert (len(surface.vertices), len(surface.faces)) == (8, 12)


def test_a_mesh_that_is_inside_out_looks_the_same():
    mesh = trimesh.creation.icosphere(2)
    turned = trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
    cameras = Orbit(4, 20.0).cameras()
    light = Light()
    views = [render_many([unit(clean(read(x)))], cameras, [light])[0] for x in (mesh, turned)]
    # One level of rounding: corners are summed in another order.
    np.testing.assert_allclose(views[0].astype(int), views[1], atol=1)


def test_panes_are_pale_and_what_is_not_there_is_left_out():
    half = read(quad(material=SimpleMaterial(diffuse=[0, 0, 0, 255], d=["0.5"])))
    np.testing.assert_allclose(half.texels[0], painted(np.array(GLASS) / 2), atol=1)
    gone = quad(material=SimpleMaterial(diffuse=[0, 0, 0, 255], d=["0.01"]))
    with pytest.raises(ValueError, match="no visible triangles"):
        read(gone)
    both = trimesh.Scene([gone, box(1, 1, 1)])
    assert len(read(both).faces) == 12
    with pytest.raises(ValueError, match="no visible triangles"):
        read(quad(material=SimpleMaterial(diffuse=[0, 0, 0, 255], d=["0.5"])), least=0.6)
    seen = read(quad(material=pbr(baseColorFactor=[0, 0, 0, 128], alphaMode="BLEND")))
    np.testing.assert_allclose(seen.texels[0], painted(np.array(GLASS) / 2), atol=2)
    solid = read(quad(material=pbr(baseColorFactor=[0, 0, 0, 10], alphaMode="OPAQUE")))
    np.testing.assert_allclose(solid.texels[0], painted((0, 0, 0)), atol=1)


def test_factors_of_gltf_are_linear_and_multiply_pictures(tmp_path):
    for options, expected in (
        ({}, (200, 100, 50)),
        ({"baseColorFactor": [1.0, 0.5, 1.0, 1.0]}, (200, 100 * 0.735, 50)),  # linear 0.5 is 0.735 in sRGB
    ):
        made = quad(material=pbr(np.full((4, 4, 3), (200, 100, 50)), **options))
        made.export(tmp_path / "quad.glb")
        surface = read(trimesh.load_scene(tmp_path / "quad.glb", process=False))
        np.testing.assert_allclose(surface.texels[0], painted(expected), atol=2)
    plain = read(quad(material=pbr(baseColorFactor=[0.0, 0.5, 1.0, 1.0])))
    np.testing.assert_allclose(plain.texels[0], painted((0, 0.735 * 255, 255)), atol=1)


def test_holes_of_a_picture_are_cut_out():
    pixels = np.full((16, 16, 4), 200, np.uint8)
    pixels[:, :8, 3] = 0  # nothing on the left
    surface = read(quad(picture(pixels)))
    assert surface.areas().sum() == pytest.approx(2.0, rel=0.03)
    assert surface.vertices[:, 0].min() > -0.05
    assert read(quad(picture(pixels[:, 8:]))).areas().sum() == pytest.approx(4.0)


def test_mirrored_and_moved_nodes_are_placed():
    scene = trimesh.Scene()
    matrix = np.diag([-2.0, 1, 1, 1])
    matrix[:3, 3] = (5, 0, 0)
    scene.add_geometry(box(1, 1, 1), transform=matrix)
    surface = read(scene)
    np.testing.assert_allclose(surface.bounds, [(4, -0.5, -0.5), (6, 0.5, 0.5)])
    assert trimesh.Trimesh(surface.vertices, surface.faces).volume == pytest.approx(2.0)


def test_fine_meshes_are_merged_and_look_the_same():
    fine = read(trimesh.creation.icosphere(6))
    surface = clean(fine)
    assert len(fine.faces) > 3 * MOST
    assert 1000 < len(surface.faces) <= MOST
    cameras = Orbit(2, 20.0).cameras()
    (one, _), (other, _) = (render_many([unit(x)], cameras, [Light()]) for x in (fine, surface))
    assert np.abs(one.astype(int) - other).mean() < 2
    assert len(merged(fine, 10.0).faces) == 0


def test_pictures_shrink_to_what_can_be_seen_and_keep_their_mean():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (1024, 1024, 3))
    surface = shrunk(read(quad(picture(pixels))))
    assert surface.shapes.max() < 512
    np.testing.assert_allclose(surface.texels.mean(0), painted(pixels.mean((0, 1))), atol=1)
    tiled = read(quad(picture(pixels)))
    many = Surface(tiled.vertices, tiled.faces, tiled.uv * 20, tiled.labels, tiled.shapes, tiled.texels, tiled.names)
    assert shrunk(many).shapes.max() < 30


def test_surfaces_are_saved_and_joined_whole(tmp_path):
    pair = join([read(quad(picture(np.full((2, 3, 3), 90)))), read(box(1, 1, 1))])
    assert pair.shapes.tolist() == [[2, 3], [1, 1]]
    assert pair.starts.tolist() == [0, 6]
    pair.save(tmp_path / "pair.npz")
    again = Surface.load(tmp_path / "pair.npz")
    for name in ("vertices", "faces", "uv", "labels", "shapes", "texels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pair, name))
    assert again.names == pair.names
    only = again.only(again.labels == 1)
    assert (len(only.faces), len(only.vertices), len(only.texels)) == (12, 8, 1)


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        (trimesh.Trimesh(), "no visible triangles"),
        (trimesh.Trimesh([(np.nan, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)], process=False), "finite corners"),
        (trimesh.Trimesh([(1, 1, 1)] * 3, [(0, 1, 2)], process=False), "no extent"),
        (trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1, 2)], process=False), "has an area"),
    ],
)
def test_what_cannot_be_mended_says_why(mesh, reason):
    with pytest.raises(ValueError, match=reason):
        clean(read(mesh))


def test_views_need_a_light_each():
    with pytest.raises(ValueError, match="give one for each"):
        render_many([read(box(1, 1, 1))], Orbit(1).cameras(), [])
