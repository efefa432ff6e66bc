"""Scene terms: what a good scene looks like whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rl3d.protocols import Situation, Step
from rl3d.terms.rewarded import gaussians_of
from rl3d.types import Cameras


@dataclass(frozen=True)
class Solid:
    """Make Gaussians opaque or absent, and neither needles nor balloons.

    The loss is the mean of three parts: the binary entropy of opacities (in nats); how far the ratio of the longest to the
    middle axis exceeds ``aspect``; how far the longest axis exceeds ``size`` world units (both in log units, one-sided).
    """

    entropy: float = 0.02
    needles: float = 0.1
    aspect: float = 4.0
    balloons: float = 1.0
    size: float = 0.12

    def build(self, situation: Situation) -> Solid:
        if situation.scene is not None:
            gaussians_of(situation.scene, "Solid")
        return self

    def cameras(self, shared: Cameras, rng: torch.Generator) -> None:
        """No views: it looks at the Gaussians."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        scene: Any = step.scene
        logits, log_scales = scene.opacity_logits, scene.log_scales
        opacity = torch.sigmoid(logits)
        entropy = -(opacity * torch.nn.functional.logsigmoid(logits) + (1 - opacity) * torch.nn.functional.logsigmoid(-logits))
        ordered = log_scales.sort(dim=-1).values
        limit = torch.tensor([self.aspect, self.size]).log().to(ordered)
        needles = torch.relu(ordered[:, 2] - ordered[:, 1] - limit[0])
        balloons = torch.relu(ordered[:, 2] - limit[1])
        loss = self.entropy * entropy.mean() + self.needles * needles.mean() + self.balloons * balloons.mean()
        return {"scene": loss}
