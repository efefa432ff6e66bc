import torch
from helpers import sphere_views

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.hull import sample_pixels, visual_hull
from rl3d.types import Views


def test_the_hull_of_a_sphere_is_that_sphere_in_its_colours():
    azimuth = torch.arange(0, 360, 30.0)
    cameras = look_at_origin(
        torch.cat([azimuth, azimuth])[None], torch.tensor([[-30.0] * 12 + [40.0] * 12]), width=96, height=96
    )
    points, colours = visual_hull(sphere_views(cameras, 0.6), resolution=48)
    radius = points.norm(dim=-1)
    assert radius.min() > 0.55
    # A hull is never inside the object, and twenty-four silhouettes leave little outside.
    assert radius.median() < 0.65
    expected = 0.5 + torch.nn.functional.normalize(points, dim=-1) / 2
    assert (colours - expected).abs().mean() < 0.1


def test_views_that_disagree_still_give_points():
    left, right = (sphere_views(Orbit(views=4).cameras(), 0.3, (0.0, y, 0.0)) for y in (-0.45, 0.45))
    cameras = Orbit(views=8).cameras()
    mixed = type(left)(
        torch.cat([left.rgb, right.rgb], 1), torch.cat([left.alpha, right.alpha], 1) * 0.9 + 0.05, None, None, cameras
    )
    points, _ = visual_hull(mixed, resolution=16)
    assert len(points) > 0


def _body_and_ball(ball_in_first_view: float) -> Views:
    """Eight views of a sphere with a small one above it, which the first view shows elsewhere."""
    cameras = Orbit(views=8, size=64).cameras()
    body = sphere_views(cameras, 0.4)
    balls = [sphere_views(cameras, 0.07, (0.0, aside, 0.75)).alpha for aside in (ball_in_first_view, 0.0)]
    alpha = torch.maximum(body.alpha, torch.cat([balls[0][:, :1], balls[1][:, 1:]], 1))
    return Views(body.rgb + (alpha - body.alpha), alpha, None, None, cameras)


def test_what_most_views_agree_on_comes_back_where_one_shows_it_aside():
    views = _body_and_ball(0.3)
    strict, _ = visual_hull(views, resolution=40)
    lenient, _ = visual_hull(views, resolution=40, agreement=0.75)
    assert strict[:, 2].max() < 0.5
    ball = lenient[lenient[:, 2] > 0.5]
    assert len(ball) > 4
    assert (ball - torch.tensor([0.0, 0.0, 0.75])).norm(dim=1).max() < 0.2
    body = lenient[lenient[:, 2] < 0.5]
    assert {tuple(x) for x in strict.tolist()} == {tuple(x) for x in body.tolist()}, "the rest is as tight as before"


def test_views_that_agree_give_the_same_hull_whatever_share_is_asked():
    views = _body_and_ball(0.0)
    for strict, lenient in zip(
        visual_hull(views, resolution=40), visual_hull(views, resolution=40, agreement=0.6), strict=True
    ):
        torch.testing.assert_close(lenient, strict)


def test_sampling_reads_pixel_centres_exactly():
    image = torch.rand(1, 5, 7, 2)
    pixels = torch.tensor([[[2.5, 3.5], [6.5, 0.5]]])
    torch.testing.assert_close(sample_pixels(image, pixels)[0], torch.stack([image[0, 3, 2], image[0, 0, 6]]))
