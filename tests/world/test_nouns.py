"""The list of nouns, and the catalogue that was made with it."""

import re
from collections import Counter

import pytest

from rl3d.toybox.grammar import words
from rl3d.world import things
from rl3d.world.debian import CATALOGUE
from rl3d.world.language import Words
from rl3d.world.nouns import Noun, family, may_be, naming
from rl3d.world.sources import LICENCES


@pytest.fixture(scope="module")
def rows():
    return list(things.rows(CATALOGUE.read_text(encoding="utf-8")))


def test_every_object_is_named_or_left_out_for_a_reason(rows):
    names = naming()
    assert len(rows) == len({row["id"] for row in rows}) > 900
    for row in rows:
        assert bool(row["noun"]) == (not row["reason"]), row["id"]
        if row["noun"]:
            assert names.look_up(row["id"], row["name"]) == row["noun"]
    used = {row["noun"] for row in rows}
    unused = {noun for noun in names.nouns if noun not in used}
    assert unused <= {"person", "broom"}  # a word above others, and one whose object is too thin


def test_every_object_has_its_author_licence_and_checksum(rows):
    for row in rows:
        assert row["licence"] == LICENCES[row["source"]]
        assert row["author"]
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])


def test_a_tenth_of_the_objects_is_never_trained_on(rows):
    kept = [row for row in rows if row["noun"]]
    held = Counter(row["noun"] for row in kept if row["held"] == "True")
    every = Counter(row["noun"] for row in kept)
    assert 0.08 < held.total() / len(kept) < 0.12
    assert all(count < every[noun] for noun, count in held.items())


def test_words_for_tests_are_in_no_caption():
    language = Words(naming().nouns)
    unseen = {word for noun in naming().nouns.values() for text in noun.unseen for word in words(text)}
    assert len(language.unseen()) > 60
    assert set(language.unseen()) <= unseen
    assert not set(language.unseen()) & set(language.vocabulary())


def test_the_vocabulary_has_hundreds_of_words():
    assert len(Words(naming().nouns).vocabulary()) > 800


def test_families():
    nouns = naming().nouns
    assert family("sitting woman", nouns) == {"sitting woman", "woman", "person"}
    for one, other in (("office chair", "chair"), ("sofa", "armchair"), ("corner sofa", "armchair"), ("mug", "cup")):
        assert may_be(one, other, nouns)
        assert may_be(other, one, nouns)
    for one, other in (("office chair", "high chair"), ("dog", "cupboard"), ("table", "lamp")):
        assert not may_be(one, other, nouns)


@pytest.mark.parametrize(
    ("one", "many"),
    [("table", "tables"), ("bench", "benches"), ("knife", "knives"), ("bookshelf", "bookshelves"), ("snowman", "snowmen"),
     ("vanity", "vanities"), ("toy", "toys"), ("glass", "glasses"), ("scissors", ""), ("deer", "deer"),
     ("table with a tablecloth", "")],
)  # fmt: skip
def test_plurals(one, many):
    assert Noun(one).plural == many


def test_what_is_not_counted_has_no_plural():
    assert naming().nouns["butter"].plural == ""
    assert Noun("a red box on a table", phrase=True).plural == ""
