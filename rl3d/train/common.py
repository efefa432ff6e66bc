"""What the trainings share: an optimiser, moving averages, a schedule, checkpoints and a log."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.files import append_record
from rl3d.toybox.language import Language
from rl3d.world.language import Words


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are orthogonalised: Jordan et al. 2024, "Muon", for weights inside a network.

    Convolutions count as matrices of a row for each output channel. Updates are scaled to AdamW's usual size,
    0.2 sqrt(max(rows, columns)) (Liu et al. 2025, "Muon is Scalable for LLM Training", eq. 4), so that both share a learning
    rate. Orthogonalises in ``dtype`` (torch.optim.Muon always takes bfloat16, which many CPUs only emulate).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step (Nesterov momentum)."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                rows = p.grad.lerp(momentum, group["momentum"]).flatten(1).to(self.dtype)
                update = orthogonalized(rows).to(p.dtype).view_as(p)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * max(rows.shape) ** 0.5 * group["lr"])


def orthogonalized(x: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    """Push all singular values towards 1 (0.7 to 1.2) by Jordan's quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    y = x.mT if tall else x
    y = y / (y.norm() + 1e-7)
    for _ in range(steps):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.mT if tall else y


def replica(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a network in another type, to compute with; it keeps the precise weights (:func:`refresh`, :func:`collect`)."""
    # Not net.to: diffusers warns there of modules that ask for float32, and there are none.
    return nn.Module.to(copy.deepcopy(net), dtype)


@torch.no_grad()
def refresh(fast: nn.Module, net: nn.Module) -> None:
    """Take over a network's weights."""
    for to, of in zip(fast.parameters(), net.parameters(), strict=True):
        to.copy_(of)


@torch.no_grad()
def collect(fast: nn.Module, net: nn.Module) -> None:
    """Add a replica's gradients to a network's own, and clear them."""
    for of, to in zip(fast.parameters(), net.parameters(), strict=True):
        if of.grad is not None:
            to.grad = of.grad.to(to.dtype) if to.grad is None else to.grad.add_(of.grad)
            of.grad = None


@torch.no_grad()
def average(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Move a model's running mean a little towards the model."""
    for old, new in zip(mean.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def learning_rate_factor(step: int, elapsed: float, *, warmup: int, total: float, decay: float) -> float:
    """Warm up over ``warmup`` steps, stay, and fall to 0 over the last ``decay`` of ``total`` (in the units of ``elapsed``).

    With ``decay`` 0 a training can be continued as if it had never stopped.
    """
    fall = 1.0 if decay <= 0 else min(1.0, max(0.0, (total - elapsed) / decay))
    return min(1.0, (step + 1) / warmup) * fall


def save_state(path: Path, state: dict) -> None:
    """Write a checkpoint atomically: tensors, numbers, strings, and lists and dicts of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_state(path: Path) -> dict | None:
    """Read a checkpoint, or None where there is none."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def log(path: Path, record: dict) -> None:
    """Append a line of JSON to a file, and print it."""
    short = {key: round(x, 5) if isinstance(x, float) else x for key, x in record.items()}
    append_record(path, short)
    print(json.dumps(short), flush=True)


def keep_memory() -> None:
    """Tell glibc to keep freed memory, since returning it costs a page fault for each new activation.

    Does nothing on other systems than Linux.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-4, 0)  # M_MMAP_MAX
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def about(language: Language) -> str:
    """Say in a model card what a world's views show, and whose work that is."""
    toys = "renders of the toybox's procedural meshes (`rl3d.toybox`)"
    if not isinstance(language, Words):
        return f"{toys}; nothing was collected from people or the web."
    real = f"renders of {len(language.nouns)} kinds of named meshes (`rl3d.world`)"
    both = f"{toys}, and {real}" if language.toys else real
    return (
        f"{both}, recoloured and stretched. Their authors and licences are in `rl3d/world/catalogue.csv`, if they are Debian's."
    )
