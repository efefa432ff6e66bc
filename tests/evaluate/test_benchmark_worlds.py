"""Held-out prompts of both worlds: what is true of them, who may judge them, and that the command says what is missing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_world
import torch
from tiny import write_weights

from rl3d.__main__ import main
from rl3d.assess import Assessment, worlds_of
from rl3d.cameras import Orbit, evaluation_cameras
from rl3d.evaluate import worlds
from rl3d.evaluate.benchmark import Examiner, summarize, table
from rl3d.evaluate.metrics import silhouette_iou
from rl3d.evaluate.worlds import Question, RealWorld, ToyWorld, read_questions
from rl3d.geometry.points import from_points
from rl3d.rewards.clip import Clip
from rl3d.toybox.things import Item, Spec
from rl3d.train import towers
from rl3d.world import prompts, things
from rl3d.world.dataset import Draw, Stock
from rl3d.world.language import Words
from rl3d.world.nouns import naming
from rl3d.world.surface import join

SMALL = Orbit(4, 20.0, size=32).cameras()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    tiny_world.prepare(folder)
    return RealWorld.open(folder)


def ids(world, *items, relation=None, things=()):
    return [tuple(x.id for x in some) for some in world.choices(Question("", Spec(items, relation), things))]


def test_true_objects_are_the_unseen_first_and_fit_what_is_said(real):
    assert ids(real, Item("mug")) == [("other-mug",), ("mug",)]
    assert ids(real, Item("mug"), things=("mug",)) == [("mug",), ("other-mug",)]
    assert ids(real, Item("chair")) == [("armchair",), ("chair",)]  # an armchair is a chair
    assert ids(real, Item("armchair")) == [("armchair",)]
    assert ids(real, Item("dog", "red")) == [("dog",)]
    assert ids(real, Item("dog", "blue")) == []  # dogs are not painted
    assert ids(real, Item("mug", stuff="glass")) == ids(real, Item("mug", accent=("handle", "red"))) == []
    assert ids(real, Item("bowl")) == []  # a word, but no mesh of that name
    assert ids(real, Item("mug"), Item("table"), relation="on")[0] == ("other-mug", "table")
    assert ids(real, Item("mug"), Item("table"), relation="inside") == []
    with pytest.raises(ValueError, match="lacks a-sphinx"):
        ids(real, Item("mug"), things=("a-sphinx",))


def test_true_objects_differ_and_have_the_shape_and_the_paint(real):
    question = Question("a green mug", Spec((Item("mug", "green"),)))
    truths = real.truths(question, SMALL, 0, 5)
    assert len(truths) == 2
    for truth in truths:
        assert truth.views.rgb.shape == (1, 4, 32, 32, 3)
        r, g, b = (truth.views.rgb[..., k][truth.views.alpha[..., 0] == 1].mean() for k in range(3))
        assert g > 1.3 * r
        assert g > 1.3 * b
        assert truth.points.shape == (worlds.POINTS, 3)
        assert truth.points.norm(dim=1).max() <= 1.001
    again = real.truths(question, SMALL, 0, 5)
    assert torch.equal(again[0].points, truths[0].points)
    assert 0.5 < float(silhouette_iou(truths[0].views, truths[1].views)) < 1


def test_points_lie_on_what_is_seen(real):
    inner, outer = (things.unit(things.load(real.folder, real._known[0][0]), radius) for radius in (0.3, 0.9))
    both = worlds.seen_points([join([inner, outer])], SMALL, 0)[0]
    alone = worlds.seen_points([outer], SMALL, 0)[0]
    assert torch.cdist(both, alone).amin(1).max() < 0.2  # nothing of what is inside


def test_the_committed_prompts_are_held_out_and_full():
    names = {}
    language = Words(naming().nouns)
    for split, size in prompts.SIZES.items():
        questions = read_questions(worlds.prompt_set(split, "real"))
        assert len(questions) == size
        assert len({language.canonical(question.spec) for question in questions}) == size
        assert sum(question.spec.relation is not None for question in questions) == size // 6
        assert all(len(question.things) == len(question.spec.items) for question in questions)
        assert all(set(question.prompt.lower().split()) <= set(language.vocabulary()) for question in questions)
        names[split] = questions
        assert all(len(language.pool(q.spec, np.random.default_rng(0), 300, 60)) == 300 for q in questions[:4])
    both = [q for some in names.values() for q in some]
    assert sum(language.in_unseen_words(q.spec) is not None and q.spec.relation is None for q in both) >= 30


def test_prompts_are_about_objects_that_no_training_sees(real):
    draw = Draw(Stock.open(real.folder, "unseen"))
    chosen = [prompts.choose(draw, split, 6, np.random.default_rng(0), tries=3000) for split in prompts.SIZES]
    language = draw.stock.language
    for split, some in zip(prompts.SIZES, chosen, strict=True):
        assert some
        assert all(ids == ["other-mug"] for _, _, ids in some)
        assert {language.split_of(spec) for _, spec, _ in some} <= {split, "train"}
    plain = [{i for _, spec, ids in some if language.split_of(spec) == "train" for i in ids} for some in chosen]
    assert not plain[0] & plain[1]


def judge(folder, words):
    """A tiny random dual encoder that knows some words."""
    config = towers.config("encoder", words)
    config["model_cfg"]["vision_cfg"] = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    config["model_cfg"]["embed_dim"] = 8
    towers.write_blank(folder, config, words)
    towers.write_weights(folder, towers.blank(folder, 0), "")
    return Clip(str(folder)).build()


def test_an_asset_is_examined_beside_true_objects_or_without_any(real, tmp_path):
    examiner = Examiner({"judge": judge(tmp_path, real.language.vocabulary())}, evaluation_cameras(32), real, pool=15)
    examiner.check()
    truth = real.truths(Question("", Spec((Item("mug"),))), examiner.cameras, 0, 1)[0]
    splats = from_points(truth.points, torch.full_like(truth.points, 0.5), scale=0.02)
    found = examiner.examine(Question("a mug", Spec((Item("mug"),)), ("other-mug",)), splats)
    assert found["iou"] > 0.5
    assert found["chamfer"] is None or found["chamfer"] < 0.3
    assert 0 < found["true_iou"] < 1
    assert 2 <= found["pool"] <= 15
    assert {found[f"{whose}judge_untaught_r1"] for whose in ("", "true_")} <= {0.0, 1.0}  # "beaker"
    assert found["judge_taught_r1"] == found["judge_r1"]
    nothing = examiner.examine(Question("a bowl", Spec((Item("bowl"),))), splats)
    assert not {"iou", "chamfer", "true_judge_r1", "judge_untaught_r1"} & set(nothing)
    records = [{"seconds": 1.0, "peak_memory_gb": 1.0} | one for one in (found, nothing)]
    assert summarize(records)["silhouette IoU"] == (found["iou"], found["true_iou"])
    assert "untaught word" in table(records)
    assert "azimuth" not in table(records)  # of no real object it is known whether it has a front


def test_judges_that_cannot_read_a_world_are_refused(real, tmp_path):
    model = judge(tmp_path, ("a", "mug"))
    assert model.unread(["mug", "Mug", "a red mug", "couch"]) == ["a red mug", "couch"]
    with pytest.raises(ValueError, match=r"the judge lacks \d+ words of the world 'real'.*RL3D_WEIGHTS"):
        Examiner({"judge": model}, SMALL, real).check()


def test_each_toy_is_a_new_one():
    truths = ToyWorld().truths(Question("a mug", Spec((Item("mug"),))), SMALL, 3, 2)
    assert len(truths) == 2
    assert not torch.equal(truths[0].points, truths[1].points)
    assert ToyWorld().front(Spec((Item("car"),)))
    assert not ToyWorld().front(Spec((Item("ball"),)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"world": "real"}, "rl3d world fetch"),
        ({"world": "both", "prompts": "mine.txt"}, "say whose prompts"),
        ({"untaught": True}, "needs --world real"),
        ({"pool": 3}, "at least 10"),
    ],
)
def test_what_cannot_be_asked_says_why(tmp_path, changes, reason):
    with pytest.raises(ValueError, match=reason):
        worlds_of(replace(Assessment(objects=tmp_path / "none"), **changes))


def test_the_command_refuses_models_that_know_toys_only(real, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RL3D_WEIGHTS", str(write_weights(tmp_path / "weights")))
    monkeypatch.chdir(tmp_path)
    line = {"prompt": "a mug", "spec": {"items": [{"kind": "mug", "paint": None, "form": None, "accent": None, "count": 1}]}}
    line["spec"]["relation"] = None
    (tmp_path / "mine.txt").write_text(json.dumps(line) + "\n")
    words = ["evaluate", "--world", "real", "--objects", str(real.folder), "--prompts", "mine.txt"]
    with pytest.raises(SystemExit):
        main(words)
    assert "lacks" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
