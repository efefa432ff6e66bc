"""A page: what one browser tab shows, and the one thread that draws it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import viser
from rl3d.viewer.cameras import of_client

from rl3d.types import Cameras

SHARE = 0.03
"""Of one core, at most, for what pages do unasked: following runs takes no more from them. A click is answered at once."""
BURST_S = 2.0
"""Of a core's time that pages may spend at once, as when a run is opened."""


class Thrift:
    """Says whether this process may do more unasked work: all its threads count, whatever they did."""

    def __init__(self):
        self._spent, self._since = time.process_time(), time.monotonic()

    def allows(self) -> bool:
        spent, allowed = time.process_time() - self._spent, SHARE * (time.monotonic() - self._since)
        if spent < allowed:  # what was not spent is not saved up
            self._spent, self._since = time.process_time(), time.monotonic()
            spent = 0.0
        return spent < allowed + BURST_S


class Page:
    """What one browser tab shows.

    viser calls back in any of many threads. Here each call only leaves a note, and the page's own thread does what the notes
    say, one after the other: so no page needs a lock, a slow one delays no other, and there is one place where errors arrive.
    """

    def __init__(self, client: viser.ClientHandle, thrift: Thrift):
        self.client, self.gui, self.scene = client, client.gui, client.scene
        self.thrift = thrift
        self._notes: queue.SimpleQueue[tuple[int, Callable[[], None]]] = queue.SimpleQueue()
        self._shown = 0
        """Counts what was shown: notes about what is no longer there are dropped."""
        self._waiting: set[Callable[[], None]] = set()
        self._ticks: list[tuple[Callable[[], None], float, bool]] = []
        self._due: dict[Callable[[], None], float] = {}
        self._moved: Callable[[Any], Any] | None = None
        self._said = ""
        self._open = True

        @client.camera.on_update
        async def _(camera: viser.CameraHandle) -> None:
            if self._moved is not None:
                await self._moved(camera)

    def live(self, first: Callable[[], None]) -> None:
        """Do ``first``, then what happens, until the client is gone."""
        self._notes.put((0, first))
        threading.Thread(target=self._attend, daemon=True, name=f"page {self.client.client_id}").start()

    def leave(self) -> None:
        """End the page's thread: the client is gone."""
        self._open = False
        self._notes.put((-1, lambda: None))

    def on(self, action: Callable[[], None]) -> Callable[[Any], Any]:
        """What viser may call when a value changes; done once however often it changed since the page was last free.

        A coroutine, since viser runs those in order, and without another thread.
        """
        shown = self._shown

        async def note(_: Any) -> None:
            if action not in self._waiting:
                self._waiting.add(action)
                self._notes.put((shown, action))

        return note

    def on_each(self, action: Callable[[], None]) -> Callable[[Any], Any]:
        """What viser may call when a button is pressed; done once for each time."""
        shown = self._shown

        async def note(_: Any) -> None:
            self._notes.put((shown, action))

        return note

    def on_move(self, action: Callable[[], None]) -> None:
        """Do this when the client's camera has moved, while the page shows what it shows."""
        self._moved = self.on(action)

    def every(self, seconds: float, action: Callable[[], None], *, thrifty: bool = True) -> None:
        """Do this again and again while the page shows what it shows; thrifty work waits until there is CPU time for it."""
        self._ticks.append((action, seconds, thrifty))

    def clear(self) -> None:
        """Show nothing, and do nothing any more."""
        self._shown += 1
        self._ticks.clear()
        self._due.clear()
        self._moved = None
        with self.client.atomic():
            self.gui.reset()
            self.scene.reset()

    def say(self, title: str, text: str = "", color: str = "orange") -> None:
        """Show a message for a while; the same one not twice in a row."""
        if (said := f"{title}\n{text}") != self._said:
            self._said = said
            self.client.add_notification(title, text, auto_close_seconds=8.0, color=color)  # pyright: ignore

    def camera(self, width: int, height: int) -> Cameras:
        """Where the client looks from, as one of our cameras."""
        return of_client(self.client.camera, width, height)

    def _attend(self) -> None:
        while self._open:
            try:
                shown, note = self._notes.get(timeout=self._until_next())
                self._waiting.discard(note)
                actions = [note] if shown == self._shown else []
            except queue.Empty:
                actions = self._due_now()
            for action in actions:
                try:
                    action()
                except Exception as error:  # whatever goes wrong in one page is said there, and the server lives
                    if self._open:
                        self.say(*_in_words(error), color="red")

    def _until_next(self) -> float:
        now = time.monotonic()
        return max(min((self._due.get(action, now) for action, _, _ in self._ticks), default=now + 1.0) - now, 0.02)

    def _due_now(self) -> list[Callable[[], None]]:
        now, allowed = time.monotonic(), self.thrift.allows()
        found = [(a, s) for a, s, thrifty in self._ticks if self._due.get(a, 0.0) <= now and (allowed or not thrifty)]
        self._due |= {action: now + seconds for action, seconds in found}
        return [action for action, _ in found]


def _in_words(error: Exception) -> tuple[str, str]:
    """An error for a person: what the user can mend as it is, what is ours to mend with its kind."""
    if isinstance(error, FileNotFoundError):
        return "It is gone", f"{error.filename} was deleted or moved."
    if isinstance(error, ValueError | OSError):
        return "This did not work", str(error)
    return "Something went wrong in the viewer", f"{type(error).__name__}: {error}"
