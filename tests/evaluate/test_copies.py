"""The nearest training renders: distances, whose are asked, and that a planted copy is found out."""

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
import tiny
import tiny_world
import torch
from PIL import Image

from rl3d.cameras import Orbit
from rl3d.evaluate import copies
from rl3d.evaluate.copies import Found, Match
from rl3d.evaluate.worlds import Question, RealWorld, ToyWorld
from rl3d.toybox import dataset
from rl3d.toybox.dataset import Order, ToyViews
from rl3d.toybox.things import Item, Spec

CAMERAS = Orbit(2, 20.0, size=16).cameras()
MUG = Question("a red mug", Spec((Item("mug", "red"),)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    list(dataset.make(Order(folder, 12, views=4, size=16), workers=1))
    return folder


def colours(rgba):
    """Simple features: the mean colours of views, with length 1."""
    return torch.nn.functional.normalize(rgba.mean((2, 3)), dim=-1)


def test_the_two_nearest_views_count():
    objects = torch.tensor([[[0.0, 0], [9, 9]]])
    sets = torch.tensor([[[3.0, 4], [20, 20]], [[40.0, 0], [9, 10]]])
    distances, pairs = copies.nearest(objects, sets)
    assert distances.tolist() == [[5, 1]]
    assert pairs.tolist() == [[0, 3]]
    match = copies.matched(distances[0], pairs[0], np.array([7, 8]), 2)
    assert astuple(match) == (1.0, pytest.approx(1 / 3), 8, 1, 1)


def test_what_is_near_to_everything_is_no_copy():
    assert copies.matched(torch.zeros(3), torch.zeros(3, dtype=torch.long), np.arange(3), 4).relative == 1


def test_pixel_distances_are_root_mean_squares_of_small_pictures():
    black, white = torch.zeros(1, 1, 64, 64, 4), torch.ones(1, 1, 64, 64, 4)
    a, b = copies.pixels(black), copies.pixels(0.5 * white)
    assert a.shape == (1, 1, copies.SIDE**2 * 4)
    assert float((a - b).norm()) == pytest.approx(0.5)


def test_candidates_are_near_or_of_the_same_kind():
    distances = torch.tensor([[5.0, 1, 4, 3, 2], [1, 5, 4, 3, 2]])
    assert copies.candidates(distances, np.array([2, 3]), 1).tolist() == [0, 1, 3]
    assert copies.candidates(distances, np.array([], np.int64), 9).tolist() == [0, 1, 2, 3, 4]


def test_a_planted_copy_is_found_out(data):
    opened = ToyViews.open(data)
    planted = copies.read(opened, np.array([5]))[:, [2, 0]] + 0.002
    objects = []
    for i, spec in enumerate(opened.specs[:6]):
        question = Question(opened.captions[i], spec)
        true = torch.from_numpy(copies.unseen(ToyWorld(), question, CAMERAS, 3)).float() / 255
        objects.append((question, torch.cat([planted if i == 5 else true[:1], true[1:]])))
    found = list(copies.compare(objects, opened, colours, most=4))
    assert [len(some) for some in found] == [3] * 6
    copy = found[5][0]
    assert copy.pixels.set == copy.features.set == 5
    assert copy.pixels.distance < 0.003
    assert (copy.pixels.render, copy.pixels.view) in ((2, 0), (0, 1))
    verdict = copies.verdict([some[0] for some in found], [x for some in found for x in some[1:]])
    assert set(verdict["suspicious"][5]) >= {"pixels", "pixels, relative"}
    assert verdict["true"] == 12
    assert verdict["measures"]["pixels"]["below"] >= 1 / 6
    shown = copies.picture([(some[0], some[1]) for some in found[:4]] + [(copy, None)], [["pixels"]] * 5, opened)
    assert shown.shape[1] == 2 * 6 * 128


def test_the_limit_is_a_quantile_of_true_objects():
    def at(x):
        match = Match(x, x / 10, 0, 0, 0)
        return Found("a mug", torch.zeros(1, 1, 1, 4), match, match)

    found = copies.verdict([at(0.5), at(2.0), at(1.1)], [at(float(i)) for i in range(1, 22)])
    assert found["measures"]["pixels"]["limit"] == pytest.approx(2)
    assert found["measures"]["pixels"]["below"] == pytest.approx(2 / 3)
    assert [len(why) for why in found["suspicious"]] == [4, 0, 4]
    assert found["measures"]["pixels"]["found"] is None
    again = copies.verdict([at(3.0)], [at(2.0), at(4.0)], [at(1.0), at(1.5), at(5.0), at(6.0)])
    assert again["measures"]["features"]["found"] == 0.5
    with pytest.raises(ValueError, match="no unseen object"):
        copies.verdict([at(1.0)], [])


def test_planted_copies_are_spoilt_a_little(data):
    opened = ToyViews.open(data)
    views, first = copies.planted(opened, 3, 2, 0), copies.read(opened, np.array([0, 6, 11]))
    assert views.shape == (3, 2, 16, 16, 4)
    assert views.min() >= 0
    assert views.max() <= 1
    error = (views - first[:, [0, 3]]).square().mean().sqrt()
    assert 0.01 < error < (first[:1, :2] - first[1:2, :2]).square().mean().sqrt()


def test_unseen_toys_are_new_and_unseen_objects_never_trained_on(tmp_path):
    toys = copies.unseen(ToyWorld(), MUG, CAMERAS, 2)
    assert toys.shape == (2, 2, 16, 16, 4)
    assert not np.array_equal(*toys)
    assert np.array_equal(toys, copies.unseen(ToyWorld(), MUG, CAMERAS, 2))
    tiny_world.prepare(tmp_path)
    world = RealWorld.open(tmp_path)
    mugs = copies.unseen(world, MUG, CAMERAS, 3)
    assert mugs.shape == (3, 2, 16, 16, 4)
    assert not np.array_equal(*mugs[:2])  # one object, in other proportions and light
    assert len(copies.unseen(world, replace(MUG, spec=Spec((Item("chair"),))), CAMERAS, 3)) == 0


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path / "weights")))
    plain = {"paint": None, "form": None, "accent": None, "count": 1}
    lines = [
        {"prompt": f"a red {kind}", "spec": {"items": [{"kind": kind} | plain], "relation": None}} for kind in ("mug", "cube")
    ]
    (tmp_path / "mine.txt").write_text("\n".join(map(json.dumps, lines)))
    return ["--prompts", str(tmp_path / "mine.txt"), "--out", str(tmp_path / "out"), "--steps", "2", "--true", "2"]


def test_the_command_writes_a_table_and_a_picture(data, asked, tmp_path, capsys):
    copies.main(["--data", str(data), *asked])
    found = json.loads((tmp_path / "out" / "copies.json").read_text())
    assert (found["samples"], found["true"], found["training_sets"]) == (2, 4, 12)
    assert found["features"] == "embedded encoder"
    assert found["measures"]["pixels"]["found"] == 1
    captions = ToyViews.open(data).captions
    assert all(captions[x["pixels"]["set"]] == x["pixels"]["caption"] for x in found["records"] + found["true_records"])
    assert Image.open(tmp_path / "out" / "copies.png").width == 2 * 6 * 128
    assert "features, relative" in capsys.readouterr().out


def test_data_of_another_size_is_refused(asked, tmp_path, capsys):
    list(dataset.make(Order(tmp_path / "large", 2, views=2, size=32), workers=1))
    with pytest.raises(SystemExit):
        copies.main(["--data", str(tmp_path / "large"), *asked])
    assert "draws views of 16 pixels and the data's have 32" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
