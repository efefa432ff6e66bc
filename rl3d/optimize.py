"""The loop that makes a scene: sample cameras, render, gather every term's gradient at the pixels, step, yield."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rl3d.protocols import Heard, Prior, Representation, Signal, Situation, Step, Term
from rl3d.recipe import Recipe, refuse_misfit
from rl3d.tutor import Tutor, guided
from rl3d.types import Cameras, Prompt, Views


class Diverged(RuntimeError):
    """Too many steps in a row had values that are not finite."""


@dataclass(frozen=True)
class Report:
    """What one step did."""

    step: int
    """Steps done, counting this one."""
    losses: dict[str, float]
    """By term, before weights."""
    norms: dict[str, float]
    """Of each pixel term's gradient on the pixels, after weights."""
    weights: dict[str, float]
    """What each term's loss was multiplied with; scene terms with a ratio are not here, since theirs differs by parameter."""
    cosines: dict[str, dict[str, float]]
    """Of each pixel term's gradient on the pixels with each other one's, each pair once; not where one is zero."""
    rewards: dict[str, dict[str, Heard]]
    """What rewards said, by term and reward."""
    looked: dict[str, slice]
    """Which of ``views`` each term looked at; not of terms that look at none."""
    gradients: dict[str, Views]
    """Of each pixel term on the pixels, after weights and ratios, each number where the pixel's stands in ``views``."""
    predicted: dict[str, dict[str, Tensor]]
    """Clean latents that the prior predicted for the views that a term looked at, by term and what became of them."""
    size: int
    """Of the scene: Gaussians, or cells of space that are not empty."""
    skipped: bool
    """Whether the step was left out because something was not finite."""
    views: Views
    """What the step looked at, detached."""
    taught: dict[str, float] = field(default_factory=dict)
    """What the prior was taught after it, where there was a lesson."""


@dataclass
class Optimization:
    """A scene in the making: everything that changes from step to step."""

    recipe: Recipe
    prompt: Prompt
    prior: Prior | None
    drawn: Views | None
    scene: Representation
    optimizer: torch.optim.Optimizer
    signals: dict[str, Signal]
    rng: torch.Generator
    tutor: Tutor | None = None
    """Teaches the prior meanwhile; ``prior`` is then the taught one."""
    step: int = 0
    skipped: int = 0
    """Steps left out so far."""
    skipped_in_a_row: int = 0
    rates: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.rates = [group["lr"] for group in self.optimizer.param_groups]


def begin(recipe: Recipe, prompt: Prompt, *, seed: int = 0, device: str = "cpu") -> Optimization:
    """Draw from the prior, make the first Gaussians, and build every part."""
    rng = torch.Generator().manual_seed(seed)
    where = torch.device(device)
    prior = recipe.prior.build(where) if recipe.prior else None
    if prior is not None:
        refuse_misfit(recipe, prompt, prior.info)
    drawn = None
    if recipe.draw is not None:
        drawn = recipe.draw.draw(prompt, prior, rng, where)
    return start(recipe, Situation(prompt, prior, drawn, rng, where))


def start(recipe: Recipe, situation: Situation) -> Optimization:
    """Make the first scene and build every part, once there is a prior and what was drawn from it."""
    first: Any = recipe.start.build(situation)  # Gaussians or a mesh, whichever the recipe's scene is made of
    return _assemble(recipe, situation, recipe.scene.build(first))


def _assemble(recipe: Recipe, situation: Situation, scene: Representation) -> Optimization:
    scene = scene.to(situation.device)
    tutor = None if recipe.teach is None else recipe.teach.build(situation)
    situation = guided(situation, tutor)._replace(scene=scene)
    optimizer = torch.optim.Adam(scene.param_groups(), betas=(0.9, 0.99), eps=1e-15)
    signals = {name: term.build(situation) for name, term in recipe.terms.items()}
    parts = (recipe, situation.prompt, situation.prior, situation.drawn, scene, optimizer, signals, situation.rng)
    return Optimization(*parts, tutor)


def optimize(o: Optimization) -> Iterator[Report]:
    """Step until the recipe's steps are done. To pause, do not call ``next``; to stop, leave.

    Raises:
        Diverged: when more than ``recipe.patience`` steps in a row had to be skipped.
    """
    while o.step < o.recipe.steps:
        yield advance(o)


def advance(o: Optimization) -> Report:
    """Do one step."""
    recipe, progress = o.recipe, o.step / o.recipe.steps
    for group, rate in zip(o.optimizer.param_groups, o.rates, strict=True):
        group["lr"] = rate * recipe.cooldown**progress

    shared = recipe.rig.cameras(o.rng).to(o.scene.device)
    signals = {name: signal for name, signal in o.signals.items() if not _over(recipe.terms[name], progress)} or o.signals
    asked = {name: signal.cameras(shared, o.rng) for name, signal in signals.items()}
    cameras, slices = _together(asked)
    rendered, trace = o.scene.render(cameras)
    leaves = rendered.leaves()

    pixel_losses, scene_losses, rewards, predicted = {}, {}, {}, {}
    for name, signal in signals.items():
        views = leaves.select(slices[name]) if asked[name] is not None else leaves
        now = Step(views, o.scene, o.prior, o.prompt, progress, o.rng, o.step)
        losses = signal.losses(now)
        if now.heard:
            rewards[name] = now.heard
        if now.predicted:
            predicted[name] = now.predicted
        unknown = losses.keys() - {"pixels", "scene"}
        assert not unknown, f"{name} has losses for {unknown}"
        if "pixels" in losses:
            pixel_losses[name] = losses["pixels"]
        if "scene" in losses:
            scene_losses[name] = losses["scene"]

    gradients = _pixel_gradients(pixel_losses, leaves.tensors(), recipe.weights, keep=scene_losses.keys())
    factors = _balance(gradients, recipe.ratios)
    gradients = {name: [factors[name] * p for p in parts] for name, parts in gradients.items()}
    total = [torch.stack(parts).sum(0) for parts in zip(*gradients.values(), strict=True)]
    o.optimizer.zero_grad(set_to_none=True)
    good = all(g.isfinite().all() for g in total) and all(bool(x.detach().isfinite()) for x in scene_losses.values())
    if good:
        # The one place where gradients cross the rasterizer.
        crossing = [(x, g) for x, g in zip(rendered.tensors(), total, strict=False) if x.requires_grad]
        if crossing:
            torch.autograd.backward([x for x, _ in crossing], [g for _, g in crossing])
        parameters = [p for group in o.optimizer.param_groups for p in group["params"] if p.requires_grad]
        _add_scene_gradients(scene_losses, parameters, recipe)
        good = all(p.grad.isfinite().all() for p in parameters if p.grad is not None)
    o.step += 1
    if good:
        o.optimizer.step()
        o.scene.refine(o.optimizer, trace, o.step, o.rng)
        o.skipped_in_a_row = 0
    else:
        o.skipped, o.skipped_in_a_row = o.skipped + 1, o.skipped_in_a_row + 1
        if o.skipped_in_a_row > recipe.patience:
            names = [name for name, loss in (pixel_losses | scene_losses).items() if not loss.isfinite()]
            culprit = f" ({', '.join(names)})" if names else ""
            raise Diverged(
                f"{o.skipped_in_a_row} steps in a row had values that are not finite{culprit}: stopped at step {o.step}"
            )
    losses = {name: float(loss.detach()) for name, loss in (pixel_losses | scene_losses).items()}
    norms = {name: _norm(parts) for name, parts in gradients.items()}
    weights = {name: recipe.weights.get(name, 1.0) * factors.get(name, 1.0) for name in losses}
    for name in scene_losses.keys() & recipe.ratios.keys() - gradients.keys():
        del weights[name]
    cosines = _cosines(gradients, norms)
    taught = {} if o.tutor is None or not o.tutor.due(o.step, progress) else o.tutor.lesson(o.scene, o.rng)
    seen = rendered.detach()
    pulls = {name: seen.like(parts) for name, parts in gradients.items()}
    said = (losses, norms, weights, cosines, rewards, slices, pulls, predicted)
    return Report(o.step, *said, len(o.scene), not good, seen, taught)


def _over(term: Term, progress: float) -> bool:
    """Whether a term has faded away, and should cost nothing more."""
    over = getattr(term, "over", None)
    return over is not None and over(progress)


def _together(asked: Mapping[str, Cameras | None]) -> tuple[Cameras, dict[str, slice]]:
    """All cameras that signals ask for, each set once, and where each signal's are."""
    sets: list[Cameras] = []
    slices, start = {}, {}
    for name, cameras in asked.items():
        if cameras is None:
            continue
        if id(cameras) not in start:
            start[id(cameras)] = sum(c.views for c in sets)
            sets.append(cameras)
        slices[name] = slice(start[id(cameras)], start[id(cameras)] + cameras.views)
    if not sets:
        raise ValueError("no term of this recipe looks at the scene: add a pixel term")
    sizes = {(c.width, c.height) for c in sets}
    assert len(sizes) == 1, f"terms ask for views of different sizes: {sizes}"
    return Cameras(
        torch.cat([c.cam_from_world for c in sets], 1), torch.cat([c.intrinsics for c in sets], 1), *sizes.pop()
    ), slices


def _pixel_gradients(
    losses: Mapping[str, Tensor], leaves: list[Tensor], weights: Mapping[str, float], keep: Collection[str] = ()
) -> dict[str, list[Tensor]]:
    """Each loss's own gradient with respect to the pixels, weighted; the graphs of those named in ``keep`` stay."""
    gradients = {}
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        found = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=name in keep)
        weight = weights.get(name, 1.0)
        gradients[name] = [torch.zeros_like(x) if g is None else weight * g for g, x in zip(found, leaves, strict=True)]
    return gradients


def _norm(parts: list[Tensor]) -> float:
    return float(torch.stack([p.square().sum() for p in parts]).sum().sqrt())


def _balance(gradients: Mapping[str, list[Tensor]], ratios: Mapping[str, float]) -> dict[str, float]:
    """The factors that bring gradients named in ``ratios`` to that fraction of the norm of all the others' sum."""
    factors = dict.fromkeys(gradients, 1.0)
    rest = [parts for name, parts in gradients.items() if name not in ratios]
    if rest:
        reference = _norm([torch.stack(parts).sum(0) for parts in zip(*rest, strict=True)])
        for name in gradients.keys() & ratios.keys():
            factors[name] = ratios[name] * reference / max(_norm(gradients[name]), 1e-12)
    return factors


def _cosines(gradients: Mapping[str, list[Tensor]], norms: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Cosines between gradients on the pixels, each pair once."""
    found: dict[str, dict[str, float]] = {}
    for one, other in itertools.combinations(gradients, 2):
        length = norms[one] * norms[other]
        if math.isfinite(length) and length > 0:
            dot = torch.stack([(a * b).sum() for a, b in zip(gradients[one], gradients[other], strict=True)]).sum()
            found.setdefault(one, {})[other] = float(dot) / length
    return found


def _add_scene_gradients(losses: Mapping[str, Tensor], parameters: list[Tensor], recipe: Recipe) -> None:
    """Add each scene term's gradient to that of the pixels; those named in ``ratios`` are scaled to it, field by field."""
    across = [None if p.grad is None else p.grad.clone() for p in parameters]
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        for p, g, other in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), across, strict=True):
            if g is None:
                continue
            factor = recipe.weights.get(name, 1.0)
            if name in recipe.ratios and other is not None:
                factor = recipe.ratios[name] * float(other.norm()) / max(float(g.norm()), 1e-12)
            p.grad = factor * g if p.grad is None else p.grad + factor * g


def state(o: Optimization) -> tuple[dict[str, Tensor], dict]:
    """Everything that a checkpoint must hold, as tensors by name and plain JSON."""
    tensors = {f"scene.{k}": v for k, v in o.scene.state_dict().items()}
    for i, group in enumerate(o.optimizer.param_groups):
        for parameter in group["params"]:
            tensors |= {f"optimizer.{i}.{k}": v for k, v in o.optimizer.state.get(parameter, {}).items()}
    for name, signal in o.signals.items():
        if isinstance(signal, torch.nn.Module):
            tensors |= {f"signals.{name}.{k}": v for k, v in signal.state_dict().items()}
    if o.tutor is not None:
        tensors |= {f"tutor.{k}": v for k, v in o.tutor.state_dict().items()}
    if o.drawn is not None:
        cameras = o.drawn.cameras
        tensors |= {"drawn.rgba": o.drawn.rgba, "drawn.pose": cameras.cam_from_world, "drawn.intrinsics": cameras.intrinsics}
    tensors["rng"] = o.rng.get_state()
    plain = {"step": o.step, "skipped": o.skipped, "skipped_in_a_row": o.skipped_in_a_row, "prompt": o.prompt.plain()}
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, json.loads(json.dumps(plain))


def drawn_views(tensors: Mapping[str, Tensor], device: torch.device) -> Views | None:
    """The views that were drawn at the start of what :func:`state` kept, if any were."""
    if "drawn.rgba" not in tensors:
        return None
    rgba, pose, intrinsics = (tensors[f"drawn.{name}"].to(device) for name in ("rgba", "pose", "intrinsics"))
    return Views(rgba[..., :3], rgba[..., 3:], None, None, Cameras(pose, intrinsics, rgba.shape[3], rgba.shape[2]))


def restore(
    recipe: Recipe, tensors: dict[str, Tensor], plain: dict, *, device: str = "cpu", prior: Prior | None = None
) -> Optimization:
    """Continue from :func:`state`, bit for bit on the CPU; with a prior of the caller's, if there is one already."""
    where = torch.device(device)

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    rng = torch.Generator()
    if prior is None and recipe.prior is not None:
        prior = recipe.prior.build(where)
    situation = Situation(Prompt(**plain["prompt"]), prior, drawn_views(tensors, where), rng, where)
    o = _assemble(recipe, situation, recipe.scene.restore(under("scene.")))
    for i, group in enumerate(o.optimizer.param_groups):
        found = under(f"optimizer.{i}.")
        if found:
            (parameter,) = group["params"]
            o.optimizer.state[parameter] = {k: v.to(where) if k != "step" else v for k, v in found.items()}
    for name, signal in o.signals.items():
        if isinstance(signal, torch.nn.Module):
            signal.load_state_dict(under(f"signals.{name}."))
    if o.tutor is not None:
        o.tutor.load_state_dict(under("tutor."))
    # Last, since building the parts above may have drawn from it.
    rng.set_state(tensors["rng"])
    o.step, o.skipped, o.skipped_in_a_row = plain["step"], plain["skipped"], plain["skipped_in_a_row"]
    return o
