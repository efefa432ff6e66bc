"""The part that DDPO, DPOK and GRPO share: trajectories that were judged, and the surrogate over their steps."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.algorithms.common import Panel, Rollouts, in_groups, noise_like, seen
from rl3d.estimators import Advantages, clipped_surrogate, mean_used
from rl3d.priors.rollout import Sampling, Trajectory, kl_divergence, log_prob, roll_out, stochastic_steps, transition_at
from rl3d.protocols import REFERENCE, Actor
from rl3d.types import Cameras, Prompt, Score


def judged_rollouts(
    actor: Actor,
    panel: Panel,
    prompts: list[Prompt],
    cameras: Cameras,
    sampling: Sampling,
    rng: torch.Generator,
    *,
    group: int,
    among: Collection[int] | None = None,
    shared_noise: bool = False,
) -> tuple[Trajectory, dict[str, Score]]:
    """Draw ``group`` samples for each prompt with the policy, and show them to the panel.

    ``shared_noise`` starts all samples of a prompt alike (Xue et al. 2025, "DanceGRPO"). Raises ``ValueError`` where no step
    draws.
    """
    must_draw(sampling, among)
    prior = actor.using("policy")
    many, each = in_groups(prompts, cameras, group)
    noise = None
    if shared_noise:
        shape = (len(prompts), each.views, prior.info.channels, prior.info.size, prior.info.size)
        noise = noise_like(torch.empty(shape, device=each.cam_from_world.device), rng).repeat_interleave(group, 0)
    trajectory = roll_out(prior, many, each, sampling, rng, among=among, noise=noise)
    with torch.no_grad():
        scores = panel.scores(prior, trajectory.clean, trajectory.prompts, trajectory.cameras)
    return trajectory, scores


def must_draw(sampling: Sampling, among: Collection[int] | None = None) -> None:
    """Refuse samplers of which no step draws (``ValueError``): then there is no policy to speak of."""
    if not stochastic_steps(sampling, among):
        raise ValueError(
            f"what is learned here are steps that draw, and {sampling.stepper} in {sampling.steps} steps has none: "
            "take Ddim(eta=1.0) or FlowSde, in 2 steps or more"
        )


def some_steps(trajectory: Trajectory, fraction: float, rng: torch.Generator) -> tuple[int, ...]:
    """A random part of the steps that drew, at least one, in order."""
    steps = trajectory.stochastic
    count = max(1, round(fraction * len(steps)))
    chosen = torch.randperm(len(steps), generator=rng, device=rng.device)[:count]
    return tuple(steps[i] for i in sorted(chosen.tolist()))


def policy_loss(
    actor: Actor, batch: Rollouts, *, clip: float | None, kl: float = 0.0, reward: float = 1.0
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Mean over steps and used samples of ``reward`` times the surrogate, plus ``kl`` times KL(policy || reference).

    The divergence is that of the steps' normal distributions, exactly. Before the first update all ratios are 1, to the bit if
    the batch has the shape that it was drawn in.
    """
    trajectory, (advantage, used) = batch.trajectory, batch.advantages
    sampling = trajectory.sampling
    policy, reference = actor.using("policy"), actor.using(REFERENCE)
    condition = policy.embed(list(trajectory.prompts), trajectory.cameras)
    losses, divergences, moved, clipped = [], [], [], []
    for step in batch.steps:
        x, following, old = trajectory.latents[step], trajectory.latents[step + 1], trajectory.log_probs[step]
        transition = transition_at(policy, x, step, condition, sampling)
        now = log_prob(following, transition, sampling.reduction)
        loss = reward * mean_used(clipped_surrogate(now, old, advantage, clip), used)
        if kl:
            with torch.no_grad():
                before = transition_at(reference, x, step, condition, sampling)
            divergence = mean_used(kl_divergence(transition, before, sampling.reduction), torch.ones_like(used))
            loss = loss + kl * divergence
            divergences.append(divergence.detach())
        losses.append(loss)
        moved.append((now.detach() - old).abs().max())
        if clip is not None:
            clipped.append(((now.detach() - old).exp() - 1).abs().gt(clip).float().mean())
    told = seen(batch.scores) | {"used": used.float().mean().item(), "log_ratio_max": torch.stack(moved).max().item()}
    if divergences:
        told["kl"] = torch.stack(divergences).mean().item()
    if clipped:
        told["clipped"] = torch.stack(clipped).mean().item()
    return torch.stack(losses).mean(), told


def rollouts(
    trajectory: Trajectory, scores: dict[str, Score], advantages: Advantages, fraction: float, rng: torch.Generator
) -> Rollouts:
    """Put together what :func:`policy_loss` learns from."""
    return Rollouts(trajectory, scores, advantages, some_steps(trajectory, fraction, rng))
