"""A prior whose data are Gaussian, so that every prediction has a closed form, and what tests of signals need beside it."""

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from rl3d.cameras import Orbit, RandomOrbit
from rl3d.geometry.points import ball
from rl3d.optimize import optimize
from rl3d.priors.embedded import Embedded, latents_from_pixels, pixels_from_latents
from rl3d.priors.sampling import guide
from rl3d.protocols import PriorInfo, RewardInfo, Situation, Step
from rl3d.recipe import Recipe
from rl3d.representations.gaussians import Gaussians
from rl3d.rewards.base import FromCallable
from rl3d.start import Ball
from rl3d.types import Prompt, Views

SIZE = 16
RED = Prompt("red")


class GaussianViews(nn.Module):
    """Clean latents of a prompt are normal around one colour on opaque ground, all numbers independent.

    ``coarse`` ones are of one colour each, which is read off one pixel: so what noise was drawn matters to all of the views.
    """

    def __init__(self, std: float = 0.3, coarse: bool = False):
        super().__init__()
        self.std, self.coarse, self.asked = std, coarse, 0
        self.info = PriorInfo(4, SIZE, 4, (-10.0, 50.0), 3.0, 40.0, True, True)

    def mean(self, text: str):
        colours = {"": (0.5, 0.5, 0.5), "red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0)}
        return latents_from_pixels(torch.tensor([*colours[text], 1.0]).view(1, 1, 4, 1, 1))[0]

    def embed(self, prompts, cameras):
        return torch.stack([self.mean(p.text) for p in prompts]), torch.stack([self.mean(p.negative) for p in prompts])

    def encode(self, views):
        return latents_from_pixels(views.rgba.movedim(-1, 2))

    def decode(self, latents, cameras):
        pixels = pixels_from_latents(latents).movedim(2, -1)
        return Views(pixels[..., :3], pixels[..., 3:], None, None, cameras)

    def predict(self, noisy, level, condition, *, guidance=1.0, rescale=0.0):
        self.asked += len(noisy) * (1 if guidance == 1 else 2)
        if self.coarse:
            noisy = noisy[:, :1, :, 8:9, 8:9].expand(noisy.shape)
        gain = level.alpha * self.std**2 / (level.alpha**2 * self.std**2 + level.sigma**2)
        named, unnamed = (mean + gain * (noisy - level.alpha * mean) for mean in condition)
        return named if guidance == 1 else guide(named, unnamed, guidance, rescale)


@dataclass(frozen=True)
class Fake(Embedded):
    std: float = 0.3
    coarse: bool = False

    def build(self, device="cpu"):
        return GaussianViews(self.std, self.coarse)

    def check(self, prompt):
        pass


def redness(shown, prompts):
    """Per view: how red what is covered is, beside green and blue."""
    views = shown.views
    weight = views.alpha.sum((2, 3, 4)).clamp_min(1e-3)
    red, green, blue = views.rgb.sum((2, 3)).unbind(-1)
    return (red - 0.5 * (green + blue)) / weight


def reward(function=redness, grade="no", needs=("views",), name="redness"):
    return FromCallable(function, RewardInfo(name, grade, (-torch.inf, torch.inf), "", "", "", frozenset(needs)))


def views(rgb=(0.5, 0.5, 0.5), alpha=1.0, count=2) -> Views:
    colour = torch.tensor(rgb).expand(1, count, SIZE, SIZE, 3).clone()
    cameras = Orbit(views=count, size=SIZE).cameras()
    return Views(alpha * colour, torch.full((1, count, SIZE, SIZE, 1), alpha), None, None, cameras)


def blob(count: int = 40, seed: int = 0):
    """A grey ball that learns."""
    return Gaussians(strategy=None).build(ball(count, torch.Generator().manual_seed(seed)))


def situation(prior=None, scene=None) -> Situation:
    return Situation(RED, prior, None, torch.Generator().manual_seed(0), torch.device("cpu"), scene)


def step(seen: Views, prior=None, scene=None, *, prompt=RED, progress=0.5, seed=0, number=0) -> Step:
    scene = blob() if scene is None else scene
    return Step(seen.leaves(), scene, prior, prompt, progress, torch.Generator().manual_seed(seed), number)


def pixel_gradient(signal, one: Step):
    """Of a signal's loss, with respect to the colours."""
    loss = signal.losses(one)["pixels"]
    return torch.autograd.grad(loss, one.views.rgb)[0]


def tiny_recipe(**changes) -> Recipe:
    plain = Recipe(
        terms={},
        prior=Fake(),
        draw=None,
        start=Ball(count=80),
        scene=Gaussians(strategy=None),
        rig=RandomOrbit(views=2, size=SIZE),
        steps=30,
        guards={},
    )
    return replace(plain, **changes)


def run(o):
    for _ in optimize(o):
        pass
    return o


@dataclass(frozen=True)
class Hold:
    """A pixel term that asks for nothing: it lets a recipe of scene terms alone have views."""

    build_count: int = field(default=0)

    def build(self, situation):
        return self

    def cameras(self, shared, rng):
        return shared

    def losses(self, step):
        return {"pixels": 0 * step.views.rgb.sum()}
