"""Parameters of a signal's own, with their optimiser, in a form that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Learner(nn.Module):
    """Adam over some parameters. Its ``state_dict`` holds them and Adam's moments: a restored one goes on bit for bit."""

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__()
        self.weights = nn.ParameterList(parameters)
        self.optimizer = torch.optim.Adam(self.weights, lr=rate, betas=betas)
        for i, p in enumerate(self.weights):
            # Adam changes its state in place, so what it holds and what is registered here stay the same tensors.
            held = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            for key, x in held.items():
                self.register_buffer(f"{key}_{i}", x)
            self.optimizer.state[p] = held

    def step(self, loss: Tensor) -> bool:
        """Descend once; leaves everything as it is, and says so, where the loss or a gradient is not finite."""
        weights = list(self.weights)
        if not loss.detach().isfinite():
            return False
        gradients = torch.autograd.grad(loss, weights)
        if not all(g.isfinite().all() for g in gradients):
            return False
        for p, g in zip(weights, gradients, strict=True):
            p.grad = g
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True
