import pytest
import torch
from helpers import sphere_views

from rl3d.cameras import Orbit
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import render_splats
from rl3d.render.surface import normals_from_depth, points_from_depth
from rl3d.types import Splats

CAMERAS = Orbit(views=3, elevation_deg=20.0, size=48).cameras()


def test_points_lie_where_depth_says():
    views = sphere_views(CAMERAS)
    points = points_from_depth(views.depth, CAMERAS)[views.alpha[..., 0] > 0]
    torch.testing.assert_close(points.norm(dim=-1), torch.full((len(points),), 0.6), atol=1e-4, rtol=0)


def test_normals_of_a_spheres_depth_are_its_own_and_stop_at_its_silhouette():
    views = sphere_views(CAMERAS)
    normals = normals_from_depth(views.depth, CAMERAS)
    known = normals.norm(dim=-1) > 0
    assert not (known & (views.alpha[..., 0] == 0)).any()
    assert known.float().mean() > 0.8 * views.alpha.mean()
    cosine = (normals * views.normals).sum(-1)[known]
    assert cosine.mean() > 0.99
    assert cosine.min() > 0.8


def test_a_plane_has_one_normal_up_to_the_images_edge():
    depth = torch.full((1, 3, 48, 48, 1), 2.0).requires_grad_()
    normals = normals_from_depth(depth, CAMERAS)
    axis = -CAMERAS.cam_from_world[:, :, 2, :3]
    torch.testing.assert_close(normals, axis[:, :, None, None].expand_as(normals), atol=1e-4, rtol=0)
    normals[..., 0].sum().backward()
    assert depth.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_median_depth_is_that_of_the_gaussian_that_takes_the_light_to_half(backend):
    """Two sheets: the nearer lets 0.6 through, so that the median lies on the farther one, and the mean between them."""
    camera = Orbit(views=1, elevation_deg=0.0, size=24).cameras()
    points = torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]])
    splats = from_points(points, torch.ones(2, 3), 0.4, opacity=0.9)
    splats.opacity_logits[0] = torch.logit(torch.tensor(0.4))
    splats = Splats(**{name: x.requires_grad_() for name, x in splats.tensors().items()})
    views, trace = render_splats(splats, camera, median_depth=True, backend=backend)
    distance = float(camera.centers.norm())
    assert trace.median_depth.shape == views.depth.shape
    assert float(trace.median_depth[0, 0, 12, 12]) == pytest.approx(distance + 0.5, abs=1e-4)
    assert distance - 0.5 < float(views.depth[0, 0, 12, 12]) < distance + 0.4
    assert float(trace.median_depth[0, 0, 0, 0]) == 0
    trace.median_depth.sum().backward()
    shown = (trace.median_depth > 0).sum()
    torch.testing.assert_close(splats.means.grad[1, 0], -shown.float())
    assert not splats.means.grad[0].any()


def test_the_median_is_none_where_it_is_not_asked_for():
    assert render_splats(from_points(torch.zeros(1, 3), torch.ones(1, 3), 0.3), CAMERAS)[1].median_depth is None
