"""One number of threads for torch and for compiled loops."""

import numba
import torch


def follow_torch() -> None:
    """Let numba use as many threads as torch does.

    They share one OpenMP runtime. When numba starts its threads it sets that runtime's number to its own default, all cores,
    and so torch's, whatever ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` said. Two processes that were given a core each
    then wait for each other at every product.
    """
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # pyright: ignore
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
