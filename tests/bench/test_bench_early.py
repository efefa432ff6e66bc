"""Choosing early: what was thought then decides, and what became of it counts."""

from benches import load

early = load("early")

ROW = {
    "prompt": "a red mug",
    "liked": {"1": [0.1, 0.4, 0.3, 0.2], "16": [0.6, 0.5, 0.7, 0.8]},
    "hits": {"encoder": [1, 1, 0, 1], "judge": [0, 1, 0, 0]},
    "judge": [0.0, 0.2, 0.1, 0.3],
}


def test_the_best_of_each_group_is_chosen_by_what_was_thought_then():
    assert early.chosen(ROW, 2, "1") == [1, 2]
    assert early.chosen(ROW, 2, "16") == [0, 3]
    assert early.chosen(ROW, 3, "1") == [1]  # what is left of the samples makes no group


def test_the_table_says_what_became_of_those():
    head, *lines = early.table([ROW], (2,)).splitlines()
    assert [line.split()[-4:] for line in lines] == [
        ["50.0%", "50.0%", "0.1500", "0.6000"],
        ["0.0%", "100.0%", "0.1500", "0.7000"],
    ]
    assert "best of 2 after 16" in lines[1]
    assert head.startswith("chosen")
