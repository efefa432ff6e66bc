"""``rl3d view``: a program in the browser that shows runs, finished or still running, and files of splats and meshes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import viser
from rl3d.viewer import compare, gallery, run
from rl3d.viewer.entries import entry, is_run
from rl3d.viewer.gate import Opened, open_server
from rl3d.viewer.page import Page, Thrift
from tyro.conf import Positional, arg

from rl3d.contest import questions


@dataclass(frozen=True)
class View:
    """Look at runs in the browser, finished or still running, and at files of splats and meshes."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="[DIR|FILE ...]")] = ()
    """Runs, folders of runs, and .ply, .splat, .spz, .glb, .gltf or .obj files: one is opened, several stand side by side, of
    a folder there is a gallery. Default: runs/"""
    prefer: Path | None = None
    """Ask which of two assets for a prompt is better; answers go to this .jsonl file, which `rl3d reward train` reads."""
    blind: bool = False
    """While asking, hide where the two come from; in the end say which folder wins, and how surely."""
    annotator: str = ""
    """Who answers."""
    host: str = "127.0.0.1"
    """The address to listen on; only this machine can reach the usual one."""
    port: int = 8080
    """The first free one from here on is taken; 0 takes any."""
    token: str | None = None
    """What visitors must know; a random one is made where other machines can reach the address."""


def main(words: list[str]) -> None:
    """Open the viewer and serve it until Ctrl-C."""
    asked = tyro.cli(View, args=words, prog="rl3d view")
    paths = asked.paths or (Path("runs"),)
    opened = serve(paths, asked.host, asked.port, asked.token) if asked.prefer is None else prefer(paths, asked)
    print(f"rl3d view: {opened.url}   (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        opened.server.stop()


def prefer(paths: Sequence[Path], asked: View) -> Opened:
    """Serve questions about the assets at these paths; returns at once."""
    from rl3d.viewer import pairs

    assert asked.prefer is not None
    put = questions(paths, annotator=asked.annotator)
    opened = open_server(asked.host, asked.port, asked.token, label="rl3d")
    pairs.add(opened.server, put, asked.prefer, asked.annotator, blind=asked.blind, places=paths)
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
