"""How the CPU rasterizer's loops are compiled: options, where the code is cached, and what numba's own language lacks."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import event
from numba.extending import intrinsic

log = logging.getLogger("rl3d.render")

STRICT = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
INLINE = {**STRICT, "forceinline": True}
MERGED = {**STRICT, "inline": "always"}
PARALLEL = {**STRICT, "parallel": True}
F = np.float32
NO, YES = (False,), (False, True)
"""Truths that are known when a loop is compiled, by the length of a tuple (see :func:`sure`): each case has code of its own."""


def keep_cache() -> None:
    """See to it that compiled code can be cached on disk.

    numba keeps it in ``NUMBA_CACHE_DIR``, beside the package, or in the user's cache folder, whichever it may write first, and
    refuses to decorate where none can be written. There, the system's temporary folder holds it, in a place that only this
    user can write: a cache is code.
    """
    try:
        njit(cache=True)(_nothing)
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"rl3d-numba-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
        folder.mkdir(mode=0o700, exist_ok=True)
        own = folder.lstat()
        if hasattr(os, "getuid") and (own.st_uid != os.getuid() or not stat.S_ISDIR(own.st_mode) or own.st_mode & 0o022):
            folder = Path(tempfile.mkdtemp(prefix="rl3d-numba-"))
        numba.config.CACHE_DIR = str(folder)  # pyright: ignore[reportAttributeAccessIssue]


def _nothing():
    pass


keep_cache()


@njit(**STRICT)
@no_type_check
def sure(flag):
    """Whether it is ``YES``; the compiler drops what cannot be."""
    return len(flag) > 1


class _Announce(event.Listener):
    """Say once that code is being compiled; code from the cache on disk passes in silence."""

    def __init__(self):
        self.said = False

    def on_start(self, event):
        if not self.said:
            log.warning("compiling the CPU rasterizer (once; it is cached on disk) ...")
        self.said = True

    def on_end(self, event):
        pass


_announce = _Announce()


def announced() -> AbstractContextManager:
    """Say so, once in a process, if something is compiled within."""
    return event.install_listener("numba:compile", _announce)


@intrinsic
@no_type_check
def bits(typingctx, x):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))
