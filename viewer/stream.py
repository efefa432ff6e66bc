"""Pictures that the server renders where a client looks, and lays behind its scene: coarse while it moves, fine at rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from rl3d.viewer.page import Page

Paint = Callable[[int, int], UInt8[ndarray, "h w 3"]]
"""What is to see, with so many pixels across and down."""

MOVING_S, RESTING_S = 0.08, 0.8
"""What one picture may cost of a core's time."""
REST_S = 0.25
"""The camera is at rest when it has not moved for so long."""
LEAST, RESTING_LEAST, MOST = 48, 240, 1080
"""Rows of a picture; a coarser one at rest would look broken, so a slow machine works longer for it."""
LATE_S = 2.0
"""Whoever waits longer for a first picture is told why."""


class Stream:
    """Draws on one page. What it costs is measured as it goes, and each picture has as many pixels as its time allows."""

    def __init__(self, page: Page, paint: Paint, *, thrifty: bool = False):
        self.page, self.paint, self.thrifty = page, paint, thrifty
        self.active = True
        """Whether anything is drawn; the browser may have something of its own to show for a while."""
        self.pixel_s = 2e-6
        """Seconds of a core for each pixel, as last seen."""
        self._moved_at = 0.0
        self._wanted: float | None = RESTING_S
        self._late: threading.Timer | None = threading.Timer(
            LATE_S, page.say, ("The first picture takes a while", "Its renderer is compiled once on a machine.", "blue")
        )
        page.on_move(self.moved)
        page.every(0.1, self._tick, thrifty=thrifty)

    def moved(self) -> None:
        """Draw coarsely, and finely once the camera rests; while a run is watched only if there is time for it."""
        self._moved_at = time.monotonic()
        self._wanted = RESTING_S
        if self.active and (not self.thrifty or self.page.thrift.allows()):
            self._draw(MOVING_S)

    def changed(self) -> None:
        """Draw again: what is shown is another thing now."""
        self._wanted = RESTING_S
        self._tick()

    def _tick(self) -> None:
        if self.active and self._wanted is not None and time.monotonic() - self._moved_at > REST_S:
            budget, self._wanted = self._wanted, None
            if self._draw(budget):
                self._wanted = budget

    def _draw(self, seconds: float) -> bool:
        """Draw once; whether it was so much cheaper than expected that a finer picture can be had."""
        camera = self.page.client.camera
        rows = float(np.sqrt(seconds / self.pixel_s / max(camera.aspect, 1e-3)))
        least = LEAST if seconds == MOVING_S else RESTING_LEAST
        height = int(min(max(rows, least), MOST, max(camera.image_height, LEAST)))
        width = max(int(height * camera.aspect), 1)
        spent = time.thread_time(), time.monotonic()
        if self._late is not None:
            self._late.start()
        picture = self.paint(width, height)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        # Renderers use other threads too, which the clock on the wall sees, and other programs take their share of that.
        cost = max((time.thread_time() - spent[0] + time.monotonic() - spent[1]) / 2, 1e-4)
        self.pixel_s = cost / (width * height)
        quality = 70 if seconds == MOVING_S else 90
        self.page.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality)
        return height < min(MOST, camera.image_height) and cost < seconds / 3
