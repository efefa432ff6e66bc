"""Steps of vertices that stay smooth, whatever gradient they follow."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix, identity
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.autograd.function import once_differentiable


class Diffusion:
    """Solves (I + strength L) x = b for a mesh, L its uniform Laplacian: what is asked of a vertex, its neighbours share.

    Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry": vertices x are learned by way of b, so
    that a step of an optimiser moves them smoothly, and no weight holds them back. The same shift of all of b is that shift of
    x. The factors are found once, on the CPU, and are the same to the bit each time.
    """

    def __init__(self, faces: Int[ndarray, "m 3"], vertices: int, strength: float):
        pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        both = np.concatenate([pairs, pairs[:, ::-1]]).T
        links = coo_matrix((np.ones(both.shape[1]), (both[0], both[1])), shape=(vertices, vertices)).tocsc()
        degrees = np.asarray(links.sum(1)).ravel()
        matrix = identity(vertices, format="csc") * 1.0 - strength * links
        matrix.setdiag(1 + strength * degrees)
        # Symmetric and positive definite: no pivots are needed, and fewer numbers stay.
        self.factors = splu(matrix.tocsc(), "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})

    def solve(self, b: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Find x. Differentiable in b, of which it is a symmetric linear function."""
        return _Solve.apply(b, self.factors)  # pyright: ignore[reportReturnType]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, b, factors):
        ctx.factors = factors
        return _solved(factors, b)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        return _solved(ctx.factors, upstream), None


def _solved(factors, b: Tensor) -> Tensor:
    return torch.from_numpy(factors.solve(b.detach().cpu().double().numpy())).to(b)
