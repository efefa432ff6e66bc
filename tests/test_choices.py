"""The file of choices: what is recorded is read, whatever happened in between."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from rl3d.choices import Pair, read_pairs, record, withdraw


@pytest.fixture
def file(tmp_path) -> Path:
    for name in ("base/mug", "tuned/mug", "base/key", "tuned/key"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "choices.jsonl"


def pair(file: Path, what: str = "mug", preferred: float = 1.0, annotator: str = "kim") -> Pair:
    return Pair(f"a {what}", (str(file.parent / f"base/{what}"),), (str(file.parent / f"tuned/{what}"),), preferred, annotator)


def test_what_is_recorded_is_read(file):
    said = [pair(file), pair(file, "key", 0.0), pair(file, preferred=0.5, annotator="lou")]
    for one in said:
        record(file, one)
    assert read_pairs(file) == said
    first = json.loads(file.read_text().splitlines()[0])
    assert first == {"prompt": "a mug", "a": "base/mug", "b": "tuned/mug", "preferred": "a", "annotator": "kim"}


def test_pictures_are_written_as_lists_and_paths_elsewhere_in_full(file, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    for name in ("x.png", "y.png"):
        (other / name).touch()
    both = tuple(str(other / name) for name in ("x.png", "y.png"))
    record(file, Pair("a mug", both, both[:1], 0.5))
    assert json.loads(file.read_text())["a"] == list(both)
    assert read_pairs(file) == [Pair("a mug", both, both[:1], 0.5)]


def test_paths_are_the_same_from_any_working_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent / "base")
    record(Path("../choices.jsonl"), Pair("a mug", ("mug",), ("../tuned/mug",), 1.0))
    monkeypatch.chdir("/")
    assert [tuple(map(os.path.abspath, p.a + p.b)) for p in read_pairs(file)] == [
        (str(file.parent / "base/mug"), str(file.parent / "tuned/mug"))
    ]


def test_a_line_withdraws_the_latest_choice_of_its_annotator_alone(file):
    kim, lou = pair(file), pair(file, annotator="lou")
    for one in (kim, lou, pair(file, preferred=0.0)):
        record(file, one)
    withdraw(file, kim)
    assert read_pairs(file) == [kim, lou]
    withdraw(file, kim)
    assert read_pairs(file) == [lou]
    withdraw(file, kim)
    with pytest.raises(ValueError, match="line 6: it withdraws a choice that was not made"):
        read_pairs(file)


def test_choices_of_what_is_gone_are_read_where_that_does_not_matter(file):
    record(file, pair(file))
    (file.parent / "base/mug").rmdir()
    with pytest.raises(ValueError, match="there is no"):
        read_pairs(file)
    assert read_pairs(file, exist=False) == [pair(file)]
    withdraw(file, pair(file))
    assert read_pairs(file) == []


def test_a_crash_at_any_byte_of_a_line_loses_that_line_alone(file):
    record(file, pair(file))
    before = file.read_bytes()
    record(file, pair(file, "key"))
    whole = file.read_bytes()
    for cut in range(len(before), len(whole)):
        file.write_bytes(whole[:cut])
        kept = read_pairs(file)
        # Without its end alone, a line says all it has to say.
        assert kept == [pair(file), pair(file, "key")][: 2 if cut == len(whole) - 1 else 1]
        record(file, pair(file, annotator="lou"))
        assert read_pairs(file) == [*kept, pair(file, annotator="lou")]
        assert file.read_bytes().startswith(before)


def test_a_line_of_a_hand_written_file_without_an_end_is_kept(file):
    file.write_text('{"prompt": "a mug", "a": "base/mug", "b": "tuned/mug", "preferred": "tie"}')
    record(file, pair(file))
    assert [p.preferred for p in read_pairs(file)] == [0.5, 1.0]


def test_a_wrong_line_with_an_end_is_an_error_and_is_not_touched(file):
    record(file, pair(file))
    file.write_bytes(file.read_bytes() + b"\xff{\n")
    with pytest.raises(ValueError, match="line 2"):
        read_pairs(file)
    before = file.read_bytes()
    record(file, pair(file, "key"))
    assert file.read_bytes().startswith(before)


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    record(file, pair(file))
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        record(file, pair(file, "key"))
    assert file.read_bytes() == before


def _work(path: str, annotator: str, count: int) -> None:
    file = Path(path)
    for k in range(count):
        said = pair(file, preferred=(0.0, 0.5, 1.0)[k % 3], annotator=annotator)
        record(file, said)
        if k % 4 == 3:
            withdraw(file, said)


def test_processes_write_to_one_file_at_once(file):
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may find their locks held for ever
    workers = [spawn.Process(target=_work, args=(str(file), name, 40)) for name in ("kim", "lou", "ann")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(file.read_bytes().splitlines()) == 3 * 50
    said = read_pairs(file)
    expected = [(0.0, 0.5, 1.0)[k % 3] for k in range(40) if k % 4 != 3]
    for name in ("kim", "lou", "ann"):
        assert [p.preferred for p in said if p.annotator == name] == expected
