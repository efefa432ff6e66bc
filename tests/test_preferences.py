"""Rewards of one's own: from preferences by a hidden reward to a reward that agrees with it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from commandline import fails
from PIL import Image
from scipy.stats import spearmanr

from rl3d.__main__ import main
from rl3d.assets import load_pictures
from rl3d.cameras import Orbit
from rl3d.choices import read_pairs
from rl3d.math import wilson
from rl3d.preferences import Bin, Features, calibration, fit, logits, split, train_reward
from rl3d.rewards.trained import Head, Trained
from rl3d.types import Prompt, Views

PROMPT = "a red mug"


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path_factory.mktemp("weights"))))
        yield


def hidden(colour: np.ndarray) -> float:
    """What the annotators like, which nobody tells the head: red, and a little less green."""
    return float(3 * colour[0] - 2 * colour[1])


@pytest.fixture(scope="module")
def preferences(tmp_path_factory) -> tuple[Path, list[str], list[float]]:
    """Plain pictures of 40 objects, two views each, and 200 noisy comparisons; the last ten pictures are in none of them."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    liked, names = [], []
    for i in range(50):
        colour = rng.uniform(0, 1, 3)
        names.append([f"{i}_{view}.png" for view in "ab"])
        for name in names[-1]:
            noise = rng.normal(0, 0.05, (16, 16, 3))
            Image.fromarray((255 * np.clip(colour + noise, 0, 1)).astype(np.uint8)).save(folder / name)
        liked.append(hidden(colour))
    lines = []
    for k in range(200):
        i, j = rng.choice(40, 2, replace=False)
        chance = 1 / (1 + math.exp(-4 * (liked[i] - liked[j])))
        won = "a" if rng.uniform() < chance else "b"
        lines.append({"prompt": PROMPT, "a": names[i], "b": names[j], "preferred": won, "annotator": ("kim", "lou")[k % 2]})
    lines[3]["preferred"] = "tie"
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return path, names, liked


@pytest.fixture(scope="module", params=[False, True], ids=["per view", "joint"])
def trained(request, preferences, tmp_path_factory):
    out = tmp_path_factory.mktemp("reward")
    return out, train_reward(preferences[0], out, joint=request.param)


def test_held_out_comparisons_are_predicted(trained):
    _, fitted = trained
    assert fitted.pairs == 200
    assert fitted.held_out == 40
    assert fitted.held_out_by == "comparison"
    # The annotators agree with the hidden reward in nine of ten; 29 of 40 are more than chance allows (p < .003).
    assert fitted.accuracy > 0.7
    assert fitted.log_loss < 0.45
    assert fitted.calibration_error < 0.2
    assert fitted.by_annotator.keys() == {"kim", "lou"}
    assert sum(b.count for b in fitted.bins) == 40


def test_the_order_of_objects_it_never_saw_is_recovered(trained, preferences):
    path, names, liked = preferences
    reward = Trained(str(trained[0])).build()
    views = [load_pictures([path.parent / name for name in names[i]]) for i in range(40, 50)]
    values = [float(reward.score(v, [Prompt(PROMPT)]).value) for v in views]
    assert spearmanr(values, liked[40:]).statistic > 0.8


def test_its_gradient_climbs_the_hidden_reward(trained):
    reward = Trained(str(trained[0])).build()
    grey = torch.full((1, 2, 16, 16, 3), 0.5)
    views = Views(grey.requires_grad_(), torch.ones(1, 2, 16, 16, 1), None, None, Orbit(2, size=16).cameras())
    reward.score(views, [Prompt(PROMPT)]).value.sum().backward()
    slope = grey.grad.sum((0, 1, 2, 3))
    assert slope[0] > 0 > slope[1]


def test_files_are_a_reward_with_a_plot_and_a_report(trained):
    out, fitted = trained
    assert sorted(p.name for p in out.iterdir()) == ["calibration.png", "head.safetensors", "reward.json"]
    assert json.loads((out / "reward.json").read_text())["report"]["accuracy"] == fitted.accuracy
    picture = np.asarray(Image.open(out / "calibration.png"))
    assert ((picture == (30, 90, 200)).all(-1)).sum() > 300


def test_the_same_seed_gives_the_same_reward(preferences, tmp_path):
    path = tmp_path / "few.jsonl"
    lines = [json.loads(text) for text in preferences[0].read_text().split("\n")[:30]]
    for one in lines:
        one |= {side: [str(preferences[0].parent / name) for name in one[side]] for side in "ab"}
    path.write_text("\n".join(map(json.dumps, lines)))
    made = [
        train_reward(path, tmp_path / name, seed=seed) and (tmp_path / name) for name, seed in (("x", 1), ("y", 1), ("z", 2))
    ]
    heads = [(folder / "head.safetensors").read_bytes() for folder in made]
    assert heads[0] == heads[1] != heads[2]


def features(prompts: int, each: int) -> Features:
    rng = torch.Generator().manual_seed(0)
    compared = [(p, 2 * p, 2 * p + 1) for p in range(prompts) for _ in range(each)]
    views = [torch.nn.functional.normalize(torch.randn(1 + i % 2, 8, generator=rng), dim=-1) for i in range(2 * prompts)]
    texts = torch.nn.functional.normalize(torch.randn(prompts, 8, generator=rng), dim=-1)
    return Features(views, texts, compared, torch.ones(len(compared)))


def test_whole_prompts_are_held_out_where_there_are_enough():
    f = features(20, 3)
    known, unknown = split(f, 0.2, seed=0)
    assert len(unknown) == 12
    assert sorted(known + unknown) == list(range(60))
    assert not {f.compared[i][0] for i in known} & {f.compared[i][0] for i in unknown}


def test_logits_are_differences_whatever_the_number_of_views():
    f, head = features(5, 1), Head(8)
    found = logits(head, f, [4, 0, 2])
    for value, row in zip(found, [4, 0, 2], strict=True):
        p, a, b = f.compared[row]
        one, other = (head(f.views[side][None], f.texts[p][None]).mean() for side in (a, b))
        torch.testing.assert_close(value, one - other)


def test_a_joint_head_sees_what_no_single_view_shows():
    """Preferred is what shows the same from both sides: every view alone is a coin."""
    rng = torch.Generator().manual_seed(0)
    one, other = torch.nn.functional.normalize(torch.randn(2, 8, generator=rng), dim=-1)
    views = [torch.stack([one, one]), torch.stack([other, other]), torch.stack([one, other]), torch.stack([other, one])]
    compared = [(0, a, b) for a in (0, 1) for b in (2, 3)] * 3
    f = Features(views, torch.nn.functional.normalize(torch.ones(1, 8), dim=-1), compared, torch.ones(12))
    told = [logits(fit(f, range(12), joint=joint, decay=0.01, seed=0), f, range(4)) for joint in (False, True)]
    assert told[0].min() < 0.1
    assert told[1].min() > 1


def test_calibration_in_closed_form():
    logit = torch.tensor([0.0, 0.0, -3.0, 3.0])
    found = calibration(logit, torch.tensor([1.0, 0.0, 0.0, 1.0]), bins=2)
    assert found[0] == Bin(0.5, 0.5, 2)
    assert found[1].said == pytest.approx(1 / (1 + math.exp(-3)))
    assert found[1].true == 1
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


GOOD = {"prompt": "a", "a": "x.png", "b": "x.png", "preferred": "a"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("{", "no JSON"),
        ("[]", "a line is an object"),
        (json.dumps({"prompt": "a"}), "lacks a, b, preferred"),
        (json.dumps(GOOD | {"winner": 1}), "has winner"),
        (json.dumps(GOOD | {"preferred": "left"}), '"a", "b" or "tie"'),
        (json.dumps(GOOD | {"preferred": ["a"]}), '"a", "b" or "tie"'),
        (json.dumps(GOOD | {"a": "y.png"}), "there is no"),
        (json.dumps(GOOD | {"b": []}), "`b` must be a path"),
        (json.dumps(GOOD | {"b": ["x.png", "run"]}), "must be pictures"),
        (json.dumps(GOOD | {"prompt": " "}), "`prompt` must be"),
    ],
)
def test_wrong_lines_are_named_by_their_number(wrong, says, tmp_path):
    (tmp_path / "x.png").touch()
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{wrong}\n")
    with pytest.raises(ValueError, match="line 3") as error:
        read_pairs(path)
    assert says in str(error.value)


def test_the_command_says_how_good_it_is_and_users_mistakes_are_named(preferences, tmp_path, capsys):
    main(["reward", "train", str(preferences[0]), "--out", str(tmp_path / "mine"), "--no-joint"])
    said = capsys.readouterr().out
    assert "200 comparisons, 40 of them held out" in said
    assert "kim: " in said
    assert "there is no file" in fails(capsys, "reward", "train", "nothing.jsonl")
    assert "the judge is only ever reported" in fails(
        capsys, "reward", "train", str(preferences[0]), "--encoder.model", "judge", "--out", str(tmp_path / "judge")
    )
    assert not (tmp_path / "judge").exists()
    (tmp_path / "few.jsonl").write_text("")
    assert "at least 10" in fails(capsys, "reward", "train", str(tmp_path / "few.jsonl"))
    assert "rl3d reward train" in fails(capsys, "reward", "fit")


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="no trained reward"):
        Trained(str(tmp_path)).build()
    (tmp_path / "reward.json").write_text('{"encoder": "encoder"}')
    with pytest.raises(ValueError, match="damaged"):
        Trained(str(tmp_path)).build()
