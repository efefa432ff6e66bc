import numpy as np
import pytest
import torch
import trimesh
from helpers import sphere_views

from rl3d.export.meshes.meshing import QUICK, Meshing, shape, to_mesh
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh
from rl3d.types import Views

SMALL = Meshing(resolution=64, views=24, size=96, faces=4000)


def sphere(cameras):
    return sphere_views(cameras, 0.6, (0.1, 0.0, -0.05))


def test_a_mesh_has_the_faces_and_the_colours_asked_for():
    mesh = to_mesh(sphere, SMALL)
    assert 3000 < len(mesh.faces) <= 4000
    normals = (mesh.vertices - [0.1, 0, -0.05]) / 0.6
    assert np.abs(mesh.visual.vertex_colors[:, :3] / 255 - (0.5 + normals / 2)).mean() < 0.05
    assert (mesh.visual.vertex_colors[:, 3] == 255).all()
    assert len(to_mesh(sphere, Meshing(resolution=64, views=24, size=96, faces=None)).faces) > 4000


def test_a_solid_on_request_and_the_views_it_was_made_of():
    mesh, views = shape(sphere, Meshing(resolution=64, views=24, size=96, faces=2000, watertight=True))
    assert mesh.is_volume
    assert len(mesh.faces) <= 2000
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.04)
    assert views.rgb.shape == (1, 24, 96, 96, 3)


def test_edges_of_a_box_stay_sharp():
    box = trimesh.creation.box((0.9, 0.7, 0.5))
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.full((8, 4), 200, np.uint8))
    mesh, _ = shape(look_at_mesh(box), Meshing(resolution=96, views=32, size=192, faces=3000))
    np.testing.assert_allclose(mesh.extents, box.extents, atol=0.025)
    flat = np.abs(mesh.face_normals).max(1) > np.cos(np.radians(8))
    assert mesh.area_faces[flat].sum() > 0.85 * mesh.area


def test_parts_that_are_apart_stay_apart():
    points = torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.6]])
    mesh = to_mesh(look_at(from_points(points, torch.eye(3), 0.1, opacity=0.98)), SMALL)
    assert len(mesh.split()) == 3


def test_nothing_or_faint_is_said():
    points = torch.tensor([[0.0, 0.0, 0.0]])
    faint = look_at(from_points(points, torch.full((1, 3), 0.5), 0.2, opacity=0.2))
    with pytest.raises(ValueError, match="empty, or too faint"):
        to_mesh(faint, SMALL)

    def flat(cameras):
        views = sphere(cameras)
        return Views(views.rgb, views.alpha, None, None, cameras)

    with pytest.raises(ValueError, match="depth"):
        to_mesh(flat, SMALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [("resolution", 4), ("views", 2), ("size", 8), ("faces", 3), ("smooth", -1), ("debris", 1.5), ("resolution", 4096)],
)
def test_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Meshing(**{field: value})
    assert QUICK.resolution < Meshing().resolution
