"""Files of records: what a kill cut costs that line and no other; files of tensors come back or are refused."""

import pytest
import safetensors.torch
import torch

from rl3d.files import append_record, read_records, read_tensors, tensor_bytes, write_whole


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    assert read_records(path) == []
    rows = [{"a": 1}, {"b": [1.5, None, "ü\n"]}, {}]
    for row in rows:
        append_record(path, row)
    assert read_records(path) == rows
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("left", range(9))
def test_a_cut_line_is_lost_alone(tmp_path, left):
    path = tmp_path / "rows.jsonl"
    append_record(path, {"a": 1})
    whole = path.read_bytes()
    assert len(whole) == 9
    path.write_bytes(whole + whole[:left])
    append_record(path, {"b": 2})
    last = [{"a": 1}] if left >= 8 else []  # all but the end of the line
    assert read_records(path) == [{"a": 1}, *last, {"b": 2}]


def test_lines_that_are_no_objects_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('[1, 2]\n{"a": 1}\nnull\n3\nnonsense\n\n{"b": 2}\n')
    assert read_records(path) == [{"a": 1}, {"b": 2}]


def test_a_file_appears_whole(tmp_path):
    write_whole(tmp_path / "x" / "y", b"new")
    assert (tmp_path / "x" / "y").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["y"]


def test_tensors_that_share_memory_are_each_stored(tmp_path):
    x = torch.arange(6.0).view(2, 3)
    write_whole(tmp_path / "x", tensor_bytes({"all": x, "row": x[:1], "again": x}, {"a": [1, None]}))
    tensors, about = read_tensors(tmp_path / "x")
    assert about == {"a": [1, None]}
    assert all(torch.equal(tensors[name], like) for name, like in {"all": x, "row": x[:1], "again": x}.items())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff" * 100, safetensors.torch.save({"x": torch.zeros(1)})])
def test_what_is_no_file_of_tensors_is_named(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_tensors(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "y")
