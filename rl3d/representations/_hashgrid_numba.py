"""Compiled loops of the hash grid. Levels are independent, so that sums are in order whatever the number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from rl3d.render._threads import follow_torch

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
F = np.float32


def lookup(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "m f"], cells: Sequence[int], rows: Sequence[int]
) -> Float[Tensor, "n d"]:
    """Features of points in [0, 1]^3: see :class:`rl3d.representations.hashgrid.HashGrid`. Differentiable in the table, which
    has two features a row.
    """
    return _Lookup.apply(table, points, np.array(cells, np.int64), np.array(rows, np.int64))  # pyright: ignore


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, points, cells, rows):
        follow_torch()
        ctx.known = points.detach().contiguous().numpy(), cells, rows
        ctx.shape = table.shape
        out = torch.empty(len(points), len(cells) * table.shape[1])
        _gather(*ctx.known, table.detach().contiguous().numpy(), out.numpy())  # pyright: ignore[reportCallIssue]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        grad = torch.zeros(ctx.shape)
        _scatter(*ctx.known, upstream.contiguous().numpy(), grad.numpy())  # pyright: ignore
        return grad, None, None, None


@njit(inline="always", **COMPILED)
@no_type_check
def _place(points, i, cells):
    """The lowest corner of a point's cell, and the shares of the point's way to the next."""
    c, top = F(cells), cells - 1
    px, py, pz = points[i, 0] * c, points[i, 1] * c, points[i, 2] * c
    x = min(max(np.int32(np.floor(px)), 0), top)
    y = min(max(np.int32(np.floor(py)), 0), top)
    z = min(max(np.int32(np.floor(pz)), 0), top)
    return x, y, z, px - F(x), py - F(y), pz - F(z)


@njit(inline="always", **COMPILED)
@no_type_check
def _row(x, y, z, cells, mask, hashed):
    """``mask`` keeps the lowest bits: where corners are hashed, a table has a power of two rows."""
    if hashed:
        return np.int64((np.uint32(x) ^ np.uint32(y) * np.uint32(2654435761) ^ np.uint32(z) * np.uint32(805459861)) & mask)
    return np.int64((x * (cells + 1) + y) * (cells + 1) + z)


@njit(parallel=True, **COMPILED)
@no_type_check
def _gather(points, cells, rows, table, out):
    for level in prange(len(cells)):
        c = cells[level]
        start, hashed, mask = rows[:level].sum(), (c + 1) ** 3 > rows[level], np.uint32(rows[level] - 1)
        for i in range(len(points)):
            x, y, z, fx, fy, fz = _place(points, i, c)
            one, two = F(0), F(0)
            for k in range(8):
                dx, dy, dz = k >> 2 & 1, k >> 1 & 1, k & 1
                w = (fx if dx else F(1) - fx) * (fy if dy else F(1) - fy) * (fz if dz else F(1) - fz)
                row = start + _row(x + dx, y + dy, z + dz, c, mask, hashed)
                one += w * table[row, 0]
                two += w * table[row, 1]
            out[i, 2 * level], out[i, 2 * level + 1] = one, two


@njit(parallel=True, **COMPILED)
@no_type_check
def _scatter(points, cells, rows, upstream, grad):
    for level in prange(len(cells)):
        c = cells[level]
        start, hashed, mask = rows[:level].sum(), (c + 1) ** 3 > rows[level], np.uint32(rows[level] - 1)
        for i in range(len(points)):
            x, y, z, fx, fy, fz = _place(points, i, c)
            one, two = upstream[i, 2 * level], upstream[i, 2 * level + 1]
            for k in range(8):
                dx, dy, dz = k >> 2 & 1, k >> 1 & 1, k & 1
                w = (fx if dx else F(1) - fx) * (fy if dy else F(1) - fy) * (fz if dz else F(1) - fz)
                row = start + _row(x + dx, y + dy, z + dz, c, mask, hashed)
                grad[row, 0] += w * one
                grad[row, 1] += w * two
