"""The page of one run or file: it stands on the stage; beside it are its steps, its curves, and why it became what it is."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import viser
from rl3d.viewer.curves import Curves, Tail
from rl3d.viewer.entries import Entry, entry
from rl3d.viewer.gallery import COLOURS
from rl3d.viewer.live import Controls
from rl3d.viewer.page import Page
from rl3d.viewer.stage import Stage
from rl3d.viewer.subjects import Subject, mesh_of, of_entry, of_splats
from rl3d.viewer.why import Why

from rl3d.explanation import why_path
from rl3d.representations.gaussians import GaussianSplats
from rl3d.representations.mesh import TexturedMesh
from rl3d.run import Run
from rl3d.snapshot import read_snapshot, saved_steps, scene_path

PANEL = 430
"""Pixels of the panel at the left."""


def show(page: Page, path: Path, back: Callable[[], None]) -> None:
    """Show a run or a file, and follow it while it is at work; ``back`` leads to where it was chosen.

    Raises:
        ValueError: if there is nothing at this path.
    """
    first = entry(path)
    page.clear()
    gui = page.gui
    gui.add_button("Back to the gallery", icon=viser.Icon.ARROW_LEFT).on_click(page.on_each(back))
    about = gui.add_html(head_of(first))
    if first.state in ("file", "damaged"):
        stage = Stage(page)
        _put_newest(page, stage, first)
        about.content = head_of(first, stage.subject.about if stage.subject else "")
        return
    RunPage(page, first, about)


class RunPage:
    """What the page of a run shows, and follows."""

    def __init__(self, page: Page, first: Entry, about: viser.GuiHtmlHandle):
        self.page, self.run, self.entry, self.about = page, Run(first.path), first, about
        self.tail, self.records = Tail(first.path / "metrics.jsonl"), []
        self.shown: tuple[str, int] | None = None
        """Which file stands on the stage, and when it was written."""
        self.state = ""
        gui = page.gui
        self.progress = gui.add_progress_bar(0.0)
        self.losses = gui.add_html("")
        self.controls = Controls(page, self.run)
        self.steps = gui.add_slider(
            "Step", 0, 1, 1, 1, visible=False, hint="The scene after saved steps; the last is the newest."
        )
        self.steps.on_update(page.on(self._draw_scene))
        self.stage = Stage(page, live=first.state == "running")
        panel = gui.add_panel()
        panel.dock_left()
        panel.set_width(PANEL)
        with panel.add_tab("Curves", viser.Icon.CHART_LINE):
            self.curves = Curves(gui)
        with panel.add_tab("Why", viser.Icon.QUESTION_MARK):
            self.why = Why(page)
        self.follow()
        page.every(1.0, self.follow)

    def follow(self) -> None:
        """Show what is new in the folder."""
        if not self.run.folder.is_dir():
            self.state = "deleted"
            self.about.content = head_of(self.entry, "its folder was deleted: this is what was seen last", "gone")
            return
        self.entry = entry(self.run.folder)
        busy = self.entry.state == "running"
        asked = self.controls.follow(busy)
        self._read_records(busy)
        self._draw_steps(busy)
        self._draw_scene()
        state = "paused" if asked == "paused" else self.entry.state
        nothing = "nothing to see yet: its first scene is being made" if busy else "it made nothing that can be seen"
        what = self.stage.subject.about if self.stage.subject else nothing
        note = self.entry.note or (asked if asked != "paused" else "")
        self.about.content = head_of(self.entry, f"{what}. {note}" if note else what, state)

    def _read_records(self, busy: bool) -> None:
        new, anew = self.tail.new()
        if not new and not anew:
            return
        self.records = new if anew else self.records + new
        self.curves.draw(self.records)
        if self.records:
            last, total = self.records[-1], _steps_of(self.run.folder)
            self.progress.value = min(100.0, 100.0 * last["step"] / max(total, last["step"], 1))
            self.losses.content = losses_of(last, total)
        self.progress.animated = busy

    def _draw_steps(self, busy: bool) -> None:
        """Bring the slider up to date. Whoever looks at the newest step goes on to look at the newest."""
        saved = saved_steps(self.run)
        newest = self.records[-1]["step"] if busy and self.records else saved[-1] if saved else 0
        if not saved or newest <= saved[0]:
            return
        follows = not self.steps.visible or self.steps.value >= self.steps.max
        if not self.steps.visible or self.steps.max != newest:
            self.steps.min, self.steps.max = saved[0], newest
            self.steps.visible = True
            if follows:
                self.steps.value = newest

    def _draw_scene(self) -> None:
        """Put on the stage what the slider points at: a saved step, the present of a run at work, or what it made."""
        saved, at = saved_steps(self.run), None
        if self.steps.visible and self.steps.value < self.steps.max and saved:
            at = min(saved, key=lambda step: abs(step - self.steps.value))
        busy = self.entry.state == "running"
        self.why.read(why_path(self.run, at if at is not None else None if busy else saved[-1] if saved else None))
        if at is None and (self.entry.state == "done" or not (busy or saved)):
            if self.shown != (shown := ("whole", 0)):
                self.shown = shown
                _put_newest(self.page, self.stage, self.entry)
            return
        path = scene_path(self.run, at)
        if at is None and not path.is_file():
            if not saved:
                return
            path = scene_path(self.run, saved[-1])
        shown = str(path), path.stat().st_mtime_ns
        if shown != self.shown:
            self.shown = shown
            self.stage.put(_snapshot(*shown))


@lru_cache(maxsize=8)
def _snapshot(path: str, written_ns: int) -> Subject:
    """The scene of a step; Gaussians are drawn by the browser, fields here."""
    snapshot = read_snapshot(Path(path))
    if isinstance(snapshot.scene, GaussianSplats):
        return of_splats(snapshot.splats(), snapshot.look)
    if isinstance(snapshot.scene, TexturedMesh):
        return Subject(snapshot.look, None, mesh_of(snapshot.scene.to_trimesh()), f"{len(snapshot.scene):,} triangles")
    return Subject(snapshot.look, None, None, f"a radiance field, {len(snapshot.scene):,} cells, rendered here", streamed=True)


def newest(one: Entry) -> Subject | None:
    """The newest that there is to see of an entry; None where a run has made nothing yet.

    Raises:
        ValueError: if what there is is broken.
    """
    saved = saved_steps(Run(one.path)) if one.state != "file" else []
    paths = [scene_path(Run(one.path)), *(scene_path(Run(one.path), step) for step in saved[-1:])]
    snapshots = [_snapshot(str(path), path.stat().st_mtime_ns) for path in paths if path.is_file()]
    if one.state in ("running", "stopped") and snapshots:
        return snapshots[0]
    made = of_entry(one)
    if made is not None and snapshots and snapshots[-1].splats is None:
        # A radiance field itself, which the asset's Gaussians only resemble.
        return replace(snapshots[-1], mesh=made.mesh)
    return made


def _put_newest(page: Page, stage: Stage, one: Entry) -> None:
    """Put on the stage what there is; what is broken is said on the page."""
    try:
        subject = newest(one)
    except ValueError as error:
        page.say("It cannot be shown", str(error), color="red")
        return
    if subject is not None:
        stage.put(subject)


def head_of(one: Entry, what: str = "", state: str = "") -> str:
    """What a page says first: what was asked for, what became of it, and its scores."""
    state = state or one.state
    colour = {**COLOURS, "paused": "#f08c00", "gone": "#c92a2a"}[state]
    made = f"{one.recipe}, seed {one.seed}" if one.recipe else str(one.path.parent)
    scores = "".join(f"<tr><td>{html.escape(k)}</td><td>{v:.4g}</td></tr>" for k, v in one.scores.items())
    note = what if one.state != "damaged" else one.note
    return f"""<style>.rl3d-head{{padding:4px 12px;font-size:13px;line-height:1.4;color:#495057;overflow-wrap:anywhere}}
.rl3d-head b{{font-size:15px;color:#212529}} .rl3d-head table{{width:100%;border-spacing:0;margin-top:4px}}
.rl3d-head td{{padding:1px 0;border-top:1px solid #f1f3f5}} .rl3d-head td+td{{text-align:right;color:#212529}}
.rl3d-badge{{color:#fff;border-radius:3px;padding:1px 6px;font-size:11px}}</style>
<div class="rl3d-head"><b>{html.escape(one.title)}</b><br><span class="rl3d-badge" style="background:{colour}">{state}</span>
{html.escape(made)}<br>{html.escape(note)}<table>{scores}</table></div>"""


def losses_of(record: Mapping[str, Any], total: int) -> str:
    """The last step's losses, with their weights."""
    weights = record.get("weights", {})
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{loss:.4g} &times; {weights[name]:.3g}</td></tr>"
        if name in weights
        else f"<tr><td>{html.escape(name)}</td><td>{loss:.4g}</td></tr>"
        for name, loss in record.get("losses", {}).items()
    )
    pace = f"step {record['step']} of {total or '?'}, {record.get('seconds', 0):.0f} s"
    skipped = " — left out, since something was not finite" if record.get("skipped") else ""
    return f'<div class="rl3d-head">{pace}{skipped}<table>{rows}</table></div>'


@lru_cache(maxsize=64)
def _steps_of(folder: Path) -> int:
    """How many steps a run's recipe has; 0 where it does not say."""
    import json

    try:
        return int(json.loads((folder / "recipe.json").read_text())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
