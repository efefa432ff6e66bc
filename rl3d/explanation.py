"""Why a scene became what it is: what one step looked at, and what each term made of it.

All of it is there when a step is done, since terms act through the pixels (:class:`rl3d.optimize.Report`); only the prior's
latents are decoded, and the step's views judged one by one, when somebody asks. Nothing of it changes what the run computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.files import read_tensors, tensor_bytes, write_whole
from rl3d.optimize import Optimization, Report
from rl3d.protocols import Heard
from rl3d.record import Watcher
from rl3d.run import Run
from rl3d.search import Contest
from rl3d.types import Cameras, Views

SIDE = 128
"""Pixels along the longer side of a stored view, at most: larger ones are averaged down."""

PARTS = ("rgb", "alpha", "depth", "normals")


@dataclass(frozen=True)
class Pull:
    """What one term wanted in a step."""

    loss: float
    """Before its weight."""
    weight: float | None
    """What the loss was multiplied with, its ratio included; None for scene terms with a ratio, whose weight differs by
    parameter."""
    views: tuple[int, int] | None
    """From which to before which of the step's views it looked at; None for a term that looks at the scene alone."""
    gradient: Views | None
    """Of the weighted loss on all of the step's pixels, each number where the pixel's stands: a descent goes against it. Zero
    where it did not look. None where it does not act through pixels."""
    targets: dict[str, Float[Tensor, "1 w s t 4"]]
    """What the prior predicted for the views it looked at, by what became of it ("target", "winner", "loser", ...):
    premultiplied sRGB with alpha, in the prior's own size."""
    heard: dict[str, Heard]
    """What rewards told the term, of whatever it showed them."""
    per_view: list[float | None] | None = None
    """What the term's reward says of each of the step's views as they are; None if it has none that judges single views."""


@dataclass(frozen=True)
class Explanation:
    """One step: what was seen, and why the scene moved as it did."""

    step: int
    """Steps done, counting this one."""
    views: Views
    """``[1 v]``, before the step."""
    terms: dict[str, Pull]
    guards: dict[str, list[float | None]] = field(default_factory=dict)
    """What guards say of each of the step's views; those that judge single views."""


def why_path(run: Run, step: int | None = None) -> Path:
    """Where a run's explanation of a saved step is, or the latest one that somebody asked or watched for."""
    return run.folder / ("live/why.safetensors" if step is None else f"steps/why_{step:05d}.safetensors")


@torch.no_grad()
def explain(report: Report, o: Optimization | Contest, watcher: Watcher | None = None) -> Explanation:
    """Explain the step that a report tells of; with a watcher its rewards and guards judge the step's views one by one.

    It draws no random number and changes nothing.
    """
    said = watcher.per_view(report.views) if watcher is not None else {}
    terms = {}
    for name, loss in report.losses.items():
        where = report.looked.get(name)
        targets = {}
        for what, latents in report.predicted.get(name, {}).items():
            assert o.prior is not None
            views = o.prior.decode(latents, report.views.cameras.select(where or slice(None)))
            targets[what] = views.rgba
        heard, per_view = report.rewards.get(name, {}), said.get("watched", {}).get(name)
        ends = None if where is None else (where.start, where.stop)
        terms[name] = Pull(loss, report.weights.get(name), ends, report.gradients.get(name), targets, heard, per_view)
    guards = {name: values for name, values in said.get("guards", {}).items() if values is not None}
    return Explanation(report.step, report.views, terms, guards)


def write_explanation(path: Path, explanation: Explanation, *, durable: bool = True) -> None:
    """Write an explanation small: pictures in 8 bits, depth in 16, gradients in bfloat16, no side above :data:`SIDE` pixels.

    Eight views of 64 pixels a side and two terms take about a megabyte.
    """
    views = _shrunk(explanation.views)
    if views.depth is not None and explanation.views.depth is not None:
        # A mean over what is covered, not over the ground, whose depth is 0.
        views = replace(views, depth=_fitted(explanation.views.depth * explanation.views.alpha) / views.alpha.clamp_min(1e-6))
    cameras = views.cameras
    tensors: dict[str, Tensor] = {"pose": cameras.cam_from_world, "intrinsics": cameras.intrinsics}
    tensors |= {"rgb": _bytes(views.rgb), "alpha": _bytes(views.alpha)}
    if views.depth is not None:
        tensors["depth"] = views.depth.half()
    if views.normals is not None:
        tensors["normals"] = (127 * views.normals.clamp(-1, 1)).round().to(torch.int8)
    terms = []
    for i, (name, pull) in enumerate(explanation.terms.items()):
        if pull.gradient is not None:
            small = _shrunk(pull.gradient)
            images = zip(PARTS, (small.rgb, small.alpha, small.depth, small.normals), strict=True)
            tensors |= {f"{i}.gradient.{part}": x.bfloat16() for part, x in images if x is not None and x.any()}
        tensors |= {f"{i}.target.{j}": _bytes(_fitted(x)) for j, x in enumerate(pull.targets.values())}
        heard = {key: list(value) for key, value in pull.heard.items()}
        plain = {"name": name, "loss": pull.loss, "weight": pull.weight, "views": pull.views, "per_view": pull.per_view}
        terms.append({**plain, "pixels": pull.gradient is not None, "targets": list(pull.targets), "heard": heard})
    about = {"explanation": 1, "step": explanation.step, "size": [cameras.width, cameras.height], "terms": terms}
    write_whole(path, tensor_bytes(tensors, about | {"guards": explanation.guards}), durable=durable)


def read_explanation(path: Path) -> Explanation:
    """Read an explanation, while the run may be replacing the file; nothing in it is run.

    Raises:
        ValueError: if the file is damaged, or no explanation.
        FileNotFoundError: if there is none.
    """
    tensors, about = read_tensors(path)
    try:
        return _read(tensors, about)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is no explanation of a step, or damaged ({error!r})") from None


def _read(tensors: dict[str, Tensor], about: dict[str, Any]) -> Explanation:
    (width, height), count = about["size"], tensors["pose"].shape[1]
    images = {"rgb": 3, "alpha": 1, "depth": 1, "normals": 3}
    shapes: dict[str, tuple[int, ...]] = {"pose": (1, count, 4, 4), "intrinsics": (1, count, 3, 3)}
    shapes |= {name: (1, count, height, width, channels) for name, channels in images.items()}
    for name, x in tensors.items():
        part = name.split(".")[-1]
        if ".target." in name:
            good = x.ndim == 5 and x.shape[0] == 1 and x.shape[4] == 4 and x.shape[1] <= count and max(x.shape[2:4]) <= SIDE
        else:
            good = x.shape == shapes[part]
        if not good or not (".gradient." in name or x.float().isfinite().all()):
            raise ValueError(f"{name} is {tuple(x.shape)} of {x.dtype}, or not finite")
    cameras = Cameras(tensors["pose"].float(), tensors["intrinsics"].float(), int(width), int(height))
    depth, normals = tensors.get("depth"), tensors.get("normals")
    views = Views(
        tensors["rgb"] / 255,
        tensors["alpha"] / 255,
        None if depth is None else depth.float(),
        None if normals is None else normals / 127,
        cameras,
    )
    terms = {}
    for i, said in enumerate(about["terms"]):
        gradient = None
        if said["pixels"]:
            there = {part: x for part, x in zip(PARTS, _all(views), strict=True) if x is not None}
            found = [tensors.get(f"{i}.gradient.{part}") for part in there]
            pairs = zip(found, there.values(), strict=True)
            gradient = views.like([torch.zeros_like(like) if x is None else x.float() for x, like in pairs])
        targets = {str(name): tensors[f"{i}.target.{j}"] / 255 for j, name in enumerate(said["targets"])}
        heard = {str(name): Heard(*map(_numbers, values)) for name, values in said["heard"].items()}
        ends = None if said["views"] is None else (int(said["views"][0]), int(said["views"][1]))
        if ends is not None and not 0 <= ends[0] <= ends[1] <= count:
            raise ValueError(f"a term looks at views {ends} of {count}")
        per_view = None if said["per_view"] is None else _numbers(said["per_view"], count)
        weight = None if said["weight"] is None else float(said["weight"])
        terms[str(said["name"])] = Pull(float(said["loss"]), weight, ends, gradient, targets, heard, per_view)
    guards = {str(name): _numbers(values, count) for name, values in about["guards"].items()}
    return Explanation(int(about["step"]), views, terms, guards)


def _all(views: Views) -> tuple[Tensor | None, ...]:
    return views.rgb, views.alpha, views.depth, views.normals


def _numbers(values: Any, count: int | None = None) -> list[float | None]:
    """A list of numbers, some of which are not known; of this length, if one is said."""
    if not isinstance(values, list) or count not in (None, len(values)):
        raise ValueError(f"{str(values)[:40]} are not {count or 'some'} numbers")
    return [None if x is None else float(x) for x in values]


def _bytes(image: Tensor) -> Tensor:
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)


def _fitted(image: Float[Tensor, "1 v h w c"]) -> Tensor:
    """An image of which no side has more than :data:`SIDE` pixels: means over areas."""
    height, width = image.shape[2:4]
    factor = min(1.0, SIDE / max(height, width))
    if factor == 1:
        return image
    size = max(1, math.floor(height * factor)), max(1, math.floor(width * factor))
    return F.interpolate(image[0].movedim(-1, 1).float(), size, mode="area").movedim(1, -1)[None]


def _shrunk(views: Views) -> Views:
    """Views, or gradients in their places, of which no side has more than :data:`SIDE` pixels."""
    small = views.like([_fitted(x) for x in views.tensors()])
    height, width = small.rgb.shape[2:4]
    return replace(small, cameras=views.cameras.resized(width, height))
