"""Read a texture at any scale, differentiably."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LEVELS = 3
"""Halvings at most: beyond, squares of texels are wider than what bakers leave between charts, and colours would mix."""


def texture_at_level(
    texture: Float[Tensor, "h w 3"], uv: Float[Tensor, "n 2"], level: Float[Tensor, "n"]
) -> Float[Tensor, "n 3"]:
    """Look places up in a texture that is averaged over squares of 2^level texels.

    Places are 0 to 1 to the right and up, and repeat beyond, as :func:`rl3d.render.textured.texture_at` has them; at level 0
    the two agree. Between whole levels both are blended (Williams 1983, "Pyramidal Parametrics"). Differentiable in the
    texture, in which it is linear, and in the places; not in the level, which is cut to [0, LEVELS].
    """
    h, w, _ = texture.shape
    levels = max(0, min(LEVELS, *(_halvings(side) for side in (h, w))))
    level = level.detach().clamp(0, levels)
    out = texture.new_zeros(len(uv), 3)
    picture = texture
    place = torch.stack([uv[:, 0], 1 - uv[:, 1]], -1) % 1
    for number in range(levels + 1):
        share = (1 - (level - number).abs()).clamp(min=0)
        some = share.nonzero()[:, 0]
        if len(some):
            out = out.index_add(0, some, share[some, None] * _bilinear(picture, place[some]))
        picture = _halved(picture) if number < levels else picture
    return out


def _halvings(side: int) -> int:
    """How often a number can be halved."""
    return (side & -side).bit_length() - 1


def _halved(picture: Float[Tensor, "h w 3"]) -> Float[Tensor, "h2 w2 3"]:
    """The means of squares of 2 x 2."""
    rows = picture[::2] + picture[1::2]
    return 0.25 * (rows[:, ::2] + rows[:, 1::2])


def _bilinear(picture: Float[Tensor, "h w 3"], place: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Blend between texels' centres; ``place`` is 0 to 1, right and down."""
    size = place.new_tensor([picture.shape[1], picture.shape[0]])
    around = F.pad(picture.movedim(-1, 0)[None], (1, 1, 1, 1), mode="circular")
    # grid_sample counts from -1 to 1 across the padded picture.
    grid = 2 * (place * size + 1) / (size + 2) - 1
    return F.grid_sample(around, grid[None, None], padding_mode="border", align_corners=False)[0, :, 0].mT
