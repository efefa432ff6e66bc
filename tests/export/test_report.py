import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import trimesh
from helpers import sphere_views
from scipy.optimize import linprog
from skimage.metrics import structural_similarity

from rl3d.cameras import lattice_cameras
from rl3d.evaluate.worlds import surface_errors
from rl3d.export.meshes.report import bake_gap, psnr, report, report_page, ssim
from rl3d.export.meshes.texture import Baking, textured
from rl3d.export.meshes.topology import intersections, layout, topology
from rl3d.render.textured import look_at_mesh
from rl3d.types import Views

CAMERAS = lattice_cameras(4, 64, turn_deg=20.0)


def test_a_closed_surface_has_nothing_wrong():
    found = topology(trimesh.creation.icosphere(2))
    assert found == {
        "faces": 320,
        "vertices": 162,
        "components": 1,
        "watertight": True,
        "manifold": True,
        "open_edges": 0,
        "edges_of_many_faces": 0,
        "vertices_of_many_fans": 0,
        "faces_without_area": 0,
        "self_intersections": 0,
    }


def test_what_is_wrong_is_counted():
    ball = trimesh.creation.icosphere(2)
    hole = topology(trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False))
    assert (hole["watertight"], hole["manifold"], hole["open_edges"]) == (False, True, 3)
    turned = ball.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not topology(trimesh.Trimesh(ball.vertices, turned, process=False))["watertight"]
    # Three wings on one edge.
    book = trimesh.Trimesh([[0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0]], [[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    found = topology(book)
    assert (found["edges_of_many_faces"], found["manifold"], found["components"]) == (1, False, 1)
    # Two balls that touch at a point: each edge is fine, the point is not.
    pole = ball.vertices[0]
    other = ball.copy()
    other.vertices = 2 * pole - ball.vertices
    found = topology(trimesh.util.concatenate([ball, other]))
    assert (found["vertices_of_many_fans"], found["manifold"], found["watertight"], found["components"]) == (1, False, True, 2)
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 1, 1]], process=False)
    assert topology(flat)["faces_without_area"] == 1


def test_a_cut_for_a_texture_is_no_hole():
    baked = textured(trimesh.creation.icosphere(2, 0.6), sphere_views, Baking(size=64, views=6, view_size=32))
    assert len(baked.vertices) > 162
    found = topology(baked)
    assert (found["watertight"], found["vertices"], found["components"]) == (True, 162, 1)


def meet(a, b):
    """Whether the insides of two triangles have a common point: by linear programming, as slow as it is sure."""
    # Weights of both triangles' corners, all at least t, that name one point; t is made as large as it gets.
    equal = np.zeros((5, 7))
    equal[:3, :3], equal[:3, 3:6] = a.T, -b.T
    equal[3, :3] = equal[4, 3:6] = 1
    below = np.concatenate([-np.eye(6), np.ones((6, 1))], 1)
    found = linprog([0] * 6 + [-1], below, np.zeros(6), equal, [0, 0, 0, 1, 1], bounds=[(None, None)] * 7)
    return found.status == 0 and found.x[6] > 1e-7


def test_intersections_are_those_of_a_slow_reference():
    rng = np.random.default_rng(0)
    vertices = rng.uniform(size=(30, 1, 3)) + rng.normal(size=(30, 3, 3)) * 0.3
    faces = np.arange(90).reshape(30, 3)
    found = {tuple(sorted(pair)) for pair in intersections(vertices.reshape(-1, 3), faces).tolist()}
    expected = {(i, j) for i in range(30) for j in range(i + 1, 30) if meet(vertices[i], vertices[j])}
    assert found == expected
    assert 10 < len(expected) < 300


def test_neighbours_and_touching_faces_do_not_intersect():
    box = trimesh.creation.box()
    assert len(intersections(box.vertices, box.faces)) == 0
    moved = box.copy()
    moved.apply_translation([1, 0, 0])  # side to side
    both = trimesh.util.concatenate([box, moved])
    assert topology(both)["self_intersections"] == 0
    moved.apply_translation([-0.3, 0.2, 0.1])
    assert topology(trimesh.util.concatenate([box, moved]))["self_intersections"] > 0
    assert intersections(np.zeros((0, 3)), np.zeros((0, 3), int)).shape == (0, 2)


def flat(uv, corners=((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))):
    visual = trimesh.visual.TextureVisuals(uv=np.array(uv, float))
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def test_stretch_is_that_of_closed_forms():
    square = layout(flat([[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]))
    for key in ("stretch_l2", "stretch_linf", "stretch_p99"):
        assert square[key] == pytest.approx(1)
    assert square["coverage"] == pytest.approx(0.25, abs=0.002)
    assert square["overlap"] == 0
    # Twice as long along u as along v: singular values s and s / 2, normalised to an equal area.
    wide = layout(flat([[0, 0], [1, 0], [1, 0.5], [0, 0.5]]))
    assert wide["stretch_linf"] == pytest.approx(np.sqrt(2))
    assert wide["stretch_l2"] == pytest.approx(np.sqrt((2 + 0.5) / 2))
    folded = layout(flat([[0, 0], [0.5, 0], [0.5, 0.5], [0.25, 0.25]]))
    assert folded["uncovered_faces"] == 1
    mirrored = layout(flat([[0, 0], [0.5, 0], [0.5, 0.5], [0.4, 0.1]]))
    assert mirrored["overlap"] > 0
    assert layout(trimesh.creation.box()) is None


def test_the_gap_of_a_mesh_to_itself_is_nothing():
    mesh = trimesh.creation.icosphere(3, 0.6)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.full((642, 4), 200, np.uint8))
    views = look_at_mesh(mesh, samples=1)(CAMERAS)
    gap = bake_gap(views, views)
    assert gap["silhouette_iou"] == 1
    assert all(gap[key] == pytest.approx(99) for key in gap if key.startswith("psnr"))
    assert gap["ssim_white"] == pytest.approx(1, abs=1e-5)


def test_the_gap_to_a_faint_object_is_told_apart():
    """Alpha 0.8 all over: white's error is 0.2 (1 - c), black's 0.2 c, and all of it is the limit's, none the mesh's."""
    solid = sphere_views(CAMERAS)
    grey = Views(solid.alpha * torch.full_like(solid.rgb, 0.25), solid.alpha, None, None, CAMERAS)
    faint = Views(0.8 * grey.rgb, 0.8 * grey.alpha, None, None, CAMERAS)
    gap = bake_gap(faint, grey)
    assert gap["psnr_white"] == pytest.approx(-20 * np.log10(0.2 * 0.75), abs=1e-3)
    assert gap["psnr_black"] == pytest.approx(-20 * np.log10(0.2 * 0.25), abs=1e-3)
    assert gap["psnr_limit_white"] == pytest.approx(gap["psnr_white"], abs=1e-3)
    assert gap["psnr_solid_white"] > 90
    smaller = sphere_views(CAMERAS, 0.5)
    gap = bake_gap(solid, smaller)
    assert gap["silhouette_iou"] == pytest.approx(float(smaller.alpha.sum() / solid.alpha.sum()))


def test_psnr_and_ssim_are_the_known_ones():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 40, 40, 3))
    b = 0.7 * a + 0.3 * b
    one, two = (torch.from_numpy(x)[None] for x in (a, b))
    known = structural_similarity(
        a, b, channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1].mean(-1)
    np.testing.assert_allclose(ssim(one, two)[0, 6:-6, 6:-6], known[6:-6, 6:-6], atol=1e-6)
    assert psnr(one, two, torch.ones(1, 40, 40, dtype=torch.bool)) == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()))
    assert psnr(one, two, torch.zeros(1, 40, 40, dtype=torch.bool)) == 99


def test_a_report_is_json_and_its_page_needs_nothing_else():
    baked = textured(trimesh.creation.icosphere(2, 0.6), sphere_views, Baking(size=64, views=8, view_size=48, normal_map=True))
    truth = surface_errors(baked, trimesh.creation.icosphere(3, 0.6))
    facts = report(baked, sphere_views, cameras=CAMERAS, truth=truth)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["bake_gap"]["silhouette_iou"] > 0.95
    assert facts["layout"]["unwrapped"].startswith("xatlas")
    assert facts["layout"]["texels_per_unit"] > 10
    page = report_page(facts, baked, sphere_views, title="a <ball> & more")
    assert "a &lt;ball&gt; &amp; more" in page
    assert "a <ball>" not in page
    sources = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            sources.extend(value for name, value in attrs if name in ("src", "href"))

    Reader().feed(page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_errors_against_a_true_surface():
    ball = trimesh.creation.icosphere(4, 0.6)
    same = surface_errors(ball, ball)
    larger = surface_errors(trimesh.creation.icosphere(4, 0.7), ball)
    assert same["chamfer"] < 0.03  # the distance between samples of one surface
    assert larger["chamfer"] == pytest.approx(0.1, abs=0.02)
    assert larger["f_score_0.02"] == 0
    assert 0.3 < same["f_score_0.02"] < 1
