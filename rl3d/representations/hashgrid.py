"""A multi-resolution hash grid: features of points in a cube (Müller et al. 2022, "Instant Neural Graphics Primitives")."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.representations import _hashgrid_numba

PRIMES = (1, 2654435761, 805459861)
"""Of the spatial hash (eq. 4)."""


class HashGrid(nn.Module):
    """Trilinear interpolation in several grids at once, coarse ones stored whole and fine ones hashed.

    Level l has N_l = floor(N_min b^l) cells along each side (eq. 2 and 3), whose corners are stored in a table of at most
    ``table`` rows. Differentiable in the tables; in the points too where they ask for gradients (then in plain torch; else, on
    a CPU, in float32 and with two features, in compiled loops that give the same).
    """

    def __init__(self, levels: int = 8, features: int = 2, coarsest: int = 8, finest: int = 128, table: int = 2**15):
        super().__init__()
        if table & (table - 1):
            raise ValueError(f"a hash table has a power of two rows; got {table}")
        growth = (finest / coarsest) ** (1 / max(1, levels - 1))
        self.cells = [int(coarsest * growth**level + 1e-6) for level in range(levels)]
        self.rows = [min((n + 1) ** 3, table) for n in self.cells]
        self.features = features
        self.table = nn.Parameter((2 * torch.rand(sum(self.rows), features) - 1) * 1e-2)

    @property
    def width(self) -> int:
        return len(self.cells) * self.features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """Features of points in the unit cube [0, 1]^3."""
        plain = points.device.type == "cpu" and self.table.dtype == torch.float32 and self.features == 2
        fast = plain and not points.requires_grad
        if fast:
            return _hashgrid_numba.lookup(points, self.table, self.cells, self.rows)
        return self.look_up(points)

    def look_up(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """What :meth:`forward` gives, in plain torch."""
        corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], device=points.device)
        found, start = [], 0
        for cells, rows in zip(self.cells, self.rows, strict=True):
            place = points * cells
            low = place.detach().floor().clamp(0, cells - 1)
            share = (place - low)[:, None]
            weight = torch.where(corners.bool(), share, 1 - share).prod(-1)
            index = row_of(low.long()[:, None] + corners, cells, rows)
            found.append((weight[..., None] * self.table[start + index]).sum(1))
            start += rows
        return torch.cat(found, 1)


def row_of(corner: Int[Tensor, "*n 3"], cells: int, rows: int) -> Int[Tensor, "*n"]:
    """The row of a corner within its level's table: in order where all fit, else hashed (eq. 4)."""
    x, y, z = corner.unbind(-1)
    if (cells + 1) ** 3 <= rows:
        return (x * (cells + 1) + y) * (cells + 1) + z
    low = 0xFFFFFFFF  # 32-bit products, as the paper has them
    return ((x * PRIMES[0] & low) ^ (y * PRIMES[1] & low) ^ (z * PRIMES[2] & low)) % rows
