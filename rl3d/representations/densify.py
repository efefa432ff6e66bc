"""Strategies that grow and thin a set of Gaussians, as values. They compute a :class:`Change` and apply nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rl3d.math import rotation_from_quat
from rl3d.types import Splats


class Sightings(NamedTuple):
    """What renderings since the last change told about each Gaussian."""

    gradients: Float[Tensor, "n"]
    """Sum over the views that saw it of the norm of the loss's gradient on its screen position, in half images times views."""
    count: Float[Tensor, "n"]
    """How many views saw it."""


class Change(NamedTuple):
    """A new set of Gaussians."""

    splats: Splats
    source: Int[Tensor, "m"]
    """The old Gaussian whose optimiser state each one goes on with; -1 starts anew."""


@runtime_checkable
class Strategy(Protocol):
    """Decides which Gaussians a scene has."""

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        """The change to make after this many steps, if any; sightings start anew after one."""
        ...


@dataclass(frozen=True)
class Prune:
    """Drop Gaussians that are nearly transparent, larger than anything should be, or not finite."""

    every: int = 50
    """Steps between two changes."""
    start: int = 100
    """First step that may change something."""
    stop: int = 100_000
    """Last step that may change something."""
    min_opacity: float = 0.01
    max_scale: float = 0.5
    """Longest standard deviation in world units."""

    def keep(self, splats: Splats) -> Bool[Tensor, "n"]:
        """Which Gaussians may stay; all of them, if none would."""
        finite = torch.stack(
            [x.isfinite().flatten(1).all(1) for x in (splats.means, splats.log_scales, splats.quats, splats.sh)]
        )
        opaque = splats.opacity_logits.sigmoid() >= self.min_opacity
        keep = finite.all(0) & opaque & (splats.log_scales.amax(1).exp() <= self.max_scale)
        return keep if keep.any() else torch.ones_like(keep)

    def due(self, step: int) -> bool:
        return self.start <= step <= self.stop and step % self.every == 0

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        if not self.due(step):
            return None
        kept = self.keep(splats).nonzero()[:, 0]
        return Change(splats[kept], kept)


@dataclass(frozen=True)
class CloneSplitPrune:
    """Grow where the loss pulls Gaussians about on the screen, and prune.

    Where the mean screen-space gradient exceeds ``grow_gradient``, small Gaussians are cloned, and large ones are split into
    two, drawn from them and 1.6 times smaller: those with the largest gradients first, until there are ``max_gaussians``. After
    Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), section 5, without the opacity reset.
    The gradient's scale is that of the loss: 0.0002 suits a mean over pixels.
    """

    prune: Prune = Prune()
    grow_gradient: float = 0.0002
    """In half images times views, as gsplat has it."""
    split_scale: float = 0.02
    """Standard deviation in world units from which on a Gaussian is split, not cloned."""
    max_gaussians: int = 20_000
    shrink: float = 1.6

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        change = self.prune.refine(splats, sightings, step, rng)
        if change is None:
            return None
        splats, kept = change
        pull = (sightings.gradients / sightings.count.clamp(min=1))[kept]
        room = max(0, self.max_gaussians - len(splats))
        grow = torch.argsort(pull, descending=True, stable=True)[:room]
        grow = grow[pull[grow] > self.grow_gradient].sort().values
        large = splats.log_scales[grow].amax(1).exp() > self.split_scale
        cloned, divided = grow[~large], grow[large]
        rest = torch.ones(len(splats), dtype=torch.bool, device=kept.device)
        rest[divided] = False
        rest = rest.nonzero()[:, 0]
        parts = [splats[rest], splats[cloned], *self._halves(splats[divided], rng)]
        source = torch.cat([kept[rest], kept.new_full((len(cloned) + 2 * len(divided),), -1)])
        return Change(Splats(**{name: torch.cat([p.tensors()[name] for p in parts]) for name in splats.tensors()}), source)

    def _halves(self, splats: Splats, rng: torch.Generator) -> list[Splats]:
        noise = torch.randn(2, len(splats), 3, generator=rng).to(splats.means)
        offsets = (rotation_from_quat(splats.quats) @ (noise * splats.log_scales.exp())[..., None])[..., 0]
        log_scales = splats.log_scales - torch.tensor(self.shrink).log().to(splats.means)
        return [Splats(splats.means + o, log_scales, splats.quats, splats.opacity_logits, splats.sh) for o in offsets]
