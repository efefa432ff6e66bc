import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import rl3d
from rl3d.render import _vectors as v

DRAW = """
import logging, sys, torch
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from rl3d.render import _numba_bins
_numba_bins.bin_pairs(torch.ones(1, 2, 8).numpy(), torch.ones(1, 2).numpy(),
                      torch.ones(1, 2, 2, dtype=torch.int32).numpy(), 16, 16)
print(sum(_numba_bins.bin_pairs.stats.cache_hits.values()), _numba_bins.bin_pairs._cache._cache_path)
"""


@pytest.fixture
def locked(tmp_path):
    """A copy of the package beside which nothing can be cached (even root cannot make a folder where a file is)."""
    package = tmp_path / "site" / "rl3d"
    source = Path(rl3d.__file__).parent
    for folder in ("", "render"):
        (package / folder).mkdir(parents=True)
        for file in (source / folder).glob("*.py"):
            shutil.copy(file, package / folder)
    (package / "render" / "__pycache__").write_text("not a folder")
    return package.parent


def run(site: Path, **environment: str) -> tuple[str, str]:
    """How often a function came from the cache, and where that is."""
    clean = {k: x for k, x in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPATH")}
    settings = clean | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_NUM_THREADS": "1", **environment}
    found = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, env=settings, cwd=site, check=True)
    hits, where = found.stdout.split()
    return hits, where


def test_a_read_only_package_caches_where_it_is_told_to(locked, tmp_path):
    place = {"NUMBA_CACHE_DIR": str(tmp_path / "told")}
    for hits in ("0", "1"):
        found = run(locked, **place)
        assert found[0] == hits
        assert Path(found[1]).is_relative_to(tmp_path / "told")


def test_a_change_in_a_file_that_is_compiled_in_is_noticed(locked, tmp_path):
    folder, found = locked / "rl3d" / "render", []
    (folder / "_calling.py").write_text(
        "from rl3d.render._called import number\nfrom rl3d.render._compile import STRICT, njit\n"
        "@njit(**STRICT)\ndef call():\n    return number()\n"
    )
    settings = {**os.environ, "PYTHONPATH": str(locked), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    code = "from rl3d.render._calling import call; print(call(), sum(call.stats.cache_hits.values()))"
    for number in (1, 1, 2):
        (folder / "_called.py").write_text(
            f"from rl3d.render._compile import STRICT, njit\n@njit(**STRICT)\ndef number():\n    return {number}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=settings, cwd=locked, check=True
        )
        found.append(done.stdout.split())
    assert found == [["1", "0"], ["1", "1"], ["2", "0"]]


@pytest.mark.slow
def test_a_read_only_package_caches_in_the_users_folder(locked, tmp_path):
    place = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    hits, where = run(locked, **place)
    assert hits == "0"
    assert Path(where).is_relative_to(tmp_path / "home")
    assert run(locked, **place)[0] == "1"


@pytest.mark.slow
def test_where_there_is_no_users_folder_a_private_temporary_one_serves(locked, tmp_path):
    (tmp_path / "nobody").write_text("not a folder")
    (tmp_path / "tmp").mkdir()
    place = {"HOME": str(tmp_path / "nobody"), "XDG_CACHE_HOME": str(tmp_path / "nobody"), "TMPDIR": str(tmp_path / "tmp")}
    hits, where = run(locked, **place)
    assert hits == "0"
    assert Path(where).is_relative_to(tmp_path / "tmp")
    folder = tmp_path / "tmp" / Path(where).relative_to(tmp_path / "tmp").parts[0]
    assert folder.stat().st_mode & 0o077 == 0
    assert run(locked, **place)[0] == "1"
    folder.chmod(0o777)  # anybody could have put code there
    other = run(locked, **place)[1]
    assert Path(other).is_relative_to(tmp_path / "tmp")
    assert not Path(other).is_relative_to(folder)


@njit
def _everything(x, y, out):
    a, b = v.load(x, 0), v.load(y, 0)
    results = (
        a + b,
        a - 2 * b,
        a * b / (b * b + 1),
        v.exp2(a),
        v.where(a < b, a, b),
        v.where(v.both(a >= 0, b > 0), 1, v.splat(-1)),
        v.minus_abs(a),
    )
    for i in range(7):
        v.store(out, 16 * i, results[i])
    v.store(out, 16 * 7, v.totals(a, b, a + b, a - b, 2 * a, 2 * b, -1 * a, -1 * b, a * a, a * b, b * b, v.splat(1)))
    return v.total(a), v.some(a > 1e9), v.some(a <= b)


def test_vectors_compute_what_numpy_does():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=16).astype(np.float32) * 5 for _ in range(2))
    out = np.empty((8, 16), np.float32)
    total, none, some = _everything(a, b, out)
    wanted = [a + b, a - 2 * b, a * b / (b * b + 1), 2.0**a, np.minimum(a, b), np.where((a >= 0) & (b > 0), 1, -1), -np.abs(a)]
    sums = [x.sum() for x in (a, b, a + b, a - b, 2 * a, 2 * b, -a, -b, a * a, a * b, b * b)]
    np.testing.assert_allclose(out[:7], np.stack(wanted), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(out[7], [*sums, 16, 0, 0, 0, 0], rtol=1e-5, atol=1e-4)
    assert total == pytest.approx(a.sum(), rel=1e-5, abs=1e-5)
    assert not none
    assert some


def test_powers_of_two_are_precise_over_their_whole_range():
    x = np.linspace(-126, 126, 16 * 4000).astype(np.float32)
    out = np.empty_like(x)

    @njit
    def powers(x, out):
        for i in range(0, len(x), 16):
            v.store(out, i, v.exp2(v.load(x, i)))

    powers(x, out)
    np.testing.assert_allclose(out, 2.0 ** x.astype(np.float64), rtol=3e-7)
