"""What splat files share: arrays, values that are not finite, and how small formats store opacities and rotations."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy.special import expit, logit

from rl3d.types import Splats

LIMIT = 20.0
"""Stands for infinity in logits of opacity, and for zero in logarithms of scale (2e-9 units): what infinities become."""


def arrays(splats: Splats) -> dict[str, Float[ndarray, "..."]]:
    """The fields as float32 arrays by name; quaternions of unit length, the identity where they are zero."""
    fields = {name: x.detach().cpu().float().numpy() for name, x in splats.tensors().items()}
    quats = fields["quats"].astype(np.float64)
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    fields["quats"] = np.where(length > 0, quats / np.where(length > 0, length, 1), [1, 0, 0, 0]).astype(np.float32)
    return fields


def from_arrays(means, log_scales, quats, opacity_logits, sh) -> Splats:
    """Splats of arrays of any numeric type."""
    with np.errstate(over="ignore"):
        fields = [np.ascontiguousarray(x, np.float32) for x in (means, log_scales, quats, opacity_logits, sh)]
    return Splats(*(torch.from_numpy(x if x.flags.writeable else x.copy()) for x in fields))


def finite(splats: Splats) -> Splats:
    """Mend infinities that mean something, and drop Gaussians that hold others, or NaN, with a warning that counts them.

    Infinite logits are opacities of 0 or 1 and a scale's logarithm of minus infinity is flat: both become :data:`LIMIT`. A
    quaternion of zeros becomes the identity. All other values stay as they are, to the bit.

    Raises:
        ValueError: if no Gaussian is left of some; the message lacks the file's name.
    """
    nan = float("nan")
    splats = replace(
        splats,
        opacity_logits=splats.opacity_logits.nan_to_num(nan, LIMIT, -LIMIT),
        log_scales=splats.log_scales.nan_to_num(nan, float("inf"), -LIMIT),
        quats=torch.where((splats.quats == 0).all(1, keepdim=True), splats.quats.new_tensor([1.0, 0, 0, 0]), splats.quats),
    )
    fine = torch.stack([x.flatten(1).isfinite().all(1) if x.ndim > 1 else x.isfinite() for x in splats.tensors().values()])
    keep = fine.all(0)
    lost = int((~keep).sum())
    if lost and not keep.any():
        raise ValueError(f"holds NaN or infinite values in each of its {lost} Gaussians: nothing is left to show")
    if lost:
        warnings.warn(f"dropped {lost} of {len(splats)} Gaussians, which hold NaN or infinite values", stacklevel=2)
        splats = splats[keep]
    return splats


def byte(x: Float[ndarray, "*n"]) -> UInt8[ndarray, "*n"]:
    """The nearest of 0 to 255."""
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


def opacity_bytes(logits: Float[ndarray, "n"]) -> UInt8[ndarray, "n"]:
    """Opacities in steps of 1/255."""
    return byte(255 * expit(logits))


def opacity_logits(opacities: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Logits of opacities, which are cut to within 1e-6 of 0 and 1; NaN stays."""
    return logit(np.clip(opacities.astype(np.float64), 1e-6, 1 - 1e-6))


def smallest_three(quats: Float[ndarray, "n 4"]) -> tuple[Int[ndarray, "n"], Float[ndarray, "n 3"]]:
    """The place of each unit quaternion's largest component, and the others in order, signed so that the largest is positive.

    None of these exceeds the square root of 1/2.
    """
    largest = np.abs(quats).argmax(1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1, 1)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, sign * np.take_along_axis(quats, others, 1)


def from_smallest_three(largest: Int[ndarray, "n"], three: Float[ndarray, "n 3"]) -> Float[ndarray, "n 4"]:
    """Unit quaternions from what :func:`smallest_three` makes of them."""
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    quats = np.empty((len(three), 4))
    np.put_along_axis(quats, others, three, 1)
    rest = np.sqrt(np.clip(1 - np.square(three).sum(1, keepdims=True), 0, None))
    np.put_along_axis(quats, largest[:, None], rest, 1)
    return quats
