import numpy as np
import pytest
import torch

from rl3d.estimators import (
    PromptStatistics,
    advantages,
    best_and_worst,
    clipped_surrogate,
    group_statistics,
    groups_of,
    mean_used,
    total,
)
from rl3d.types import Prompt, Score


def score(*values: float, invalid=()) -> Score:
    value = torch.tensor(values, dtype=torch.float32)
    valid = torch.ones(len(values), dtype=torch.bool)
    valid[list(invalid)] = False
    return Score(value, None, valid)


def test_groups_are_numbered_by_first_appearance():
    prompts = [Prompt("b"), Prompt("a"), Prompt("b"), Prompt("a", negative="x")]
    assert groups_of(prompts).tolist() == [0, 1, 0, 2]


def test_statistics_of_groups_are_numpys():
    value, groups = torch.randn(20), torch.randint(0, 4, (20,))
    used = torch.rand(20) > 0.3
    found = group_statistics(value, used, groups)
    for i in range(20):
        mine = value[(groups == groups[i]) & used].numpy()
        assert found.count[i] == len(mine)
        assert found.mean[i].item() == pytest.approx(mine.mean(), abs=1e-6)
        assert found.std[i].item() == pytest.approx(np.std(mine), abs=1e-6)


def test_each_reward_is_normalised_before_they_are_summed():
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    small, large = score(1, 2, 3, 5, 5, 8), score(900, -100, 400, 0, 10, 20)
    one, other = advantages({"a": small}, groups).value, advantages({"b": large}, groups).value
    both = advantages({"a": small, "b": large}, groups, weights={"b": 0.5})
    torch.testing.assert_close(both.value, one + 0.5 * other)
    for x in (one, other):
        torch.testing.assert_close(x.view(2, 3).mean(1), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(x.view(2, 3).std(1, correction=0), torch.ones(2))


@pytest.mark.parametrize("spread", ["group", "batch", "none"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_advantages_follow_their_samples_through_any_order(spread, baseline):
    groups, order = torch.randint(0, 5, (40,)), torch.randperm(40)
    scores = {"a": score(*torch.randn(40).tolist(), invalid=(3, 7)), "b": score(*torch.rand(40).tolist(), invalid=(5,))}
    shuffled = {name: Score(s.value[order], None, s.valid[order]) for name, s in scores.items()}
    plain = advantages(scores, groups, spread=spread, baseline=baseline)
    other = advantages(shuffled, groups[order], spread=spread, baseline=baseline)
    torch.testing.assert_close(other.value, plain.value[order], atol=1e-5, rtol=1e-5)
    assert torch.equal(other.used, plain.used[order])


@pytest.mark.parametrize("value", [1e9, float("nan"), 0.0])
@pytest.mark.parametrize("spread", ["group", "batch", "none"])
def test_what_could_not_be_judged_changes_nothing_for_others(value, spread):
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    without = advantages({"a": score(1, 2, 4, 3, 7)}, torch.tensor([0, 0, 0, 1, 1]), spread=spread)
    found = advantages({"a": score(1, 2, 4, value, 3, 7, invalid=(3,))}, groups, spread=spread)
    keep = torch.tensor([0, 1, 2, 4, 5])
    torch.testing.assert_close(found.value[keep], without.value)
    assert found.used.tolist() == [True, True, True, False, True, True]
    assert found.value[3] == 0


def test_a_number_that_is_not_finite_counts_as_not_judged():
    found = advantages({"a": score(1, 2, float("nan"))}, torch.zeros(3, dtype=torch.long))
    assert found.used.tolist() == [True, True, False]


def test_groups_without_spread_are_dropped():
    groups = torch.tensor([0, 0, 1, 1, 2])
    found = advantages({"a": score(3, 3, 1, 2, 9)}, groups)
    assert found.used.tolist() == [False, False, True, True, False]
    assert found.value.tolist() == pytest.approx([0, 0, -1, 1, 0])
    either = advantages({"a": score(3, 3, 1, 2, 9), "b": score(0, 1, 4, 4, 0)}, groups)
    assert either.used.tolist() == [True, True, True, True, False]
    ignored = advantages({"a": score(3, 3, 1, 2, 9), "b": score(0, 1, 4, 4, 0)}, groups, weights={"b": 0.0})
    assert ignored.used.tolist() == found.used.tolist()


def test_clipping_and_its_limits():
    values = [0.0] * 99 + [100.0]
    groups = torch.zeros(100, dtype=torch.long)
    assert advantages({"a": score(*values)}, groups, clip=None).value.max() > 9
    assert advantages({"a": score(*values)}, groups, clip=2.0).value.max() == 2
    with pytest.raises(ValueError, match="positive"):
        advantages({"a": score(*values)}, groups, clip=0.0)


def test_leave_one_out_compares_with_the_others():
    found = advantages({"a": score(1, 2, 6)}, torch.zeros(3, dtype=torch.long), baseline="leave_one_out", spread="none")
    torch.testing.assert_close(found.value, torch.tensor([1 - 4.0, 2 - 3.5, 6 - 1.5]).clamp(-5, 5))


def test_spread_over_the_batch_keeps_the_weight_of_groups():
    found = advantages({"a": score(0, 2, 0, 20)}, torch.tensor([0, 0, 1, 1]), spread="batch").value
    assert (found[3] / found[1]).item() == pytest.approx(10)


def test_statistics_of_prompts_remember_across_batches_and_checkpoints():
    a, b = Prompt("a"), Prompt("b")
    tracker = PromptStatistics(size=4, least=3)
    first = score(1, 3, 10)
    torch.testing.assert_close(
        tracker.advantages({"r": first}, [a, a, b]).value, (first.value - first.value.mean()) / first.value.std(correction=0)
    )
    assert not tracker.remembered
    tracker.remember({"r": first}, [a, a, b])
    known = torch.tensor([1.0, 3.0, 5.0])
    expected = ((5 - known.mean()) / known.std(correction=0)).item()
    found = tracker.advantages({"r": score(5, 7, invalid=(1,))}, [a, b])
    assert found.value.tolist() == pytest.approx([expected, 0.0])
    assert found.used.tolist() == [True, False]
    tracker.remember({"r": score(5, 6, 7, 8)}, [a] * 4)
    assert tracker.remembered["r\na\n"] == [5, 6, 7, 8]
    other = PromptStatistics(size=4, least=3)
    other.load_state_dict(tracker.state_dict())
    assert other.remembered == tracker.remembered


def test_statistics_of_prompts_are_kept_by_reward_and_summed():
    prompts, one, other = [Prompt("a")] * 3, score(1, 2, 6), score(500, 100, 0)
    tracker = PromptStatistics(least=2)
    both = tracker.advantages({"x": one, "y": other}, prompts, weights={"y": 0.5}).value
    alone = [tracker.advantages({"r": s}, prompts).value for s in (one, other)]
    torch.testing.assert_close(both, alone[0] + 0.5 * alone[1])


def test_invalid_values_are_not_remembered():
    tracker = PromptStatistics()
    tracker.remember({"r": score(1, 2, invalid=(0,))}, [Prompt("a")] * 2)
    assert tracker.remembered == {"r\na\n": [2]}


@pytest.mark.parametrize("clip", [0.2, None])
def test_the_surrogate_at_ratio_one_has_reinforces_gradient(clip):
    log_prob = torch.randn(6, requires_grad=True)
    advantage = torch.randn(6)
    clipped_surrogate(log_prob, log_prob.detach(), advantage, clip).sum().backward()
    torch.testing.assert_close(log_prob.grad, -advantage)


def test_the_surrogate_stops_only_where_moving_on_would_pay():
    log_prob = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    clipped_surrogate(log_prob, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2).sum().backward()
    assert (log_prob.grad == 0).tolist() == [True, False, False, True]


def test_mean_of_nothing_is_zero_with_no_gradient():
    x = torch.full((3,), float("nan"), requires_grad=True)
    mean = mean_used(x, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean == 0
    assert x.grad.tolist() == [0, 0, 0]


def test_totals_are_weighted_and_valid_where_all_are():
    found = total({"a": score(1, 2, 3), "b": score(10, 20, 30, invalid=(1,))}, {"b": 0.1})
    assert found.value.tolist() == pytest.approx([2, 0, 6])
    assert found.valid.tolist() == [True, False, True]


def test_best_and_worst_of_groups_that_differ():
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    winners, losers = best_and_worst(score(1, 9, 5, 3, 3, 0, 1, invalid=(1,)), groups)
    assert winners.tolist() == [2, 6]
    assert losers.tolist() == [0, 5]
    assert best_and_worst(score(1, 9, 5, 3, 3, 0, 1), groups, least=2.0)[0].tolist() == [1]
