"""All of nerfstudio that docs/nerfstudio.md speaks of, in an environment that has it."""

import os
from pathlib import Path

import pytest
from benches import load

WHERE = "NERFSTUDIO_PYTHON"


@pytest.mark.slow
@pytest.mark.skipif(WHERE not in os.environ, reason=f"{WHERE} names no Python that has nerfstudio and rl3d")
def test_methods_and_data_sets_work_there(tmp_path):
    bench = load("in_nerfstudio")
    rows = bench.check(Path(os.environ[WHERE]), tmp_path, steps=12)
    assert [name for name, worked, _, _ in rows if not worked] == []
    assert len(rows) == len(bench.STEPS)
