import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl3d.files import write_whole
from rl3d.run import Run, short_name


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@given(st.text(max_size=300))
def test_any_prompt_gives_a_safe_folder_name(prompt):
    name = short_name(prompt)
    assert 0 < len(name) <= 48
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in name)
    assert name[0] != "-"


def test_names_are_readable_and_differ_where_prompts_do():
    assert short_name("a red mug") == "a-red-mug"
    assert short_name("a red mug!") != short_name("a red mug")
    assert short_name("x" * 300) != short_name("x" * 301)


def test_checkpoints_come_back_bit_for_bit(tmp_path):
    run = Run(tmp_path)
    tensors = {"a": torch.randn(3, 2), "rng": torch.Generator().get_state(), "step": torch.tensor(3.0)}
    run.save(tensors, {"step": 7, "prompt": {"text": "é"}})
    found, plain = run.load()
    assert plain == {"step": 7, "prompt": {"text": "é"}}
    assert all(torch.equal(found[k], v) for k, v in tensors.items())


def test_a_damaged_checkpoint_says_so_and_what_to_do(tmp_path):
    run = Run(tmp_path)
    run.save({"a": torch.zeros(100)}, {})
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-17])
    with pytest.raises(ValueError, match=r"damaged.*Delete it"):
        run.load()


def test_metrics_are_cut_back_to_the_checkpoint_and_survive_a_torn_line(tmp_path):
    run = Run(tmp_path)
    for step in range(1, 6):
        run.log({"step": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    run.cut_metrics(3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_two_processes_never_hold_one_run(tmp_path):
    code = "import sys; from pathlib import Path; from rl3d.run import Run\nwith Run(Path(sys.argv[1])).lock(): pass"
    with Run(tmp_path).lock():
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "in use" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no run\.json"):
        _ = Run(tmp_path).about
