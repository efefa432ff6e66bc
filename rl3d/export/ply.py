"""Gaussian splats as PLY files, in the layout of Kerbl et al. 2023 that every splat viewer reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rl3d.files import write_whole
from rl3d.types import Splats


def _names(rest: int) -> list[str]:
    """Property names, in the order of the file."""
    f_rest = [f"f_rest_{i}" for i in range(rest)]
    scale, rot = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *f_rest, "opacity", *scale, *rot]


def ply_bytes(splats: Splats) -> bytes:
    """Splats as a binary little-endian PLY: logits of opacity, logarithms of scale, quaternions wxyz, all float32.

    Higher harmonics are stored channel by channel (all of red's, then green's, then blue's), as the original does.
    """
    s = {name: x.detach().cpu().float().numpy() for name, x in splats.tensors().items()}
    n = len(splats)
    rest = s["sh"][:, 1:].transpose(0, 2, 1).reshape(n, 3 * (s["sh"].shape[1] - 1))
    quats = s["quats"] / np.linalg.norm(s["quats"], axis=1, keepdims=True).clip(1e-12)
    columns = [s["means"], np.zeros((n, 3)), s["sh"][:, 0], rest, s["opacity_logits"][:, None], s["log_scales"], quats]
    table = np.concatenate(columns, axis=1).astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _names(rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


def write_ply(path: Path, splats: Splats) -> None:
    """Write a splat PLY, whole or not at all."""
    write_whole(path, ply_bytes(splats))


def read_ply(path: Path) -> Splats:
    """Read a splat PLY: any order of float properties, 0 to 3 degrees of harmonics; others are ignored.

    Raises:
        ValueError: if it is no binary little-endian PLY of Gaussians, or is cut short.
    """
    data = Path(path).read_bytes()
    head, found, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    if not found or not lines or lines[0] != "ply" or "format binary_little_endian 1.0" not in lines:
        raise ValueError(
            f"{path} is not a binary little-endian PLY file: export splats from where it was made as a standard 3DGS PLY"
        )
    elements = [line.split() for line in lines if line.startswith("element ")]
    properties = [line.split() for line in lines if line.startswith("property ")]
    if len(elements) != 1 or elements[0][1] != "vertex" or any(p[1] not in ("float", "float32") for p in properties):
        raise ValueError(f"{path} is not a splat PLY: it must have one element 'vertex' with float properties only")
    count, names = int(elements[0][2]), [p[-1] for p in properties]
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = set(_names(rest)) - set(names) - {"nx", "ny", "nz"}
    if missing or rest not in (0, 9, 24, 45):
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has {rest} f_rest properties, not 0, 9, 24 or 45"
        raise ValueError(f"{path} is not a splat PLY: it {what}")
    if count < 0 or len(body) != 4 * count * len(names):
        raise ValueError(
            f"{path} is cut short or padded: {count} Gaussians need {4 * count * len(names)} bytes, got {len(body)}"
        )
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    column = {name: table[:, i] for i, name in enumerate(names)}

    def take(*wanted: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([column[name] for name in wanted], 1).copy())

    dc = take("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    higher = torch.zeros(count, 0, 3)
    if rest:
        higher = take(*(f"f_rest_{i}" for i in range(rest))).reshape(count, 3, rest // 3).mT
    return Splats(
        means=take("x", "y", "z"),
        log_scales=take("scale_0", "scale_1", "scale_2"),
        quats=take("rot_0", "rot_1", "rot_2", "rot_3"),
        opacity_logits=take("opacity")[:, 0],
        sh=torch.cat([dc, higher], 1).contiguous(),
    )
