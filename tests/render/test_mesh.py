from __future__ import annotations

import math
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.render.mesh import TriangleMesh, box_filter, corner_normals, depth_and_normals, join, rasterize
from rl3d.toybox import shapes


def triangle_mesh(mesh, crease_deg=40.0) -> TriangleMesh:
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    return TriangleMesh(vertices, faces, corner_normals(vertices, faces, crease_deg), np.zeros(len(faces), np.int32))


def soup(vertices) -> TriangleMesh:
    """Triangles [m 3 3] that share nothing."""
    vertices = np.asarray(vertices, np.float32).reshape(-1, 3)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    return TriangleMesh(vertices, faces, corner_normals(vertices, faces, 0.0), np.zeros(len(faces), np.int32))


def sample_rays(cameras, samples):
    """World-space centres [b v 3] and directions [b v h w 3] whose camera-space z is 1."""
    y, x = np.meshgrid(
        (np.arange(cameras.height * samples) + 0.5) / samples,
        (np.arange(cameras.width * samples) + 0.5) / samples,
        indexing="ij",
    )
    pixels = np.stack([x, y, np.ones_like(x)], -1)
    inverse = np.linalg.inv(cameras.intrinsics.double().numpy())
    rotation = cameras.cam_from_world[..., :3, :3].double().numpy()
    to_world = np.swapaxes(rotation, -1, -2) @ inverse
    return cameras.centers.double().numpy(), np.einsum("bvij,hwj->bvhwi", to_world, pixels)


def cast(mesh, origin, directions, near):
    """Moller and Trumbore over all pairs: nearest face, its barycentrics and depth, and whether it is clear of edges."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(float) for k in range(3))
    d = directions.reshape(-1, 1, 3)
    h = np.cross(d, c - a)
    determinant = ((b - a) * h).sum(-1)
    s = origin - a
    u = (s * h).sum(-1) / determinant
    q = np.cross(s, b - a)
    v = (d * q).sum(-1) / determinant
    t = ((c - a) * q).sum(-1) / determinant
    margin = np.minimum(np.minimum(u, v), 1 - u - v)
    t = np.where((margin >= 0) & (t >= near), t, np.inf)
    face = t.argmin(1)
    rows = np.arange(len(t))
    second = np.sort(t, axis=1)[:, 1] if t.shape[1] > 1 else np.full(len(t), np.inf)
    depth = t[rows, face]
    clear = (np.abs(margin).min(1) > 1e-4) & ((second > depth + 1e-4) | np.isinf(depth))
    return np.where(np.isinf(depth), -1, face), np.stack([u[rows, face], v[rows, face]], -1), depth, clear


@pytest.mark.parametrize("near", [0.01, 1.5])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_agrees_with_ray_casting_also_through_the_camera_plane(spread, near):
    rng = np.random.default_rng(1)
    centres = rng.uniform(-spread, spread, (40, 1, 3))
    mesh = soup(centres + rng.normal(size=(40, 3, 3)) * spread / 2)
    cameras = Orbit(views=3, elevation_deg=25, distance=2.0, fov_y_deg=60, size=24).cameras()
    assert spread == 1 or (np.linalg.norm(mesh.vertices, axis=1) > 2).any()
    seen = rasterize(mesh, cameras, samples=2, near=near)
    origins, directions = sample_rays(cameras, 2)
    for view in range(3):
        face, barycentrics, depth, clear = cast(mesh, origins[0, view], directions[0, view], near)
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(seen.face[0, view].ravel()[clear], face[clear])
        hit = clear & (face >= 0)
        assert hit.any()
        np.testing.assert_allclose(seen.barycentrics[0, view].reshape(-1, 2)[hit], barycentrics[hit], atol=1e-3)
        np.testing.assert_allclose(1 / seen.inverse_depth[0, view].ravel()[hit], depth[hit], rtol=1e-4)


def test_sphere_silhouette_depth_and_normals():
    radius, distance = 0.8, 3.0
    mesh = triangle_mesh(shapes.sphere(radius, 96))
    cameras = Orbit(views=2, elevation_deg=30, distance=distance, size=64).cameras()
    seen = rasterize(mesh, cameras, samples=4)
    focal = float(cameras.intrinsics[0, 0, 0, 0])
    disc = math.pi * (focal * math.tan(math.asin(radius / distance))) ** 2
    covered = (seen.face >= 0).sum(axis=(2, 3)) / 16
    np.testing.assert_allclose(covered, disc, rtol=4e-3)

    depth, normals = depth_and_normals(seen, mesh, cameras)
    origins, directions = sample_rays(cameras, 4)
    a, b = (directions**2).sum(-1), (directions * origins[:, :, None, None]).sum(-1)
    root = b * b - a * (distance**2 - radius**2)
    inner = root > 0.2
    t = (-b[inner] - np.sqrt(root[inner])) / a[inner]
    np.testing.assert_allclose(depth[inner, 0], t, atol=2e-3)
    points = np.broadcast_to(origins[:, :, None, None], directions.shape)[inner] + t[:, None] * directions[inner]
    assert ((points / radius) * normals[inner]).sum(-1).min() > 0.9995


def test_box_depth_and_flat_normals():
    mesh = triangle_mesh(shapes.move(shapes.box(1.0, 1.0, 1.0), z=-0.5))
    cameras = look_at_origin(torch.tensor([[0.0, 90.0]]), torch.tensor([[0.0, 0.0]]), width=32, height=32)
    seen = rasterize(mesh, cameras, samples=1)
    depth, normals = depth_and_normals(seen, mesh, cameras)
    assert (seen.face >= 0).any()
    covered = seen.face >= 0
    np.testing.assert_allclose(depth[covered], 2.5, atol=1e-5)
    np.testing.assert_allclose(normals[0, 0][covered[0, 0]], np.tile([1, 0, 0], (covered[0, 0].sum(), 1)), atol=1e-6)
    np.testing.assert_allclose(normals[0, 1][covered[0, 1]], np.tile([0, 1, 0], (covered[0, 1].sum(), 1)), atol=1e-6)
    side = float(cameras.intrinsics[0, 0, 0, 0]) / 2.5
    assert abs(math.sqrt(covered[0, 0].sum()) - side) <= 1


def test_tilted_plane_is_perspective_correct_and_faces_the_camera_from_both_sides():
    # The quad z = 0, seen from above and from below.
    quad = [[-9, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]]
    mesh = soup([[quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]]])
    cameras = look_at_origin(torch.tensor([[20.0, 20.0]]), torch.tensor([[50.0, -50.0]]), width=16, height=16)
    seen = rasterize(mesh, cameras, samples=2)
    assert (seen.face >= 0).all()
    depth, normals = depth_and_normals(seen, mesh, cameras)
    origins, directions = sample_rays(cameras, 2)
    np.testing.assert_allclose(depth[..., 0], -origins[:, :, None, None, 2] / directions[..., 2], rtol=1e-5)
    np.testing.assert_allclose(normals[0, 0], np.broadcast_to([0, 0, 1], normals[0, 0].shape), atol=1e-6)
    np.testing.assert_allclose(normals[0, 1], np.broadcast_to([0, 0, -1], normals[0, 1].shape), atol=1e-6)


def test_the_nearer_triangle_wins_in_either_order():
    near = [[0.5, -1, -1], [0.5, 1, -1], [0.5, 0, 1]]
    far = [[-0.5, -1, -1], [-0.5, 1, -1], [-0.5, 0, 1]]
    camera = look_at_origin(torch.zeros(1, 1), torch.zeros(1, 1), width=9, height=9)
    assert rasterize(soup([near, far]), camera).face[0, 0, 9, 9] == 0
    assert rasterize(soup([far, near]), camera).face[0, 0, 9, 9] == 1
    assert rasterize(soup([far, near]), replace(camera, cam_from_world=-camera.cam_from_world)).face.max() == -1


def test_shared_edges_leave_no_cracks():
    grid = np.linspace(-3, 3, 14)
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    points = np.stack([x, y, rng.normal(size=x.shape) * 0.1], -1)
    points[..., :2] += rng.normal(size=(14, 14, 2)) * 0.05
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -2).reshape(-1, 3, 3), np.stack([a, c, d], -2).reshape(-1, 3, 3)])
    camera = look_at_origin(torch.zeros(1, 1), torch.full((1, 1), 75.0), distance=2.0, width=64, height=64)
    assert (rasterize(soup(triangles), camera, samples=4).face >= 0).all()


def test_supersampling_is_a_finer_grid():
    mesh, cameras = triangle_mesh(shapes.torus(0.6, 0.25)), Orbit(views=2, size=16).cameras()
    few, many = rasterize(mesh, cameras, samples=3), rasterize(mesh, cameras.resized(48, 48), samples=1)
    differ = few.face != many.face
    assert differ.mean() < 1e-3  # intrinsics are rounded to float32
    x = np.random.default_rng(0).random((1, 2, 12, 6, 3), dtype=np.float32)
    np.testing.assert_allclose(box_filter(x, 3), x.reshape(1, 2, 4, 3, 2, 3, 3).mean((3, 5)), rtol=1e-5)


def test_joined_meshes_stay_apart():
    meshes = [triangle_mesh(shapes.sphere(0.5, 12)), triangle_mesh(shapes.box(1.0, 0.5, 0.3), 0.0)]
    one = Orbit(views=2, size=16).cameras()
    cameras = replace(one, cam_from_world=one.cam_from_world.repeat(2, 1, 1, 1), intrinsics=one.intrinsics.repeat(2, 1, 1, 1))
    joined, spans = join(meshes)
    both = rasterize(joined, cameras, spans)
    for i, mesh in enumerate(meshes):
        alone = rasterize(mesh, one)
        np.testing.assert_array_equal(np.where(both.face[i] < 0, -1, both.face[i] - spans[i, 0]), alone.face[0])
        np.testing.assert_array_equal(both.inverse_depth[i], alone.inverse_depth[0])
    assert set(joined.labels[spans[1, 0] :]) == {1}
    with pytest.raises(ValueError, match="2 ranges of faces for 1 scenes"):
        rasterize(joined, one, spans)


def test_any_number_of_threads_gives_the_same_bytes():
    mesh, cameras = triangle_mesh(shapes.torus(0.6, 0.25)), Orbit(views=5, size=32).cameras()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            torch.set_num_threads(threads)
            seen = rasterize(mesh, cameras)
            results.append((seen.face, seen.barycentrics, seen.inverse_depth, *depth_and_normals(seen, mesh, cameras)))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()


def test_nothing_to_draw():
    camera = Orbit(views=1, size=8).cameras()
    empty = soup(np.zeros((0, 3, 3)))
    flat = soup([[[0, 0, 0], [0, 0, 0], [0, 1, 0]]])
    for mesh in (empty, flat):
        seen = rasterize(mesh, camera)
        assert seen.face.max() == -1
        assert seen.inverse_depth.max() == 0
        depth, normals = depth_and_normals(seen, mesh, camera)
        assert not depth.any()
        assert not normals.any()


def test_corner_normals_are_smooth_below_the_crease_and_sharp_above():
    ball = triangle_mesh(shapes.sphere(1.0, 24))
    corners = ball.vertices[ball.faces]
    assert (corners * ball.normals).sum(-1).min() > 0.99
    mesh = shapes.box(1.0, 1.0, 1.0)
    cube = triangle_mesh(mesh)
    flat = np.repeat(np.asarray(mesh.face_normals)[:, None], 3, axis=1)
    np.testing.assert_allclose(cube.normals, flat, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(triangle_mesh(mesh, 100.0).normals, axis=-1), 1, atol=1e-5)
    assert np.abs(triangle_mesh(mesh, 100.0).normals - flat).max() > 0.3
