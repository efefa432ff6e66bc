import subprocess
import sys

import numba
import torch

from rl3d.render._threads import follow_torch


def test_numba_follows_torch_and_never_exceeds_its_own_limit():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        follow_torch()
        assert numba.get_num_threads() == 1
        torch.set_num_threads(1000)
        follow_torch()
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    finally:
        torch.set_num_threads(before)
        follow_torch()


def test_starting_numbas_threads_leaves_torchs_number():
    code = (
        "import torch; torch.set_num_threads(1); from rl3d.render._threads import follow_torch; follow_torch(); "
        "import numba; print(numba.get_num_threads(), torch.get_num_threads())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1"]
