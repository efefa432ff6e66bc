import json
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl3d.toybox import kinds
from rl3d.toybox.dataset import spec_from_dict
from rl3d.toybox.grammar import canonical, sample, split_of, unknown
from rl3d.toybox.pools import LOOKALIKES, UNSURE, choose_prompts, contradicts, entails, near_misses, pool, some_misses
from rl3d.toybox.things import Item, Spec

seeds = st.integers(0, 2**32 - 1)


def one(*args, **fields) -> Spec:
    return Spec((Item(*args, **fields),))


def draw(seed: int) -> Spec:
    return sample(np.random.default_rng(seed), None)


SCENE = Spec((Item("cube", "red"), Item("cylinder", "blue")), "on")


def test_claims_may_leave_attributes_out():
    truth = one("house", "blue", accent=("roof", "red"))
    for claim in (truth, one("house"), one("house", "blue"), one("house", accent=("roof", "red"))):
        assert entails(truth, claim)
    for claim in (one("house", "red"), one("house", accent=("roof", "blue")), one("car", "blue")):
        assert contradicts(truth, claim)


def test_what_is_left_open_is_neither_true_nor_false():
    for claim in (one("mug", "red"), one("mug", None, "tall"), one("mug", accent=("handle", "red"))):
        assert not entails(one("mug"), claim)
        assert not contradicts(one("mug"), claim)
    assert not contradicts(one("mug", "golden"), one("mug", "yellow"))


def test_relations_have_a_direction_but_next_to():
    turned = Spec(SCENE.items[::-1], "on")
    assert entails(SCENE, SCENE)
    assert contradicts(SCENE, turned)
    beside = Spec(SCENE.items, "next to")
    assert contradicts(SCENE, beside)
    assert entails(beside, Spec(SCENE.items[::-1], "next to"))
    swapped = Spec((Item("cube", "blue"), Item("cylinder", "red")), "on")
    assert contradicts(SCENE, swapped)


def test_a_scene_shows_each_of_its_things():
    assert entails(SCENE, one("cube", "red"))
    assert entails(SCENE, one("cylinder"))
    assert contradicts(SCENE, one("cube", "blue"))
    assert contradicts(one("cube", "red"), SCENE)


def test_counts():
    three = one("ball", "red", count=3)
    assert entails(three, three)
    assert contradicts(three, one("ball", "red", count=2))
    assert contradicts(one("ball", "red"), three)
    assert not contradicts(three, one("ball", "red"))
    pair = Spec((Item("ball", "red"), Item("ball")), "next to")
    assert not contradicts(pair, one("ball", "red", count=2))
    assert not contradicts(one("ball", "red", count=2), pair)


def test_opposite_forms_contradict():
    assert contradicts(one("tower", None, "tall"), one("tower", None, "short"))
    assert not contradicts(one("tower", None, "tall"), one("tower", None, "wide"))


@settings(deadline=None, max_examples=200)
@given(seeds, seeds)
def test_no_claim_is_both_true_and_false(a, b):
    truth, claim = draw(a), draw(b)
    assert entails(truth, truth)
    assert not (entails(truth, claim) and contradicts(truth, claim))


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_near_misses_are_false_and_never_worded_alike(seed):
    truth = draw(seed)
    misses = near_misses(truth, np.random.default_rng(seed))
    assert all(contradicts(truth, claim) and not entails(truth, claim) for claim in misses)
    assert len({canonical(claim) for claim in misses}) == len(misses)


def test_near_misses_cover_the_ways_to_be_wrong():
    rng = np.random.default_rng(0)
    said = {canonical(claim) for claim in near_misses(SCENE, rng)}
    assert {"a blue cube on a red cylinder", "a blue cylinder on a red cube", "a red cube next to a blue cylinder"} <= said
    assert "a tall red mug" in {canonical(claim) for claim in near_misses(one("mug", "red", "short"), rng)}
    assert {"two red balls", "four red balls"} <= {canonical(c) for c in near_misses(one("ball", "red", count=3), rng)}
    house = near_misses(one("house", "blue", accent=("roof", "red")), rng)
    assert canonical(house[0]) == "a red house with a blue roof"


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_pools_are_hard_false_and_distinct(seed):
    truth = draw(seed)
    claims = pool(truth, np.random.default_rng(seed))
    assert claims[0] == truth
    assert len({canonical(claim) for claim in claims}) == len(claims) == 100
    assert all(contradicts(truth, claim) for claim in claims[1:])
    assert claims == pool(truth, np.random.default_rng(seed))


def test_groups_name_real_kinds_and_all_of_them():
    assert {name for group in LOOKALIKES for name in group} == set(kinds.KINDS)
    assert {name for pair in UNSURE for name in pair} <= set(kinds.KINDS)


@pytest.mark.parametrize(("split", "size"), [("validation", 48), ("test", 72)])
def test_written_prompts_are_held_out(split, size):
    """Fails also if a kind's natural paints changed so that a prompt is no longer held out: then the models saw it."""
    lines = files("rl3d.toybox").joinpath("prompts", f"{split}.txt").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert len(entries) == size
    assert all(split_of(spec_from_dict(entry["spec"])) == split for entry in entries)
    assert not any(unknown(entry["prompt"]) for entry in entries)


def test_prompts_keep_to_their_split_and_quotas():
    chosen = choose_prompts("validation", 24, np.random.default_rng(0))
    specs = [spec for _, spec in chosen]
    assert all(split_of(spec) == "validation" for spec in specs)
    assert sum(spec.relation is not None or spec.items[0].accent is not None for spec in specs) == 8
    used = [item.kind for spec in specs for item in spec.items]
    assert max(map(used.count, used)) <= 2


def test_some_misses_are_misses_of_both_sorts():
    rng = np.random.default_rng(0)
    spec = Spec((Item("cube", "red"), Item("ball", "blue")), "on")
    misses = some_misses(spec, rng, 40)
    everything = {canonical(miss) for miss in near_misses(spec, np.random.default_rng(1))}
    assert 10 < len(misses) <= 40
    assert all(contradicts(spec, miss) for miss in misses)
    assert {canonical(miss) for miss in misses} <= everything
    assert canonical(Spec(spec.items[::-1], "on")) in {canonical(miss) for miss in misses}
    assert len(some_misses(spec, rng, 1)) == 1


def test_some_misses_of_a_split_leave_held_out_combinations_alone():
    rng = np.random.default_rng(0)
    specs = [sample(rng, "train") for _ in range(300)]
    free = [miss for spec in specs for miss in some_misses(spec, rng, 2)]
    kept = [miss for spec in specs for miss in some_misses(spec, rng, 2, "train")]
    assert {split_of(miss) for miss in free} == {"train", "validation", "test"}
    assert {split_of(miss) for miss in kept} == {"train"}
    assert len(kept) > 0.9 * len(free)
