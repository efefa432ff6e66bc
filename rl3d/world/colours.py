"""Words for measured colours, and surfaces in other colours."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from skimage.color import rgb2lab

from rl3d.world.surface import Surface

COLOURS = {
    "red": ((204, 30, 30), (150, 20, 25), (222, 62, 50), (110, 20, 22)),
    "orange": ((250, 130, 20), (232, 108, 36), (245, 160, 60), (205, 95, 25)),
    "yellow": ((252, 222, 40), (240, 205, 90), (225, 190, 40), (250, 235, 130)),
    "green": ((40, 150, 50), (25, 85, 35), (125, 185, 60), (105, 125, 55), (70, 110, 75), (160, 210, 120), (165, 200, 40)),
    "blue": ((30, 65, 210), (25, 32, 95), (80, 130, 205), (130, 175, 225), (55, 85, 130), (45, 60, 85), (160, 190, 225)),
    "purple": ((125, 42, 170), (80, 40, 110), (155, 115, 185), (75, 30, 70)),
    "pink": ((250, 130, 180), (240, 180, 200), (222, 90, 145), (235, 60, 145)),
    "brown": ((112, 66, 32), (80, 46, 26), (152, 96, 56), (62, 40, 30), (130, 85, 60), (165, 110, 70), (96, 70, 52)),
    "black": ((30, 30, 30), (48, 48, 50), (40, 36, 34)),
    "white": ((250, 250, 250), (228, 228, 226), (235, 232, 225)),
    "gray": ((110, 110, 112), (150, 150, 152), (82, 82, 84), (185, 185, 187), (130, 125, 120), (120, 125, 132)),
    "turquoise": ((30, 190, 186), (90, 205, 195), (25, 125, 125), (150, 220, 215)),
    "beige": ((226, 205, 170), (200, 176, 138), (238, 222, 196), (182, 160, 130), (215, 190, 150), (195, 175, 155)),
}
"""Words, each with sRGB colours that it fits. The first is the one in which things are painted."""

ALIKE = (
    *(("beige", other) for other in ("white", "brown", "yellow", "orange", "gray", "wooden", "golden", "pink")),
    *(("gray", other) for other in ("white", "black", "silver", "stone", "blue", "brown", "green")),
    *(("brown", other) for other in ("orange", "red", "black", "wooden", "golden", "stone", "yellow", "purple")),
    *(("orange", "red"), ("orange", "yellow"), ("pink", "red"), ("pink", "purple"), ("blue", "purple"), ("blue", "turquoise")),
    *(("green", "turquoise"), ("green", "yellow"), ("black", "blue"), ("red", "purple"), ("silver", "white")),
    *(("golden", "yellow"), ("golden", "orange"), ("wooden", "orange"), ("wooden", "yellow"), ("black", "purple")),
)
"""Words of which a measured colour may be called by either; as real colours are never pure, more than the toybox has."""

_WORDS = tuple(COLOURS)
_OF = np.array([i for i, shades in enumerate(COLOURS.values()) for _ in shades])


def alike(one: str, other: str) -> bool:
    """Whether a person might call a colour by either word."""
    return (one, other) in ALIKE or (other, one) in ALIKE


STEP = 8
"""Levels of a channel that are taken for one, in tables."""


@cache
def _table() -> tuple[Float[ndarray, "k 3"], Int[ndarray, "k"]]:
    """CIELAB of all coarse colours, and the word for each."""
    levels = np.arange(STEP // 2, 256, STEP)
    lab = rgb2lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, 3) / 255)[0]
    shades = rgb2lab(np.array([[shade for shades in COLOURS.values() for shade in shades]]) / 255)[0]
    distances = np.stack([((lab - shade) ** 2).sum(1) for shade in shades], 1)
    return lab, _OF[distances.argmin(1)]


def _coarse(rgb: UInt8[ndarray, "n 3"]) -> Int[ndarray, "n"]:
    """The place of each colour in the table."""
    n = 256 // STEP
    return rgb // STEP @ np.array([n * n, n, 1])


def nearest(rgb: UInt8[ndarray, "n 3"]) -> Int[ndarray, "n"]:
    """Find for each sRGB colour the word (its number in :data:`COLOURS`) whose shades it is nearest to, in CIELAB."""
    return _table()[1][_coarse(rgb)]


def shares(rgb: UInt8[ndarray, "n 3"]) -> dict[str, float]:
    """Measure which part of some colours each word covers, most first."""
    found = np.bincount(nearest(rgb), minlength=len(_WORDS)) / max(len(rgb), 1)
    return {_WORDS[i]: float(found[i]) for i in np.argsort(-found, kind="stable") if found[i] > 0}


def main_colour(rgb: UInt8[ndarray, "n 3"], least: float = 0.55) -> str | None:
    """The word for most of some colours, or None where no word covers ``least`` of them."""
    found = shares(rgb)
    word = next(iter(found), None)
    return word if word is not None and found[word] >= least else None


def repainted(surface: Surface, word: str, to: str, strength: float = 1.0, fixed: Bool[ndarray, "p"] | None = None) -> Surface:
    """Paint what is of one colour in another: light and dark keep their contrast, the rest stays.

    ``strength`` makes the new paint brighter or darker; ``fixed`` materials keep theirs, unless all would.
    """
    texels = surface.texels
    lab, words = _table()
    place = _coarse(texels)
    counts = np.bincount(place, minlength=len(words))
    own = (words == _WORDS.index(word)) & (counts > 0)
    if not own.any():
        return surface
    # What lies near the middle of that word's texels changes with them, so that no speckles stay.
    middle = np.array([_median(lab[own, d], counts[own]) for d in range(3)])
    weight = np.clip(2 - 1.2 * np.linalg.norm(np.abs(lab - middle) / (28, 22, 22), axis=1), 0, 1)
    weight = np.maximum(weight, words == _WORDS.index(word))[place]
    if fixed is not None and not fixed.all():
        weight = weight * ~np.repeat(fixed, surface.shapes.prod(1))
    some = weight > 0
    linear = (texels[some] / 255.0) ** 2
    light = linear @ (0.2126, 0.7152, 0.0722)
    usual = max(_median(light, weight[some]), 1e-3)
    contrast = np.clip(light / usual, 0.35, 1.6)[:, None]
    new = np.clip((np.array(COLOURS[to][0]) / 255.0) ** 2 * strength * contrast + 0.012, 0, 1)
    mixed = linear + weight[some, None] * (new - linear)
    changed = texels.copy()
    changed[some] = np.round(255 * np.sqrt(mixed))
    return replace(surface, texels=changed)


def _median(values: Float[ndarray, "n"], weights: Shaped[ndarray, "n"]) -> float:
    """The weighted median."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)]) if len(values) else 0.0
