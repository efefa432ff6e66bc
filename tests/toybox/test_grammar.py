import re

import numpy as np
import pytest

from rl3d.toybox import kinds
from rl3d.toybox.grammar import (
    LONGEST,
    PAINTS,
    SPLITS,
    canonical,
    caption,
    plural,
    sample,
    split_of,
    unknown,
    vocabulary,
    words,
)
from rl3d.toybox.paints import PAINTS as PALETTE
from rl3d.toybox.things import Item, Spec


@pytest.fixture(scope="module")
def training() -> list[tuple[Spec, str]]:
    rng = np.random.default_rng(0)
    specs = [sample(rng) for _ in range(4_000)]
    return [(spec, caption(spec, rng)) for spec in specs]


def said(spec: Spec) -> str:
    return canonical(spec)


def test_plain_wordings():
    assert said(Spec((Item("mug", "red"),))) == "a red mug"
    assert said(Spec((Item("apple"),))) == "an apple"
    assert said(Spec((Item("umbrella", "orange", "small"),))) == "a small orange umbrella"
    assert said(Spec((Item("house", "blue", accent=("roof", "red")),))) == "a blue house with a red roof"
    assert said(Spec((Item("car", accent=("wheels", "white")),))) == "a car with white wheels"
    assert said(Spec((Item("ball", "yellow", count=3),))) == "three yellow balls"
    assert said(Spec((Item("cube", "red"), Item("cylinder", "blue")), "on")) == "a red cube on a blue cylinder"


def test_captions_say_every_attribute_of_a_spec():
    spec = Spec((Item("cube", "gray"), Item("cylinder", "wooden")), "next to")
    rng = np.random.default_rng(1)
    captions = {caption(spec, rng) for _ in range(300)}
    assert len(captions) > 50
    for text in captions:
        assert re.search("gray|grey", text)
        assert re.search("wood", text)
        assert re.search("cube|block", text)
        assert re.search("next to|beside|side of", text)


def test_articles_agree_with_the_next_word(training):
    for _, text in training:
        assert not re.search(r"\ba [aeiou]", text), text
        assert not re.search(r"\ban [^aeiou]", text), text


def test_captions_are_short_and_tidy(training):
    for _, text in training:
        assert len(text.split()) <= LONGEST
        assert text == " ".join(text.split())


def test_captions_keep_to_the_vocabulary_and_training_uses_all_of_it(training):
    used = {word for _, text in training for word in words(text)}
    never_counted = {word for kind in kinds.KINDS.values() if not kind.loose for word in words(plural(kind))}
    assert used <= set(vocabulary())
    assert set(vocabulary()) - used <= never_counted


def test_training_has_every_kind_about_equally_often(training):
    counts = {name: sum(name in (item.kind for item in spec.items) for spec, _ in training) for name in kinds.KINDS}
    assert min(counts.values()) > 0.4 * np.mean(list(counts.values()))


def test_mixture_of_specs(training):
    specs = [spec for spec, _ in training]
    single = [spec.items[0] for spec in specs if spec.relation is None]
    share = {
        "relation": len(specs) - len(single),
        "count": sum(item.count > 1 for item in single),
        "accent": sum(item.accent is not None for item in single),
        "form": sum(item.form is not None for item in single),
    }
    assert {name: round(n / len(specs), 1) for name, n in share.items()} == pytest.approx(
        {"relation": 0.15, "count": 0.08, "accent": 0.12, "form": 0.12}, abs=0.06
    )


@pytest.mark.parametrize("split", SPLITS)
def test_sample_keeps_to_its_split(split):
    rng = np.random.default_rng(2)
    assert all(split_of(sample(rng, split)) == split for _ in range(200))


def test_held_out_combinations_never_occur_in_training(training):
    """A pair of paint and kind that makes a single spec held out appears nowhere in training, neither in scenes."""
    trained = {(item.paint, item.kind) for spec, _ in training for item in spec.items}
    trained_scenes = {spec for spec, _ in training}
    rng = np.random.default_rng(3)
    for split in ("validation", "test"):
        held = [sample(rng, split) for _ in range(500)]
        assert not trained_scenes & set(held)
        pairs = {(item.paint, item.kind) for spec in held for item in spec.items}
        assert not {pair for pair in pairs if split_of(Spec((Item(pair[1], pair[0]),))) == split} & trained


def test_natural_paints_and_unpainted_kinds_are_never_held_out():
    for kind in kinds.KINDS.values():
        assert split_of(Spec((Item(kind.name),))) == "train"
        assert all(split_of(Spec((Item(kind.name, paint),))) == "train" for paint in kind.slots["main"])


def test_next_to_is_held_out_in_both_orders():
    rng = np.random.default_rng(4)
    scenes = [spec for spec in (sample(rng, None) for _ in range(3000)) if spec.relation == "next to"]
    assert all(split_of(spec) == split_of(Spec(spec.items[::-1], "next to")) for spec in scenes)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'tset'"):
        sample(np.random.default_rng(0), "tset")


def test_unknown_names_words_and_their_neighbours():
    found = unknown("A red moug, riding an ICE-cream!")
    assert set(found) == {"moug", "riding"}
    assert "mug" in found["moug"]
    assert unknown("three yellow balls") == {}


def test_captions_name_only_paints_of_the_palette():
    assert set(PAINTS) <= set(PALETTE)
