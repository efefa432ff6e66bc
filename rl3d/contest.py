"""Comparisons by people: which questions to ask, a session of answers, and which of two recipes wins.

A contest is between folders of runs, say ``runs/base`` and ``runs/tuned``. Its questions are pairs of one prompt, one of each
folder. Sides and order are drawn from the seed and the annotator, each side by a coin of its own, so that nobody can tell the
folder from the place, and a question keeps its sides when a session is taken up again.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from threading import RLock

from rl3d.assets import PICTURES
from rl3d.choices import PREFERRED, Pair, read_pairs, record, withdraw
from rl3d.math import wilson
from rl3d.run import Run

ASSETS = (".ply", ".splat", ".spz", ".glb", ".gltf", ".obj", *PICTURES)
"""Ends of the names of files that can be compared."""


@dataclass(frozen=True)
class Question:
    """Which of two is better for a prompt?"""

    prompt: str
    a: tuple[str, ...]
    """An asset's path, or those of pictures; shown on the left."""
    b: tuple[str, ...]
    """Shown on the right."""


def questions(places: Sequence[Path], *, seed: int = 0, annotator: str = "") -> list[Question]:
    """Match what the places hold by prompt, in a random order and with random sides.

    Args:
        places: runs, files, or folders of these. Every two places are compared; where both hold several assets of one prompt,
            the first with the first, and so on. Of one place alone, its own assets of one prompt are compared with each other.
            The prompt of a file is its name. Runs that are not finished are left out.
        seed: of sides and order.
        annotator: too, so that each sees their own.

    Raises:
        ValueError: if a place is missing or holds nothing, or nothing can be matched.
    """
    held = [_assets(place) for place in places]
    if len(held) == 1:
        matched = [
            (prompt, f"{i} {j}", (same[i], same[j]))
            for prompt, same in held[0].items()
            for i, j in combinations(range(len(same)), 2)
        ]
    else:
        matched = [
            (prompt, f"{i} {j} {k}", two)
            for i, j in combinations(range(len(held)), 2)
            for prompt in held[i].keys() & held[j].keys()
            for k, two in enumerate(zip(held[i][prompt], held[j][prompt], strict=False))
        ]
    if not matched:
        raise ValueError(f"nothing in {', '.join(map(str, places))} can be compared: no prompt has two finished assets")
    matched.sort(key=lambda one: one[:2])
    Random(f"order {seed} {annotator}").shuffle(matched)
    asked = []
    for prompt, which, two in matched:
        # Whether a question is turned depends on it alone: more runs turn no other.
        left, right = two if Random(f"sides {seed} {annotator} {prompt} {which}").random() < 0.5 else two[::-1]
        asked.append(Question(prompt, (left,), (right,)))
    return asked


def _assets(place: Path) -> dict[str, list[str]]:
    """What a place holds, by prompt, in the order of names."""
    if not place.exists():
        raise ValueError(f"there is no {place}")
    found = defaultdict(list)
    for one in [place] if _prompt(place) is not None else sorted(place.iterdir()) if place.is_dir() else []:
        if prompt := _prompt(one):
            found[prompt].append(str(one))
    if not found:
        raise ValueError(f"{place} holds nothing to compare: no finished run, and no file ending in {', '.join(ASSETS)}")
    return found


def _prompt(path: Path) -> str | None:
    """What a finished run or a file was made for; None if the path is neither."""
    if path.is_dir():
        if not (path / "run.json").is_file():
            return None
        about = Run(path).about
        text = about.get("prompt", {}).get("text") if isinstance(about.get("prompt"), dict) else None
        return text if isinstance(text, str) and text and (path / "asset.ply").is_file() else None
    return path.stem.replace("-", " ").replace("_", " ") if path.suffix.lower() in ASSETS else None


class Session:
    """Answers of one annotator to questions, each on the disk before the next is asked. Threads may share a session.

    Args:
        asked: what is asked, in this order, without what the file says that this annotator answered.
        file: of choices (:mod:`rl3d.choices`); made with the first answer.
        annotator: who answers.

    Raises:
        ValueError: if the file holds something else than choices.
    """

    def __init__(self, asked: Sequence[Question], file: Path, annotator: str = "") -> None:
        self.file, self.annotator, self.asked = file, annotator, tuple(asked)
        known = read_pairs(file, exist=False) if file.is_file() else []
        done = {_key(pair) for pair in known if pair.annotator == annotator}
        self._open = [question for question in asked if _key(question) not in done]
        self._past: list[Pair | None] = []
        """What was said of the open questions so far; None where one was skipped."""
        self._lock = RLock()

    @property
    def current(self) -> Question | None:
        """The question to answer now; None after the last. Skipped ones are asked again by the next session."""
        with self._lock:
            return self._open[len(self._past)] if len(self._past) < len(self._open) else None

    @property
    def answered(self) -> int:
        """How many of all questions are answered, in this session and before."""
        with self._lock:
            return len(self.asked) - len(self._open) + sum(pair is not None for pair in self._past)

    @property
    def skipped(self) -> int:
        """How many were skipped in this session."""
        with self._lock:
            return sum(pair is None for pair in self._past)

    @property
    def undoable(self) -> bool:
        """Whether there is an answer or a skip of this session to take back."""
        return bool(self._past)

    def answer(self, question: Question, preferred: str) -> bool:
        """Record "a", "b" or "tie"; False, and nothing is recorded, if another question is the current one by now."""
        if preferred not in PREFERRED:
            raise ValueError(f'an answer is "a", "b" or "tie", got {preferred!r}')
        with self._lock:
            if question != self.current:
                return False
            pair = Pair(question.prompt, question.a, question.b, PREFERRED[preferred], self.annotator)
            record(self.file, pair)
            self._past.append(pair)
            return True

    def skip(self, question: Question) -> bool:
        """Leave a question for another session; False if it is not the current one."""
        with self._lock:
            if question != self.current:
                return False
            self._past.append(None)
            return True

    def undo(self) -> bool:
        """Go back to the question before, and withdraw what was said of it; False at the first one of this session."""
        with self._lock:
            if not self._past:
                return False
            if (pair := self._past[-1]) is not None:
                withdraw(self.file, pair)
            self._past.pop()
            return True


def _key(one: Question | Pair) -> tuple[str, frozenset[tuple[str, ...]]]:
    """What two askings of one question have in common, whichever side was left."""
    return one.prompt, frozenset(tuple(map(os.path.abspath, side)) for side in (one.a, one.b))


@dataclass(frozen=True)
class Share:
    """How often something won; a tie is half a win."""

    wins: int
    ties: int
    losses: int
    rate: float
    """Of wins, with half of the ties; nan if nothing was compared."""
    interval: tuple[float, float]
    """Of 95 %, by Wilson's score (1927). Ties vary less than the coin that it assumes, so with them it is on the safe side."""

    def __str__(self) -> str:
        low, high = self.interval
        counts = f"{self.wins} won, {self.ties} ties, {self.losses} lost"
        return f"{100 * self.rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]: {counts}"


@dataclass(frozen=True)
class Wins:
    """How one contestant fares against another."""

    contestant: str
    """Its folder."""
    rival: str
    overall: Share
    """Over all annotators; counts are of comparisons. Comparisons of one pair are not independent, so its rate and
    interval take each pair once, with the mean of what was said of it."""
    pairs: int
    """How many different pairs were compared."""
    by_annotator: dict[str, Share]
    when_left: Share
    """What the contestant wins where it stood on the left, and on the right: about the same if the place does not matter."""
    when_right: Share
    left: Share
    """How often the left one wins, whoever it is: its interval holds 50 % unless people are biased to a side."""


def wins(pairs: Iterable[Pair], places: Sequence[Path] = ()) -> list[Wins]:
    """Count who wins, for every two contestants that were compared, in the order of their names or of ``places``.

    An asset belongs to the place that holds it; without places, to the folder that it lies in. Pairs of one place do not count.

    Raises:
        ValueError: if no two contestants were compared.
    """
    names = [os.path.abspath(place) for place in places]
    met: dict[tuple[str, str], list[tuple[Pair, bool]]] = defaultdict(list)
    for pair in pairs:
        a, b = (_contestant(side[0], names) for side in (pair.a, pair.b))
        if a is not None and b is not None and a != b:
            first, second = sorted((a, b), key=names.index if names else None)
            met[first, second].append((pair, a == first))
    if not met:
        among = f"between {' and '.join(map(str, places))}" if places else "of assets in different folders"
        raise ValueError(f"there are no comparisons {among}: name the folders that were compared, as they lie now")
    return [_wins(*two, met[two]) for two in sorted(met)]


def _contestant(asset: str, names: Sequence[str]) -> str | None:
    path = Path(os.path.abspath(asset))
    if not names:
        return str(path.parent)
    # The innermost, should one place lie in another.
    return max((name for name in names if path.is_relative_to(name)), key=len, default=None)


def _wins(contestant: str, rival: str, said: Sequence[tuple[Pair, bool]]) -> Wins:
    values = [pair.preferred if left else 1 - pair.preferred for pair, left in said]
    by: dict[str, list[float]] = defaultdict(list)
    once: dict[object, list[float]] = defaultdict(list)
    for (pair, _), value in zip(said, values, strict=True):
        by[pair.annotator].append(value)
        once[_key(pair)].append(value)
    return Wins(
        contestant=contestant,
        rival=rival,
        overall=_share(values, [math.fsum(same) / len(same) for same in once.values()]),
        pairs=len(once),
        by_annotator={name: _share(some) for name, some in sorted(by.items())},
        when_left=_share([value for (_, left), value in zip(said, values, strict=True) if left]),
        when_right=_share([value for (_, left), value in zip(said, values, strict=True) if not left]),
        left=_share([pair.preferred for pair, _ in said]),
    )


def _share(values: Sequence[float], independent: Sequence[float] | None = None) -> Share:
    independent = values if independent is None else independent
    rate = math.fsum(independent) / len(independent) if independent else math.nan
    won, tied, lost = (sum(value == what for value in values) for what in (1, 0.5, 0))
    return Share(won, tied, lost, rate, wilson(rate, len(independent)))


def report(found: Wins) -> str:
    """Say in lines of text who wins, by whom, and whether the place mattered."""
    a, b = _short(found.contestant, found.rival)
    low, high = found.overall.interval
    verdict = f"{a} is preferred" if low > 0.5 else f"{b} is preferred" if high < 0.5 else "neither is shown to be preferred"
    low, high = found.left.interval
    place = "a side is favoured" if not low <= 0.5 <= high else "no side is shown to be favoured"
    lines = [
        f"{a} against {b}: wins {found.overall}; {found.pairs} pairs",
        *(f"  by {name or 'nobody named'}: {share}" for name, share in found.by_annotator.items()),
        f"  where {a} stood left: {found.when_left}",
        f"  where {a} stood right: {found.when_right}",
        f"  the left one, whoever it was: {found.left} ({place})",
        f"{verdict} (95 % intervals by Wilson's score; a tie is half a win; each pair counts once)",
    ]
    return "\n".join(lines)


def _short(one: str, other: str) -> tuple[str, str]:
    """Two paths without what they share at their start."""
    shared = os.path.commonpath([one, other])
    return tuple(os.path.relpath(path, shared) if path != shared else Path(path).name for path in (one, other))  # pyright: ignore
