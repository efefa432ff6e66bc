"""Somebody watches a run: how a run that is at work knows, and how it keeps what it shows them from costing much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rl3d.explanation import explain as explained
from rl3d.explanation import why_path, write_explanation
from rl3d.optimize import Optimization, Report
from rl3d.record import Watcher
from rl3d.run import Run
from rl3d.search import Contest
from rl3d.snapshot import scene_path, write_snapshot

SHARE = 0.008
"""Of a run's time that scenes may take, and explanations as much again."""

WATCHED_SECONDS = 5.0
"""How long a run takes itself to be watched after :func:`watch`."""


def watch(run: Run) -> None:
    """Say that somebody watches: call it again at least every few seconds, and the run keeps ``live/`` up to date."""
    path = run.folder / "live" / "watched"
    path.parent.mkdir(exist_ok=True)
    path.touch()


def is_watched(run: Run) -> bool:
    """Whether somebody watches; costs one ``stat``."""
    try:
        return abs(time.time() - (run.folder / "live" / "watched").stat().st_mtime) < WATCHED_SECONDS
    except FileNotFoundError:
        return False


@dataclass
class Pace:
    """Keeps something that is done again and again within a share of all time."""

    share: float
    """Of the time, at most."""
    least: float = 0.5
    """Seconds between beginnings, at least."""
    due_at: float = 0.0
    spent: float = 0.0
    """Seconds of the process's time so far."""

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.due_at

    @contextmanager
    def work(self) -> Iterator[None]:
        """Do it once, and wait as long as it cost."""
        begun, before = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            now, cost = time.monotonic(), time.process_time() - before
            self.spent += cost
            # Whichever is longer: several cores' work, or waiting for a disk or for a judge elsewhere.
            self.due_at = max(begun + self.least, now + max(cost, now - begun) / self.share)


class Live:
    """What a run shows of itself in ``live/``, to whoever watches."""

    def __init__(self, run: Run):
        self.run = run
        self.scenes, self.reasons = Pace(SHARE), Pace(SHARE)
        self._scene_step = self._why_step = -1

    def show(self, o: Optimization | Contest, report: Report | None, watcher: Watcher, *, explain: bool = False) -> bool:
        """Write the scene as it is, and why the last step moved it so, where they are new, it is time, and somebody watches;
        or the latter at once where it was asked for. Whether an explanation was written.

        What cannot be written is not shown, and the run goes on.
        """
        watched = is_watched(self.run)
        if watched and self._scene_step != o.step and self.scenes.due:
            with suppress(OSError), self.scenes.work():
                write_snapshot(scene_path(self.run), o.scene, o.step, durable=False)
                self._scene_step = o.step
        if report is None or not (explain or (watched and self._why_step != report.step and self.reasons.due)):
            return False
        with suppress(OSError), self.reasons.work():
            write_explanation(why_path(self.run), explained(report, o, watcher), durable=False)
            self._why_step = report.step
        return True
