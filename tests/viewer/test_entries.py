"""What the gallery finds: runs in every state, files, and what is broken."""

import fcntl
import json

import pytest
from rl3d.viewer.entries import entry, find, matching


def a_run(folder, text="a red mug", done=True):
    folder.mkdir(parents=True)
    about = {"prompt": {"text": text, "negative": ""}, "recipe": "draft", "arguments": [], "seed": 3}
    (folder / "run.json").write_text(json.dumps(about))
    if done:
        (folder / "summary.json").write_text(json.dumps({"scores": {"reward": 0.5, "judge": None}, "notes": ["a note"]}))
    return folder


def test_a_run_says_what_it_is(tmp_path):
    one = entry(a_run(tmp_path / "mug"))
    assert (one.state, one.title, one.recipe, one.seed, one.scores, one.note) == (
        "done",
        "a red mug",
        "draft",
        3,
        {"reward": 0.5},
        "a note",
    )
    assert entry(a_run(tmp_path / "half", done=False)).state == "stopped"


def test_a_run_that_is_locked_is_running(tmp_path):
    folder = a_run(tmp_path / "mug", done=False)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert entry(folder).state == "running"
    assert entry(folder).state == "stopped"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"prompt": "a red mug"}'),
        ("summary.json", "{"),
        ("summary.json", '{"scores": 3}'),
        ("summary.json", '{"scores": {"reward": "high"}, "notes": []}'),
    ],
)
def test_a_damaged_run_is_shown_as_such(tmp_path, name, text):
    folder = a_run(tmp_path / "mug")
    (folder / name).write_text(text)
    one = entry(folder)
    assert one.state == "damaged"
    assert one.note
    assert [e.path for e in find([tmp_path])] == [folder]


def test_a_run_without_its_request_is_damaged(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert entry(tmp_path).state == "damaged"


def test_what_is_nothing_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "gone"):
        with pytest.raises(ValueError, match=r"nothing that can|not a run|there is no"):
            entry(path)


def test_find_looks_into_folders_and_filters(tmp_path):
    mug, chair = a_run(tmp_path / "a" / "mug"), a_run(tmp_path / "a" / "b" / "chair", "a chair")
    (tmp_path / "thing.ply").write_bytes(b"ply")
    found = find([tmp_path])
    assert {e.path for e in found} == {mug, chair, tmp_path / "thing.ply"}
    assert [e.path for e in matching(found, "CHAIR done")] == [chair]
    assert matching(found, "chair running") == []
    assert find([tmp_path / "gone"]) == []
