"""The palette: the colours and materials that toys are painted with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

Colour = tuple[float, float, float]


class Material(IntEnum):
    """How a surface answers light (:mod:`rl3d.toybox.shading`)."""

    MATTE = 0
    WOOD = 1
    METAL = 2
    STONE = 3


@dataclass(frozen=True)
class Paint:
    """A colour and a material."""

    colour: Colour
    """Albedo, sRGB in [0, 1]."""
    material: Material = Material.MATTE
    second: Colour | None = None
    """The other sRGB colour of wood's grain and of stone's speckles."""


PAINTS: dict[str, Paint] = {
    # Colours that captions name.
    "red": Paint((0.86, 0.11, 0.12)),
    "orange": Paint((0.98, 0.50, 0.06)),
    "yellow": Paint((0.99, 0.87, 0.12)),
    "green": Paint((0.14, 0.60, 0.20)),
    "blue": Paint((0.12, 0.27, 0.85)),
    "purple": Paint((0.50, 0.16, 0.70)),
    "pink": Paint((0.98, 0.50, 0.70)),
    "brown": Paint((0.45, 0.25, 0.12)),
    "black": Paint((0.10, 0.10, 0.11)),
    "white": Paint((0.97, 0.97, 0.96)),
    "gray": Paint((0.54, 0.54, 0.55)),
    "turquoise": Paint((0.10, 0.78, 0.76)),
    # Materials that captions name.
    "wooden": Paint((0.85, 0.62, 0.36), Material.WOOD, (0.60, 0.36, 0.17)),
    "golden": Paint((0.92, 0.66, 0.16), Material.METAL),
    "silver": Paint((0.78, 0.80, 0.85), Material.METAL),
    "stone": Paint((0.72, 0.67, 0.57), Material.STONE, (0.36, 0.33, 0.29)),
    # Natural tones, for paints that no caption names.
    "bark": Paint((0.44, 0.32, 0.22), Material.WOOD, (0.30, 0.20, 0.13)),
    "leaf": Paint((0.26, 0.52, 0.16)),
    "lime": Paint((0.58, 0.79, 0.22)),
    "cream": Paint((0.95, 0.89, 0.74)),
    "ivory": Paint((0.94, 0.92, 0.84)),
    "skin": Paint((0.93, 0.74, 0.60)),
    "tan": Paint((0.78, 0.62, 0.43)),
    "sand": Paint((0.87, 0.77, 0.57)),
    "straw": Paint((0.88, 0.76, 0.42)),
    "steel": Paint((0.58, 0.62, 0.68), Material.METAL),
    "glass": Paint((0.70, 0.84, 0.90)),
    "dark": Paint((0.17, 0.17, 0.19)),
    "rust": Paint((0.62, 0.30, 0.15)),
    "terracotta": Paint((0.78, 0.42, 0.28)),
    "rose": Paint((0.85, 0.36, 0.46)),
    "coral": Paint((0.96, 0.48, 0.40)),
    "navy": Paint((0.13, 0.18, 0.38)),
}
"""Every paint by its name."""
