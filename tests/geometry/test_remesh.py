import numpy as np
import pytest
import trimesh

from rl3d.export.meshes.topology import topology
from rl3d.geometry.remesh import bilateral, components, decimate, fill_holes, taubin, watertight


def noisy_box(noise=0.006):
    box = trimesh.creation.box((1.0, 0.8, 0.6))
    for _ in range(4):
        box = box.subdivide()
    rng = np.random.default_rng(0)
    return box, trimesh.Trimesh(box.vertices + noise * rng.standard_normal(box.vertices.shape), box.faces, process=False)


def off(mesh, box):
    """How far a mesh's vertices are from a box's surface, in the mean."""
    half = np.abs(np.asarray(box.bounds[1]))
    beyond = np.abs(mesh.vertices) - half
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return np.abs(np.where(outside > 0, outside, beyond.max(1))).mean()


def test_components_drop_debris_and_keep_parts():
    big, half, crumb = (trimesh.creation.icosphere(3, radius) for radius in (0.5, 0.25, 0.01))
    half.apply_translation([0.9, 0, 0])
    crumb.apply_translation([-0.9, 0, 0])
    mesh = trimesh.util.concatenate([big, crumb, half])
    assert components(mesh).area == pytest.approx(big.area + half.area)
    assert components(mesh, least=0).area == pytest.approx(mesh.area)
    assert components(mesh, most=1).area == pytest.approx(big.area)
    assert len(components(mesh, most=1).vertices) == len(big.vertices)


def test_holes_are_filled_and_what_is_closed_stays():
    ball = trimesh.creation.icosphere(3, 0.5)
    keep = (ball.triangles_center[:, 2] < 0.4) & (ball.triangles_center[:, 0] > -0.45)
    open_ball = trimesh.Trimesh(ball.vertices, ball.faces[keep], process=False)
    assert not open_ball.is_watertight
    filled = fill_holes(open_ball)
    filled.remove_unreferenced_vertices()
    assert filled.is_watertight
    assert filled.is_winding_consistent
    assert 0.9 * ball.volume < filled.volume < ball.volume
    assert len(fill_holes(ball).faces) == len(ball.faces)


def test_taubin_keeps_the_volume():
    ball = trimesh.creation.icosphere(4, 0.5)
    rough = trimesh.Trimesh(ball.vertices + 0.004 * np.random.default_rng(0).standard_normal(ball.vertices.shape), ball.faces)
    smooth = taubin(rough, rounds=10)
    assert smooth.volume == pytest.approx(ball.volume, rel=0.01)
    assert smooth.area - ball.area < 0.2 * (rough.area - ball.area)


def test_bilateral_smoothing_removes_noise_and_keeps_edges():
    box, rough = noisy_box()
    smooth = bilateral(rough, rounds=10)
    assert off(smooth, box) < 0.5 * off(rough, box)
    # Taubin's filter rounds edges: there vertices of the box lie inside.
    edge = (np.abs(box.vertices) >= np.abs(box.bounds[1]) - 1e-9).sum(1) >= 2
    lost = [np.linalg.norm(m.vertices[edge] - box.vertices[edge], axis=1).mean() for m in (smooth, taubin(rough, rounds=10))]
    assert lost[0] < lost[1]
    clean = bilateral(box, rounds=10)
    np.testing.assert_allclose(clean.vertices, box.vertices, atol=1e-3)
    assert bilateral(box, rounds=0) is box


def test_decimation_reaches_its_number_and_keeps_the_shape():
    ball = trimesh.creation.icosphere(5, 0.5)
    few = decimate(ball, 1000)
    assert 900 <= len(few.faces) <= 1000
    assert np.abs(np.linalg.norm(few.vertices, axis=1) - 0.5).max() < 0.01
    assert few.volume == pytest.approx(ball.volume, rel=0.02)
    assert decimate(ball, 10**6) is ball
    with pytest.raises(ValueError, match="4 faces"):
        decimate(ball, 3)


def test_a_solid_is_closed_with_as_few_faces_as_asked_for():
    ball = trimesh.creation.icosphere(5, 0.5)
    ball = trimesh.Trimesh(ball.vertices, np.delete(ball.faces, [5, 77, 1000], 0), process=False)
    solid = watertight(ball, faces=2000)
    assert solid.is_volume
    assert len(solid.faces) <= 2000
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.02)


def test_decimation_never_tears_what_is_thin_or_full_of_holes():
    """Two sheets a tenth of an edge apart with nine tunnels between them: quadrics alone would weld them."""
    import manifold3d

    plate = manifold3d.Manifold.cube((1.0, 1.0, 0.004), True)
    for x in (-0.3, 0.0, 0.3):
        for y in (-0.3, 0.0, 0.3):
            plate -= manifold3d.Manifold.cylinder(1.0, 0.06, 0.06, 24, True).translate((x, y, 0))
    fine = plate.refine_to_length(0.02).to_mesh()
    mesh = trimesh.Trimesh(fine.vert_properties[:, :3], fine.tri_verts, process=False)
    few = decimate(mesh, 1200)
    assert len(few.faces) <= 1200
    facts = topology(few)
    assert facts["manifold"]
    assert facts["watertight"]
    assert facts["self_intersections"] == 0
    assert few.euler_number == mesh.euler_number == 2 - 2 * 9
    assert few.volume == pytest.approx(mesh.volume, rel=0.05)


def test_borders_stay_when_edges_collapse():
    ball = trimesh.creation.icosphere(4, 0.5)
    bowl = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.1], process=False)
    few = decimate(bowl, 800)

    def rim(mesh):
        edges = np.sort(mesh.edges, 1)
        _, index, uses = np.unique(edges, axis=0, return_index=True, return_counts=True)
        points = mesh.vertices[edges[index[uses == 1]]].reshape(-1, 3)
        return np.unique(points.round(9), axis=0)

    np.testing.assert_array_equal(rim(few), rim(bowl))
    assert len(few.faces) <= 800


def test_what_cannot_collapse_stays():
    pyramid = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    two = trimesh.util.concatenate([pyramid, pyramid.copy().apply_translation([3, 0, 0])])
    assert len(decimate(two, 4).faces) == 8


def test_what_is_no_solid_is_refused():
    ball = trimesh.creation.icosphere(2, 0.5)
    with pytest.raises(ValueError, match="no manifold"):
        watertight(trimesh.Trimesh(ball.vertices, np.concatenate([ball.faces, ball.faces[:1]]), process=False))
    with pytest.raises(ValueError, match="volume"):
        watertight(trimesh.Trimesh(ball.vertices, ball.faces[:, ::-1], process=False))
