"""The viewer beside a run: ``rl3d view`` in a process of its own, which follows the run through its folder alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from rich.console import Console

from rl3d.control import Stopped

VIEW = (sys.executable, "-m", "rl3d", "view")
"""The command that a folder's name is added to."""


@contextmanager
def viewing(folder: Path, console: Console) -> Iterator[None]:
    """Keep the viewer open on a folder; what it says is printed. When all is done it stays open until Ctrl-C.

    A viewer that fails, or that is closed, leaves the run alone. When the run is left by Ctrl-C the viewer is ended too.
    """
    viewer = subprocess.Popen(
        [*VIEW, str(folder)],
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    relay = Thread(target=_relay, args=(viewer, console), daemon=True)
    relay.start()

    def stay(word: str) -> None:
        if viewer.poll() is None:
            console.print(f"{word}; the viewer stays open until Ctrl-C", highlight=False)
            with suppress(KeyboardInterrupt):
                viewer.wait()

    try:
        yield
        stay("done")
    except Stopped:  # by somebody at the viewer, who looks on
        stay("stopped")
        raise
    finally:
        viewer.terminate()
        try:
            viewer.wait(5)
        except subprocess.TimeoutExpired:
            viewer.kill()
            viewer.wait()
        relay.join(5)


def _relay(viewer: subprocess.Popen[str], console: Console) -> None:
    assert viewer.stdout is not None
    for line in viewer.stdout:
        console.print(f"viewer: {line.rstrip()}", highlight=False, markup=False)
