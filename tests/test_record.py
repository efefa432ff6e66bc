"""What a run writes down of itself, and what it does when its reward is hacked."""

import builtins
import json
import math
from dataclasses import replace

import pytest
import torch
from trimesh.creation import icosphere

from rl3d.__main__ import main
from rl3d.cameras import Orbit
from rl3d.export.splats.ply import write_ply
from rl3d.generate import Request, create, produce
from rl3d.geometry.points import from_points
from rl3d.optimize import advance, begin
from rl3d.protocols import RewardInfo
from rl3d.recipe import Recipe, Watch, recipe_file
from rl3d.record import Watcher, check_logs, first_alert, line, numbers
from rl3d.rewards.base import FromCallable, from_callable
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combine, Part
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.run import Run
from rl3d.start import FromFile
from rl3d.terms.ascent import Ascend
from rl3d.terms.policy import PixelPolicy
from rl3d.types import Prompt


def redness(shown, prompts):
    """A reward that a scene can game: all of it red, whatever it is of."""
    return (shown.views.rgb[..., 0] - shown.views.rgb[..., 1:].mean(-1)).mean((2, 3))


def greenness(shown, prompts):
    return (shown.views.rgb[..., 1] - shown.views.rgb[..., ::2].mean(-1)).mean((2, 3))


RED, GREEN = (
    FromCallable(f, RewardInfo(f.__name__, "pixels", (-1.0, 1.0), "", "Apache-2.0", "a test")) for f in (redness, greenness)
)


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A ball of many colours."""
    points = torch.from_numpy(icosphere(subdivisions=2, radius=0.6).vertices.copy()).float()
    colours = torch.rand(points.shape, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("ball") / "ball.ply"
    write_ply(path, from_points(points, colours, 0.12, opacity=0.9))
    return str(path)


def hacked(ball: str, **changes) -> Recipe:
    plain = Recipe(
        terms={"red": Ascend(RED, start=0.0, jitter=0.0)},
        prior=None,
        draw=None,
        start=FromFile(ball),
        rig=Orbit(views=3, size=24),
        steps=40,
        guards={"colours": ColourEntropy(), "area": Area()},
        watch=Watch(every=2, window=2, rig=Orbit(views=3, start_deg=30.0, size=24)),
    )
    return replace(plain, **changes)


def run_of(folder, recipe: Recipe, *, stop_after: int | None = None) -> Run:
    run = Run(folder)
    if not (folder / "run.json").is_file():
        create(run, Request(Prompt("a ball"), "draft"), recipe, recipe_file("draft"))
    steps = produce(run, recipe)
    for i, _ in enumerate(steps, 1):
        if i == stop_after:
            steps.close()
            break
    return run


def test_a_hacked_run_is_caught_and_says_so(ball, tmp_path):
    run = run_of(tmp_path, hacked(ball))
    alert = run.summary["alert"]
    assert alert["term"] == "red"
    assert alert["fallen"].keys() == {"colours"}
    assert alert["gain"] > 0.02
    assert alert["then"] == "warn"
    assert run.summary["steps"] == 40
    assert any("'red' rose" in note and "colours by" in note for note in run.summary["notes"])
    looks = [r for r in run.metrics() if "guards" in r]
    assert [r["step"] for r in looks] == list(range(2, 41, 2))
    assert looks[-1]["watched"]["red"] > looks[0]["watched"]["red"] + 0.05
    assert looks[-1]["guards"]["colours"] < 0.9 * looks[0]["guards"]["colours"]


def test_a_run_whose_guards_hold_is_left_alone(ball, tmp_path):
    run = run_of(tmp_path, hacked(ball, guards={"area": Area()}))
    assert run.summary["alert"] is None
    assert run.summary["notes"] == []


def test_what_is_climbed_is_no_guard(ball, tmp_path):
    """Two rewards that exclude each other: one falls while the other rises, which is a compromise and no hack."""
    terms = {"red": Ascend(RED, start=0.0), "green": Ascend(GREEN, start=0.0)}
    recipe = hacked(ball, terms=terms, weights={"green": 0.01}, guards={"green": GREEN})
    run = run_of(tmp_path, recipe)
    looks = [r for r in run.metrics() if "guards" in r]
    assert looks[-1]["guards"]["green"] < looks[0]["guards"]["green"] - 0.02
    assert run.summary["alert"] is None


def test_what_was_before_a_term_began_does_not_count(ball):
    recipe = hacked(ball, terms={"red": Ascend(RED, start=0.5)})
    looks = [{"step": s, "watched": {"red": s / 40}, "guards": {"colours": 3 - s / 20}} for s in range(2, 41, 2)]
    found = first_alert(recipe, looks)
    assert found.since > 20
    assert first_alert(recipe, looks[:13]) is None
    assert first_alert(hacked(ball), looks).step < 20


def test_small_falls_are_none(ball):
    looks = [{"step": s, "watched": {"red": s / 40}, "guards": {"colours": 3 - s / 1000}} for s in range(2, 41, 2)]
    assert first_alert(hacked(ball), looks) is None
    missing = [look | {"guards": {"colours": None}} for look in looks]
    assert first_alert(hacked(ball), missing) is None


def test_a_hacked_run_stops_where_its_recipe_says_so(ball, tmp_path):
    recipe = hacked(ball)
    recipe = replace(recipe, watch=replace(recipe.watch, then="stop"))
    run = run_of(tmp_path, recipe)
    assert run.summary["steps"] == run.summary["alert"]["step"] < 40
    assert run.metrics()[-1]["step"] == run.summary["steps"]


def test_a_hacked_run_goes_back_to_the_state_before_also_after_a_stop(ball, tmp_path):
    recipe = hacked(ball)
    recipe = replace(recipe, watch=replace(recipe.watch, then="roll back"))
    whole = run_of(tmp_path / "whole", recipe)
    alert = whole.summary["alert"]
    assert whole.summary["steps"] == alert["since"] < alert["step"] < 40
    assert not (whole.folder / "states").exists()
    # The same steps without any reward of the rest of the run: what it went back to is what it was.
    o = begin(recipe, Prompt("a ball"))
    for _ in range(alert["since"]):
        advance(o)
    write_ply(tmp_path / "then.ply", o.scene.splats())
    asset = (whole.folder / "asset.ply").read_bytes()
    assert (tmp_path / "then.ply").read_bytes() == asset
    # Stopped before the alert, and right where it came.
    for name, stop in (("before", 3), ("there", alert["step"])):
        part = run_of(tmp_path / name, recipe, stop_after=stop)
        assert part.summary is None
        part = run_of(tmp_path / name, recipe)
        assert part.summary["alert"] == alert
        assert (part.folder / "asset.ply").read_bytes() == asset


def test_looking_changes_nothing(ball, tmp_path):
    recipe = hacked(ball, steps=6)
    looked = run_of(tmp_path / "looked", recipe)
    blind = run_of(tmp_path / "blind", replace(recipe, watch=Watch(every=0)))
    assert (looked.folder / "asset.ply").read_bytes() == (blind.folder / "asset.ply").read_bytes()
    assert not any("guards" in r for r in blind.metrics())


def test_equal_rewards_are_loaded_once(ball):
    watcher = Watcher(hacked(ball, guards={"red": RED, "area": Area(), "too": Area()}), Prompt("a ball"))
    assert watcher.guards["red"] is watcher.rewards["red"]
    assert watcher.guards["area"] is watcher.guards["too"]


def test_a_step_is_written_down_with_weights_cosines_and_rewards(ball):
    both = Combine({"r": Part(RED, 2.0, center=0.1, scale=0.5), "a": Part(Area())})
    recipe = hacked(
        ball,
        terms={"red": Ascend(RED, start=0.0, jitter=0.0), "back": Ascend(both, start=0.0, backgrounds=1, jitter=0.0)}
        | {"tried": PixelPolicy(from_callable(redness), samples=4, start=0.0)},
        weights={"red": -3.0},
        ratios={"back": 0.5, "tried": 0.1},
    )
    report = advance(begin(recipe, Prompt("a ball")))
    record = line(report, 1.0)
    assert json.loads(json.dumps(record)) == record
    assert record["weights"]["red"] == -3.0
    assert record["gradient_norms"]["back"] == pytest.approx(0.5 * record["gradient_norms"]["red"], rel=1e-3)
    # 'red' is turned around, and 'back' climbs redness too, and alpha.
    assert -1 <= record["cosines"]["red"]["back"] < -0.1
    assert record["cosines"].keys() == {"red", "back"}
    said = record["rewards"]["back"]
    assert said.keys() == {"r", "a"}
    assert said["r"]["normalised"][0] == pytest.approx((said["r"]["raw"][0] - 0.1) / 0.5, abs=1e-5)
    tried = record["rewards"]["tried"]["function:redness"]
    assert len(tried["raw"]) == 4
    assert sum(tried["normalised"]) == pytest.approx(0, abs=1e-4)
    order = sorted(range(4), key=tried["raw"].__getitem__)
    assert order == sorted(range(4), key=tried["normalised"].__getitem__)


def test_opposite_terms_have_cosine_minus_one(ball):
    terms = {name: Ascend(RED, start=0.0, jitter=0.0) for name in ("one", "same", "other")}
    report = advance(begin(hacked(ball, terms=terms, weights={"other": -0.3}), Prompt("a ball")))
    assert report.cosines["one"]["same"] == pytest.approx(1, abs=1e-5)
    assert report.cosines["one"]["other"] == pytest.approx(-1, abs=1e-5)
    assert report.norms["other"] == pytest.approx(0.3 * report.norms["one"], rel=1e-4)


def test_numbers_have_paths():
    record = {"step": 3, "losses": {"a": 0.5}, "rewards": {"t": {"r": {"raw": [1.0, None, 3.0], "normalised": [None]}}}}
    assert numbers(record) == {"step": 3.0, "losses/a": 0.5, "rewards/t/r/raw": 2.0}
    assert numbers({"guards": {"judge": None}}) == {}


def test_a_log_that_is_not_installed_is_refused_before_anything_is_made(monkeypatch, tmp_path, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("torch.utils.tensorboard", "wandb")):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.chdir(tmp_path)
    for flag, package in (("--tensorboard", "rl3d[record]"), ("--wandb", "wandb")):
        with pytest.raises(SystemExit) as stop:
            main(["generate", "a red mug", flag])
        assert stop.value.code == 2
        assert f"pip install '{package}'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    check_logs([])


def test_tensorboard_holds_the_same_numbers_also_after_a_stop(ball, tmp_path):
    accumulate = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    recipe = hacked(ball, steps=6)
    run = Run(tmp_path)
    create(run, Request(Prompt("a ball"), "draft"), recipe, recipe_file("draft"))
    steps = produce(run, recipe, logs=["tensorboard"])
    for _ in range(3):
        next(steps)
    steps.close()
    for _ in produce(run, recipe, logs=["tensorboard"]):
        pass
    events = accumulate(str(tmp_path / "tensorboard"))
    events.Reload()
    for path, of in (("losses/red", lambda r: r["losses"]["red"]), ("guards/colours", lambda r: r["guards"]["colours"])):
        wanted = [(r["step"], of(r)) for r in run.metrics() if path.split("/")[0] in r]
        found = [(event.step, event.value) for event in events.Scalars(path)]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert all(math.isclose(a, b, rel_tol=1e-5) for (_, a), (_, b) in zip(found, wanted, strict=True))


def test_usual_guards_are_the_judge_and_what_pictures_show():
    guards = Recipe(terms={"red": Ascend(RED)}).guards
    assert guards["judge"] == Clip("judge")
    assert {type(guard) for guard in guards.values()} == {Clip, Sharpness, ColourEntropy, Area}


def test_wrong_watches_are_refused():
    with pytest.raises(ValueError, match="window"):
        Watch(window=0)
