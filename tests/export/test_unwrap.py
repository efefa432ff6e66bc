import os
import sys
import time

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from rl3d.export.meshes.topology import layout
from rl3d.export.meshes.unwrap import XATLAS, _by_xatlas, overlap, project, unwrap


def signed_areas(found):
    corners = found.uv[found.faces]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2


def spiral():
    """A ramp that turns three times above itself: every face looks up, and the projection of all lies on itself."""
    turns = np.linspace(0, 6 * np.pi, 200)
    rim = [np.stack([r * np.cos(turns), r * np.sin(turns), turns / 20], 1) for r in (0.4, 0.8)]
    vertices = np.stack(rim, 1).reshape(-1, 3)
    i = 2 * np.arange(199)[:, None]
    faces = np.concatenate([i + np.array(corners) for corners in ([0, 1, 3], [0, 3, 2])])
    return trimesh.Trimesh(vertices, faces, process=False)


SHAPES = {
    "sphere": lambda: trimesh.creation.icosphere(2),
    "box": lambda: trimesh.creation.box((1, 0.5, 0.3)),
    "torus": lambda: trimesh.creation.torus(0.6, 0.2, 16, 16),
    "spiral": spiral,
    "triangle": lambda: trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]),
    "two": lambda: trimesh.util.concatenate([trimesh.creation.icosphere(1), trimesh.creation.box()]),
}


@pytest.mark.parametrize("way", ["xatlas", "plain"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_face_has_its_own_place_in_the_square(name, way):
    mesh = SHAPES[name]()
    found = unwrap(mesh, size=512) if way == "xatlas" else project(mesh, size=512)
    assert ("xatlas in" in found.how) == (way == "xatlas")
    np.testing.assert_array_equal(found.sources[found.faces], mesh.faces)
    assert found.uv.min() >= 0
    assert found.uv.max() <= 1
    assert (np.abs(signed_areas(found)) > 1e-9).all()
    # No two faces share a place: checked pair by pair, without the grid that makes charts.
    corners = found.uv[found.faces]
    corners = np.where((signed_areas(found) < 0)[:, None, None], corners[:, ::-1], corners)
    low, high = corners.min(1), corners.max(1)
    near = (low[:, None] < high[None]).all(-1) & (low[None] < high[:, None]).all(-1)
    pairs = np.argwhere(np.triu(near, 1))
    assert not any(overlap(_shrunk(corners[i]), _shrunk(corners[j])) for i, j in pairs)


def _shrunk(triangle):
    middle = triangle.mean(0)
    return middle + (1 - 1e-3) * (triangle - middle)


def test_the_plain_way_keeps_faces_upright_and_lengths_within_the_square_root_of_three():
    mesh = trimesh.creation.icosphere(3)
    found = project(mesh, size=512)
    assert (signed_areas(found) > 0).all()
    shrunk = signed_areas(found) / mesh.area_faces
    assert shrunk.max() / shrunk.min() < np.sqrt(3) + 1e-6
    visual = trimesh.visual.TextureVisuals(uv=found.uv)
    flat = layout(trimesh.Trimesh(mesh.vertices[found.sources], found.faces, visual=visual, process=False))
    assert flat["coverage"] > 0.25
    assert 1 <= flat["stretch_l2"] < 1.3


def test_charts_keep_their_distance():
    mesh, size = trimesh.creation.box(), 256
    found = project(mesh, size=size, padding=8)
    charts = [found.uv[found.faces[mesh.face_normals @ axis > 0.9].ravel()] * size for axis in (*np.eye(3), *-np.eye(3))]
    boxes = np.array([[chart.min(0), chart.max(0)] for chart in charts])
    for i in range(6):
        for j in range(i):
            gaps = np.maximum(boxes[i, 0] - boxes[j, 1], boxes[j, 0] - boxes[i, 1])
            assert gaps.max() > 8 - 1e-6


def test_a_process_that_does_not_end_is_killed(tmp_path):
    note = tmp_path / "pid"
    hang = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    begun = time.monotonic()
    found = unwrap(trimesh.creation.icosphere(2), limit_s=0.3, command=(sys.executable, "-c", hang))
    assert time.monotonic() - begun < 600
    assert "stopped after 3 s by the clock" in found.how
    assert len(found.faces) == 320
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on CPU time")
def test_xatlas_is_limited_by_its_own_time():
    mesh = trimesh.creation.icosphere(6)
    rng = np.random.default_rng(0)
    crumpled = trimesh.Trimesh(mesh.vertices + 0.05 * rng.standard_normal(mesh.vertices.shape), mesh.faces, process=False)
    # Without the plain way, which takes a while for so many faces.
    assert _by_xatlas(crumpled, 1024, 4, 2, XATLAS) == "stopped after 2 s of CPU"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.abort()", "failed with status"),
        ("print('nonsense')", "gave no answer"),
        ("pass", "gave no answer"),
        (
            "import sys, numpy as np; i = np.arange(240).reshape(80, 3); "
            "np.savez(sys.stdout.buffer, vmapping=i.ravel(), faces=i, uv=np.zeros((240, 2)))",
            "lost faces",
        ),
    ],
)
def test_what_answers_nonsense_is_not_believed(program, said):
    found = unwrap(trimesh.creation.icosphere(1), command=(sys.executable, "-c", program))
    assert said in found.how
    assert "six axes" in found.how


def test_a_program_that_is_missing_is_said():
    assert "FileNotFoundError" in unwrap(trimesh.creation.icosphere(0), command=("/no/such/program",)).how


def test_xatlas_can_be_left_out_and_an_empty_mesh_is_refused():
    assert "not asked for" in unwrap(trimesh.creation.icosphere(0), limit_s=0).how
    assert XATLAS[0] == sys.executable
    with pytest.raises(ValueError, match="no faces"):
        unwrap(trimesh.Trimesh())


def test_triangles_overlap_only_where_they_share_more_than_a_border():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        a, b = (p[ConvexHull(p).vertices] for p in rng.uniform(size=(2, 3, 2)))
        # The slow way: the largest margin by which a point lies within all six edges, on a fine grid.
        grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 150)] * 2), -1).reshape(-1, 2)
        margin = np.full(len(grid), np.inf)
        for p in (a, b):
            for k in range(3):
                e = p[(k + 1) % 3] - p[k]
                margin = np.minimum(margin, (e[0] * (grid[:, 1] - p[k, 1]) - e[1] * (grid[:, 0] - p[k, 0])) / np.linalg.norm(e))
        if margin.max() > 0:
            assert overlap(a, b)
            hits += 1
        elif margin.max() < -0.02:
            assert not overlap(a, b)
    assert 50 < hits < 250
    one = np.array([[0.0, 0], [1, 0], [0, 1]])
    assert not overlap(one, np.array([[1.0, 0], [1, 1], [0, 1]]))
    assert overlap(one, one)
