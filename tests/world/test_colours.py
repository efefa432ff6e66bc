"""Words for measured colours, and other paint."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_world import BLUE, RED, box, picture, quad

from rl3d.world.colours import COLOURS, alike, main_colour, nearest, repainted, shares
from rl3d.world.surface import join, read

WORDS = list(COLOURS)


def test_every_shade_has_its_own_word():
    for word, shades in COLOURS.items():
        assert [WORDS[k] for k in nearest(np.array(shades, np.uint8))] == [word] * len(shades)


def test_shares_sum_to_one_and_the_main_colour_needs_most():
    rgb = np.array([RED] * 6 + [BLUE] * 4, np.uint8)
    assert shares(rgb) == pytest.approx({"red": 0.6, "blue": 0.4})
    assert main_colour(rgb) == "red"
    assert main_colour(rgb, least=0.7) is None
    assert main_colour(np.zeros((0, 3), np.uint8)) is None


@pytest.mark.parametrize("to", WORDS)
def test_new_paint_is_called_by_its_word_and_the_rest_stays(to):
    surface = join([read(box(1, 1, 1, RED)), read(box(1, 1, 1, (250, 250, 250)))])
    changed = repainted(surface, "red", to)
    assert WORDS[nearest(changed.texels)[0]] == to
    np.testing.assert_array_equal(changed.texels[1], surface.texels[1])


def test_light_and_dark_keep_their_contrast():
    ramp = np.linspace(120, 230, 16)[:, None] * np.array([1, 0.15, 0.1])
    surface = read(quad(picture(ramp[None].repeat(4, 0))))
    changed = repainted(surface, "red", "green").picture(0)[0].astype(int)
    assert (changed[:, 1] > changed[:, 0]).all()
    assert (np.diff(changed[:, 1]) >= 0).all()
    assert changed[-1, 1] > 1.4 * changed[0, 1]


def test_fixed_materials_keep_their_paint_unless_all_would():
    surface = replace(join([read(box(1, 1, 1, RED)), read(box(1, 1, 1, (200, 20, 20)))]), names=("body", "tyre"))
    fixed = np.array([False, True])
    changed = repainted(surface, "red", "blue", fixed=fixed)
    assert [WORDS[k] for k in nearest(changed.texels)] == ["blue", "red"]
    assert WORDS[nearest(repainted(surface, "red", "blue", fixed=~np.zeros(2, bool)).texels)[0]] == "blue"


def test_a_colour_that_is_not_there_changes_nothing():
    surface = read(box(1, 1, 1, RED))
    assert repainted(surface, "green", "blue") is surface


def test_likeness_has_no_direction():
    assert alike("beige", "white") == alike("white", "beige") is True
    assert not alike("red", "blue")
