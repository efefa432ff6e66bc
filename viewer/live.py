"""The controls of a run that is at work: what is asked of it goes to its ``control.jsonl``, and what it answers is shown."""

from __future__ import annotations

import time
from collections.abc import Callable

import viser
from rl3d.viewer.page import Page

from rl3d.control import Kind, Standing, ask, standing
from rl3d.live import watch
from rl3d.run import Run

TYPING_S = 0.8
"""A weight is asked for when nobody has changed it for so long."""

DIGITS = 6
"""After the point of a weight that is typed."""


class Controls:
    """Pause, resume, step, weights, save, explain, stop; in the present container."""

    def __init__(self, page: Page, run: Run):
        self.page, self.run = page, run
        self._asked: dict[str, str] = {}
        """Wishes of this page that have no answer yet, by id, in words."""
        self._typed: dict[str, float] = {}
        """Terms whose weight was changed on the page, and when last."""
        gui = page.gui
        self._folder = gui.add_folder("Steer", visible=False)
        with self._folder:
            self._pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
            self._step = gui.add_button("One step", icon=viser.Icon.PLAYER_SKIP_FORWARD, hint="Do one step, then pause.")
            self._others = gui.add_button_group(
                "Now", ["save", "explain", "stop"], hint="Save a checkpoint; explain the next step; save and end the run."
            )
            self._factors = {
                term: gui.add_number(
                    f"weight: {term}",
                    float(factor),
                    min=-1e6,
                    max=1e6,
                    step=0.1,
                    hint="The factor on this term from the next step on.",
                )
                for term, factor in self._standing().factors.items()
            }
        for number in self._factors.values():
            number.precision = DIGITS  # else that of its step: one digit, or none for a weight of 1
        self._shown = dict.fromkeys(self._factors, 0.0)
        self._pause.on_click(page.on_each(lambda: self._ask("resume" if self._paused else "pause")))
        self._step.on_click(page.on_each(lambda: self._ask("step")))
        self._others.on_click(page.on_each(lambda: self._ask(self._others.value)))
        for term, number in self._factors.items():
            self._shown[term] = number.value
            number.on_update(page.on(self._weighed(term)))
        self._paused = False

    def follow(self, busy: bool) -> str:
        """Say that somebody watches, show what the run answered, and return its state in words."""
        self._folder.visible = busy
        if not busy:
            return ""
        watch(self.run)
        self._ask_typed()
        now = self._standing()
        self._paused = now.paused
        self._pause.label = "Resume" if now.paused else "Pause"
        self._pause.icon = viser.Icon.PLAYER_PLAY if now.paused else viser.Icon.PLAYER_PAUSE
        waiting = {wish.term for wish in now.waiting if wish.kind == "weight"}
        for term, factor in now.factors.items():
            if term in self._factors and term not in waiting and term not in self._typed and factor != self._shown[term]:
                self._shown[term] = self._factors[term].value = factor
        for id, what in list(self._asked.items()):
            if id in now.refused:
                self.page.say(f"The run refused: {what}", now.refused[id])
            if id in now.refused or id in now.applied:
                del self._asked[id]
        return "paused" if now.paused else f"asked to {', '.join(self._asked.values())}" if self._asked else ""

    def _standing(self) -> Standing:
        return standing(self.run)

    def _ask(self, kind: Kind) -> None:
        self._asked[ask(self.run, kind)] = kind

    def _weighed(self, term: str) -> Callable[[], None]:
        def weigh() -> None:
            self._typed[term] = time.monotonic()

        return weigh

    def _ask_typed(self) -> None:
        """Ask for weights that nobody is still typing: on the way to 0.5 there is a 0, which nobody wants."""
        for term, when in list(self._typed.items()):
            factor = float(self._factors[term].value)
            if time.monotonic() - when > TYPING_S:
                del self._typed[term]
                if factor != self._shown[term]:  # not an echo of what the run said itself
                    self._shown[term] = factor
                    self._asked[ask(self.run, "weight", term=term, factor=factor)] = f"weigh {term} by {factor:g}"
