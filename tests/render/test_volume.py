import math

import pytest
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.hull import project
from rl3d.render.volume import Cells, Rays, blend, camera_rays, march, march_slowly, sphere_span


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


def test_a_ray_meets_the_samples_in_occupied_cells_alone():
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[1, 2, 2] = grid[3, 2, 2] = True
    origins, directions = torch.tensor([[-2.0, 0.2, 0.2]] * 3), torch.tensor([[1.0, 0, 0]] * 3)
    rays = Rays(origins, directions, torch.ones(3))
    # From x = -0.89 in steps of 0.2; the second ray starts behind the cube, the third does not move.
    first, step = torch.tensor([1.11, 5.0, 1.11]), torch.tensor([0.2, 0.2, 0.0])
    solid = torch.zeros(4, 4, 4)
    for find in (march, march_slowly):
        ray, sample, points = find(rays, first, step, 12, Cells(grid, solid))
        assert ray.tolist() == [0] * 6
        assert sample.tolist() == [2, 3, 4, 7, 8, 9]  # x in [-0.5, 0) and [0.5, 1)
        torch.testing.assert_close(points[:, 0], -0.89 + 0.2 * sample)


def test_a_ray_ends_where_cells_have_taken_its_light():
    grid, solid = torch.ones(4, 4, 4, dtype=torch.bool), torch.zeros(4, 4, 4)
    solid[1:] = 10.0
    rays = Rays(torch.tensor([[-2.0, 0.2, 0.2]]), torch.tensor([[1.0, 0, 0]]), torch.ones(1))
    for find in (march, march_slowly):
        # Samples 2, 3, ... each take an optical depth of 2 from x = -0.5 on: after the fourth it is above 7.
        _, sample, _ = find(rays, torch.tensor([1.11]), torch.tensor([0.2]), 12, Cells(grid, solid))
        assert sample.tolist() == [0, 1, 2, 3, 4, 5]


def test_both_marches_find_the_same_samples():
    rays, rng = camera_rays(Orbit(3, 25.0, size=24).cameras()), torch.Generator().manual_seed(0)
    grid, solid = torch.rand(7, 7, 7, generator=rng) < 0.3, 9 * torch.rand(7, 7, 7, generator=rng)
    enter, leave = sphere_span(rays, 1.2)
    fast, slow = (find(rays, enter, (leave - enter) / 40, 40, Cells(grid, solid)) for find in (march, march_slowly))
    pairs = [set(zip(ray.tolist(), sample.tolist(), strict=True)) for ray, sample, _ in (fast, slow)]
    assert len(pairs[0]) > 1000
    assert len(pairs[0] ^ pairs[1]) <= 2  # at a cell's face, the last bit decides
    assert fast[0].diff().min() >= 0
