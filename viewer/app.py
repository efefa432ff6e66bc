"""``rl3d view``: a program in the browser that shows runs, finished or still running, and files of splats and meshes."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import viser
from rl3d.viewer import compare, gallery, run
from rl3d.viewer.entries import entry, is_run
from rl3d.viewer.page import Page, Thrift
from tyro.conf import Positional, arg


@dataclass(frozen=True)
class View:
    """Look at runs in the browser, finished or still running, and at files of splats and meshes."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="[DIR|FILE ...]")] = ()
    """Runs, folders of runs, and .ply, .splat, .spz, .glb, .gltf or .obj files. Default: runs/"""
    host: str = "127.0.0.1"
    """The address to listen on; only this machine can reach the usual one."""
    port: int = 8080
    """The first free one from here on is taken; 0 takes any."""


def main(words: list[str]) -> None:
    """Open the viewer and serve it until Ctrl-C."""
    asked = tyro.cli(View, args=words, prog="rl3d view")
    serve(asked.paths or (Path("runs"),), asked.host, asked.port)
    while True:
        time.sleep(3600)


def serve(paths: tuple[Path, ...], host: str = "127.0.0.1", port: int = 0) -> viser.ViserServer:
    """Serve the viewer of these paths; returns at once.

    Raises:
        ValueError: if a path shows nothing.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no {path}: check the path, or make a run with `rl3d generate`")
        if path.is_file() or is_run(path):
            entry(path)
    # Pages outlive their tabs by a moment: what they still draw goes nowhere, and need not be spoken of.
    warnings.filterwarnings("ignore", message=".*on a closed connection")
    server = viser.ViserServer(host=host, port=port, verbose=False)
    server.gui.set_panel_label("rl3d")
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    server.gui.main_panel.dock_right()
    pages: dict[int, Page] = {}
    thrift = Thrift()

    @server.on_client_connect
    def _(client: viser.ClientHandle) -> None:
        page = pages[client.client_id] = Page(client, thrift)
        page.live(lambda: home(page, paths))

    @server.on_client_disconnect
    def _(client: viser.ClientHandle) -> None:
        if page := pages.pop(client.client_id, None):
            page.leave()

    return server


def home(page: Page, paths: tuple[Path, ...]) -> None:
    """What a tab shows first: the one thing that was named, several side by side, or the gallery of a folder."""

    def open_them(chosen: list[Path]) -> None:
        if len(chosen) == 1:
            run.show(page, chosen[0], to_gallery)
        else:
            compare.show(page, chosen, to_gallery)

    def to_gallery() -> None:
        gallery.show(page, paths, open_them)

    if all(path.is_file() or is_run(path) for path in paths):
        open_them(list(paths))
    else:
        to_gallery()
