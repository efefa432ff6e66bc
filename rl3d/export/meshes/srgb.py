"""Between sRGB, in which our colours are, and linear light, which glTF and USD want of colours that are no pictures.

IEC 61966-2-1:1999.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def linear_from_srgb(srgb: UInt8[ndarray, "*n"]) -> Float[ndarray, "*n"]:
    """Linear light in [0, 1] of 8-bit sRGB."""
    x = srgb / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Float[ndarray, "*n"]) -> UInt8[ndarray, "*n"]:
    """8-bit sRGB of linear light, which is clamped to [0, 1]."""
    x = np.clip(np.nan_to_num(linear), 0, 1)
    return np.round(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)
