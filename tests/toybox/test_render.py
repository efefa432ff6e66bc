from __future__ import annotations

from itertools import combinations

import numba
import numpy as np
import pytest
import torch
from PIL import Image

from rl3d.cameras import Orbit, look_at_origin
from rl3d.toybox import dataset, shapes, sheet
from rl3d.toybox.assemble import Part, Toy
from rl3d.toybox.dataset import Order, ToyViews, make
from rl3d.toybox.paints import PAINTS
from rl3d.toybox.render import part_masks, render, render_many
from rl3d.toybox.shading import Light
from rl3d.toybox.things import Item, Spec

CAPTION_PAINTS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "turquoise"),
    *("wooden", "golden", "silver", "stone"),
)


def toy(*parts: tuple[str, str]) -> Toy:
    """A toy of some of these parts, painted."""
    meshes = {
        "ball": (shapes.sphere(0.8, 32), True),
        "box": (shapes.box(0.9, 0.9, 0.9), False),
        "stone inside": (shapes.sphere(0.3, 12), True),
        "post": (shapes.move(shapes.cylinder(0.2, 1.0), x=0.6, z=-0.9), True),
    }
    return Toy(Spec((Item("ball"),)), tuple(Part(name, meshes[name][0], paint, meshes[name][1], 0) for name, paint in parts))


def look(paint: str) -> np.ndarray:
    """Mean and deviation of a painted ball's colour."""
    views = render(toy(("ball", paint)), Orbit(views=4, size=64).cameras(), samples=2)
    rgb = views.rgb[views.alpha[..., 0] > 0.99]
    return torch.cat([rgb.mean(0), rgb.std(0)]).numpy()


def test_views_are_premultiplied_and_bounded():
    views = render(toy(("ball", "white"), ("post", "golden")), Orbit(views=3, size=32).cameras())
    assert views.rgb.shape == (1, 3, 32, 32, 3)
    assert ((views.alpha >= 0) & (views.alpha <= 1)).all()
    assert ((views.alpha > 0) & (views.alpha < 1)).any()
    assert (views.rgb >= 0).all()
    assert (views.rgb <= views.alpha + 1e-6).all()
    empty = views.alpha[..., 0] == 0
    assert empty.any()
    assert not views.rgb[empty].any()
    assert views.depth is not None
    assert views.normals is not None
    assert not views.depth[empty].any()
    assert not views.normals[empty].any()


def test_depth_and_normals_of_a_ball():
    camera = look_at_origin(torch.tensor([[0.0]]), torch.tensor([[0.0]]), width=33, height=33)
    views = render(toy(("ball", "red")), camera)
    assert views.depth is not None
    assert views.normals is not None
    assert float(views.depth[0, 0, 16, 16, 0]) == pytest.approx(3 - 0.8, abs=0.01)
    torch.testing.assert_close(views.normals[0, 0, 16, 16], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)
    inside = views.alpha[..., 0] > 0.99
    torch.testing.assert_close(views.normals[inside].norm(dim=-1), torch.ones(int(inside.sum())))


def test_supersampling_averages_a_finer_image():
    thing, cameras = toy(("ball", "red"), ("box", "blue")), Orbit(views=2, size=24).cameras()
    coarse, fine = render(thing, cameras, samples=2), render(thing, cameras.resized(48, 48), samples=1)
    mean = fine.rgba.unflatten(2, (24, 2)).unflatten(4, (24, 2)).mean((3, 5))
    assert (coarse.rgba - mean).abs().mean() < 1e-4


def test_part_masks_share_alpha_and_respect_occlusion():
    thing, cameras = toy(("ball", "red"), ("post", "wooden"), ("stone inside", "gray")), Orbit(views=4, size=32).cameras()
    masks, views = part_masks(thing, cameras), render(thing, cameras)
    torch.testing.assert_close(masks.sum(-1, keepdim=True), views.alpha)
    covered = masks.sum((0, 2, 3))
    assert covered[0, 1] > 2 * covered[2, 1]  # the post stands in front, and is hidden from behind
    assert covered[:, 2].max() == 0  # it lies within the ball


def test_colour_depends_on_the_place_alone():
    # The top of a box from two sides: the same colour, whatever the paint.
    azimuth, elevation = torch.tensor([[0.0, 90.0]]), torch.full((1, 2), 90.0)
    cameras = look_at_origin(azimuth, elevation, width=33, height=33)
    for paint in CAPTION_PAINTS:
        rgb = render(toy(("box", paint)), cameras, samples=1).rgb[0]
        turned = torch.rot90(rgb[1], 1, (0, 1))
        other = torch.rot90(rgb[1], -1, (0, 1))
        error = min(float((rgb[0] - x).abs().mean()) for x in (turned, other))
        assert error < 5e-3, paint


def test_light_comes_from_its_direction():
    camera = look_at_origin(torch.tensor([[0.0]]), torch.tensor([[0.0]]), width=32, height=32)
    left = render(toy(("ball", "gray")), camera, light=Light((0.0, 1.0, 0.0))).rgb[0, 0]
    assert left[:, 16:].sum() > 1.2 * left[:, :16].sum()  # +y is on the right of who looks at the front
    dark, bright = (render(toy(("ball", "gray")), camera, light=Light(strength=s)).rgb.sum() for s in (0.0, 1.0))
    assert 0 < 1.2 * dark < bright


def test_caption_paints_are_told_apart():
    looks = {paint: look(paint) for paint in CAPTION_PAINTS}
    close = [(a, b) for a, b in combinations(CAPTION_PAINTS, 2) if np.linalg.norm(looks[a] - looks[b]) < 0.1]
    assert not close
    assert looks["stone"][3:].mean() > 1.3 * looks["gray"][3:].mean()  # speckles
    assert looks["wooden"][3:].mean() > 1.3 * looks["brown"][3:].mean()  # grain


def test_hue_survives_shading():
    for paint in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise"):
        assert (np.argsort(look(paint)[:3]) == np.argsort(PAINTS[paint].colour)).all(), paint


def test_many_toys_at_once_equal_one_by_one():
    toys = [toy(("ball", "red")), toy(("box", "stone"), ("post", "golden")), toy(("post", "wooden"))]
    one = Orbit(views=2, size=16).cameras()
    cameras = type(one)(one.cam_from_world.repeat(3, 1, 1, 1), one.intrinsics.repeat(3, 1, 1, 1), 16, 16)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        single = render_many(toys, cameras)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(render_many(toys, cameras), single)
    for many, each in zip(single, toys, strict=True):
        alone = render(each, one, samples=2).rgba[0].numpy()
        np.testing.assert_allclose(many / 255, alone, atol=0.503 / 255)


def test_dataset_depends_on_the_seed_and_not_on_the_workers(tmp_path):
    small = {"count": 5, "views": 2, "size": 16}
    assert list(make(Order(tmp_path / "one", **small), workers=1, chunk=2)) == [2, 4, 5]
    assert list(make(Order(tmp_path / "two", **small), workers=2, chunk=3)) == [3, 5]
    list(make(Order(tmp_path / "seed", **small, seed=1), workers=1))
    for name in ("rgba.npy", "azimuth_deg.npy", "elevation_deg.npy", "toys.jsonl"):
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes()
        assert first != (tmp_path / "seed" / name).read_bytes()

    data = ToyViews.open(tmp_path / "one")
    assert isinstance(data.rgba, np.memmap)
    assert data.rgba.shape == (5, 2, 16, 16, 4)
    assert (data.rgba[..., 3].max((1, 2, 3)) == 255).all()
    assert (data.rgba[..., :3] <= data.rgba[..., 3:]).all()
    assert ((data.elevation_deg >= -10) & (data.elevation_deg <= 50)).all()
    steps = np.diff(data.azimuth_deg.astype(float), axis=1) % 360
    np.testing.assert_allclose(steps, 180, atol=0.2)
    assert len(data.captions) == len(data.specs) == 5
    assert all(data.captions)


def test_contact_sheet_shows_every_view():
    images = sheet.views([toy(("ball", "red")), toy(("box", "blue"))], Orbit(views=3, size=32))
    picture = sheet.contact_sheet(images, ["a red ball", "a blue box of which there is more to say than fits"], columns=1)
    assert isinstance(picture, Image.Image)
    assert picture.width == 96
    np.testing.assert_array_equal(np.asarray(picture)[:32, 32:64], images[0, 1])


def test_sets_share_one_elevation_or_have_several():
    rng = np.random.default_rng(0)
    counts = [len(np.unique(dataset._elevations(8, rng))) for _ in range(200)]
    assert set(counts) == {1, 2, 8}
    assert 70 < counts.count(1) < 130


def test_varied_light_comes_with_the_albedo_of_paints(tmp_path):
    order = Order(tmp_path / "varied", 4, views=2, size=32, varied=True)
    for _ in make(order, workers=1, chunk=3):
        pass
    for _ in make(Order(tmp_path / "plain", 4, views=2, size=32), workers=1):
        pass
    varied, plain = ToyViews.open(tmp_path / "varied"), ToyViews.open(tmp_path / "plain")
    assert plain.albedo is None
    assert varied.specs == plain.specs[:1] + varied.specs[1:]
    np.testing.assert_array_equal(varied.rgba[0, ..., 3], plain.rgba[0, ..., 3])
    assert (np.asarray(varied.albedo) <= np.asarray(varied.rgba)[..., 3:]).all()
    assert not np.array_equal(varied.rgba[0], plain.rgba[0])


@pytest.mark.parametrize("paint", ["red", "golden", "white"])
def test_without_light_paints_are_themselves(paint):
    ball = toy(("ball", paint))
    cameras = Orbit(views=2, size=64).cameras()
    rgba = render_many([ball], cameras, light=Light(none=True))[0]
    full = rgba[rgba[..., 3] == 255][:, :3]
    np.testing.assert_allclose(full, np.broadcast_to(255 * np.array(PAINTS[paint].colour), full.shape), atol=1)


def test_each_scene_has_its_own_light():
    ball, lights = toy(("ball", "white")), [Light((1, 0, 0)), Light((0, 1, 0)), Light(none=True)]
    one = Orbit(views=2, size=32).cameras()
    three = look_at_origin(torch.tensor([[0.0, 180.0]]).repeat(3, 1), torch.full((3, 2), 20.0), width=32, height=32)
    together = render_many([ball] * 3, three, light=lights)
    for scene, light in zip(together, lights, strict=True):
        np.testing.assert_array_equal(scene, render_many([ball], one, light=light)[0])
