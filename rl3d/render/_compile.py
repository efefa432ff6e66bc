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
FAST = {**STRICT, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}
"""Sums may be reordered (when compiled, not when run); NaN and infinity keep their meaning."""
PARALLEL = {**STRICT, "parallel": True}
F = np.float32


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
def wide(typingctx):
    """Let the loops of the calling function use the widest vectors that there are.

    LLVM prefers 256 bits on processors with AVX-512, which is right where such instructions are rare; the blending loops
    consist of them.
    """

    def codegen(context, builder, signature, arguments):
        # llvmlite checks the names of attributes that it knows, and passes others on if asked as a plain set.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
@no_type_check
def bits(typingctx, x):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
@no_type_check
def from_bits(typingctx, i):
    """The float32 with the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


ROUND = F(1.5 * 2**23)
"""Added to a small float32, it leaves the nearest integer in the low bits of the mantissa."""


@njit(**STRICT)
@no_type_check
def exp2(x):
    """2**x for float32 x in about [-126, 0], within 2e-7 relative."""
    x = x if x > F(-100) else F(-100)
    shifted = x + ROUND
    f = x - (shifted - ROUND)
    p = F(1.3333558e-3)
    p = p * f + F(9.6181291e-3)
    p = p * f + F(5.5504109e-2)
    p = p * f + F(2.4022651e-1)
    p = p * f + F(6.9314718e-1)
    p = p * f + F(1.0)
    return from_bits(types.int32(bits(p) + types.int32(bits(shifted) << types.int32(23))))
