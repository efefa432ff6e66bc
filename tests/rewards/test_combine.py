from dataclasses import replace

import pytest
import torch
from world import random_views

from rl3d.protocols import RewardInfo
from rl3d.rewards.base import FromCallable, from_callable, pick
from rl3d.rewards.combine import Cached, Combine, Ensemble, Part, Schedule, advantages
from rl3d.types import Prompt

RANGE = (-1e4, 1e4)


def told(*values, name="told"):
    """A reward that says these values whatever it sees, in the order of samples of red value i / 10."""
    info = RewardInfo(name, "no", RANGE, "", "", "a test")
    return FromCallable(lambda what, prompts: [values[round(10 * float(x[0, 0, 0, 0]))] for x in what.views.rgb], info)


def numbered(b):
    views = random_views(b)
    rgb = torch.arange(b)[:, None, None, None, None].expand_as(views.rgb) / 10
    return replace(views, rgb=rgb.clone())


P = [Prompt("a")] * 4


def test_schedules_are_straight_lines():
    ramp = Schedule(((0.2, 0.0), (0.6, 2.0)))
    assert [ramp.at(x) for x in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 1, 2, 2])
    with pytest.raises(ValueError, match="growing"):
        Schedule(((0.5, 1.0), (0.2, 2.0)))


def test_advantages_are_standardised_within_each_group():
    value = torch.tensor([1.0, 3.0, 100.0, 300.0, 7.0])
    found = advantages(value, torch.ones(5, dtype=torch.bool), ["a", "a", "b", "b", "alone"])
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, -1.0, 1.0, 0.0]))


def test_advantages_are_blind_to_what_is_not_valid():
    value, valid = torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([True, False, True])
    torch.testing.assert_close(advantages(value, valid, [0, 0, 0]), torch.tensor([-1.0, 0.0, 1.0]))


def test_advantages_of_equals_are_zero_not_noise():
    value = torch.tensor([0.3, 0.3 + 3e-8, 0.3])
    assert advantages(value, torch.ones(3, dtype=torch.bool), [0, 0, 0]).abs().max() == 0


def test_the_largest_scale_does_not_win():
    """Raw sums would follow the first reward alone."""
    loud, quiet = told(1000.0, 1001.0, 1002.0, 1003.0), told(0.3, 0.2, 0.1, 0.0)
    both = Combine({"loud": Part(loud), "quiet": Part(quiet, weight=2.0)}).build()
    verdict = both.judge(numbered(4), P)
    order = verdict.advantage.argsort().tolist()
    assert order == [3, 2, 1, 0]
    torch.testing.assert_close(verdict.normalised["loud"], -verdict.normalised["quiet"])
    torch.testing.assert_close(verdict.advantage, verdict.normalised["quiet"])
    assert verdict.raw["loud"].value.tolist() == [1000, 1001, 1002, 1003]


def test_a_judgement_that_could_not_be_had_counts_nowhere():
    both = Combine({"one": Part(told(0.0, None, 1.0, None)), "other": Part(told(0.0, 1.0, 2.0, None))}).build()
    verdict = both.judge(numbered(4), P)
    assert verdict.valid.tolist() == [True, True, True, False]
    assert verdict.advantage[3] == 0
    torch.testing.assert_close(verdict.normalised["one"], torch.tensor([-1.0, 0.0, 1.0, 0.0]))
    assert both.score(numbered(4), P).valid.tolist() == [True, False, True, False]


def test_weights_follow_progress_and_costly_parts_are_asked_rarely():
    asked = []

    def costly(what, prompts):
        asked.append(1)
        return [1.0] * len(prompts)

    parts = {"cheap": Part(told(0.0, 1.0), Schedule(((0.0, 0.0), (1.0, 4.0)))), "dear": Part(from_callable(costly), every=20)}
    both = Combine(parts).build()
    views = numbered(2)
    for step in range(40):
        verdict = both.judge(views, P[:2], progress=step / 40, step=step)
        torch.testing.assert_close(verdict.advantage, torch.tensor([-1.0, 1.0]) * 4 * step / 40)
    assert len(asked) == 2
    with pytest.raises(ValueError, match="every=1"):
        Combine({"dear": parts["dear"]}).build().judge(views, P[:2], step=1)


def test_without_a_group_values_are_standardised_by_the_reference():
    both = Combine({"a": Part(told(1.0, 2.0), 2.0, center=1.0, scale=0.5), "b": Part(told(5.0, 5.0))}).build()
    assert both.score(numbered(2), P[:2]).value.tolist() == [5.0, 9.0]


def test_ensembles_are_wary_of_what_members_disagree_on():
    parts = {"a": Part(told(1.0, 3.0, 2.0)), "b": Part(told(1.0, -1.0, None)), "c": Part(told(1.0, 1.0, None))}
    score = Ensemble(parts, k=0.5).build().score(numbered(3), P[:3])
    spread = (8 / 3) ** 0.5
    torch.testing.assert_close(score.value[:2], torch.tensor([1.0, 1.0 - 0.5 * spread]), rtol=1e-4, atol=1e-4)
    assert score.valid.tolist() == [True, True, False]


def test_what_was_judged_is_not_judged_again():
    seen = []

    def judge(what, prompts):
        seen.append(len(prompts))
        return [None if p.text == "broken" else float(x.mean()) for x, p in zip(what.views.rgb, prompts, strict=True)]

    cached = Cached(from_callable(judge), size=3).build()
    views = numbered(3)
    first = cached.score(views, P[:3])
    again = cached.score(pick(views, [2, 0, 0, 1]), P)
    assert seen == [3]
    torch.testing.assert_close(again.value, first.value[[2, 0, 0, 1]])
    other = cached.score(pick(views, [0, 0, 1]), [Prompt("a"), Prompt("b"), Prompt("broken")])
    assert seen == [3, 2]
    assert other.valid.tolist() == [True, True, False]
    cached.score(pick(views, [1]), [Prompt("broken")])
    assert seen == [3, 2, 1], "what could not be judged is asked again"
    assert len(cached.known) == 3
    moved = replace(views, rgb=views.rgb + 1e-6)
    cached.score(moved, P[:3])
    assert seen[-1] == 3
