"""How much memory something takes, computed without taking it; and how much there is."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_bytes(work: Callable[[], Any]) -> int:
    """Bytes of all tensors that are made by some work, at the moment when they are most: what it adds to what was there before.

    Work on tensors of the "meta" device takes no memory and next to no time, and its answer holds for the same work on a GPU:
    what autograd keeps, what checkpointing lets go of and computes again, and what lives at once in between are all seen.
    Attention is counted as fused kernels have it (Dao et al. 2022, "FlashAttention", sec. 3.1): no matrix of all pairs is
    written. Workspaces of single kernels, an allocator's rounding and a driver's own memory are not seen.
    """
    seen = _Storages()
    with seen, patch.object(F, "scaled_dot_product_attention", _attention):
        kept = work()
    del kept
    return seen.peak


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that a device has free now: of a GPU, or of this machine."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, of a GPU or of this machine."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


class _Storages(TorchDispatchMode):
    """Counts what is allocated, until it is let go of."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        aliases = [value.alias_info is not None for value in func._schema.returns]  # views, and what was changed in place
        if not all(aliases):
            self._count(out)
        return out

    def _count(self, out: Any) -> None:
        for x in tree_iter(out):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._alive:
                    self._alive[key] = size
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key)


class _Attention(torch.autograd.Function):
    """Attention that keeps its inputs, its result and a number for each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """In the place of torch's own, which on "meta" would write the matrix of all pairs."""
    return _Attention.apply(query, key, value)  # pyright: ignore[reportReturnType]
