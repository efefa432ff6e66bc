"""``rl3d view`` at the command line."""

import subprocess
import sys

import pytest
from rl3d.viewer.command import check_viser


def run(*words, **how):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False, **how)


def test_a_wrong_path_is_refused_in_one_line(tmp_path):
    done = run("-m", "rl3d", "view", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "nothing: check the path" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_waits_for_nothing_that_is_slow_to_import():
    done = run("-c", "import sys, rl3d.viewer.command; print(sorted({'torch', 'viser'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"


def test_a_viser_that_is_too_old_is_refused():
    for new in ("1.1.1", "1.10", "2.0.0rc1"):
        check_viser(new)
    for old in ("0.2.7", "1.0.9"):
        with pytest.raises(ValueError, match=f"viser 1.1 or later, and {old} is installed"):
            check_viser(old)
