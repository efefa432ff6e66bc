"""What the viewer serves: runs, finished or still running, files of splats and meshes, and questions which of two is better."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import viser
from rl3d.viewer import compare, gallery, pairs, run
from rl3d.viewer.entries import entry, is_run
from rl3d.viewer.gate import Opened, open_server
from rl3d.viewer.page import Page, Thrift

from rl3d.contest import questions


def prefer(
    paths: Sequence[Path],
    file: Path,
    annotator: str = "",
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    blind: bool = False,
) -> Opened:
    """Serve questions about the assets at these paths, whose answers go to a file; returns at once.

    Raises:
        ValueError: if the paths hold no two assets for a prompt, or the file something else than choices.
    """
    put = questions(paths, annotator=annotator)
    opened = open_server(host, port, token, label="rl3d")
    pairs.add(opened.server, put, file, annotator, blind=blind, places=paths)
    return opened


def serve(paths: Sequence[Path], host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> Opened:
    """Serve the viewer of these paths; returns at once.

    Raises:
        ValueError: if a path shows nothing, or the address cannot be had.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no {path}: check the path, or make a run with `rl3d generate`")
        if path.is_file():
            entry(path)
    # Pages outlive their tabs by a moment: what they still draw goes nowhere, and need not be spoken of.
    warnings.filterwarnings("ignore", message=".*on a closed connection")
    opened = open_server(host, port, token, label="rl3d")
    opened.server.gui.main_panel.dock_right()
    pages: dict[int, Page] = {}
    thrift = Thrift()

    @opened.server.on_client_connect
    async def _(client: viser.ClientHandle) -> None:
        page = pages[client.client_id] = Page(client, thrift)
        page.live(lambda: home(page, paths))

    @opened.server.on_client_disconnect
    async def _(client: viser.ClientHandle) -> None:
        if page := pages.pop(client.client_id, None):
            page.leave()

    return opened


def home(page: Page, paths: Sequence[Path]) -> None:
    """Show what a tab shows first: the one thing that was named, several side by side, or the gallery of a folder."""

    def open_them(chosen: Sequence[Path]) -> None:
        if len(chosen) == 1:
            run.show(page, chosen[0], to_gallery)
        else:
            compare.show(page, chosen, to_gallery)

    def to_gallery() -> None:
        gallery.show(page, paths, open_them)

    if all(path.is_file() or is_run(path) for path in paths):
        open_them(paths)
    else:
        to_gallery()
