"""The record of a run, read while it grows, as curves."""

import json

import numpy as np
from rl3d.viewer.curves import Tail, aligned, charts, series


def add(path, *records, end="\n"):
    with open(path, "a") as file:
        file.write("\n".join(json.dumps(r) for r in records) + end)


def test_tail_reads_what_is_new_and_notices_another_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.new() == ([], False)
    add(path, {"step": 1})
    assert tail.new()[0] == [{"step": 1}]
    assert tail.new() == ([], False)
    add(path, {"step": 2}, end="")  # not a whole line yet
    assert tail.new()[0] == []
    add(path, {"step": 3}, end="\n")  # makes one damaged line of both, which is left out
    add(path, "no record", {"step": 4})
    assert tail.new()[0] == [{"step": 4}]
    (tmp_path / "new").write_text('{"step": 1}\n')
    (tmp_path / "new").replace(path)
    assert tail.new() == ([{"step": 1}], True)


def test_curves_are_grouped_by_unit_and_aligned():
    records = [
        {"step": 1, "losses": {"match": 2.0, "distill": 5.0}, "size": 10, "rewards": {"climb": {"clip": {"raw": [1.0, 3.0]}}}},
        {"step": 2, "losses": {"distill": 4.0}, "size": 11, "guards": {"judge": 0.25}},
    ]
    grouped = charts(series(records))
    assert list(grouped) == ["Guard: judge", "Reward: climb/clip", "Losses", "Size of the scene"]
    assert grouped["Reward: climb/clip"]["mean"][1].tolist() == [2.0]
    steps, match, distill = aligned(grouped["Losses"])
    assert steps.tolist() == [1, 2]
    assert match[0] == 2.0
    assert np.isnan(match[1])
    assert distill.tolist() == [5.0, 4.0]


def test_long_curves_are_thinned():
    grouped = charts(series([{"step": i, "size": i} for i in range(1, 5001)]))
    steps, values = aligned(grouped["Size of the scene"])
    assert len(steps) <= 1000
    assert (steps == values).all()
