"""Strategies that grow and thin a set of Gaussians, as values. They compute a :class:`Change` and apply nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rl3d.geometry.points import pieces
from rl3d.math import draw, exploration, relocated, rotation_from_quat
from rl3d.types import Splats


class Sightings(NamedTuple):
    """What renderings since the last change told about each Gaussian."""

    gradients: Float[Tensor, "n"]
    """Sum over the views that saw it of the norm of the loss's gradient on its screen position, in half images times views; of
    absolute gradients, summed over pixels before the norm is taken, where the strategy looks at those."""
    count: Float[Tensor, "n"]
    """How many views saw it."""


class Change(NamedTuple):
    """A new set of Gaussians."""

    splats: Splats
    source: Int[Tensor, "m"]
    """The old Gaussian whose optimiser state each one goes on with; -1 starts anew."""
    anew: tuple[str, ...] = ()
    """Fields whose optimiser state starts anew for all."""


Need = Literal["nothing", "gradients", "absolute gradients"]


@runtime_checkable
class Strategy(Protocol):
    """Decides which Gaussians a scene has."""

    @property
    def looks_at(self) -> Need:
        """What the sightings must tell."""
        ...

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        """The change to make after this many steps, if any; sightings start anew after one."""
        ...

    def explore(self, splats: Splats, rate: float, rng: torch.Generator) -> Float[Tensor, "n 3"] | None:
        """Steps to add to the centres after every step of an optimiser that has this learning rate for them, if any."""
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
    islands: float = 0.0
    """Drop what hangs together, but with nothing else, where it is less than this share of all (of opacities times areas)."""
    reach: float = 0.08
    """How far apart, in world units, the centres of Gaussians that hang together may lie."""

    def __post_init__(self):
        if not 0 <= self.islands < 0.5 or not self.reach > 0:
            raise ValueError(f"islands is a share in [0, 0.5) and reach above 0; got {self.islands} and {self.reach}")

    @property
    def looks_at(self) -> Need:
        return "nothing"

    def explore(self, splats: Splats, rate: float, rng: torch.Generator) -> None:
        """Add nothing."""

    def keep(self, splats: Splats) -> Bool[Tensor, "n"]:
        """Which Gaussians may stay; all of them, if none would."""
        finite = torch.stack(
            [x.isfinite().flatten(1).all(1) for x in (splats.means, splats.log_scales, splats.quats, splats.sh)]
        )
        opaque = splats.opacity_logits.sigmoid() >= self.min_opacity
        keep = finite.all(0) & opaque & (splats.log_scales.amax(1).exp() <= self.max_scale)
        if self.islands and keep.any():
            keep[keep.clone()] = self._ashore(splats[keep.nonzero()[:, 0]])
        return keep if keep.any() else torch.ones_like(keep)

    def _ashore(self, splats: Splats) -> Bool[Tensor, "n"]:
        """Which Gaussians belong to a group, linked by steps of ``reach``, that is large enough to be meant."""
        group = pieces(splats.means.detach().cpu().numpy(), self.reach)
        size = splats.log_scales.sort(dim=1).values
        shows = (splats.opacity_logits.sigmoid() * (size[:, 1] + size[:, 2]).exp()).double().cpu().numpy()
        share = np.bincount(group, weights=shows) / shows.sum()
        return torch.from_numpy(share[group] >= self.islands).to(splats.means.device)

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
    Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), section 5.
    The gradient's scale is that of the loss: 0.0002 suits a mean over pixels.
    """

    prune: Prune = Prune()
    grow_gradient: float = 0.0002
    """In half images times views, as gsplat has it."""
    split_scale: float = 0.02
    """Standard deviation in world units from which on a Gaussian is split, not cloned."""
    max_gaussians: int = 20_000
    shrink: float = 1.6
    absgrad: bool = False
    """Look at absolute gradients (Ye et al. 2024, "AbsGS"), which do not cancel; ``grow_gradient`` must be larger then."""
    reset_every: int = 0
    """Steps after which a change also makes all opacities small, so that what is not needed stays so; 0 never does."""
    reset_opacity: float = 0.05
    """The largest opacity after that; above ``prune.min_opacity``, or nothing would be left."""

    def __post_init__(self):
        if self.reset_every and self.reset_opacity <= self.prune.min_opacity:
            raise ValueError(
                f"reset_opacity must exceed prune.min_opacity, or the next pruning empties the scene; got {self.reset_opacity} "
                f"and {self.prune.min_opacity}"
            )

    @property
    def looks_at(self) -> Need:
        return "absolute gradients" if self.absgrad else "gradients"

    def explore(self, splats: Splats, rate: float, rng: torch.Generator) -> None:
        """Add nothing."""

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        change = self.prune.refine(splats, sightings, step, rng)
        if change is None:
            return None
        splats, kept = change.splats, change.source
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
        grown = Splats(**{name: torch.cat([p.tensors()[name] for p in parts]) for name in splats.tensors()})
        if not self.reset_every or step % self.reset_every:
            return Change(grown, source)
        most = math.log(self.reset_opacity / (1 - self.reset_opacity))
        return Change(replace(grown, opacity_logits=grown.opacity_logits.clamp(max=most)), source, ("opacity_logits",))

    def _halves(self, splats: Splats, rng: torch.Generator) -> list[Splats]:
        noise = torch.randn(2, len(splats), 3, generator=rng).to(splats.means)
        offsets = (rotation_from_quat(splats.quats) @ (noise * splats.log_scales.exp())[..., None])[..., 0]
        log_scales = splats.log_scales - torch.tensor(self.shrink).log().to(splats.means)
        return [Splats(splats.means + o, log_scales, splats.quats, splats.opacity_logits, splats.sh) for o in offsets]


@dataclass(frozen=True)
class Relocate:
    """Move dead Gaussians to where live ones are, add some up to a budget, and let faint ones explore.

    Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo" (2024): a dead Gaussian, and every new one, becomes a
    copy of a live one drawn by opacity, and the copies share its light (eq. 9); after every step, centres are moved by noise.
    """

    every: int = 50
    """Steps between two changes."""
    start: int = 100
    """First step that may change something."""
    stop: int = 100_000
    """Last step that may change something."""
    max_gaussians: int = 20_000
    growth: float = 0.05
    """Share of the Gaussians that a change adds, up to ``max_gaussians``."""
    min_opacity: float = 0.005
    """Gaussians up to this opacity are dead."""
    noise: float = 1e4
    """Of the noise, in learning rates of the centres: as strong at their default of 0.008 as the paper's 5e5 at 1.6e-4."""

    @property
    def looks_at(self) -> Need:
        return "nothing"

    def refine(self, splats: Splats, sightings: Sightings, step: int, rng: torch.Generator) -> Change | None:
        if not self.start <= step <= self.stop or step % self.every:
            return None
        n, opacities = len(splats), splats.opacity_logits.sigmoid()
        finite = torch.stack(
            [x.isfinite().flatten(1).all(1) for x in (splats.means, splats.log_scales, splats.quats, splats.sh)]
        )
        alive = (opacities > self.min_opacity) & finite.all(0)
        more = max(0, min(self.max_gaussians, int((1 + self.growth) * n)) - n)
        places = torch.cat([(~alive).nonzero()[:, 0], torch.arange(n, n + more, device=alive.device)])
        if not alive.any() or not len(places):
            return None
        chosen = draw(torch.where(alive, opacities, 0.0), len(places), rng)
        copies = torch.bincount(chosen, minlength=n) + 1
        shared, scales = relocated(opacities, splats.log_scales.exp(), copies.to(opacities))
        shared = shared.clamp(self.min_opacity, 1 - torch.finfo(shared.dtype).eps)
        again, rows = copies > 1, torch.arange(n + more, device=alive.device)
        rows[places] = chosen
        moved = replace(
            splats,
            opacity_logits=torch.where(again, torch.logit(shared), splats.opacity_logits),
            log_scales=torch.where(again[:, None], scales.log(), splats.log_scales),
        )
        return Change(moved[rows], torch.where(again[rows], -1, rows))

    def explore(self, splats: Splats, rate: float, rng: torch.Generator) -> Float[Tensor, "n 3"]:
        """Noise, large where a Gaussian is large and nearly transparent."""
        noise = torch.randn(splats.means.shape, generator=rng).to(splats.means)
        steps = exploration(splats.quats, splats.log_scales.exp(), splats.opacity_logits.sigmoid(), noise)
        return steps * (rate * self.noise)
