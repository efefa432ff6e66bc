"""What lessons are compared by: choices, pairs, and what is kept from one call to the next."""

from types import SimpleNamespace

import pytest
import torch
from benches import load

from rl3d.run import Run

bench = load("finetune")

WAYS = tuple(bench.WAYS)


def test_of_each_prompts_samples_the_one_that_another_measure_likes_is_taken():
    hit, liked = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    assert bench.chosen(hit, liked).tolist() == [1.0, 1.0, 0.0]


def test_guidance_is_tuned_by_the_encoder_on_prompts_of_the_train_split(monkeypatch):
    s, seen = bench.Settings((), guidances=(2.0, 3.0, 5.0), tune=5, each=2, batch=2), []

    def draw(s, prior, prompts, guidance, start, key=20):
        seen.append((guidance, start, key, *(p.text for p in prompts)))
        return torch.full((len(prompts) * s.each,), guidance)

    def score(views, prompts):
        assert len(views) == len(prompts)
        return SimpleNamespace(value=-(views - 3.2).abs())

    monkeypatch.setattr(bench, "draw", draw)
    assert bench.tuned(s, None, SimpleNamespace(score=score)) == 3.0
    one, other, _ = ([call[1:] for call in seen if call[0] == guidance] for guidance in s.guidances)
    assert one == other, "each guidance is asked the same prompts with the same noise"
    assert [call[0] for call in one] == [0, 2, 4]
    asked = {text for call in one for text in call[2:]}
    assert len(asked) == 5
    assert all(call[1] != 20 for call in one), "the noise is not that of the held-out prompts"
    held = {q.prompt for q in bench.read_questions(bench.prompt_set("validation"))}
    assert not asked & held


def measures(**hits):
    found = {f"judge_r1.{way}": torch.tensor(hits.get(way, [0.0, 1.0, 0.0, 1.0])) for way in WAYS}
    features = torch.eye(4)
    return found | {"reward": torch.zeros(4), "diversity": torch.ones(4), "features": features, "guidance": torch.tensor([3.0])}


def row(seed=0, **hits):
    price = {"samples": 8, "seconds": 60.0, "steps": 1}
    return {"lesson": "some", "seed": seed, **price, **bench.compared(measures(), measures(**hits))}


def test_a_prior_gains_nothing_over_itself():
    one = row()
    assert one["distance_to_base"] == pytest.approx(0.0, abs=1e-6)
    for way in WAYS:
        assert one["gains"][way] == [0.0] * 4
        assert bench.interval([one], way) == (0.0, 0.0)


def test_gains_are_paired_and_seeds_of_a_prompt_are_one_piece_of_evidence():
    up, down = row(0, plain=[1.0, 1.0, 1.0, 1.0]), row(1, plain=[0.0, 0.0, 0.0, 0.0])
    assert up["gains"]["plain"] == [1.0, 0.0, 1.0, 0.0]
    assert up["judge_r1.plain_before"] == 0.5
    low, high = bench.interval([up], "plain")
    assert 0.0 <= low < 0.5 < high <= 1.0
    # More of the same seed makes nothing more certain.
    assert bench.interval([up, up, up], "plain") == pytest.approx((low, high))
    middle = torch.tensor([up["gains"]["plain"], down["gains"]["plain"]]).mean(0)
    assert bench.interval([up, down], "plain") == pytest.approx(bench.bootstrap_interval(middle))
    lines = bench.table([up, down]).splitlines()
    assert len(lines) == 2
    assert "50.0% 50.0%" in lines[1]


def test_a_measurement_is_kept_for_the_same_weights_and_settings_alone(tmp_path):
    torch.manual_seed(0)
    net, s = torch.nn.Linear(2, 2), bench.Settings(())
    name = bench.checksum(net, settings=s.drawn)
    assert name == bench.checksum(net, settings=bench.Settings(("draft",), minutes=1.0, seeds=(5,)).drawn)
    assert name != bench.checksum(net, settings=bench.Settings((), steps=8).drawn)
    with torch.no_grad():
        net.weight[0, 0] += 1e-6
    assert name != bench.checksum(net, settings=s.drawn)
    calls = []

    def measure():
        calls.append(1)
        return {"x": torch.arange(6.0).view(2, 3).T}

    for _ in range(2):
        assert torch.equal(bench.kept(tmp_path / "base.safetensors", measure)["x"], measure()["x"])
        calls.pop()
    assert len(calls) == 1


def test_a_figure_for_each_of_what_lessons_are_watched_by(tmp_path):
    s = bench.Settings(("one", "two"), seeds=(0, 1), out=tmp_path)
    run = Run(tmp_path / "one-0")
    run.folder.mkdir()
    for step in range(3):
        probe = {"reward": 0.1 * step, "guard/judge": None} if step != 1 else None
        run.log({"step": step, "seconds": 60.0 * step, "probe": probe})
    files = bench.curves(s, ["one", "two"])
    assert [file.name for file in files] == ["curves_reward.png", "curves_judge.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
