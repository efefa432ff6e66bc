"""What a prior learns from: sets of views with noise, captions and cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.priors.embedded import latents_from_pixels
from rl3d.priors.words import UNKNOWN, Tokenizer
from rl3d.toybox.dataset import ToyViews
from rl3d.train.augment import dye, unpainted


@dataclass(frozen=True)
class Batch:
    """Clean sets of views with noise, noise times and conditions."""

    clean: Float[Tensor, "b v c h w"]
    noise: Float[Tensor, "b v c h w"]
    time: Float[Tensor, "b"]
    tokens: Int[Tensor, "b t"]
    azimuth: Float[Tensor, "b v"]
    elevation: Float[Tensor, "b v"]

    def chunks(self, size: int) -> Iterator[Batch]:
        """Split into batches of at most ``size`` sets."""
        for parts in zip(*(getattr(self, name).split(size) for name in self.__dataclass_fields__), strict=True):
            yield Batch(*parts)


def draw_batch(
    data: ToyViews,
    indices: np.ndarray,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    *,
    views: int = 4,
    dropout: float = 0.0,
    dyed: float = 0.0,
    shift: float = 1.0,
    target: Literal["shaded", "albedo"] = "shaded",
) -> Batch:
    """Read some toys with ``views`` of their views each, fresh captions, noise, and noise times.

    Mostly the views are evenly spaced; a quarter of the sets takes any, so that other rigs work too. Noise times are
    sigmoid(1.2 n + 0.1) with n normal, one of each equal share of its distribution; ``shift`` multiplies their sigma / alpha.
    """
    b, rows, available = len(indices), [], data.rgba.shape[1]
    for _ in indices:
        even = rng.integers(max(1, available // views)) + np.arange(views) * max(1, available // views)
        rows.append(even if rng.random() < 0.75 else rng.permutation(available)[:views])
    pick = np.asarray(indices)[:, None], np.stack(rows)
    rgba = data.rgba[pick].astype(np.float32) / 255
    if target == "albedo":
        assert data.albedo is not None
        rgba[..., :3] = data.albedo[pick].astype(np.float32) / 255
    rgba = torch.from_numpy(rgba).movedim(-1, 2)
    new = torch.from_numpy(rng.random(b) < dyed) if dyed else torch.zeros(b, dtype=torch.bool)
    specs = [data.specs[i] for i in indices]
    specs = [unpainted(spec) if changed else spec for spec, changed in zip(specs, new.tolist(), strict=True)]
    captions = ["" if rng.random() < dropout else data.language.caption(spec, rng) for spec in specs]
    tokens = tokenizer(captions)
    if new.any():
        rgba[new] = dyed_sets(rgba[new], torch.Generator().manual_seed(int(rng.integers(2**62))))
        tokens[new] = torch.cat([torch.full((int(new.sum()), 1), UNKNOWN), tokens[new, :-1]], 1)
    quantile = torch.from_numpy((rng.permutation(b) + rng.random(b)) / b).clamp(1e-4, 1 - 1e-4).float()
    azimuth, elevation = (
        torch.from_numpy(np.radians(x[pick].astype(np.float32))) for x in (data.azimuth_deg, data.elevation_deg)
    )
    time = torch.sigmoid(1.2 * torch.special.ndtri(quantile) + 0.1)
    if shift != 1:
        time = 2 / torch.pi * torch.atan(shift * torch.tan(torch.pi / 2 * time))
    return Batch(
        clean=latents_from_pixels(rgba),
        noise=torch.from_numpy(rng.standard_normal(rgba.shape, np.float32)),
        time=time,
        tokens=tokens,
        azimuth=azimuth,
        elevation=elevation,
    )


def dyed_sets(rgba: Float[Tensor, "b v 4 h w"], rng: torch.Generator) -> Float[Tensor, "b v 4 h w"]:
    """Sets of views painted anew, all views of a set alike, and in the same light (:func:`rl3d.train.augment.dye`)."""
    v = rgba.shape[1]
    return dye(rgba.movedim(1, 2).flatten(2, 3), rng, inverted=0.0).unflatten(2, (v, -1)).movedim(2, 1)
