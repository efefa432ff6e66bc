"""The language of real objects: wordings, splits, and what is false."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import NOUNS

from rl3d.toybox import grammar
from rl3d.toybox.language import TOYS
from rl3d.toybox.things import Item, Spec
from rl3d.world.language import LONGEST, PAINTS, Words
from rl3d.world.nouns import Noun, naming

SMALL = Words(NOUNS)
REAL = Words(naming().nouns)
BOTH = Words(naming().nouns, toys=True)
seeds = st.integers(0, 2**32 - 1)


def one(*args, **fields) -> Spec:
    return Spec((Item(*args, **fields),))


def test_plain_wordings():
    assert SMALL.canonical(one("armchair", "red", "tall narrow", stuff="leather")) == "a tall narrow red leather armchair"
    assert SMALL.canonical(one("mug", "blue", count=2)) == "two blue mugs"
    assert SMALL.canonical(Spec((Item("mug", "red"), Item("table")), "on")) == "a red mug on a table"
    assert SMALL.canonical(one("armchair", "orange")) == "an orange armchair"


def test_wordings_that_are_never_taught():
    assert SMALL.in_unseen_words(one("mug", "red")) == "a red beaker"
    assert SMALL.in_unseen_words(Spec((Item("table", "blue"), Item("mug")), "next to")) == "a blue board next to a mug"
    assert SMALL.in_unseen_words(one("bowl", "red")) is None
    assert SMALL.canonical(one("mug", "red")) == "a red mug"


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_captions_say_all_that_is_known_in_known_words(seed):
    rng = np.random.default_rng(seed)
    spec = REAL.sample(rng, None)
    text = REAL.caption(spec, rng)
    said = grammar.words(text)
    assert len(said) <= LONGEST
    assert set(said) <= set(REAL.vocabulary())
    assert text == grammar.tidy(text)
    for item in spec.items:
        if item.paint is not None and item.paint not in ("gray", "purple", "turquoise", "beige"):
            assert item.paint in said
        if item.stuff is not None:
            assert item.stuff in said or {"wooden": "wood"}.get(item.stuff) in said


def test_there_are_many_wordings():
    rng = np.random.default_rng(0)
    spec = one("sofa", "gray", "short wide", stuff="leather")
    assert len({REAL.caption(spec, rng) for _ in range(200)}) > 60


def test_words_for_things_that_are_several_by_nature():
    rng = np.random.default_rng(0)
    texts = {SMALL.caption(one("scissors", "red"), rng) for _ in range(60)}
    assert not any("a scissors" in text or "scissors that is" in text for text in texts)
    assert any("a red pair" in text or "scissors that are red" in text for text in texts)


@settings(max_examples=80, deadline=None)
@given(seeds, st.sampled_from([REAL, BOTH, SMALL]))
def test_near_misses_and_pools_are_false_and_the_truth_is_not(seed, language):
    rng = np.random.default_rng(seed)
    spec = language.sample(rng, None)
    assert not language.contradicts(spec, spec)
    for miss in language.some_misses(spec, rng, 6):
        assert language.contradicts(spec, miss)
    pool = language.pool(spec, rng, size=30, near=8)
    assert pool[0] == spec
    assert all(language.contradicts(spec, claim) for claim in pool[1:])
    texts = [language.canonical(claim) for claim in pool]
    assert len(set(texts)) == len(texts)


def test_pools_of_the_real_world_are_full_and_half_hard():
    rng = np.random.default_rng(1)
    for _ in range(20):
        spec = REAL.sample(rng, None)
        assert len(REAL.pool(spec, rng)) == 100
    near = REAL.pool(one("dishwasher", "blue"), rng, size=11, near=10)[1:]
    assert all(claim.items[0].kind == "dishwasher" or claim.items[0].paint == "blue" for claim in near)


@pytest.mark.parametrize(
    ("truth", "claim", "false"),
    [
        (one("armchair", "blue"), one("chair", "blue"), False),  # it is a chair, too
        (one("armchair", "blue"), one("chair", "yellow"), True),
        (one("chair"), one("chair", "yellow"), False),  # left open
        (one("mug", "red"), one("bowl", "red"), False),  # might be taken for it
        (one("mug", "red"), one("table", "red"), True),
        (one("table", "beige"), one("table", "wooden"), False),
        (one("table", "beige"), one("table", "black"), True),
        (one("table", stuff="wooden"), one("table", stuff="glass"), True),
        (one("table", stuff="leather"), one("table", stuff="fabric"), False),
        (one("table", None, "tall narrow"), one("table", None, "short"), True),
        (one("table", None, "tall narrow"), one("table", None, "tall"), False),
        (one("armchair", None, "tall"), one("chair", None, "short"), False),  # forms compare with the own kind
        (one("mug", count=2), one("mug", count=3), True),
        (Spec((Item("mug"), Item("table")), "on"), Spec((Item("table"), Item("mug")), "on"), True),
        (Spec((Item("mug"), Item("table")), "on"), one("mug"), False),
    ],
)
def test_what_is_certainly_false(truth, claim, false):
    assert SMALL.contradicts(truth, claim) is false


def test_whole_captions_are_said_as_they_are():
    nouns = {
        name: Noun(name, others, phrase=True)
        for name, others in (("a red box", ("my box",)), ("a big red box", ()), ("a cone", ()))
    }
    language = Words(nouns)
    rng = np.random.default_rng(0)
    assert {language.caption(one("a red box"), rng) for _ in range(20)} == {"a red box", "my box"}
    assert set(language.vocabulary()) == {"a", "red", "box", "my", "big", "cone"}
    assert language.contradicts(one("a red box"), one("a cone"))
    assert not language.contradicts(one("a red box"), one("a big red box"))
    assert {spec.items[0].kind for spec in (language.sample(rng) for _ in range(40))} == set(nouns)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_samples_keep_to_their_split(seed):
    rng = np.random.default_rng(seed)
    for split in grammar.SPLITS:
        assert REAL.split_of(REAL.sample(rng, split)) == split


def test_natural_colours_are_never_held_out_and_others_sometimes():
    assert all(SMALL.split_of(one(name, paint)) == "train" for name, noun in NOUNS.items() for paint in noun.colours)
    splits = [REAL.split_of(one(name, paint)) for name in REAL.nouns for paint in PAINTS]
    assert 0.05 < splits.count("test") / len(splits) < 0.07
    assert 0.05 < splits.count("validation") / len(splits) < 0.07
    mirrored = [Spec(tuple(Item(x) for x in names), "next to") for names in (("dog", "mug"), ("mug", "dog"))]
    assert SMALL.split_of(mirrored[0]) == SMALL.split_of(mirrored[1])


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'tests'"):
        SMALL.sample(np.random.default_rng(0), "tests")


def test_together_with_the_toybox_each_says_what_it_knows():
    house = one("house", "red", accent=("roof", "blue"))
    assert BOTH.canonical(house) == TOYS.canonical(house)
    assert BOTH.split_of(house) == grammar.split_of(house)
    assert BOTH.canonical(one("armchair", "golden")) == "a golden armchair"
    assert BOTH.contradicts(house, one("dishwasher"))
    assert not BOTH.contradicts(one("bookshelf", "wooden"), one("bookshelf", "beige"))
    assert set(TOYS.vocabulary()) | set(REAL.vocabulary()) == set(BOTH.vocabulary())
    rng = np.random.default_rng(0)
    drawn = [BOTH.sample(rng) for _ in range(200)]
    assert any(item.kind == "castle" or item.accent for spec in drawn for item in spec.items)
    assert any(item.kind not in TOYS.answers()["kind"] for spec in drawn for item in spec.items)
