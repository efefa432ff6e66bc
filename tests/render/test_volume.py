import math

import pytest
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.hull import project
from rl3d.render.volume import blend, camera_rays, occupied, sphere_span


def test_rays_pass_through_the_points_that_project_to_their_pixels():
    cameras = Orbit(3, 25.0, size=8).cameras()
    rays = camera_rays(cameras)
    points = rays.origins + 2.5 * rays.directions
    pixels, depth = project(points, cameras)
    own = torch.arange(3).repeat_interleave(64)
    found = pixels[own, torch.arange(192)]
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    torch.testing.assert_close(found, torch.stack([x, y], -1).view(-1, 2).repeat(3, 1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(depth[own, torch.arange(192)], 2.5 * rays.slant)


def test_the_span_of_a_sphere():
    rays = camera_rays(look_at_origin(torch.zeros(1, 1), torch.zeros(1, 1), distance=3.0, width=9, height=9))
    enter, leave = sphere_span(rays, 0.5)
    assert float(enter[40]) == pytest.approx(2.5, abs=1e-5)
    assert float(leave[40]) == pytest.approx(3.5, abs=1e-5)
    assert enter[0] == leave[0]


def test_a_uniform_fog_has_its_closed_form():
    density, length = 1.7, 2.0
    n = 50
    step = torch.full((1, 1), length / n)
    distances = (torch.arange(n) + 0.5)[None] * step
    seen = blend(torch.full((1, n), density), torch.ones(1, n, 1) * 0.25, distances, step)
    alpha = 1 - math.exp(-density * length)
    assert float(seen.alpha) == pytest.approx(alpha, rel=1e-5)
    assert float(seen.features) == pytest.approx(0.25 * alpha, rel=1e-5)
    # The integral of t density exp(-density t) over [0, length].
    expected = 1 / density - math.exp(-density * length) * (length + 1 / density)
    assert float(seen.distance) == pytest.approx(expected, rel=1e-3)


def test_what_lies_behind_a_wall_has_no_weight_and_gradients_are_right():
    density = torch.tensor([[0.0, 1e4, 3.0]])
    seen = blend(density, torch.eye(3)[None], torch.arange(3.0)[None], torch.ones(1, 1))
    torch.testing.assert_close(seen.features, torch.tensor([[0.0, 1.0, 0.0]]))
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 5, *shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((), (3,))]
    fixed = torch.rand(2, 5, dtype=torch.float64), torch.rand(2, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d, f: tuple(blend(d, f, *fixed)), inputs)


def test_occupied_cells():
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[3, 0, 1] = True
    points = torch.tensor([[0.9, -0.9, -0.4], [0.9, -0.9, 0.1], [1.1, -0.9, -0.4], [-3.0, 0, 0]])
    assert occupied(grid, points).tolist() == [True, False, False, False]
