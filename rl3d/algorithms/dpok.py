"""Fan et al. 2023, "DPOK: Reinforcement Learning for Fine-tuning Text-to-Image Diffusion Models", arXiv 2305.16381."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rl3d.algorithms.common import Panel, Rollouts
from rl3d.algorithms.policy_gradient import judged_rollouts, must_draw, policy_loss, rollouts
from rl3d.estimators import advantages, groups_of
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.protocols import Actor
from rl3d.types import Cameras, Prompt


@dataclass(frozen=True)
class Dpok:
    """Maximise alpha E[R] - beta sum_t KL(p_theta(x_t-1 | x_t) || p_pre(x_t-1 | x_t)), both by gradient.

    The KL has a closed form at each step. Its optimum on paths has the marginal p_pre(x_0) exp(alpha R / beta), as far as steps
    with a fixed variance reach: the error falls with their number. The paper's learned value is replaced by the mean of the
    other samples of the prompt, which is as free of bias and needs no network; rewards keep their scale, since the optimum
    depends on it. (D3PO's repository has a "DPOK" whose KL is between categorical distributions over samples: another thing.)
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(stepper=Ddim(1.0)))
    alpha: float = 1.0
    beta: float = 0.01
    group: int = 8
    clip: float | None = 1e-4
    clip_advantage: float | None = None
    fraction: float = 1.0

    def adapters(self) -> tuple[str, ...]:
        return ("policy",)

    def check(self, panel: Panel) -> None:
        panel.must_have_company(self.group)
        must_draw(self.sampling)

    def state(self, actor: Actor, rng: torch.Generator | None = None) -> nn.Module:
        return nn.Module()

    def collect(
        self, actor: Actor, panel: Panel, prompts: list[Prompt], cameras: Cameras, rng: torch.Generator, state: nn.Module
    ) -> Rollouts:
        trajectory, scores = judged_rollouts(actor, panel, prompts, cameras, self.sampling, rng, group=self.group)
        compared = advantages(
            scores,
            groups_of(trajectory.prompts),
            weights=panel.weights,
            baseline="leave_one_out",
            spread="none",
            clip=self.clip_advantage,
        )
        return rollouts(trajectory, scores, compared, self.fraction, rng)

    def loss(
        self, actor: Actor, panel: Panel, batch: Rollouts, rng: torch.Generator, state: nn.Module
    ) -> tuple[Tensor, dict[str, float]]:
        return policy_loss(actor, batch, clip=self.clip, kl=self.beta, reward=self.alpha)

    def after(self, actor: Actor, batch: Rollouts, state: nn.Module) -> None:
        """Nothing follows."""
