"""Files of records: what a kill cut costs that line and no other."""

import pytest

from rl3d.files import append_record, read_records, write_whole


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


def test_a_file_appears_whole(tmp_path):
    write_whole(tmp_path / "x" / "y", b"new")
    assert (tmp_path / "x" / "y").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["y"]
