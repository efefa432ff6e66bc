"""Side by side: several runs or files, all seen by the client's one camera, and a table of their scores."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import viser
from PIL import Image, ImageDraw, ImageFont
from rl3d.viewer.cameras import Framing
from rl3d.viewer.entries import Entry, entry
from rl3d.viewer.page import Page
from rl3d.viewer.run import newest
from rl3d.viewer.stage import BACKGROUNDS
from rl3d.viewer.stream import Stream
from rl3d.viewer.subjects import Subject

from rl3d.export.pictures import to_uint8

MOST = 9
"""Things side by side."""


def show(page: Page, paths: Sequence[Path], back: Callable[[], None]) -> None:
    """Show these side by side. Each is rendered on the server as the client's camera sees it, so that all turn together."""
    page.clear()
    gui = page.gui
    gui.add_button("Back to the gallery", icon=viser.Icon.ARROW_LEFT).on_click(page.on_each(back))
    if len(paths) > MOST:
        page.say(f"The first {MOST} of {len(paths)}", "More would be too small to compare.")
    entries = [entry(path) for path in paths[:MOST]]
    subjects: list[tuple[Subject | None, str]] = [_subject(one) for one in entries]
    background = gui.add_dropdown("Background", list(BACKGROUNDS), initial_value="white")
    home = gui.add_button("Reset the camera", icon=viser.Icon.HOME)
    gui.add_markdown("Drag on the pictures: one camera turns all.")

    panel = gui.add_panel()
    panel.dock_left()
    panel.set_width(min(200 + 70 * len(entries), 560))
    with panel.add_tab("Scores", viser.Icon.TABLE):
        table = gui.add_html(table_of(entries))

    def paint(width: int, height: int) -> np.ndarray:
        level = BACKGROUNDS[background.value]
        columns, rows = layout(len(entries), width / height)
        tile = width // columns, height // rows
        picture = np.full((height, width, 3), level, np.uint8)
        for i, (subject, _) in enumerate(subjects):
            top, left = i // columns * tile[1], i % columns * tile[0]
            if subject is not None:
                seen = to_uint8(subject.look(page.camera(*tile)), level / 255)[0, 0]
                picture[top : top + tile[1], left : left + tile[0]] = seen
        return _labelled(
            picture,
            [_label(i, one, note) for i, (one, (_, note)) in enumerate(zip(entries, subjects, strict=True))],
            columns,
            tile,
        )

    def share(aspect: float) -> float:
        columns, rows = layout(len(entries), aspect)
        return aspect * rows / columns

    def follow() -> None:
        for i, path in enumerate(paths[:MOST]):
            now = entry(path) if path.exists() else entries[i]
            if now != entries[i] or now.state == "running":
                entries[i], subjects[i] = now, _subject(now)
                table.content = table_of(entries)
                stream.changed()

    background.on_update(page.on(lambda: stream.changed()))
    framing = Framing(lambda: page.client.camera, share)
    home.on_click(page.on_each(framing.place))
    framing.place()
    stream = Stream(page, paint, thrifty=any(one.state == "running" for one in entries))
    page.every(2.0, follow)
    page.every(0.5, framing.keep, thrifty=False)


def _subject(one: Entry) -> tuple[Subject | None, str]:
    """What stands in an entry's place, and what is to say of it."""
    try:
        found = newest(one)
    except (ValueError, OSError) as error:
        return None, str(error)
    return found, "" if found is not None else one.note or "nothing to see yet"


def layout(count: int, aspect: float) -> tuple[int, int]:
    """Columns and rows that make square-like tiles largest on a canvas of this width over height."""
    side = {columns: min(aspect / columns, 1 / math.ceil(count / columns)) for columns in range(1, count + 1)}
    columns = max(side, key=lambda c: (side[c], -c))
    return columns, math.ceil(count / columns)


def _label(i: int, one: Entry, note: str) -> str:
    made = f"{one.recipe}, seed {one.seed}" if one.recipe else one.path.parent.name
    return f"{i + 1}  {one.title}\n{note or made}"


def _labelled(picture: np.ndarray, labels: Sequence[str], columns: int, tile: tuple[int, int]) -> np.ndarray:
    """Write each tile's label at its top, and draw lines between tiles."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    dark = picture[0, 0].mean() < 128
    size = max(11, round(tile[1] / 32))
    font = ImageFont.load_default(size)
    for i, label in enumerate(labels):
        left, top = i % columns * tile[0], i // columns * tile[1]
        draw.rectangle((left, top, left + tile[0] - 1, top + tile[1] - 1), outline=(150, 150, 150))
        fitting = "\n".join(_cut(line, font, tile[0] - 2 * size) for line in label.split("\n"))
        draw.text((left + size, top + size * 0.7), fitting, fill=(240, 240, 240) if dark else (40, 40, 40), font=font)
    return np.asarray(image)


def _cut(line: str, font, width: int) -> str:
    while len(line) > 4 and font.getlength(line) > width:
        line = line.removesuffix("…")[:-1] + "…"
    return line


def table_of(entries: Sequence[Entry]) -> str:
    """Scores of all, a column each, the best of each row in bold; below, how they were made."""
    heads = "".join(f'<th title="{html.escape(one.title)}">{i + 1}</th>' for i, one in enumerate(entries))
    names = list(dict.fromkeys(name for one in entries for name in one.scores))
    rows = [_row(name, [one.scores.get(name) for one in entries]) for name in names]
    for what in ("state", "recipe", "seed"):
        said = [str(getattr(one, what)) if one.recipe or what == "state" else "-" for one in entries]
        rows.append(f"<tr><td>{what}</td>{''.join(f'<td>{html.escape(x)}</td>' for x in said)}</tr>")
    list_of = "".join(f"<li>{html.escape(one.title)}<br><small>{html.escape(str(one.path))}</small></li>" for one in entries)
    return f"""<style>.rl3d-table{{padding:6px 12px;font-size:13px;overflow-x:auto}}
.rl3d-table table{{border-spacing:0;width:100%}}
.rl3d-table td,.rl3d-table th{{padding:3px 6px;border-bottom:1px solid #e9ecef;text-align:right}}
.rl3d-table td:first-child{{text-align:left;color:#495057}} .rl3d-table li{{margin:4px 0;overflow-wrap:anywhere}}
.rl3d-table small{{color:#868e96}}</style><div class="rl3d-table"><table><tr><th></th>{heads}</tr>{"".join(rows)}</table>
<p>Bold is the greatest of a row: for rewards that is the best.</p><ol>{list_of}</ol></div>"""


def _row(name: str, values: Sequence[float | None]) -> str:
    known = [x for x in values if x is not None]
    best = max(known) if len(known) > 1 else None
    cells = (f"<td>{'-' if x is None else f'<b>{x:.4g}</b>' if x == best else f'{x:.4g}'}</td>" for x in values)
    return f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>"
