"""Who watches a run gets its scene and its reasons; the run itself computes what it would have computed alone."""

import os
import time

import pytest
import torch
from fake_prior import Hold, reward, tiny_recipe

import rl3d.generate
import rl3d.live
from rl3d.explanation import read_explanation, why_path
from rl3d.generate import Request, create, produce
from rl3d.live import Pace, is_watched, watch
from rl3d.recipe import Watch, recipe_file
from rl3d.run import Run
from rl3d.search import state
from rl3d.snapshot import read_snapshot, saved_steps, scene_path
from rl3d.terms.distillation import Distill
from rl3d.terms.regularise import Solid
from rl3d.types import Prompt


def recipe(steps=12):
    terms = {"distill": Distill(), "solid": Solid(), "hold": Hold()}
    return tiny_recipe(terms=terms, steps=steps, guards={"redness": reward()}, watch=Watch(every=5))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(rl3d.generate, "CHECKPOINT_EVERY", 5)
    monkeypatch.setattr(rl3d.live, "SHARE", 1e9)


def made(folder) -> Run:
    run = Run(folder)
    create(run, Request(Prompt("red"), "draft"), recipe(), recipe_file("draft"))
    return run


def test_watched_and_explained_it_ends_in_the_same_bytes(tmp_path):
    alone, seen = made(tmp_path / "alone"), made(tmp_path / "seen")
    states = []
    for run in (alone, seen):
        steps, scene = produce(run, recipe()), None
        for report, scene in steps:
            if run is seen:
                watch(run)
                if report.step > 1:
                    # One step behind: it is written at the boundary.
                    assert read_snapshot(scene_path(run)).step <= report.step
            if report.step == 12:
                break
        states.append(state(scene)[0])
        if run is seen:
            assert read_explanation(why_path(run)).step >= 1
        steps.close()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not (alone.folder / "live").exists()
    assert saved_steps(alone) == saved_steps(seen) == [5, 10, 12]


def test_what_is_watched_while_it_is_paused_is_the_scene_as_it_is(tmp_path):
    run = made(tmp_path / "run")
    steps = produce(run, recipe())
    watch(run)
    report, _ = next(steps)
    time.sleep(0.6)
    control_looks_again = next(steps)[0]
    assert read_snapshot(scene_path(run)).step == report.step == 1
    assert read_explanation(why_path(run)).step == 1
    assert control_looks_again.step == 2
    steps.close()


def test_nobody_watches_after_a_while(tmp_path):
    run = made(tmp_path / "run")
    assert not is_watched(run)
    watch(run)
    assert is_watched(run)
    past = time.time() - 60
    os.utime(run.folder / "live" / "watched", (past, past))
    assert not is_watched(run)


def test_a_disk_that_is_full_for_watchers_leaves_the_run_alone(tmp_path, monkeypatch):
    run = made(tmp_path / "run")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rl3d.live, "write_snapshot", full)
    monkeypatch.setattr(rl3d.live, "write_explanation", full)
    steps = produce(run, recipe())
    for _ in range(3):
        watch(run)
        next(steps)
    steps.close()


def test_a_pace_waits_as_long_as_its_share_asks(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    pace = Pace(0.01)
    assert pace.due
    with pace.work():
        now[0] += 0.002
    now[0] = 100.49
    assert not pace.due
    now[0] = 100.51
    assert pace.due
    with pace.work():
        now[0] += 0.1
    now[0] += 9.9
    assert not pace.due
    now[0] += 0.2
    assert pace.due
