"""Policy gradient at the pixels: any black box that looks at views, without asking the prior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.estimators import score_function
from rl3d.protocols import Reward, RewardPart, Shown, Signal, Situation, Step
from rl3d.rewards.base import SplatScene
from rl3d.rewards.clip import Clip
from rl3d.terms.rewarded import build_reward, compare, gaussians_of, instead, repeated
from rl3d.types import Cameras, Views


@dataclass(frozen=True)
class PixelPolicy:
    """Try small changes of the views' colours, and follow those that a reward likes.

    An action is a coarse picture, ``cells`` by ``cells`` for each view, added to the colours where the object is: normal noise
    of deviation ``sigma`` around nothing. Its policy gradient is REINFORCE (Williams 1992) with a leave-one-out baseline (Kool
    et al. 2019), over ``samples`` actions; what goes to the rendering is, in expectation, the gradient of the reward smoothed
    by the noise, averaged over each cell. Coarse, since such estimates are the noisier the more numbers an action has: their
    cosine with the true gradient is about 1 / sqrt(1 + 3 cells^2 views / samples).

    Its weight is best said as a ratio (:attr:`rl3d.recipe.Recipe.ratios`). Only colours are tried: geometry alone is what
    :class:`rl3d.terms.subspace.Evolve` tries.
    """

    reward: RewardPart = field(default_factory=Clip)
    samples: int = 16
    """Even where ``antithetic``."""
    cells: int = 4
    """Along each side of a view; it must divide the view's size."""
    sigma: float = 0.1
    """Of the change of colours in [0, 1]."""
    antithetic: bool = True
    """Whether each action is tried with its opposite: exact for rewards that are linear over such changes."""
    start: float = 0.3
    """Progress in [0, 1) before which the scene is left alone."""
    every: int = 1
    """Steps from one estimate to the next; in between nothing is pulled."""

    def __post_init__(self):
        least = 2
        if self.samples < least or self.cells < 1 or self.sigma <= 0 or self.every < 1:
            raise ValueError(
                f"samples must be at least {least}, cells and every at least 1, and sigma above 0; got samples {self.samples}, "
                f"cells {self.cells}, every {self.every}, sigma {self.sigma}"
            )
        if self.antithetic and self.samples % 2:
            raise ValueError(f"antithetic samples come in pairs: got {self.samples}; take an even number, or antithetic=False")

    def build(self, situation: Situation) -> Signal:
        reward = build_reward(self.reward, situation.device)
        info = reward.info
        if "views" not in info.needs:
            raise ValueError(f"{info.name} does not look at colours: use {instead(info, but='PixelPolicy')}")
        if info.needs & {"splats", "mesh"} and situation.scene is not None:
            gaussians_of(situation.scene, info.name)
        return _PixelPolicy(self, reward)


class _PixelPolicy:
    def __init__(self, value: PixelPolicy, reward: Reward):
        self.value, self.reward = value, reward

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras:
        if shared.width % self.value.cells or shared.height % self.value.cells:
            size = f"{shared.width} x {shared.height}"
            raise ValueError(f"views of {size} pixels do not divide into {self.value.cells} cells: set cells to a divisor")
        return shared

    def losses(self, step: Step) -> dict[str, Tensor]:
        v, views = self.value, step.views.detach()
        if step.progress < v.start or step.number % v.every:
            return {}
        fresh = v.samples // 2 if v.antithetic else v.samples
        noise = torch.randn(fresh, views.rgb.shape[1], v.cells, v.cells, 3, generator=step.rng).to(views.rgb)
        noise = torch.cat([noise, -noise]) if v.antithetic else noise
        many = repeated(views, v.samples)
        tried = replace(many, rgb=many.rgb + v.sigma * many.alpha * enlarged(noise, views))
        scenes = ()
        if self.reward.info.needs & {"splats", "mesh"}:
            scenes = (SplatScene(gaussians_of(step.scene, self.reward.info.name).splats()),) * v.samples
        score = compare(self.reward, Shown(tried, scenes), step)
        slope = score_function(score, noise.flatten(1), v.sigma, antithetic=v.antithetic).view(noise.shape[1:])
        # Each cell's slope is shared by its pixels, as the colour's own gradient would be, and reaches what is covered.
        pixels = views.rgb.shape[2] * views.rgb.shape[3] / v.cells**2
        direction = views.alpha * enlarged(slope[None], views) / pixels
        return {"pixels": -(direction * step.views.rgb).sum()}


def enlarged(coarse: Float[Tensor, "k v a b 3"], views: Views) -> Float[Tensor, "k v h w 3"]:
    """Coarse pictures at the views' size, each cell of one colour."""
    height, width = views.rgb.shape[2:4]
    big = F.interpolate(coarse.flatten(0, 1).movedim(-1, 1), (height, width), mode="nearest")
    return big.movedim(1, -1).unflatten(0, coarse.shape[:2])
