"""Where an optimization starts: views drawn from the prior, and the first Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from rl3d.cameras import Orbit
from rl3d.geometry.hull import visual_hull
from rl3d.geometry.points import ball, from_points
from rl3d.priors.sampling import sample_views
from rl3d.protocols import Prior, Situation
from rl3d.rewards.clip import Clip
from rl3d.types import Cameras, Prompt, Splats, Views


@dataclass(frozen=True)
class Draw:
    """Views drawn jointly from the prior, on one or more rings around the object."""

    views: int = 4
    """Views on each ring; they are drawn jointly over all rings."""
    elevations_deg: tuple[float, ...] = (20.0,)
    """One ring each; every other ring is turned by half a spacing."""
    steps: int = 16
    """Sampling steps."""
    guidance: float = 3.0
    rescale: float = 0.5
    candidates: int = 1
    """Sets to draw; ``chooser`` keeps the best."""
    chooser: Clip = field(default_factory=Clip)

    def draw(self, prompt: Prompt, prior: Prior, rng: torch.Generator, device: torch.device) -> Views:
        """Draw the candidates together, in one batch, and keep the best."""
        return self.draw_sets(prompt, prior, rng, device, 1)[0]

    def draw_sets(self, prompt: Prompt, prior: Prior, rng: torch.Generator, device: torch.device, count: int) -> list[Views]:
        """Draw several sets in one batch, each the best of its own candidates."""
        half = 180 / self.views
        info = prior.info
        rings = [
            Orbit(self.views, e, half * (i % 2), info.distance, info.fov_y_deg, info.size).cameras()
            for i, e in enumerate(self.elevations_deg)
        ]
        total = count * self.candidates
        cameras = Cameras(
            torch.cat([r.cam_from_world for r in rings], 1).repeat(total, 1, 1, 1).to(device),
            torch.cat([r.intrinsics for r in rings], 1).repeat(total, 1, 1, 1).to(device),
            info.size,
            info.size,
        )
        prompts = [prompt] * total
        views = sample_views(prior, prompts, cameras, steps=self.steps, guidance=self.guidance, rescale=self.rescale, rng=rng)
        if self.candidates == 1:
            return [views.sample(i) for i in range(count)]
        with torch.no_grad():
            score = self.chooser.build_signal(device).score(views, prompts)
        best = score.value.view(count, self.candidates).argmax(1).tolist()
        return [views.sample(i * self.candidates + b) for i, b in enumerate(best)]

    @property
    def passes(self) -> float:
        """Network passes of one set of as many views as a step has, on all rings."""
        guided = 2 if self.guidance != 1 else 1
        return guided * self.candidates * self.steps * len(self.elevations_deg)


@runtime_checkable
class Start(Protocol):
    """A value that makes the first Gaussians."""

    def build(self, situation: Situation) -> Splats:
        """Make them."""
        ...


@dataclass(frozen=True)
class Hull:
    """Gaussians on the surface of the drawn views' visual hull, in its colours."""

    resolution: int = 40
    """Voxels along the sides of the unit sphere's cube."""
    limit: int = 4000
    """Gaussians at most: a denser surface is thinned at random."""

    def build(self, situation: Situation) -> Splats:
        if situation.drawn is None:
            raise ValueError("a visual hull needs views drawn from a prior: set the recipe's `draw`, or start from a ball")
        points, colours = visual_hull(situation.drawn, resolution=self.resolution)
        if len(points) > self.limit:
            keep = torch.randperm(len(points), generator=situation.rng)[: self.limit].sort().values.to(points.device)
            points, colours = points[keep], colours[keep]
        return from_points(points, colours, scale=1.3 / self.resolution)


@dataclass(frozen=True)
class Ball:
    """Gray Gaussians spread evenly in a ball: for recipes that draw nothing."""

    count: int = 1000
    radius: float = 0.5

    def build(self, situation: Situation) -> Splats:
        return ball(self.count, situation.rng, radius=self.radius)
