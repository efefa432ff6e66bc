"""Wishes to a run that is at work, and what became of them: the lines of ``control.jsonl`` in its folder.

Anyone may :func:`ask`, from any process. The run looks at the boundary of each step, takes up what is new in order, and answers
each wish by a line of its own: applied after so many steps, or refused and why. Nothing else is kept of it: a run that goes on
from an earlier checkpoint reads there which weights were changed after which step, and changes them again, so that it ends in
the same bytes as if it had never been stopped.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rl3d.files import append_record
from rl3d.optimize import Optimization
from rl3d.recipe import Recipe
from rl3d.run import Run
from rl3d.search import Contest

Kind = Literal["pause", "resume", "step", "weight", "save", "stop", "explain"]
"""What can be asked of a run:

- ``"pause"`` and ``"resume"``;
- ``"step"``: do some steps, then pause;
- ``"weight"``: another factor on a term (:func:`factors`), from the next step on;
- ``"save"``: write a checkpoint now;
- ``"explain"``: write now why the scene became what it is (:mod:`rl3d.explanation`);
- ``"stop"``: write a checkpoint and leave, as Ctrl-C does.
"""

POLL_SECONDS = 0.2
"""Between looks of a run that is paused."""

LONGEST = 1000
"""Bytes of a line; what is longer is refused unread."""
MOST_STEPS = 100_000
LARGEST_FACTOR = 1e6


class Stopped(KeyboardInterrupt):
    """Somebody asked the run to stop; it leaves as if by Ctrl-C."""


@dataclass(frozen=True)
class Wish:
    """One thing that is asked of a run."""

    id: str
    kind: Kind
    steps: int = 1
    """For "step"."""
    term: str = ""
    """For "weight"."""
    factor: float = 1.0
    """For "weight": finite, and at most a million either way."""

    def plain(self) -> dict[str, Any]:
        """What a line says of it, beside its id."""
        details = {"step": {"steps": self.steps}, "weight": {"term": self.term, "factor": self.factor}}
        return {"wish": self.kind, **details.get(self.kind, {})}


def ask(run: Run, kind: Kind, *, steps: int = 1, term: str = "", factor: float = 1.0) -> str:
    """Ask something of a run; the wish's id, under which :func:`standing` has the answer.

    Raises:
        ValueError: if it cannot be meant. Whether there is such a term the run itself says.
    """
    wish = _wish({"id": uuid.uuid4().hex[:12], "wish": kind, "steps": steps, "term": term, "factor": factor})
    record = {"id": wish.id, **wish.plain()}
    if len(json.dumps(record)) >= LONGEST:
        raise ValueError(f"a wish has at most {LONGEST} bytes: name a term of the recipe")
    append_record(_file(run), record)
    return wish.id


def factors(recipe: Recipe) -> dict[str, float]:
    """The factor on each term that a "weight" changes: its ratio where the recipe balances it by one, else its weight."""
    return {name: recipe.ratios.get(name, recipe.weights.get(name, 1.0)) for name in recipe.terms}


def reweighed(recipe: Recipe, term: str, factor: float) -> Recipe:
    """The recipe with another factor on a term.

    Raises:
        ValueError: if it has no such term.
    """
    if term not in recipe.terms:
        raise ValueError(f"there is no term {term[:40]!r}: the recipe has {', '.join(recipe.terms)}")
    which = "ratios" if term in recipe.ratios else "weights"
    return replace(recipe, **{which: {**getattr(recipe, which), term: float(factor)}})


@dataclass(frozen=True)
class Standing:
    """What ``control.jsonl`` says of a run now."""

    paused: bool
    """Whether it was told to pause since it was last begun or resumed."""
    factors: dict[str, float]
    """On its terms now: what was last applied, else what the recipe says (:func:`factors`)."""
    applied: dict[str, int]
    """Wishes that were taken up, by id, with the steps done then."""
    refused: dict[str, str]
    """Wishes that were not, by id, and why."""
    waiting: tuple[Wish, ...]
    """Wishes without an answer yet, in order."""


def standing(run: Run) -> Standing:
    """Read how a run stands, from its folder alone; also of one that is over, or was never asked for anything.

    Raises:
        ValueError: if the folder is no run.
    """
    recipe = _recipe_of(run)
    now = {name: recipe["ratios"].get(name, recipe["weights"].get(name, 1.0)) for name in recipe["terms"]}
    paused = False
    asked: dict[str, Wish] = {}
    applied: dict[str, int] = {}
    refused: dict[str, str] = {}
    for line in _Lines(_file(run)).new():
        said = line.value or {}
        if "began" in said:
            paused = False
        elif (wish := _applied(said)) is not None:
            applied[wish.id] = said["step"]
            paused = wish.kind in ("pause", "step") or (paused and wish.kind != "resume")
            if wish.kind == "weight" and wish.term in now:
                now[wish.term] = wish.factor
        elif "refused" in said:
            refused[str(said["refused"])] = str(said.get("why", ""))
        else:
            with contextlib.suppress(ValueError):
                asked.setdefault(line.id, _wish(said))
    waiting = tuple(wish for id, wish in asked.items() if id not in applied and id not in refused)
    return Standing(paused, now, applied, refused, waiting)


@dataclass
class Control:
    """The run's side: what was asked of it, and whether it should go on. A new one begins a session, which is not paused."""

    run: Run
    paused: bool = False
    left: int = 0
    """Steps to do although it is paused."""
    save: bool = False
    """Whether a checkpoint is wanted; who has written it says so here."""
    explain: bool = False
    """The same of an explanation."""
    changed: int = 0
    """Weights that were changed so far, earlier sessions counted."""
    _past: list[tuple[int, Wish]] = field(default_factory=list)
    """Weights that an earlier session changed, with the steps done then, in order."""
    _later: list[Wish] = field(default_factory=list)
    """Weights that are asked for now, which wait until all of the past has come again."""
    _known: set[str] = field(default_factory=set)

    def __post_init__(self):
        self._lines = _Lines(_file(self.run))
        open_still: dict[str, _Line] = {}
        for line in self._lines.new():
            said = line.value or {}
            if (wish := _applied(said)) is not None:
                if wish.kind == "weight":
                    self._past.append((said["step"], wish))
                open_still.pop(wish.id, None)
                self._known.add(wish.id)
            elif "refused" in said:
                open_still.pop(str(said["refused"]), None)
                self._known.add(str(said["refused"]))
            elif "began" not in said and line.id not in self._known:
                open_still.setdefault(line.id, line)
        self._past.sort(key=lambda pair: pair[0])
        for line in open_still.values():
            # A weight is a wish to the scene, whenever it is made; the others are to a process that is gone.
            self._hear(line, None)
        append_record(self._lines.path, {"began": round(time.time(), 3)})

    def obey(self, o: Optimization | Contest) -> bool:
        """Take up what was asked since the last time, between two steps; whether to do another step now.

        Raises:
            Stopped: if that was asked.
        """
        for line in self._lines.new():
            said = line.value or {}
            if not {"applied", "refused", "began"} & said.keys():
                self._hear(line, o.step)
        while self._past and self._past[0][0] <= o.step:
            wish = self._past.pop(0)[1]
            if wish.term in o.recipe.terms:
                self._reweigh(o, wish)
        while self._later and not self._past:
            wish = self._later.pop(0)
            try:
                self._reweigh(o, wish)
                self._answer(wish, o.step)
            except ValueError as error:
                self._refuse(wish.id, str(error))
        if self.paused and not self.left:
            return False
        self.left = max(0, self.left - 1)
        return True

    def wait(self) -> float:
        """Sleep until it is time to look again; for how many seconds."""
        begun = time.monotonic()
        time.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    def _hear(self, line: _Line, step: int | None) -> None:
        """Do what a line asks, or put it by; ``step`` is None for one that was written before this session."""
        try:
            if line.value is None:
                raise ValueError(line.why)
            wish = _wish(line.value)
            if wish.id in self._known:
                raise ValueError(f"the id {wish.id!r} was used before: give each wish its own")
        except ValueError as error:
            self._refuse(line.id if line.id not in self._known else line.place, str(error))
            return
        self._known.add(wish.id)
        if wish.kind == "weight":
            self._later.append(wish)
        elif step is None:
            self._refuse(wish.id, "it was asked when the run was not at work: ask again")
        else:
            self._answer(wish, step)
            self._do(wish)

    def _do(self, wish: Wish) -> None:
        match wish.kind:
            case "pause":
                self.paused, self.left = True, 0
            case "resume":
                self.paused, self.left = False, 0
            case "step":
                self.paused, self.left = True, self.left + wish.steps
            case "save":
                self.save = True
            case "explain":
                self.explain = True
            case "stop":
                raise Stopped

    def _reweigh(self, o: Optimization | Contest, wish: Wish) -> None:
        """Change a term's factor from the next step on, of all scenes of a search alike."""
        for one in (o, *o.members.values()) if isinstance(o, Contest) else (o,):
            one.recipe = reweighed(one.recipe, wish.term, wish.factor)
        self.changed += 1

    def _answer(self, wish: Wish, step: int) -> None:
        append_record(self._lines.path, {"applied": wish.id, "step": step, **wish.plain()})

    def _refuse(self, id: str, why: str) -> None:
        self._known.add(id)
        append_record(self._lines.path, {"refused": id, "why": why})


@dataclass(frozen=True)
class _Line:
    """A line as it was read: a JSON object, or why it is none."""

    place: str
    """Where it begins: what it is called where it has no id."""
    value: dict[str, Any] | None
    why: str = ""

    @property
    def id(self) -> str:
        id = (self.value or {}).get("id")
        return id if isinstance(id, str) and 0 < len(id) <= 64 else self.place


class _Lines:
    """The lines of a file that grows; one that is not whole yet is left for the next time."""

    def __init__(self, path: Path):
        self.path, self.size, self.end = path, 0, 0

    def new(self) -> Iterator[_Line]:
        """What was added since the last time. Where nothing was, it costs one ``stat``."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size == self.size:
            return
        self.size = size
        with open(self.path, "rb") as file:
            file.seek(self.end)
            while line := file.readline(LONGEST):
                place, length, short = f"byte {self.end}", len(line), line
                while line and not line.endswith(b"\n"):
                    line, short = file.readline(2**20), b""
                    length += len(line)
                if not line:
                    return
                self.end += length
                if short.strip() or not short:
                    yield _parsed(place, short)


def _parsed(place: str, line: bytes) -> _Line:
    if not line:
        return _Line(place, None, f"the line is longer than {LONGEST} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return _Line(place, None, "the line is not JSON")
    return _Line(place, value) if isinstance(value, dict) else _Line(place, None, "the line is no JSON object")


def _wish(said: Mapping[str, Any]) -> Wish:
    """The wish that a line holds, or a ``ValueError`` that says what is wrong with it."""
    found: dict[str, Any] = {"steps": 1, "term": "", "factor": 1.0, **said}
    if unknown := found.keys() - {"id", "wish", "steps", "term", "factor"}:
        raise ValueError(f"a wish has no {min(unknown)[:40]!r}")
    id, kind, steps, term, factor = (found.get(key, "") for key in ("id", "wish", "steps", "term", "factor"))
    if not (isinstance(id, str) and 0 < len(id) <= 64):
        raise ValueError("a wish needs an id of 1 to 64 characters")
    if kind not in get_args(Kind):
        raise ValueError(f"there is no wish {str(kind)[:40]!r}: ask for {', '.join(get_args(Kind))}")
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be a whole number from 1 to {MOST_STEPS}, got {str(steps)[:40]}")
    if not isinstance(term, str):
        raise ValueError(f"a term is named by a string, got {type(term).__name__}")
    if type(factor) not in (int, float) or not abs(factor) <= LARGEST_FACTOR:
        raise ValueError(f"a factor must be a number of at most {LARGEST_FACTOR:g} either way, got {str(factor)[:40]}")
    return Wish(id, kind, steps, term, float(factor))


def _applied(said: Mapping[str, Any]) -> Wish | None:
    """The wish that a line says was applied; None if it says no such thing."""
    if "applied" not in said or not isinstance(said.get("step"), int):
        return None
    try:
        return _wish({"id": said["applied"], **{key: x for key, x in said.items() if key not in ("applied", "step")}})
    except ValueError:
        return None


def _recipe_of(run: Run) -> dict[str, Any]:
    """What ``recipe.json`` says."""
    try:
        recipe = json.loads((run.folder / "recipe.json").read_text())
        return {key: dict(recipe[key]) for key in ("terms", "weights", "ratios")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.folder} is not a run: its recipe.json cannot be read ({error})") from None


def _file(run: Run) -> Path:
    return run.folder / "control.jsonl"
