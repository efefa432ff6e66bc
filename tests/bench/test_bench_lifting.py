"""Where what was drawn is lost: the table's arithmetic, and what a stage's row says."""

import pytest
import torch
from benches import load
from helpers import sphere_views

from rl3d.cameras import Orbit
from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.worlds import claims, prompt_set, read_questions
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import look_at
from rl3d.rewards.clip import Clip

lifting = load("lifting")


def row(prompt, way, *scores):
    stages = {s: {"judge_r1": float(x > 0.3), "judge_score": x, "encoder_r1": 1.0, "encoder_score": 2 * x} for s, x in scores}
    return {"prompt": prompt, "way": way, "seconds": 3.0, "gaussians": 100, "iou": 0.5} | stages


def scored(drawn, same, new, true):
    return tuple(zip(lifting.STAGES, (drawn, same, new, true), strict=True))


def test_the_table_has_each_stage_over_the_prompts_that_all_ways_have():
    rows = [
        row("a mug", "asset", *scored(0.4, 0.3, 0.2, 0.5)),
        row("a car", "asset", *scored(0.2, 0.3, 0.4, 0.5)),
        row("a hat", "asset", *scored(0.9, 0.9, 0.9, 0.9)),  # the draft lacks it
        row("a mug", "draft", *scored(0.4, 0.1, 0.1, 0.5)),
        row("a car", "draft", *scored(0.2, 0.5, 0.1, 0.5)),
    ]
    lines = lifting.table(rows).splitlines()
    assert lines[0] == "2 prompts"
    found = {line[:28].strip(): line[28:].split() for line in lines[2:] if not line.startswith(" ")}
    assert found["drawn"] == ["50.0%", "0.3000", "100.0%", "0.6000"]
    assert found["true"] == ["100.0%", "0.5000", "100.0%", "1.0000"]
    assert found["asset, new sides"] == ["50.0%", "0.3000", "100.0%", "0.6000"]
    assert found["draft, same sides"] == ["50.0%", "0.3000", "100.0%", "0.6000"]
    assert found["draft, new sides"] == ["0.0%", "0.1000", "100.0%", "0.2000"]


def test_each_stage_is_what_was_drawn_or_is_seen_of_the_asset_or_of_a_true_one():
    question, model = read_questions(prompt_set("validation"))[0], Clip().build()
    drawn = sphere_views(Orbit(views=2, size=64).cameras(), 0.5)
    examiner = Examiner({"encoder": model}, Orbit(views=2, size=32).cameras())
    splats = from_points(torch.zeros(1, 3), torch.ones(1, 3), 0.2)
    found = lifting.followed(examiner, question, drawn, splats)
    scores = model.embed_views(drawn, background=0.8)[0] @ model.embed_text(claims(question)).T
    assert found["drawn"]["encoder_score"] == pytest.approx(float(scores[:, 0].mean()), abs=1e-4)
    assert found["drawn"]["encoder_r1"] == float(scores.mean(0).argmax() == 0)
    asked = (look_at(splats)(drawn.cameras), look_at(splats)(examiner.cameras), examiner.truths(question)[0].views)
    for stage, views in zip(lifting.STAGES[1:], asked, strict=True):
        assert found[stage] == examiner.ranks(question, views)
    assert found["gaussians"] == 1
    assert 0 <= found["iou"] < 0.5
