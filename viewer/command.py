"""The command ``rl3d view``. A mistake is said at once: what takes seconds to import is imported when all is well."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg


@dataclass(frozen=True)
class View:
    """Look at runs in the browser, finished or still running, and at files of splats and meshes."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="[DIR|FILE ...]")] = (Path("runs"),)
    """Runs, folders of runs, and .ply, .splat, .spz, .glb, .gltf or .obj files: one is opened, several stand side by side, of
    a folder there is a gallery."""
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


VISER = (1, 1)
"""The oldest release that this viewer works with. Not a bound of the package: nerfstudio has an older one beside rl3d."""


def check_viser(found: str) -> None:
    """Refuse a release of viser that is too old (``ValueError``)."""
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < VISER:
        least = ".".join(map(str, VISER))
        raise ValueError(
            f"the viewer needs viser {least} or later, and {found} is installed: pip install 'viser>={least}', or, "
            "where nerfstudio needs the old one, view from another environment"
        )


def main(words: list[str]) -> None:
    """Open the viewer and serve it until Ctrl-C."""
    asked = tyro.cli(View, args=words, prog="rl3d view")
    for path in asked.paths:
        if not path.exists():
            raise ValueError(f"there is no {path}: check the path, or make a run with `rl3d generate`")
    check_viser(version("viser"))
    from rl3d.viewer import app

    where = asked.host, asked.port, asked.token
    if asked.prefer is None:
        opened = app.serve(asked.paths, *where)
    else:
        opened = app.prefer(asked.paths, asked.prefer, asked.annotator, *where, blind=asked.blind)
    print(f"rl3d view: {opened.url}   (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        opened.server.stop()
