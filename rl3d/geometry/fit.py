"""From views to splats, quickly: a visual hull, and a photometric fit."""

from __future__ import annotations

import torch

from rl3d.geometry.hull import visual_hull
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import render_splats
from rl3d.types import Splats, Views

RATES = {"means": 0.008, "log_scales": 0.015, "quats": 0.02, "opacity_logits": 0.04, "sh": 0.04}
"""Adam's learning rates for scenes that fit the unit sphere and a hundred steps."""


def fit_splats(
    views: Views, *, rng: torch.Generator, steps: int = 80, batch: int = 4, resolution: int = 48, limit: int = 6000
) -> Splats:
    """Carve the visual hull of ``[1 v]`` views, put Gaussians on its surface, and fit them to colour and alpha.

    Takes a second or two on a CPU; not differentiable in the views.

    Args:
        views: Of one object within the unit sphere, with alpha.
        rng: Draws which views a step looks at.
        steps: Of Adam.
        batch: Views in a step.
        resolution: Voxels along the sides of the hull's cube.
        limit: Gaussians at most.
    """
    points, colours = visual_hull(views, resolution=resolution)
    if len(points) > limit:
        keep = torch.randperm(len(points), generator=rng)[:limit].sort().values.to(points.device)
        points, colours = points[keep], colours[keep]
    first = from_points(points, colours, scale=1.3 / resolution)
    learning = {name: x.clone().requires_grad_() for name, x in first.tensors().items()}
    groups = [{"params": [x], "lr": RATES[name]} for name, x in learning.items()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    target = views.detach()
    with torch.enable_grad():
        for step in range(steps):
            for group, rate in zip(groups, RATES.values(), strict=True):
                group["lr"] = rate * 0.1 ** (step / steps)
            some = torch.randperm(target.cameras.views, generator=rng)[:batch].sort().values
            seen, _ = render_splats(Splats(**learning), target.cameras.select(some), depth=False, normals=False)
            loss = 0.5 * (seen.rgba - target.select(some).rgba).square().sum() / len(some)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Splats(**{name: x.detach() for name, x in learning.items()})
