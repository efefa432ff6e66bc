import numpy as np

from rl3d.geometry.points import pieces


def test_what_lies_within_reach_of_each_other_step_by_step_is_one_piece():
    line = np.stack([0.1 * np.arange(6.0), np.zeros(6), np.zeros(6)], 1)
    line[3:, 0] += 0.5
    assert pieces(line, 0.11).tolist() == [0, 0, 0, 1, 1, 1]
    assert pieces(line, 0.05).tolist() == [0, 1, 2, 3, 4, 5]
    assert pieces(line, 0.7).tolist() == [0] * 6
