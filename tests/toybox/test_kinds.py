"""What every kind of the toybox keeps to, whoever draws it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from rl3d.toybox import paints, shapes
from rl3d.toybox.kinds import KINDS
from rl3d.toybox.things import Form, Piece

SEEDS = range(4)
MANY = range(12)
WORDS = {"tall": Form(tall=1.55), "short": Form(tall=0.6), "wide": Form(wide=1.6), "narrow": Form(wide=0.6)}
FORM_WORDS = {"tall", "short", "wide", "narrow"}
EXACT = {"ball"}
"""Kinds of one shape only."""

pytestmark = pytest.mark.parametrize("name", KINDS)


@cache
def built(name: str, seed: int, word: str = "") -> list[Piece]:
    return KINDS[name].build(np.random.default_rng(seed), WORDS.get(word, Form()))


def extent(pieces: list[Piece]) -> np.ndarray:
    return np.ptp(np.concatenate([piece.mesh.vertices for piece in pieces]), axis=0)


def test_pieces_are_closed_outward_and_finite(name):
    for seed in SEEDS:
        for piece in built(name, seed):
            assert np.isfinite(piece.mesh.vertices).all(), piece.label
            assert piece.mesh.is_watertight, piece.label
            assert piece.mesh.is_winding_consistent, piece.label
            assert piece.mesh.volume > 0, piece.label


def test_it_stands_on_the_ground_about_one_unit_large(name):
    for seed in SEEDS:
        pieces = built(name, seed)
        low = min(piece.mesh.vertices[:, 2].min() for piece in pieces)
        assert abs(low) < 0.05
        assert 0.6 < extent(pieces).max() < 2.2


def test_slots_are_declared_and_painted_from_the_palette(name):
    kind = KINDS[name]
    used = {piece.slot for seed in MANY for piece in built(name, seed)}
    assert used == set(kind.slots), "a slot that no build uses, or one that is not declared"
    for slot, natural in kind.slots.items():
        assert natural, slot
        assert all(paint in paints.PAINTS for paint in natural), slot


def test_what_a_caption_may_colour_is_always_there(name):
    kind = KINDS[name]
    assert "main" not in kind.accents.values()
    assert set(kind.accents.values()) <= set(kind.slots)
    for seed in MANY:
        slots = {piece.slot for piece in built(name, seed)}
        assert set(kind.accents.values()) <= slots, seed


def test_the_main_slot_covers_a_good_part(name):
    for seed in SEEDS:
        pieces = built(name, seed)
        area = {slot: sum(piece.mesh.area for piece in pieces if piece.slot == slot) for slot in KINDS[name].slots}
        assert area["main"] > 0.18 * sum(area.values()), area


def test_the_seed_decides_the_shape(name):
    first, again = (shapes.join(*(p.mesh for p in KINDS[name].build(np.random.default_rng(3), Form()))) for _ in range(2))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    if name not in EXACT:
        sizes = {tuple(np.round(extent(built(name, seed)), 6)) for seed in SEEDS}
        assert len(sizes) > len(SEEDS) / 2, "nearly the same shape repainted"


def test_form_words_stretch_it_the_right_way(name):
    kind = KINDS[name]
    assert set(kind.forms) <= FORM_WORDS
    for word in kind.forms:
        ratios = [_slenderness(built(name, seed, word)) / _slenderness(built(name, seed)) for seed in SEEDS]
        taller = np.mean(ratios, axis=0) ** (1 if word in ("tall", "narrow") else -1)
        assert taller.max() > 1.08, (word, taller)


def _slenderness(pieces: list[Piece]) -> np.ndarray:
    """Height over width seen from the front: of the whole, and of its main part (a windmill's sails stay as they are)."""
    sizes = extent(pieces), extent([piece for piece in pieces if piece.slot == "main"])
    return np.array([z / y for _, y, z in sizes])


def test_it_is_cheap_to_draw(name):
    assert max(sum(len(piece.mesh.faces) for piece in built(name, seed)) for seed in SEEDS) <= 4500
