"""Curves of a run: losses, rewards and guards step by step, as its ``metrics.jsonl`` tells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import viser.uplot as uplot
from viser import GuiApi, GuiUplotHandle

from rl3d.record import numbers

COLOURS = ("#1c7ed6", "#e8590c", "#2f9e44", "#ae3ec9", "#f59f00", "#0c8599", "#c92a2a", "#5f3dc4", "#66a80f", "#862e9c")
MOST_POINTS = 1000
"""Of one curve; of longer ones every second step is drawn, every third, ..."""


class Tail:
    """Reads what is new in a file of JSON lines, while another process adds to it, or writes it anew."""

    def __init__(self, path: Path):
        self.path, self._read, self._file = path, 0, 0

    def new(self) -> tuple[list[dict[str, Any]], bool]:
        """The records added since the last time, and whether the file is another one now, so that what was read is void."""
        try:
            with open(self.path, "rb") as file:
                about = os.fstat(file.fileno())
                anew = about.st_ino != self._file or about.st_size < self._read
                if anew:
                    self._file, self._read = about.st_ino, 0
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return [], False
        self._read += len(whole) + 1 if whole else 0
        records = []
        for line in whole.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
        return records, anew


def series(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every number that the records hold, by its path: the steps at which it was told, and its values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in numbers({k: v for k, v in record.items() if k != "step"}).items():
            found.setdefault(name, []).append((record["step"], value))
    return {
        name: (np.array([s for s, _ in told], float), np.array([x for _, x in told], float)) for name, told in found.items()
    }


def charts(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Which curves share a chart: those of one unit. Guards and rewards have each their own, since their units differ."""
    shared = {"losses/": "Losses", "gradient_norms/": "Gradients on the pixels (norm)", "cosines/": "Gradients' cosines"}
    shared |= {"weights/": "Weights", "taught/": "The prior's lesson"}
    grouped: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, curve in found.items():
        first, _, rest = name.partition("/")
        if first == "guards":
            grouped.setdefault(f"Guard: {rest}", {})[rest] = curve
        elif first == "rewards" and rest.endswith("/raw"):
            grouped.setdefault(f"Reward: {rest.removesuffix('/raw')}", {})["mean"] = curve
        elif title := shared.get(f"{first}/"):
            grouped.setdefault(title, {})[rest] = curve
        elif name == "size":
            grouped.setdefault("Size of the scene", {})["size"] = curve
    order = ["Guard", "Reward", "Loss", "Gradients on", "Weights", "Size", "The prior", "Gradients'"]
    return dict(sorted(grouped.items(), key=lambda item: next(i for i, word in enumerate(order) if item[0].startswith(word))))


def aligned(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """The steps of all curves of a chart, and each curve at those, not a number where it was not told."""
    steps = np.unique(np.concatenate([told for told, _ in curves.values()]))
    steps = steps[:: -(-len(steps) // MOST_POINTS)]
    rows = [steps]
    for told, values in curves.values():
        row = np.full(len(steps), np.nan)
        at = np.searchsorted(told, steps)
        hit = (at < len(told)) & (told[np.minimum(at, len(told) - 1)] == steps)
        row[hit] = values[at[hit]]
        rows.append(row)
    return tuple(rows)


class Curves:
    """Charts in the present container, which grow with the run."""

    def __init__(self, gui: GuiApi):
        self._gui = gui
        self._folder = gui.add_folder(None)
        self._empty = gui.add_markdown("No step has been recorded yet.")
        self._charts: dict[str, tuple[tuple[str, ...], GuiUplotHandle]] = {}

    def draw(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Draw what these records tell; charts that are there already only get new data."""
        grouped = charts(series(records))
        self._empty.visible = not grouped
        for title, curves in grouped.items():
            names, data = tuple(curves), aligned(curves)
            old = self._charts.get(title)
            if old is not None and old[0] == names:
                old[1].data = data
                continue
            if old is not None:
                old[1].remove()
            with self._folder:
                self._charts[title] = names, _chart(self._gui, title, names, data)


def _chart(gui: GuiApi, title: str, names: Sequence[str], data: tuple[np.ndarray, ...]) -> GuiUplotHandle:
    lone = len(names) == 1
    told = np.concatenate([row[np.isfinite(row)] for row in data[1:]])
    log = title == "Losses" and len(told) > 0 and told.min() > 0
    lines = [uplot.Series(label="step")]
    lines += [
        uplot.Series(label=name, stroke=COLOURS[i % len(COLOURS)], width=2, spanGaps=True, points={"show": False})
        for i, name in enumerate(names)
    ]
    return gui.add_uplot(
        data,
        tuple(lines),
        title=f"{title} (log)" if log else title,
        scales={"x": uplot.Scale(time=False), "y": uplot.Scale(distr=3) if log else uplot.Scale()},
        legend=uplot.Legend(show=not lone),
        height=120 if lone else 190,
        axes=(uplot.Axis(ticks={"show": False}), uplot.Axis(size=58, ticks={"show": False}, grid={"show": not log})),
        padding=(4, 18, 0, 0),
    )
