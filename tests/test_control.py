"""What is asked of a run while it works: at which step it is done, what is refused, and that a killed run does it again."""

import contextlib
import json
import math
import multiprocessing
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fake_prior import Fake, Hold, reward, tiny_recipe

import rl3d.generate
from rl3d.control import Control, Stopped, Wish, ask, factors, reweighed, standing
from rl3d.files import append_record, read_records
from rl3d.generate import Request, create, produce
from rl3d.recipe import BestOf, recipe_file
from rl3d.run import Run
from rl3d.search import advance, begin, state
from rl3d.start import Draw
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match
from rl3d.terms.regularise import Solid
from rl3d.types import Prompt

RED = Prompt("red")
STEPS = 14
PLAIN = {"guidance": 1.0, "rescale": 0.0}


def recipe(**changes):
    terms = {"distill": Distill(**PLAIN), "solid": Solid(), "hold": Hold()}
    return tiny_recipe(**({"terms": terms, "ratios": {"solid": 0.5}, "steps": STEPS} | changes))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(rl3d.generate, "CHECKPOINT_EVERY", 5)


@pytest.fixture
def run(tmp_path) -> Run:
    return made(tmp_path / "run")


def made(folder, value=None) -> Run:
    run = Run(folder)
    create(run, Request(RED, "draft"), value or recipe(), recipe_file("draft"))
    return run


def records(run: Run) -> list[dict]:
    return read_records(run.folder / "control.jsonl")


def write(run: Run, text: str) -> None:
    with open(run.folder / "control.jsonl", "a") as file:
        file.write(text)


def until(run: Run, last: int, at=None, value=None):
    """Do a run up to a step, with wishes made after some steps; the tensors of its state then."""
    steps = produce(run, value or recipe())
    while True:
        report, scene = next(steps)
        for wish in (at or {}).get(report.step, []):
            ask(run, **wish)
        if report.step == last:
            break
    tensors = state(scene)[0]
    steps.close()
    return tensors


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


WEIGHTS = {
    3: [{"kind": "weight", "term": "distill", "factor": 0.25}],
    8: [{"kind": "weight", "term": "solid", "factor": 2.0}, {"kind": "weight", "term": "distill", "factor": 3.0}],
}


def test_a_weight_holds_from_the_next_step_on(run):
    o = begin(recipe(), RED)
    control = Control(run)
    assert advance_with(control, o).weights["distill"] == 1.0
    id = ask(run, "weight", term="distill", factor=0.25)
    assert standing(run).waiting == (Wish(id, "weight", term="distill", factor=0.25),)
    assert advance_with(control, o).weights["distill"] == 0.25
    found = standing(run)
    assert found.applied == {id: 1}
    assert found.waiting == ()
    assert found.factors == {"distill": 0.25, "solid": 0.5, "hold": 1.0} == factors(o.recipe)


def advance_with(control, o):
    assert control.obey(o)
    return advance(o)


def test_a_term_that_is_balanced_gets_another_ratio(run):
    plain = recipe()
    assert reweighed(plain, "solid", 2.0).ratios == {"solid": 2.0}
    assert reweighed(plain, "solid", 2.0).weights == {}
    assert reweighed(plain, "hold", 2.0).weights == {"hold": 2.0}
    o, other = begin(plain, RED), begin(plain, RED)
    control = Control(run)
    ask(run, "weight", term="solid", factor=50.0)
    advance_with(control, o)
    advance(other)
    assert not same(state(o)[0], state(other)[0])


def test_killed_and_resumed_it_changes_the_same_weights_after_the_same_steps(tmp_path):
    whole = until(made(tmp_path / "whole"), STEPS, WEIGHTS)
    assert not same(whole, until(made(tmp_path / "plain"), STEPS))
    # As a kill leaves it: what lies in the folder in the middle of step 9, whose last checkpoint is of step 5.
    killed = made(tmp_path / "killed")
    steps = produce(killed, recipe())
    for report, _ in steps:
        for wish in WEIGHTS.get(report.step, []):
            ask(killed, **wish)
        if report.step == 9:
            shutil.copytree(killed.folder, tmp_path / "left")
            break
    steps.close()
    left = Run(tmp_path / "left")
    assert left.load()[1]["step"] == 5
    assert same(whole, until(left, STEPS))
    assert [r["weights"]["distill"] for r in left.metrics()] == [1.0] * 3 + [0.25] * 5 + [3.0] * 6
    # And once more from the very beginning.
    (left.folder / "checkpoint.safetensors").unlink()
    assert same(whole, until(left, STEPS))
    assert [(r["term"], r["step"]) for r in records(left) if "applied" in r] == [("distill", 3), ("solid", 8), ("distill", 8)]


def test_what_is_asked_of_a_resumed_run_comes_after_all_that_it_does_again(run):
    until(run, 7, {6: [{"kind": "weight", "term": "distill", "factor": 0.5}]})
    (run.folder / "checkpoint.safetensors").unlink()
    ask(run, "weight", term="distill", factor=4.0)
    until(run, STEPS)
    assert [r["weights"]["distill"] for r in run.metrics()] == [1.0] * 6 + [4.0] * 8
    assert standing(run).factors["distill"] == 4.0


def test_scenes_of_a_search_obey_alike_and_go_on_to_the_same_bytes(tmp_path):
    terms = {"match": Match(views=2), "distill": Distill(**PLAIN)}
    draw = Draw(views=2, steps=2, **PLAIN)
    value = recipe(terms=terms, ratios={}, draw=draw, prior=Fake(coarse=True), search=BestOf(2, 0.8, reward=reward()))
    at = {2: [{"kind": "weight", "term": "match", "factor": 0.0}]}
    whole = until(made(tmp_path / "whole", value), STEPS, at, value)
    part = made(tmp_path / "part", value)
    until(part, 7, at, value)
    assert same(whole, until(part, STEPS, value=value))
    assert [r["weights"]["match"] for r in part.metrics()] == [1.0] * 2 + [0.0] * 12
    o = begin(value, RED)
    control = Control(made(tmp_path / "contest", value))
    ask(control.run, "weight", term="match", factor=7.0)
    control.obey(o)
    assert [one.recipe.weights for one in (o, *o.members.values())] == [{"match": 7.0}] * 3


def test_it_pauses_steps_and_goes_on(run):
    o, control = begin(recipe(), RED), Control(run)
    ask(run, "pause")
    assert not control.obey(o)
    assert standing(run).paused
    ask(run, "step", steps=2)
    assert [control.obey(o) for _ in range(3)] == [True, True, False]
    ask(run, "resume")
    assert control.obey(o)
    assert not standing(run).paused
    ask(run, "step")
    assert [control.obey(o) for _ in range(2)] == [True, False]


def test_a_paused_run_takes_new_weights_saves_and_explains(run):
    moments = iter(
        [
            lambda: ask(run, "weight", term="distill", factor=0.5),
            lambda: ask(run, "save"),
            lambda: ask(run, "explain"),
            lambda: ask(run, "resume"),
        ]
    )

    def drive():
        with contextlib.suppress(StopIteration):
            next(moments)()
        return 0.0

    control = Control(run)
    control.wait = drive
    steps = produce(run, recipe(), control=control)
    next(steps)
    ask(run, "pause")
    report, _ = next(steps)
    assert report.step == 2
    assert report.weights["distill"] == 0.5
    assert run.load()[1]["step"] == 1
    assert (run.folder / "live" / "why.safetensors").is_file()
    assert not (run.folder / "live" / "scene.safetensors").exists()
    steps.close()


def test_asked_to_stop_it_saves_and_leaves_as_by_ctrl_c(run):
    steps = produce(run, recipe())
    for _ in range(3):
        next(steps)
    ask(run, "stop")
    with pytest.raises(Stopped):
        next(steps)
    assert run.load()[1]["step"] == 3
    assert issubclass(Stopped, KeyboardInterrupt)
    # What stopped one session does not stop the next.
    assert next(produce(run, recipe()))[0].step == 4


def test_a_new_session_is_not_paused_and_wishes_to_the_old_one_are_void(run):
    o, control = begin(recipe(), RED), Control(run)
    ask(run, "pause")
    assert not control.obey(o)
    late = [ask(run, "pause"), ask(run, "stop"), ask(run, "step", steps=3)]
    weight = ask(run, "weight", term="distill", factor=2.0)
    fresh = Control(run)
    assert fresh.obey(o)
    found = standing(run)
    assert not found.paused
    assert all("not at work" in found.refused[id] for id in late)
    assert weight in found.applied


BAD = [
    '{"id": "a", "wish": "weight", "term": "distill", "factor": NaN}',
    '{"id": "b", "wish": "weight", "term": "distill", "factor": Infinity}',
    '{"id": "c", "wish": "weight", "term": "distill", "factor": 1e300}',
    '{"id": "d", "wish": "weight", "term": "distill", "factor": "2"}',
    '{"id": "e", "wish": "weight", "term": "distill", "factor": true}',
    '{"id": "f", "wish": "weight", "term": "nothing", "factor": 1.0}',
    '{"id": "g", "wish": "weight", "term": ["distill"], "factor": 1.0}',
    '{"id": "h", "wish": "dance"}',
    '{"id": "i", "wish": {"pause": 1}}',
    '{"id": "j", "wish": "step", "steps": 0}',
    '{"id": "k", "wish": "step", "steps": 1.5}',
    '{"id": "l", "wish": "pause", "sudo": true}',
    '{"id": "m", "wish": "weight", "term": "distill", "factor": ' + "9" * 400 + "}",
]


def test_what_cannot_be_meant_is_refused_with_its_reason_and_the_run_goes_on(run):
    o, control = begin(recipe(), RED), Control(run)
    write(run, "".join(line + "\n" for line in BAD))
    assert control.obey(o)
    found = standing(run)
    assert set(found.refused) == set("abcdefghijklm")
    assert all(found.refused.values())
    assert not found.applied
    assert factors(o.recipe) == factors(recipe())
    assert "distill, solid, hold" in found.refused["f"]
    with pytest.raises(ValueError, match="at most"):
        ask(run, "weight", term="distill", factor=math.nan)
    with pytest.raises(ValueError, match="bytes"):
        ask(run, "weight", term="x" * 2000)


def test_lines_that_are_no_wishes_are_refused_once_by_where_they_stand(run):
    lines = [
        "nonsense",
        "[1, 2]",
        '{"wish": "pause"}',
        '{"id": "' + "x" * 5_000_000 + '"}',
        "[" * 900,
        '{"id": 3, "wish": "stop"}',
    ]
    o, control = begin(recipe(), RED), Control(run)
    start = (run.folder / "control.jsonl").stat().st_size
    write(run, "\n".join(lines) + "\n\n\n")
    assert control.obey(o)
    refused = [r for r in records(run) if "refused" in r]
    assert refused[0]["refused"] == f"byte {start}"
    assert len(refused) == len(lines)
    assert not control.paused
    ask(run, "pause")
    assert not control.obey(o)
    assert Control(run).obey(o)
    assert len([r for r in records(run) if "refused" in r]) == len(lines)


def test_a_last_line_that_a_kill_cut_is_left_until_it_is_whole(run):
    o, control = begin(recipe(), RED), Control(run)
    write(run, '{"id": "a", "wish": "pau')
    assert control.obey(o)
    assert not any("refused" in r for r in records(run))
    write(run, 'se"}\n')
    assert not control.obey(o)
    write(run, '{"id": "b", "wi')
    id = ask(run, "resume")
    assert control.obey(o)
    assert id in standing(run).applied
    assert sum("not JSON" in why for why in standing(run).refused.values()) == 1


def test_an_id_is_used_once(run):
    o, control = begin(recipe(), RED), Control(run)
    for factor in (2.0, 3.0):
        append_record(run.folder / "control.jsonl", {"id": "a", "wish": "weight", "term": "hold", "factor": factor})
    control.obey(o)
    assert factors(o.recipe)["hold"] == 2.0
    assert any("used before" in why for why in standing(run).refused.values())


def ask_often(run: Run, first: int) -> None:
    for i in range(100):
        ask(run, "weight", term="hold", factor=float(first + i))


def test_two_processes_that_ask_at_once_are_both_heard(run):
    o, control = begin(recipe(), RED), Control(run)
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may find their locks held for ever
    askers = [spawn.Process(target=ask_often, args=(run, first)) for first in (0, 1000)]
    for asker in askers:
        asker.start()
    while any(asker.is_alive() for asker in askers):
        control.obey(o)
        time.sleep(0.005)
    control.obey(o)
    assert [asker.exitcode for asker in askers] == [0, 0]
    lines = (run.folder / "control.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    done = [json.loads(line)["factor"] for line in lines if "applied" in line]
    assert [x for x in done if x < 1000] == list(range(100))
    assert [x for x in done if x >= 1000] == list(range(1000, 1100))


def test_a_reader_knows_whether_a_process_is_at_work_without_getting_in_its_way(run):
    assert not run.busy
    with run.lock():
        assert run.busy
        with pytest.raises(ValueError, match="in use"), run.lock():
            pass
    assert not run.busy
    assert not Run(Path("nowhere")).busy
    stop = threading.Event()

    def pry():
        while not stop.is_set():
            run.busy  # noqa: B018

    with ThreadPoolExecutor(2) as pool:
        try:
            for _ in range(2):
                pool.submit(pry)
            for _ in range(30):
                with run.lock():
                    pass
        finally:
            stop.set()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="not a run"):
        standing(Run(tmp_path))
