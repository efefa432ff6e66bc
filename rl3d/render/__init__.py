"""Rasterizers, one call for each kind of scene; and gsplat's names, which are loaded when they are first asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rl3d.render.gsplat_compat import rasterization as rasterization
    from rl3d.render.strategy import DefaultStrategy as DefaultStrategy
    from rl3d.render.strategy import MCMCStrategy as MCMCStrategy

_HOMES = {
    "rasterization": "rl3d.render.gsplat_compat",
    "DefaultStrategy": "rl3d.render.strategy",
    "MCMCStrategy": "rl3d.render.strategy",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
