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
    """Features of points in [0, 1]^3: see :class:`rl3d.representations.hashgrid.HashGrid`. Differentiable in the table."""
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
def _row(x, y, z, cells, rows, hashed):
    if hashed:
        low = np.uint64(0xFFFFFFFF)
        mixed = np.uint64(x) ^ (np.uint64(y) * np.uint64(2654435761) & low) ^ (np.uint64(z) * np.uint64(805459861) & low)
        return np.int64(mixed % np.uint64(rows))
    return (x * (cells + 1) + y) * (cells + 1) + z


@njit(inline="always", **COMPILED)
@no_type_check
def _cell(p, top):
    return min(max(np.int64(np.floor(p)), 0), top)


@njit(parallel=True, **COMPILED)
@no_type_check
def _gather(points, cells, rows, table, out):
    n, width = len(points), table.shape[1]
    for level in prange(len(cells)):
        c, r = cells[level], rows[level]
        start, hashed, top = rows[:level].sum(), (c + 1) ** 3 > r, c - 1
        for i in range(n):
            px, py, pz = points[i, 0] * F(c), points[i, 1] * F(c), points[i, 2] * F(c)
            x, y, z = _cell(px, top), _cell(py, top), _cell(pz, top)
            fx, fy, fz = px - F(x), py - F(y), pz - F(z)
            for f in range(width):
                out[i, level * width + f] = F(0)
            for k in range(8):
                dx, dy, dz = k >> 2 & 1, k >> 1 & 1, k & 1
                w = (fx if dx else F(1) - fx) * (fy if dy else F(1) - fy) * (fz if dz else F(1) - fz)
                row = start + _row(x + dx, y + dy, z + dz, c, r, hashed)
                for f in range(width):
                    out[i, level * width + f] += w * table[row, f]


@njit(parallel=True, **COMPILED)
@no_type_check
def _scatter(points, cells, rows, upstream, grad):
    n, width = len(points), grad.shape[1]
    for level in prange(len(cells)):
        c, r = cells[level], rows[level]
        start, hashed, top = rows[:level].sum(), (c + 1) ** 3 > r, c - 1
        for i in range(n):
            px, py, pz = points[i, 0] * F(c), points[i, 1] * F(c), points[i, 2] * F(c)
            x, y, z = _cell(px, top), _cell(py, top), _cell(pz, top)
            fx, fy, fz = px - F(x), py - F(y), pz - F(z)
            for k in range(8):
                dx, dy, dz = k >> 2 & 1, k >> 1 & 1, k & 1
                w = (fx if dx else F(1) - fx) * (fy if dy else F(1) - fy) * (fz if dz else F(1) - fz)
                row = start + _row(x + dx, y + dy, z + dz, c, r, hashed)
                for f in range(width):
                    grad[row, f] += w * upstream[i, level * width + f]
