"""How the CPU rasterizer's loops are compiled: options, where the code is cached, and what numba's own language lacks."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba import types
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


def _nothing():
    pass


@functools.cache
def cache_folder() -> Path:
    """Where compiled code is cached on disk: in numba's folder, but for each state of these files one of its own.

    numba looks whether the file of a function has changed, and not those of the functions that it calls: after an update it
    would go on with their old code.

    numba's folder is ``NUMBA_CACHE_DIR``, one beside the package, or one in the user's cache, whichever it may write first,
    and it refuses to decorate where it may write none. There, the system's temporary folder holds it, in a place that only
    this user can write: a cache is code.
    """
    try:
        place = str(numba.njit(cache=True)(_nothing).stats.cache_path)
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"rl3d-numba-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
        folder.mkdir(mode=0o700, exist_ok=True)
        own = folder.lstat()
        if hasattr(os, "getuid") and (own.st_uid != os.getuid() or not stat.S_ISDIR(own.st_mode) or own.st_mode & 0o022):
            folder = Path(tempfile.mkdtemp(prefix="rl3d-numba-"))
        numba.config.CACHE_DIR = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
        place = str(folder)
    sources = sorted(Path(__file__).parent.glob("_*.py"))
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    folder = Path(place) / f"rl3d-{digest}"
    if not folder.exists():
        for old in Path(place).glob("rl3d-*"):
            with suppress(OSError):  # somebody else's, or gone already
                if time.time() - old.stat().st_mtime > 7 * 24 * 3600:
                    shutil.rmtree(old, ignore_errors=True)
    return folder


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba's, with the cache of :func:`cache_folder`."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = str(cache_folder())
        told, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return numba.njit(**options)(function)
        finally:
            numba.config.CACHE_DIR = told  # pyright: ignore[reportAttributeAccessIssue]

    return compiled


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
