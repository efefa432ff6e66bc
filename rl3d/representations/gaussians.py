"""A scene of Gaussian splats that learns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rl3d.render.gaussians import Backend, Trace, render_splats
from rl3d.render.strategy import carry_over
from rl3d.representations.densify import Change, CloneSplitPrune, Prune, Relocate, Sightings
from rl3d.types import Cameras, Splats, Views


@dataclass(frozen=True)
class LearningRates:
    """Adam's learning rate for each field, for scenes that fit the unit sphere and a few hundred steps."""

    means: float = 0.008
    log_scales: float = 0.015
    quats: float = 0.02
    opacity_logits: float = 0.04
    sh: float = 0.04


@dataclass(frozen=True)
class Gaussians:
    """A scene made of Gaussians: how it renders, learns and grows."""

    rates: LearningRates = LearningRates()
    strategy: Prune | CloneSplitPrune | Relocate | None = field(default_factory=Prune)
    """How Gaussians come and go; None keeps them as they are."""
    sh_degree: int = 0
    """Of the colours, 0 to 3: 0 shows the same colour from everywhere."""
    eps2d: float = 0.3
    antialiased: bool = False
    backend: Backend = "auto"

    def __post_init__(self):
        if not 0 <= self.sh_degree <= 3:
            raise ValueError(f"sh_degree must be 0, 1, 2 or 3, got {self.sh_degree}")

    def build(self, splats: Splats) -> GaussianSplats:
        """Make the live scene; harmonics beyond ``splats``' degree start at zero, those beyond ``sh_degree`` are dropped."""
        k = (self.sh_degree + 1) ** 2
        sh = nn.functional.pad(splats.sh[:, :k], (0, 0, 0, max(0, k - splats.sh.shape[1])))
        return GaussianSplats(Splats(**{**splats.tensors(), "sh": sh}), self)

    def restore(self, state: dict[str, Tensor]) -> GaussianSplats:
        """Make the live scene that had this ``state_dict``."""
        scene = GaussianSplats(Splats(**{name: state[name] for name in Splats.__dataclass_fields__}), self)
        scene.load_state_dict(state)
        return scene


class GaussianSplats(nn.Module):
    """Gaussians as parameters named like the fields of :class:`Splats`, and what renderings told since the last change."""

    means: nn.Parameter
    log_scales: nn.Parameter
    quats: nn.Parameter
    opacity_logits: nn.Parameter
    sh: nn.Parameter
    sighted_gradients: Tensor
    sighted_count: Tensor

    def __init__(self, splats: Splats, settings: Gaussians | None = None):
        super().__init__()
        self.settings = settings or Gaussians()
        for name, x in splats.tensors().items():
            setattr(self, name, nn.Parameter(x.detach().clone()))
        self.register_buffer("sighted_gradients", splats.means.new_zeros(len(splats)))
        self.register_buffer("sighted_count", splats.means.new_zeros(len(splats)))

    @classmethod
    def from_splats(cls, splats: Splats, settings: Gaussians | None = None) -> GaussianSplats:
        """Let these Gaussians learn."""
        return cls(splats, settings)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def device(self) -> torch.device:
        return self.means.device

    def splats(self) -> Splats:
        """The Gaussians, detached; they share memory with the parameters."""
        return Splats(**{name: x.detach() for name, x in self.fields().tensors().items()})

    def fields(self) -> Splats:
        """The Gaussians as parameters, with their graph."""
        return Splats(self.means, self.log_scales, self.quats, self.opacity_logits, self.sh)

    def render(self, cameras: Cameras, *, depth: bool = True, normals: bool = True) -> tuple[Views, Trace]:
        """Render ``[1 v]`` cameras, differentiably in every parameter; see :func:`rl3d.render.gaussians.render_splats`."""
        s = self.settings
        views, trace = render_splats(
            self.fields(),
            cameras,
            eps2d=s.eps2d,
            antialiased=s.antialiased,
            depth=depth,
            normals=normals,
            absgrad=s.strategy is not None and s.strategy.looks_at == "absolute gradients",
            backend=s.backend,
        )
        if trace.means2d.requires_grad and s.strategy is not None and s.strategy.looks_at == "gradients":
            trace.means2d.retain_grad()
        return views, trace

    def param_groups(self, rates: LearningRates | None = None) -> list[dict]:
        """One group for each field, with its learning rate."""
        rates = rates or self.settings.rates
        return [{"params": [x], "lr": getattr(rates, name), "name": name} for name, x in self.fields().tensors().items()]

    @torch.no_grad()
    def refine(self, optimizer: torch.optim.Optimizer, trace: Trace, step: int, rng: torch.Generator) -> None:
        """Note what the last rendering showed, and let the strategy change the Gaussians; the optimiser's state follows.

        Call it after the optimiser's step; ``step`` counts from 1.
        """
        strategy = self.settings.strategy
        if strategy is None:
            return
        gradient = getattr(trace.means2d, "absgrad", None)
        if strategy.looks_at == "gradients" and (trace.means2d.is_leaf or trace.means2d.retains_grad):
            gradient = trace.means2d.grad
        if gradient is not None:
            half_image = 0.5 * trace.means2d.new_tensor(trace.size) * len(gradient)
            seen = trace.radii > 0
            self.sighted_gradients += (torch.where(seen, (gradient * half_image).norm(dim=-1), 0.0)).sum(0)
            self.sighted_count += seen.sum(0)
        sightings = Sightings(self.sighted_gradients, self.sighted_count)
        change = strategy.refine(self.splats(), sightings, step, rng)
        rate = next((group["lr"] for group in optimizer.param_groups if any(p is self.means for p in group["params"])), 0.0)
        if change is not None:
            self._become(change, optimizer)
        steps = strategy.explore(self.splats(), rate, rng)
        if steps is not None:
            self.means.add_(steps)

    def _become(self, change: Change, optimizer: torch.optim.Optimizer) -> None:
        for name, new in change.splats.tensors().items():
            old = getattr(self, name)
            fresh = nn.Parameter(new.clone(), requires_grad=old.requires_grad)
            anew = torch.full_like(change.source, -1) if name in change.anew else change.source
            carry_over(optimizer, old, fresh, anew)
            setattr(self, name, fresh)
        self.sighted_gradients = self.means.new_zeros(len(self))
        self.sighted_count = self.means.new_zeros(len(self))
