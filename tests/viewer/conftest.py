"""Viewers to knock at."""

import os
from pathlib import Path

import pytest
from rl3d.viewer.gate import open_server


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two folders that are served, a secret beside them, and links within and out."""
    root = tmp_path_factory.mktemp("served")
    for name in ("runs", "more", "secret", "runs-too"):
        (root / name).mkdir()
    (root / "secret" / "key.txt").write_text("secret")
    (root / "runs-too" / "key.txt").write_text("secret")
    (root / "runs" / "a b.txt").write_text("hello")
    (root / "runs" / "page.html").write_text("<script>1</script>")
    (root / "runs" / "out").symlink_to(root / "secret")
    (root / "runs" / "within.txt").symlink_to(root / "runs" / "a b.txt")
    os.mkfifo(root / "runs" / "pipe")
    return [root / "runs", root / "more"]


@pytest.fixture(scope="module")
def local(folders):
    """A viewer on the loopback address, which needs no token."""
    opened = open_server("127.0.0.1", 0, folders=folders)
    pressed = opened.server.gui.add_button("Press")
    opened.server.pressed = []
    pressed.on_click(lambda _: opened.server.pressed.append(1))
    opened.server.button = pressed
    yield opened
    opened.server.stop()


@pytest.fixture(scope="module")
def public():
    """A viewer on every address, which needs one."""
    opened = open_server("0.0.0.0", 0)
    yield opened
    opened.server.stop()
