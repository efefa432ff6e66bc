"""Programs of others, from npm, that read what we write."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def node_package(name: str) -> Path:
    """The folder of an npm package in ``$RL3D_NODE`` or the repository's ``.cache/node_modules``; skips where it is missing.

    ``npm install --prefix .cache @playcanvas/splat-transform@2.7.1 gltf-validator`` brings those that tests ask for.
    """
    modules = Path(os.environ.get("RL3D_NODE") or Path(__file__).parent.parent / ".cache" / "node_modules")
    if not shutil.which("node"):
        pytest.skip("there is no node")
    if not (modules / name / "package.json").is_file():
        pytest.skip(f"there is no npm package {name} in {modules}: npm install --prefix .cache {name}, or set RL3D_NODE")
    return modules / name


def node(*arguments: str | Path) -> str:
    """Run node; what it prints. A failure shows what it said."""
    done = subprocess.run(["node", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
