import pytest
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import render_splats
from rl3d.representations.nerf import Nerf, RadianceField
from rl3d.types import Views

SMALL = Nerf(levels=4, finest=32, table=2**12, hidden=16, samples=32, occupancy_cells=16, occupancy_every=4)
NOWHERE = from_points(torch.zeros(1, 3), torch.zeros(1, 3), 0.1)


def target(cameras) -> Views:
    points = torch.tensor([[0.0, 0.25, 0.0], [0.0, -0.25, 0.0]])
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return render_splats(from_points(points, colours, 0.12, opacity=0.95), cameras)[0].detach()


def fitted(steps: int) -> RadianceField:
    azimuth, elevation = torch.arange(8)[None] * 45.0, torch.tensor([[5.0, 40.0] * 4])
    cameras = look_at_origin(azimuth, elevation, width=24, height=24)
    field, rng, wanted = SMALL.build(NOWHERE), torch.Generator().manual_seed(0), target(cameras)
    optimizer = torch.optim.Adam(field.param_groups(), betas=(0.9, 0.99), eps=1e-15)
    for step in range(1, steps + 1):
        views, trace = field.render(cameras)
        optimizer.zero_grad()
        (views.rgba - wanted.rgba).square().sum().backward()
        optimizer.step()
        field.refine(optimizer, trace, step, rng)
    return field


@pytest.fixture(scope="module")
def field():
    return fitted(120)


def test_learns_two_balls_that_unseen_views_show(field):
    cameras = Orbit(3, 35.0, 30.0, size=24).cameras()
    with torch.no_grad():
        views, wanted = field.render(cameras)[0], target(cameras)
    assert (views.rgba - wanted.rgba).square().mean() < 0.15 * wanted.rgba.square().mean()
    solid = (wanted.alpha > 0.7) & (views.alpha > 0.7)
    assert solid.sum() > 20
    assert (views.depth - wanted.depth)[solid].abs().mean() < 0.1


def test_empty_space_is_found_and_costs_nothing(field):
    assert len(field) < 0.5 * 16**3
    cameras = Orbit(2, size=24).cameras()
    with torch.no_grad():
        sparse = field.render(cameras)[0]
        full = field.occupancy.clone()
        field.occupancy.fill_(True)
        dense = field.render(cameras)[0]
        field.occupancy = full
    assert (sparse.alpha - dense.alpha).abs().max() < 0.1


def test_fog_is_where_the_first_gaussians_are_and_nowhere_else():
    settings = Nerf(levels=2, finest=16, table=2**10, hidden=8, samples=64, occupancy_cells=24)
    place = torch.tensor([[0.5, -0.3, 0.1]])
    field = settings.build(from_points(place, torch.zeros(1, 3), 0.1))
    cells = torch.nonzero(field.occupancy)
    assert 1 <= len(cells) <= 7**3
    middle = (cells + 0.5).mean(0) * (2 / 24) - 1
    torch.testing.assert_close(middle, place[0], atol=2 / 24, rtol=0)
    with torch.no_grad():
        inside, outside = (field.field(points)[0] for points in (place, -place))
    assert inside > 20 * outside


def test_what_lies_deep_inside_costs_nothing(monkeypatch):
    field = SMALL.build(NOWHERE)
    field.lump.fill_(1.0)
    field.find_empty_space(torch.full((3,), 0.5))
    counts, own = [], field.field
    monkeypatch.setattr(field, "field", lambda points: counts.append(len(points)) or own(points))
    cameras = Orbit(2, size=24).cameras()
    with torch.no_grad():
        shown = field.render(cameras)[0]
        field.solid.zero_()
        whole = field.render(cameras)[0]
    assert counts[0] < 0.6 * counts[1]
    assert (shown.rgba - whole.rgba).abs().max() < 1.5e-3  # exp(-7) is 0.9e-3


def test_normals_face_the_camera_and_point_out_of_the_ball(field):
    with torch.no_grad():
        views = field.render(Orbit(1, 0.0, size=24).cameras(), normals=True)[0]
    assert views.normals is not None
    hit = views.alpha[0, 0, ..., 0] > 0.7
    assert views.normals[0, 0, hit].norm(dim=-1).mean() == pytest.approx(1, abs=1e-3)
    assert (views.normals[0, 0, hit][:, 0] > 0).float().mean() > 0.8  # the camera stands on +x


def test_chunks_change_neither_pixels_nor_gradients():
    cameras, found = Orbit(2, size=16).cameras(), []
    for chunk in (10_000, 100):
        field = Nerf(levels=2, finest=16, table=2**10, hidden=8, samples=16, occupancy_cells=8, chunk=chunk).build(NOWHERE)
        views, _ = field.render(cameras)
        views.rgba.square().sum().backward()
        found.append([views.rgba.detach(), *(p.grad for p in field.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_restored_field_is_the_same(field):
    again = SMALL.restore({name: x.clone() for name, x in field.state_dict().items()})
    cameras = Orbit(2, size=16).cameras()
    with torch.no_grad():
        assert torch.equal(again.render(cameras)[0].rgba, field.render(cameras)[0].rgba)


def test_splats_are_fitted_to_the_field(field):
    splats, cameras = field.splats(), Orbit(3, 10.0, 50.0, size=32).cameras()
    with torch.no_grad():
        own, wanted = render_splats(splats, cameras)[0], field.render(cameras)[0]
    assert (own.rgba - wanted.rgba).square().mean() < 0.2 * wanted.rgba.square().mean()
