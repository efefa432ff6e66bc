"""Pulls that neighbours share: the inverse of a matrix that is written down here, entry by entry."""

import numpy as np
import pytest
import torch
import trimesh

from rl3d.geometry.laplacian import Diffusion


def matrix(faces, n, strength):
    """I + strength times the uniform Laplacian."""
    found = np.zeros((n, n))
    for face in faces:
        for i, j in zip(face, np.roll(face, -1), strict=True):
            found[i, j] = found[j, i] = -1
    return np.eye(n) + strength * (found - np.diag(found.sum(1)))


@pytest.mark.parametrize("strength", [0.0, 3.0, 200.0])
@pytest.mark.parametrize("mesh", [trimesh.creation.icosphere(1), trimesh.creation.box()], ids=["ball", "box"])
def test_it_is_the_inverse(mesh, strength):
    n, rng = len(mesh.vertices), torch.Generator().manual_seed(0)
    b = torch.randn(n, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    solver = Diffusion(np.asarray(mesh.faces, np.int64), n, strength)
    dense = torch.from_numpy(np.linalg.inv(matrix(mesh.faces, n, strength)))
    torch.testing.assert_close(solver.solve(b), dense @ b, rtol=1e-9, atol=1e-12)
    weight = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    (found,) = torch.autograd.grad((weight * solver.solve(b)).sum(), b)
    torch.testing.assert_close(found, dense.T @ weight, rtol=1e-9, atol=1e-12)


def test_shifts_stay_and_spikes_are_spread_over_neighbours():
    ball = trimesh.creation.icosphere(3)
    n = len(ball.vertices)
    solver = Diffusion(np.asarray(ball.faces, np.int64), n, 16.0)
    shift = torch.tensor([0.3, -0.2, 0.1]).expand(n, 3)
    torch.testing.assert_close(solver.solve(shift), shift)
    spike = torch.zeros(n, 1)
    spike[7] = 1.0
    answer = solver.solve(spike)[:, 0]
    assert answer.sum() == pytest.approx(1.0, abs=1e-5)
    assert (answer > 0).all()
    assert answer.argmax() == 7
    assert answer[7] < 0.05
    around = np.unique(ball.edges[(ball.edges == 7).any(1)])
    assert answer[around].min() > answer.median()


def test_pieces_do_not_pull_each_other():
    two = trimesh.util.concatenate([trimesh.creation.icosphere(1), trimesh.creation.icosphere(1)])
    n = len(two.vertices)
    b = torch.zeros(n, 3)
    b[: n // 2] = 1.0
    found = Diffusion(np.asarray(two.faces, np.int64), n, 5.0).solve(b)
    torch.testing.assert_close(found, b)
