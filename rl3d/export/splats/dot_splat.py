"""Gaussian splats as ``.splat``, the format of antimatter15's viewer: 32 bytes for each, and nothing else.

A row is the place and the scale as three float32 each, red, green, blue and opacity as bytes, and the quaternion wxyz as bytes
of ``128 + 128 q``. There is no header, so nothing tells such a file but its name and a size that divides by 32.
"""

from __future__ import annotations

import numpy as np

from rl3d.export.splats.arrays import arrays, byte, from_arrays, opacity_bytes, opacity_logits
from rl3d.math import SH_C0
from rl3d.types import Splats

ROW = np.dtype([("place", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def dot_splat_bytes(splats: Splats) -> bytes:
    """Splats as ``.splat``, in another order: the largest and most opaque first, so that a viewer that is loading shows them.

    What is lost: higher harmonics; colours are rounded to 1/255 and cut to [0, 1], opacities to 1/255, quaternions to 1/128.
    """
    s = arrays(splats)
    rows = np.empty(len(splats), ROW)
    rows["place"], rows["scale"] = s["means"], np.exp(s["log_scales"])
    rows["rgba"][:, :3] = byte(255 * (0.5 + SH_C0 * s["sh"][:, 0]))
    rows["rgba"][:, 3] = opacity_bytes(s["opacity_logits"])
    rows["quat"] = byte(128 + 128 * s["quats"])
    size = s["log_scales"].astype(np.float64).sum(1)
    shows = size - np.logaddexp(0, -s["opacity_logits"].astype(np.float64))
    return rows[(-shows).argsort(kind="stable")].tobytes()


def splats_from_dot_splat(data: bytes) -> Splats:
    """Read a ``.splat`` file.

    Raises:
        ValueError: if its size does not divide by 32; the message lacks the file's name.
    """
    if len(data) % ROW.itemsize:
        raise ValueError(f"is no .splat file, or is cut short: {len(data)} bytes do not divide by {ROW.itemsize}")
    rows = np.frombuffer(data, ROW)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales = np.log(rows["scale"])
    return from_arrays(
        means=rows["place"],
        log_scales=log_scales,
        quats=rows["quat"] / 128.0 - 1,
        opacity_logits=opacity_logits(rows["rgba"][:, 3] / 255),
        sh=((rows["rgba"][:, None, :3] / 255 - 0.5) / SH_C0),
    )
