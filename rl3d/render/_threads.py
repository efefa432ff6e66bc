"""One number of threads for torch and for compiled loops."""

import numba
import torch


def follow_torch() -> None:
    """Let numba use as many threads as torch does.

    They share one OpenMP runtime, in which numba sets the number for both: without this its default, all cores, would also hold
    for torch afterwards, whatever ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` said. Two processes that were given a core
    each then wait for each other at every product.
    """
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # pyright: ignore
