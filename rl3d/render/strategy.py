"""gsplat's densification strategies: its names, fields and steps, over a dict of parameters and a dict of optimisers.

The parameters are "means", "scales" (logarithms), "quats", "opacities" (logits), and any others, which follow. The library's
own scenes use the values of :mod:`rl3d.representations.densify`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from rl3d.math import draw, exploration, relocated, rotation_from_quat

log = logging.getLogger("rl3d.render")

Params = dict[str, nn.Parameter] | nn.ParameterDict
"""Parameters by name."""
Optimizers = dict[str, torch.optim.Optimizer]
"""The optimiser of each parameter that learns, with one group."""
State = dict[str, Any]


def carry_over(optimizer: torch.optim.Optimizer, old: Tensor, new: Tensor, source: Int[Tensor, "m"]) -> None:
    """Let an optimiser go on with ``new`` in place of ``old``.

    Row i goes on with the state of row ``source[i]`` of old, or starts anew, at zero, where that is -1.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    state = optimizer.state.pop(old, None)
    if state is None:
        return
    carried = (source >= 0).view(-1, *[1] * (old.ndim - 1))
    optimizer.state[new] = {
        key: torch.where(carried, x[source.clamp(min=0)], 0.0) if isinstance(x, Tensor) and x.shape == old.shape else x
        for key, x in state.items()
    }


@torch.no_grad()
def _rearrange(
    params: Params,
    optimizers: Optimizers,
    state: State,
    rows: Int[Tensor, "m"],
    fresh: Bool[Tensor, "m"],
    changed: dict[str, Tensor] | None = None,
) -> None:
    """Let Gaussian i be what Gaussian ``rows[i]`` was, but for ``changed`` values; ``fresh`` ones' optimisers start anew."""
    source, n = torch.where(fresh, -1, rows), len(params["means"])
    for name, old in list(params.items()):
        value = (changed or {}).get(name)
        new = nn.Parameter((old[rows] if value is None else value).detach().clone(), requires_grad=old.requires_grad)
        params[name] = new
        if name in optimizers:
            carry_over(optimizers[name], old, new, source)
    for name, x in state.items():
        if isinstance(x, Tensor) and len(x) == n:
            state[name] = x[rows]


def _check(params: Params, optimizers: Optimizers) -> None:
    learns = {name for name, x in params.items() if x.requires_grad}
    if learns != set(optimizers):
        raise ValueError(
            f"Each parameter that learns needs an optimiser of its name; parameters are {sorted(learns)}, "
            f"optimisers {sorted(optimizers)}."
        )
    for name, optimizer in optimizers.items():
        if len(optimizer.param_groups) != 1:
            raise ValueError(f"The optimiser of {name} must have one parameter group, got {len(optimizer.param_groups)}.")
    missing = {"means", "scales", "quats", "opacities"} - set(params)
    if missing:
        raise ValueError(f"Parameters named means, scales, quats and opacities are needed; {sorted(missing)} are missing.")


def _opacities(params: Params) -> Tensor:
    return torch.sigmoid(params["opacities"].detach().flatten())


@dataclass
class DefaultStrategy:
    """Clone, split and prune, after Kerbl et al. (2023), "3D Gaussian Splatting for Real-Time Radiance Field Rendering".

    Call :meth:`step_pre_backward` before and :meth:`step_post_backward` after the backward pass of each step, with the
    ``info`` of :func:`rl3d.render.rasterization`. Opacities are reset every ``reset_every`` steps as gsplat documents it (the
    condition in its version 1.5.3 is never true).
    """

    prune_opa: float = 0.005
    """Gaussians less opaque than this are dropped."""
    grow_grad2d: float = 0.0002
    """Mean gradient on the screen, in half images, above which Gaussians are cloned or split."""
    grow_scale3d: float = 0.01
    """Largest standard deviation, in scene scales, up to which they are cloned, not split."""
    grow_scale2d: float = 0.05
    """Radius, in image sizes, above which Gaussians are split until ``refine_scale2d_stop_iter``."""
    prune_scale3d: float = 0.1
    """Standard deviation, in scene scales, above which Gaussians are dropped, once opacities have been reset."""
    prune_scale2d: float = 0.15
    """Radius, in image sizes, above which Gaussians are dropped until ``refine_scale2d_stop_iter``."""
    refine_scale2d_stop_iter: int = 0
    refine_start_iter: int = 500
    refine_stop_iter: int = 15_000
    reset_every: int = 3000
    refine_every: int = 100
    pause_refine_after_reset: int = 0
    absgrad: bool = False
    """Look at ``info["means2d"].absgrad`` instead (Ye et al. 2024, "AbsGS"); ``grow_grad2d`` must be larger then: 0.0008."""
    revised_opacity: bool = False
    """Lower the opacity of split Gaussians so that both halves let through what one did (Bulò et al. 2024)."""
    verbose: bool = False
    key_for_gradient: str = "means2d"
    generator: torch.Generator | None = None
    """Where random draws come from; torch's own generator if None."""

    def initialize_state(self, scene_scale: float = 1.0) -> State:
        """The state to hand to the steps: gradients and sightings since the last change."""
        state: State = {"grad2d": None, "count": None, "scene_scale": scene_scale}
        if self.refine_scale2d_stop_iter > 0:
            state["radii"] = None
        return state

    def check_sanity(self, params: Params, optimizers: Optimizers) -> None:
        """Raise ``ValueError`` if parameters and optimisers do not fit together."""
        _check(params, optimizers)

    def step_pre_backward(self, params: Params, optimizers: Optimizers, state: State, step: int, info: dict) -> None:
        """Keep the gradient of the centres on the screen."""
        if self.key_for_gradient != "means2d":
            raise ValueError(f"key_for_gradient must be 'means2d' here, got {self.key_for_gradient!r}.")
        info["means2d"].retain_grad()

    def step_post_backward(
        self, params: Params, optimizers: Optimizers, state: State, step: int, info: dict, packed: bool = False
    ) -> None:
        """Note what the rendering showed; grow, prune and reset where it is time to."""
        if step >= self.refine_stop_iter:
            return
        self._note(params, state, info, packed)
        after_reset = step % self.reset_every >= self.pause_refine_after_reset
        if step > self.refine_start_iter and step % self.refine_every == 0 and after_reset:
            before = len(params["means"])
            cloned, divided = self._grow(params, optimizers, state, step)
            pruned = self._prune(params, optimizers, state, step)
            if self.verbose:
                log.info("step %d: %d cloned, %d split, %d pruned of %d", step, cloned, divided, pruned, before)
            for name in ("grad2d", "count", "radii"):
                if name in state:
                    state[name].zero_()
        if step % self.reset_every == 0 and step > 0:
            self._reset(params, optimizers)

    @torch.no_grad()
    def _note(self, params: Params, state: State, info: dict, packed: bool) -> None:
        means2d = info["means2d"]
        gradient = means2d.absgrad if self.absgrad else means2d.grad
        half_images = 0.5 * info["n_cameras"] * gradient.new_tensor([info["width"], info["height"]])
        pull, radii = (gradient * half_images).norm(dim=-1), info["radii"].amax(-1)
        if packed or info.get("gaussian_ids") is not None:
            which = info["gaussian_ids"]
        else:
            seen = (info["radii"] > 0).all(-1)
            which, pull, radii = seen.nonzero()[:, -1], pull[seen], radii[seen]
        for name in ("grad2d", "count", "radii"):
            if name in state and state[name] is None:
                state[name] = pull.new_zeros(len(params["means"]))
        state["grad2d"].index_add_(0, which, pull)
        state["count"].index_add_(0, which, torch.ones_like(pull))
        if "radii" in state:
            sizes = radii.to(pull) / max(info["width"], info["height"])
            state["radii"].index_reduce_(0, which, sizes, "amax")

    @torch.no_grad()
    def _grow(self, params: Params, optimizers: Optimizers, state: State, step: int) -> tuple[int, int]:
        pulled = state["grad2d"] / state["count"].clamp(min=1) > self.grow_grad2d
        scales = params["scales"].exp()
        small = scales.amax(-1) <= self.grow_scale3d * state["scene_scale"]
        cloned, divided = pulled & small, pulled & ~small
        if step < self.refine_scale2d_stop_iter:
            divided |= state["radii"] > self.grow_scale2d
        every = torch.arange(len(scales), device=scales.device)
        kept, twice, parts = every[~divided], every[cloned], every[divided]
        rows = torch.cat([kept, twice, parts, parts])
        fresh = torch.arange(len(rows), device=rows.device) >= len(kept)
        noise = torch.randn(2, len(parts), 3, generator=self.generator).to(scales)
        offsets = (rotation_from_quat(params["quats"][parts]) @ (noise * scales[parts])[..., None])[..., 0]
        halves = slice(len(kept) + len(twice), None)
        changed = {name: params[name].detach()[rows] for name in ("means", "scales", "opacities")}
        changed["means"][halves] += offsets.flatten(0, 1)
        changed["scales"][halves] -= torch.tensor(1.6).log().to(scales)
        if self.revised_opacity:
            changed["opacities"][halves] = torch.logit(1 - (1 - changed["opacities"][halves].sigmoid()).sqrt())
        _rearrange(params, optimizers, state, rows, fresh, changed)
        return len(twice), len(parts)

    @torch.no_grad()
    def _prune(self, params: Params, optimizers: Optimizers, state: State, step: int) -> int:
        drop = _opacities(params) < self.prune_opa
        if step > self.reset_every:
            drop |= params["scales"].exp().amax(-1) > self.prune_scale3d * state["scene_scale"]
            if step < self.refine_scale2d_stop_iter:
                drop |= state["radii"] > self.prune_scale2d
        kept = (~drop).nonzero()[:, 0]
        if len(kept) < len(drop):
            _rearrange(params, optimizers, state, kept, torch.zeros_like(kept, dtype=torch.bool))
        return len(drop) - len(kept)

    @torch.no_grad()
    def _reset(self, params: Params, optimizers: Optimizers) -> None:
        """Make all at most nearly transparent, so that what is not needed stays so."""
        old = params["opacities"]
        most = torch.logit(torch.tensor(2 * self.prune_opa)).item()
        new = nn.Parameter(old.detach().clamp(max=most), requires_grad=old.requires_grad)
        params["opacities"] = new
        if "opacities" in optimizers:
            carry_over(optimizers["opacities"], old, new, torch.full((len(old),), -1, device=old.device))


@dataclass
class MCMCStrategy:
    """Move dead Gaussians to where live ones are, add new ones up to a budget, and let faint ones explore.

    Kheradmand et al. (2024), "3D Gaussian Splatting as Markov Chain Monte Carlo". Call :meth:`step_post_backward` after the
    backward pass of each step, with the learning rate of the means.
    """

    cap_max: int = 1_000_000
    """The largest number of Gaussians."""
    noise_lr: float = 5e5
    refine_start_iter: int = 500
    refine_stop_iter: int = 25_000
    refine_every: int = 100
    min_opacity: float = 0.005
    """Gaussians up to this opacity are dead."""
    verbose: bool = False
    generator: torch.Generator | None = None
    """Where random draws come from; torch's own generator if None."""

    def initialize_state(self) -> State:
        """The state to hand to the steps: none."""
        return {}

    def check_sanity(self, params: Params, optimizers: Optimizers) -> None:
        """Raise ``ValueError`` if parameters and optimisers do not fit together."""
        _check(params, optimizers)

    def step_pre_backward(self, params: Params, optimizers: Optimizers, state: State, step: int, info: dict) -> None:
        """Do nothing."""

    @torch.no_grad()
    def step_post_backward(
        self, params: Params, optimizers: Optimizers, state: State, step: int, info: dict, lr: float
    ) -> None:
        """Move and add Gaussians where it is time to; add noise to their centres always."""
        if self.refine_start_iter < step < self.refine_stop_iter and step % self.refine_every == 0:
            dead = _opacities(params) <= self.min_opacity
            if dead.any() and not dead.all():
                self._copy(params, optimizers, state, dead.nonzero()[:, 0], ~dead)
            n = len(params["means"])
            more = max(0, min(self.cap_max, int(1.05 * n)) - n)
            if more:
                everyone = torch.ones(n, dtype=torch.bool, device=dead.device)
                self._copy(params, optimizers, state, torch.arange(n, n + more, device=dead.device), everyone)
            if self.verbose:
                log.info("step %d: %d moved, %d added to %d", step, int(dead.sum()), more, n)
        noise = torch.randn(params["means"].shape, generator=self.generator).to(params["means"])
        steps = exploration(params["quats"], params["scales"].exp(), _opacities(params), noise)
        params["means"].add_(steps * (lr * self.noise_lr))

    def _copy(self, params: Params, optimizers: Optimizers, state: State, places: Tensor, alive: Tensor) -> None:
        """Put copies of live Gaussians at these rows, which may lie past the end, and share the opacity among the copies."""
        opacities, n = _opacities(params), len(alive)
        chosen = draw(torch.where(alive, opacities, 0.0), len(places), self.generator)
        copies = torch.bincount(chosen, minlength=n) + 1
        shared, scales = relocated(opacities, params["scales"].exp(), copies.to(opacities))
        shared = shared.clamp(self.min_opacity, 1 - torch.finfo(shared.dtype).eps)
        again = (copies > 1).view(-1, 1)
        logits = torch.where(again[:, 0], torch.logit(shared), params["opacities"].flatten())
        log_scales = torch.where(again, scales.log(), params["scales"])
        rows = torch.arange(max(n, int(places.max()) + 1), device=places.device)
        rows[places] = chosen
        fresh = again[rows, 0]
        changed = {"opacities": logits[rows].view(-1, *params["opacities"].shape[1:]), "scales": log_scales[rows]}
        _rearrange(params, optimizers, state, rows, fresh, changed)
