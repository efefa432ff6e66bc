"""Data sets of real objects: scenes that are what their specs say, and arrays that are the same again."""

import json

import numpy as np
import pytest
import tiny_world
from PIL import Image
from tiny_world import BLUE, NOUNS, RED

from rl3d.cameras import Orbit
from rl3d.toybox import dataset as toys
from rl3d.toybox.dataset import Order, Stacked, ToyViews
from rl3d.toybox.language import TOYS
from rl3d.world import sheet, things
from rl3d.world.colours import COLOURS, main_colour
from rl3d.world.dataset import Draw, Stock, make, open_views
from rl3d.world.language import Words
from rl3d.world.shading import random_light
from rl3d.world.surface import COAL
from rl3d.world.things import Thing, compared, divided, look, stuff_of


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    tiny_world.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def rendered(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    assert list(make(Order(folder, 12, views=4, size=32), stock, workers=1, chunk=5)) == [5, 10, 12]
    return folder


def test_scenes_are_what_their_specs_say(stock):
    draw = Draw(Stock.open(stock, "train"))
    seen = set()
    for seed in range(150):
        scene = draw.scene("train", np.random.default_rng(seed))
        assert np.linalg.norm(scene.surface.vertices, axis=1).max() <= 1 + 1e-5
        assert draw.stock.language.split_of(scene.spec) == "train"
        assert [thing.noun for thing in scene.things] == [item.kind for item in scene.spec.items]
        assert not any(thing.held for thing in scene.things)
        item = scene.spec.items[0]
        seen |= {scene.spec.relation, item.form, item.paint, item.count}
        if scene.spec.relation is None and item.count == 1:
            seen_colour = main_colour(look(scene.surface).albedo)
            wanted = item.paint or scene.things[0].colour
            assert seen_colour == wanted, scene.spec
            _, width, height = np.ptp(scene.surface.bounds, axis=0)
            own = scene.things[0].size
            stretch = (height / width) / (own[2] / own[0])
            if item.form in ("tall", "narrow", "tall narrow"):
                assert stretch > 1.2
            if item.form in ("short", "wide", "short wide"):
                assert stretch < 0.85
        if item.form == "small":
            assert np.linalg.norm(scene.surface.vertices, axis=1).max() < 0.65
        if scene.spec.relation == "on":
            assert scene.things[0].small
            assert scene.things[1].flat
    assert {"on", "next to", None, "tall", "wide", "small", 2, 3, "green"} <= seen
    assert seen & set(COLOURS) > {"red", "blue"}


def test_what_stands_on_something_is_above_it(stock):
    draw = Draw(Stock.open(stock, "train"))
    scenes = (draw.scene("train", np.random.default_rng(seed)) for seed in range(400))
    scene = next(scene for scene in scenes if scene.spec.relation == "on")
    first = scene.surface.labels < len(things.load(stock, scene.things[0]).names)
    above, below = (scene.surface.vertices[scene.surface.faces[mask]].reshape(-1, 3)[:, 2] for mask in (first, ~first))
    assert above.min() == pytest.approx(below.max(), abs=0.02)


def test_dogs_are_neither_painted_nor_stretched(stock):
    draw = Draw(Stock.open(stock, "train"))
    scenes = [draw.scene("train", np.random.default_rng(seed)) for seed in range(200)]
    items = [item for scene in scenes for item in scene.spec.items if item.kind == "dog"]
    assert items
    assert {item.paint for item in items} <= {None, "red"}
    assert {item.form for item in items} <= {None, "big", "small"}


def test_unseen_objects_are_shown_only_where_they_belong(stock):
    unseen = Draw(Stock.open(stock, "unseen")).scene("unseen", np.random.default_rng(0))
    assert [thing.id for thing in unseen.things] == ["other-mug"]
    assert "other-mug" not in {thing.id for thing in Stock.open(stock, "test").things}
    with pytest.raises(ValueError, match="no split 'odd'"):
        Stock.open(stock, "odd")
    with pytest.raises(ValueError, match="holds no prepared objects"):
        Stock.open(stock / "objects", "train")


def test_files_are_the_same_however_they_are_made(stock, rendered, tmp_path):
    for _ in make(Order(tmp_path, 4, views=4, size=32), stock, workers=1, chunk=3):
        pass
    for name in ("rgba", "albedo", "azimuth_deg", "elevation_deg"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), np.load(rendered / f"{name}.npy")[:4])
    assert (tmp_path / "toys.jsonl").read_text().splitlines() == (rendered / "toys.jsonl").read_text().splitlines()[:4]


def test_albedo_is_what_is_painted_whatever_the_light(rendered):
    data = open_views(rendered)
    assert isinstance(data.language, Words)
    assert set(data.language.nouns) == set(NOUNS)
    rgba, albedo = np.array(data.rgba), np.array(data.albedo)
    assert (albedo <= rgba[..., 3:]).all()
    assert (albedo[rgba[..., 3] == 0] == 0).all()
    lines = [json.loads(line) for line in (rendered / "toys.jsonl").read_text().splitlines()]
    plain = [i for i, line in enumerate(lines) if line["things"] == ["dog"]]
    for i in plain:
        full = rgba[i, ..., 3] == 255
        expected = COAL + (1 - COAL / 255) * np.array(RED)
        np.testing.assert_allclose(np.median(albedo[i][full], axis=0), expected, atol=2)
        assert rgba[i][full][:, :3].std(0).max() > 5  # light is not the same everywhere


def test_lights_differ_and_stay_below_white():
    lights = [random_light(np.random.default_rng(seed)) for seed in range(100)]
    brightest = np.array([np.add(light.key, light.sky) for light in lights])
    assert brightest.max() < 1.35
    assert brightest.min() > 0.7
    assert brightest.std(0).min() > 0.02
    directions = np.array([light.direction for light in lights])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert directions[:, 2].min() > 0.3


def test_data_sets_of_both_worlds_are_read_as_one(rendered, tmp_path):
    for _ in toys.make(Order(tmp_path, 3, views=4, size=32), workers=1):
        pass
    both = open_views(tmp_path, rendered)
    assert isinstance(both.language, Words)
    assert both.language.toys
    assert both.albedo is None
    assert len(both.specs) == len(both.captions) == 15
    assert both.rgba.shape == (15, 4, 32, 32, 4)
    parts = [ToyViews.open(folder) for folder in (tmp_path, rendered)]
    whole = np.concatenate([np.array(part.rgba) for part in parts])
    index = np.array([14, 0, 3, 2])[:, None], np.array([[0, 1], [3, 2], [1, 1], [0, 3]])
    np.testing.assert_array_equal(both.rgba[index], whole[index])
    np.testing.assert_array_equal(both.azimuth_deg[index], np.concatenate([part.azimuth_deg for part in parts])[index])
    assert open_views(tmp_path).language is TOYS
    assert open_views(rendered, rendered).albedo is not None
    for _ in toys.make(Order(tmp_path, 1, views=2, size=32), workers=1):
        pass
    with pytest.raises(ValueError, match="differ in views or size"):
        open_views(tmp_path, rendered)
    with pytest.raises(ValueError, match="no data set"):
        open_views(tmp_path / "nowhere")


def test_stacked_arrays_know_their_length():
    stacked = Stacked([np.zeros((2, 3)), np.ones((4, 3))])
    assert (len(stacked), stacked.shape) == (6, (6, 3))
    assert stacked[np.array([[1], [2]]), np.array([[0, 1], [2, 2]])].tolist() == [[0, 0], [1, 1]]


# ---- things


def test_materials_say_what_most_is_made_of():
    assert stuff_of(("Oak_dark", "chrome"), np.array([0.7, 0.3])) == "wooden"
    assert stuff_of(("Oak_dark", "chrome"), np.array([0.5, 0.5])) is None
    assert stuff_of(("Material.001",), np.array([1.0])) is None


def test_forms_compare_with_the_kind():
    sizes = [(1, 1, 1), (1, 1, 1), (1, 1, 1.1), (1, 1, 2), (2, 1, 1)]
    some = compared([Thing(str(i), "box", size=size) for i, size in enumerate(sizes)])
    assert [thing.form for thing in some] == [None, None, None, "tall narrow", "short wide"]
    assert some[3].shape == pytest.approx(2)
    assert [thing.form for thing in compared(some[3:])] == ["tall narrow", "short wide"]  # too few to compare: as they were


def test_objects_are_held_out_by_name_and_one_of_a_kind_stays():
    some = [Thing(f"source/thing-{i}", f"kind {i // 4}") for i in range(800)] + [Thing("source/lone", "lone")]
    held = [thing for thing in divided(some) if thing.held]
    assert 0.1 < len(held) / len(some) < 0.16
    assert {thing.id for thing in divided(some[::-1]) if thing.held} == {thing.id for thing in held}
    kinds = {thing.noun for thing in divided(some) if not thing.held}
    assert len(kinds) == 201


def test_what_is_too_thin_is_left_out():
    from rl3d.world.surface import clean, read, upright
    from rl3d.world.things import measured

    needle = measured(Thing("needle", "needle"), clean(upright(read(tiny_world.box(0.002, 1, 0.002, BLUE)))))
    assert "too thin" in needle.reason


def test_contact_sheets_show_every_kept_object_once(stock, rendered, tmp_path, monkeypatch):
    shown = list(sheet.sheets(stock, Orbit(2, size=32), most=4))
    assert [len(texts) for _, texts in shown] == [4, 2]
    assert shown[0][0].shape == (4, 2, 32, 32, 3)
    names = [text for _, texts in shown for text in texts]
    assert sorted(text.split("(")[1].rstrip(")") for text in names) == sorted(
        thing.id for thing in things.read(stock)[0] if thing.kept
    )
    ((images, texts),) = sheet.sheets(stock, Orbit(1, size=32), 4, ["dog"])
    assert texts == ["0 dog (dog)"]
    assert (images[0, 0, 0, 0] == sheet.BACKGROUND).all()
    with pytest.raises(ValueError, match="no objects of ghost"):
        next(sheet.sheets(stock, Orbit(1), 4, ["ghost"]))
    for folder in (stock, rendered):
        monkeypatch.setattr("sys.argv", ["sheet", str(folder), str(tmp_path / "sheet.png"), "--size", "32"])
        sheet.main()
        assert Image.open(tmp_path / "sheet.png").size[0] > 100
