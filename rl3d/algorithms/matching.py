"""The part that the forward-process algorithms share (DPO, RWR, NFT): clean samples are noised, and predictions judged.

They need clean latents and rewards, not how samples came about: any sampler will do, and so will renders of a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.algorithms.common import Latents, Panel, Samples, draw_index, in_groups
from rl3d.estimators import Advantages
from rl3d.math import Level
from rl3d.priors.rollout import Reduction, Sampling, roll_out
from rl3d.protocols import Actor, Prior
from rl3d.types import Cameras, Prompt

Weighting = Literal["clean", "noise", "flow"]
"""What the squared error is of: the clean latents, the noise, or the flow (noise - clean)."""


def error_weight(level: Level, weighting: Weighting) -> float:
    """What turns the squared error of clean latents into that of what a network of another kind predicts."""
    alpha, sigma = level
    return {"clean": 1.0, "noise": (alpha / sigma) ** 2, "flow": ((alpha + sigma) / sigma) ** 2}[weighting]


def squared_error(clean: Latents, predicted: Latents, reduction: Reduction) -> Float[Tensor, "b"]:
    """The squared error of each sample, over its elements, in float32. Differentiable."""
    square = (clean.float() - predicted.float()).square().flatten(1)
    return square.sum(1) if reduction == "sum" else square.mean(1)


def draw_level(sampling: Sampling, rng: torch.Generator) -> Level:
    """One of the noise levels that the sampler visits: those at which the policy acts."""
    return sampling.levels()[draw_index(sampling.steps, rng)]


def predict_at(prior: Prior, noisy: Latents, level: Level, condition: Any) -> Latents:
    """Predict the clean latents without guidance: it is the conditional model that learns."""
    return prior.predict(noisy, level, condition)


@torch.no_grad()
def judged_samples(
    actor: Actor,
    panel: Panel,
    prompts: Sequence[Prompt],
    cameras: Cameras,
    sampling: Sampling,
    rng: torch.Generator,
    *,
    group: int,
    draw_from: str = "policy",
) -> Samples:
    """Draw ``group`` samples for each prompt with the weights of a name, and show them to the panel.

    Advantages are left at 0: every algorithm has its own.
    """
    prior = actor.using(draw_from)
    many, each = in_groups(prompts, cameras, group)
    trajectory = roll_out(prior, many, each, sampling, rng)
    scores = panel.scores(prior, trajectory.clean, trajectory.prompts, trajectory.cameras)
    nothing = Advantages(torch.zeros_like(trajectory.log_probs[0]), torch.ones_like(trajectory.log_probs[0], dtype=torch.bool))
    return Samples(trajectory.clean, trajectory.prompts, trajectory.cameras, scores, nothing)
