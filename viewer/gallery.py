"""The gallery: a card for each run and file, to be opened, or to be put side by side."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import viser
from PIL import Image
from rl3d.viewer.cameras import AZIMUTH_DEG, ELEVATION_DEG
from rl3d.viewer.entries import Entry, find, matching
from rl3d.viewer.page import Page

from rl3d.assets import load_asset
from rl3d.cameras import look_at_origin
from rl3d.export.pictures import to_uint8

AT_ONCE = 48
"""Cards that are shown at a time."""
THUMBNAIL = 192
"""Pixels."""
DRAWN_BYTES = 20 * 2**20
"""Files that are larger than this get no picture: loading them takes too long for a card."""
COLOURS = {"running": "#1c7ed6", "done": "#2f9e44", "stopped": "#e8590c", "damaged": "#c92a2a", "file": "#868e96"}


def show(page: Page, paths: Sequence[Path], open_them: Callable[[Sequence[Path]], None]) -> None:
    """Show what lies at these paths; ``open_them`` is called with what was chosen."""
    page.clear()
    shown: list[Entry] = []
    chosen: dict[Path, None] = {}
    offset = 0

    words = page.gui.add_text("Filter", "", hint="Words of the prompt, the folder, the recipe, or the state.")
    count = page.gui.add_markdown("")
    turn = page.gui.add_button_group("Page", ["◀", "▶"])
    compare = page.gui.add_button("Tick two or more to compare", icon=viser.Icon.COLUMNS, disabled=True)
    page.gui.add_markdown("Choose a card to open it. The box in its corner adds it to what is put side by side.")

    panel = page.gui.add_panel()
    panel.dock_left()
    panel.set_width(max(400, page.client.camera.image_width - 12))
    with panel.add_tab("Gallery", viser.Icon.LAYOUT_GRID):
        cards = page.gui.add_html("")
        # A card is the label of its button: browsers press a label's button, even one that is not displayed.
        buttons = [page.gui.add_button(f"Open {i}") for i in range(AT_ONCE)]
        ticks = [page.gui.add_button(f"Tick {i}") for i in range(AT_ONCE)]

    def draw() -> None:
        page_of = shown[offset : offset + AT_ONCE]
        named = [(b._impl.uuid, t._impl.uuid) for b, t in zip(buttons, ticks, strict=True)]
        style = _style([x for pair in named for x in pair])
        found = "".join(_card(e, *ids, e.path in chosen) for e, ids in zip(page_of, named, strict=False))
        cards.content = f'{style}<div class="rl3d-cards">{found}</div>'
        last = offset + len(page_of)
        where = f"{offset + 1} to {last} of {len(shown)}" if len(shown) > AT_ONCE else f"{len(shown)}"
        count.content = f"**{where}** to see" if shown else _nothing(paths, words.value)
        turn.visible = len(shown) > AT_ONCE
        compare.disabled = len(chosen) < 2
        compare.label = f"Compare {len(chosen)} side by side" if len(chosen) > 1 else "Tick two or more to compare"

    def refresh() -> None:
        nonlocal shown, offset
        found = matching(find(paths), words.value)
        if found != shown or not cards.content:
            shown, offset = found, min(offset, max(0, len(found) - 1) // AT_ONCE * AT_ONCE)
            draw()

    def turned() -> None:
        nonlocal offset
        to = offset + (AT_ONCE if turn.value == "▶" else -AT_ONCE)
        if 0 <= to < len(shown):
            offset = to
            draw()

    def opened(i: int) -> Callable[[], None]:
        return lambda: open_them([shown[offset + i].path]) if offset + i < len(shown) else None

    def ticked(i: int) -> Callable[[], None]:
        def tick() -> None:
            path = shown[offset + i].path
            if path in chosen:
                del chosen[path]
            else:
                chosen[path] = None
            draw()

        return tick

    words.on_update(page.on(refresh))
    turn.on_click(page.on_each(turned))
    compare.on_click(page.on_each(lambda: open_them(list(chosen))))
    for i in range(AT_ONCE):
        buttons[i].on_click(page.on_each(opened(i)))
        ticks[i].on_click(page.on_each(ticked(i)))
    refresh()
    page.every(4.0, refresh)


def _nothing(paths: Sequence[Path], words: str) -> str:
    where = ", ".join(f"`{path}`" for path in paths)
    if words.strip():
        return f"Nothing in {where} fits these words."
    return f'Nothing in {where} yet: make something with `rl3d generate "a red mug"`.'


def _style(hidden: Sequence[str]) -> str:
    """The look of cards; the buttons that they stand for are not displayed themselves."""
    gone = ",".join(f'[id="{name}"]' for name in hidden)
    return f"""<style>
{gone}{{display:none!important}}
.rl3d-cards{{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:8px;padding:4px 10px 10px}}
.rl3d-card{{position:relative;border:1px solid #dee2e6;border-radius:6px;
  overflow:hidden;background:#fff;font-size:12px;line-height:1.35}}
.rl3d-card:hover{{border-color:#1c7ed6;box-shadow:0 2px 8px #0002}}
.rl3d-card label{{cursor:pointer;display:block}}
.rl3d-card img,.rl3d-card .rl3d-none{{width:100%;aspect-ratio:1;object-fit:cover;display:block;background:#f1f3f5}}
.rl3d-card .rl3d-none{{display:flex;align-items:center;justify-content:center;color:#868e96;padding:12px;text-align:center;
  box-sizing:border-box}}
.rl3d-text{{padding:6px 8px 8px;height:84px;box-sizing:border-box;overflow:hidden}}
.rl3d-title{{font-weight:600;color:#212529;overflow:hidden;display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical}}
.rl3d-small{{color:#868e96;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}}
.rl3d-state{{position:absolute;left:8px;top:8px;color:#fff;border-radius:3px;padding:1px 6px;font-size:11px}}
.rl3d-card .rl3d-tick{{position:absolute;right:8px;top:8px;width:20px;height:20px;border-radius:4px;border:1px solid #adb5bd;
  background:#fffd;text-align:center;line-height:19px;font-weight:700;color:#1c7ed6}}
</style>"""


def _card(e: Entry, button: str, tick: str, chosen: bool) -> str:
    picture = thumbnail(e)
    seen = (
        f'<img src="{picture}" alt="">'
        if picture
        else f'<div class="rl3d-none">{html.escape(e.note or "no picture yet")}</div>'
    )
    scores = "  ".join(f"{name} {value:.3g}" for name, value in list(e.scores.items())[:2])
    below = html.escape(scores or e.note or str(e.path.parent))
    made = html.escape(f"{e.recipe}, seed {e.seed}" if e.recipe else e.path.name)
    return f"""<div class="rl3d-card" title="{html.escape(f"{e.title}  ({e.path})")}"><label for="{button}">{seen}
<span class="rl3d-state" style="background:{COLOURS[e.state]}">{e.state}</span>
<div class="rl3d-text"><div class="rl3d-title">{html.escape(e.title)}</div><div class="rl3d-small">{made}</div>
<div class="rl3d-small">{below}</div></div></label>
<label class="rl3d-tick" for="{tick}" title="put side by side">{"✓" if chosen else ""}</label></div>"""


def thumbnail(e: Entry) -> str:
    """A small picture of an entry as a data URI; empty where there is none."""
    try:
        seen = e.picture if e.state != "file" else e.path
        return _thumbnail(seen, seen.stat().st_mtime_ns) if seen else ""
    except (OSError, ValueError, MemoryError):
        return ""


@lru_cache(maxsize=1024)
def _thumbnail(path: Path, written_ns: int) -> str:
    """The picture of a file as it was at that time: a sheet's first side, or an asset as it is first seen."""
    if path.suffix == ".png":
        with Image.open(path) as sheet:
            side = sheet.height // 2
            picture = sheet.convert("RGB").crop((0, 0, side, side))
    else:
        if path.stat().st_size > DRAWN_BYTES:
            return ""
        camera = look_at_origin(torch.tensor([[AZIMUTH_DEG]]), torch.tensor([[ELEVATION_DEG]]), width=256, height=256)
        picture = Image.fromarray(to_uint8(load_asset(path).look(camera))[0, 0])
    return data_uri(np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)))


def data_uri(picture: np.ndarray, quality: int = 82) -> str:
    """8-bit pixels as an image that HTML can hold."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
