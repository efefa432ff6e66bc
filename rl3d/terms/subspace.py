"""Search in a low-dimensional space of changes to the scene: any black box, of meshes and physics too.

Evolution strategies find little in as many dimensions as a scene has: their cosine with the true gradient is about
1 / sqrt(1 + d / samples). So they search among few meaningful changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.cameras import Orbit, Rig
from rl3d.estimators import bernoulli_score_function, score_function
from rl3d.math import SH_C0, multiply_quats, rotation_from_quat
from rl3d.protocols import Reward, RewardPart, Shown, Signal, Situation, Step
from rl3d.rewards.base import SplatScene
from rl3d.terms.learner import Learner
from rl3d.terms.rewarded import build_reward, compare, gaussians_of, instead, render_each
from rl3d.types import Cameras, Score, Splats


class Moves(NamedTuple):
    """A space of changes of one set of Gaussians."""

    dimensions: int
    apply: Callable[[Tensor], Splats]
    """From ``[d]`` coordinates to the changed Gaussians, differentiably; zeros change nothing."""
    fields: tuple[str, ...]
    """What of them changes."""


@dataclass(frozen=True)
class Pose:
    """Move, turn and grow the whole: 7 dimensions, in world units, radians (to second order) and nepers."""

    sigma: float = 0.05

    def moves(self, splats: Splats) -> Moves:
        center = splats.means.mean(0)

        def apply(z: Tensor) -> Splats:
            turn = torch.cat([torch.ones(1).to(z), z[3:6] / 2])[None]
            means = center + z[6].exp() * (splats.means - center) @ rotation_from_quat(turn)[0].mT + z[:3]
            return replace(
                splats,
                means=means,
                quats=multiply_quats(turn / turn.norm(), splats.quats),
                log_scales=splats.log_scales + z[6],
            )

        return Moves(7, apply, ("means", "quats", "log_scales"))


@dataclass(frozen=True)
class Lattice:
    """Bend space: control points on a grid around the scene move, what is between follows (free-form deformation).

    Sederberg & Parry 1986, with trilinear weights in place of Bernstein polynomials, so that a point moves its neighbourhood
    alone. Gaussians keep their shapes.
    """

    points: int = 3
    """Along each axis, at least 2; the space has 3 ``points``^3 dimensions."""
    sigma: float = 0.05
    """World units."""

    def __post_init__(self):
        if self.points < 2:
            raise ValueError(f"a lattice needs at least 2 points along each axis, got {self.points}")

    def moves(self, splats: Splats) -> Moves:
        low, high = splats.means.amin(0), splats.means.amax(0)
        place = (splats.means - low) / (high - low).clamp_min(1e-6) * (self.points - 1)
        nodes = torch.arange(self.points).to(place)
        # [n points] hat functions along each axis; their products are the weights of the grid's points.
        x, y, z = ((1 - (place[:, i, None] - nodes).abs()).clamp_min(0) for i in range(3))
        weight = torch.einsum("na,nb,nc->nabc", x, y, z).flatten(1)

        def apply(z: Tensor) -> Splats:
            return replace(splats, means=splats.means + weight @ z.view(-1, 3))

        return Moves(3 * self.points**3, apply, ("means",))


@dataclass(frozen=True)
class Clusters:
    """Move groups of neighbouring Gaussians, and change their colours if wanted."""

    count: int = 16
    colour: bool = False
    """Whether the groups' colours are searched, too."""
    sigma: float = 0.05
    """World units; of colours in [0, 1] twice that."""

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"there must be at least 1 cluster, got {self.count}")

    def moves(self, splats: Splats) -> Moves:
        centres = cluster_centres(splats.means, self.count)
        member, n = nearest(splats.means, centres), len(centres)

        def apply(z: Tensor) -> Splats:
            moved = replace(splats, means=splats.means + z[: 3 * n].view(n, 3)[member])
            if not self.colour:
                return moved
            shift = 2 * z[3 * n :].view(n, 1, 3)[member] / SH_C0
            return replace(moved, sh=torch.cat([splats.sh[:, :1] + shift, splats.sh[:, 1:]], 1))

        return Moves((6 if self.colour else 3) * n, apply, ("means", "sh") if self.colour else ("means",))


Space = Pose | Lattice | Clusters


def cluster_centres(points: Float[Tensor, "n 3"], count: int, rounds: int = 10) -> Float[Tensor, "c 3"]:
    """Centres of ``count`` groups of points, or of as many as there are points.

    k-means (Lloyd 1982) from farthest points (Gonzalez 1985): nothing is random.
    """
    chosen = [int((points - points.mean(0)).square().sum(1).argmax())]
    away = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(away.argmax()))
        away = away.minimum((points - points[chosen[-1]]).square().sum(1))
    centres = points[chosen].clone()
    for _ in range(rounds):
        member = nearest(points, centres)
        total = torch.zeros_like(centres).index_add(0, member, points)
        size = torch.bincount(member, minlength=len(centres)).to(points)[:, None]
        centres = torch.where(size > 0, total / size.clamp_min(1), centres)
    return centres


def nearest(points: Float[Tensor, "n 3"], centres: Float[Tensor, "c 3"]) -> Int[Tensor, "n"]:
    """The centre next to each point."""
    return torch.cdist(points, centres).argmin(1)


def carried_back(moves: Moves, slope: Float[Tensor, "d"], *, damping: float = 0.05) -> dict[str, Tensor]:
    """The least change of the Gaussians' fields with this slope in the space: the gradient's projection on what it can do.

    J (J^T J + damping I)^-1 slope with J the fields' derivative in the coordinates, as one for all fields, and the damping in
    units of J^T J's mean diagonal: what moves hardly anything has a slope of noise alone, which must not be blown up.
    """

    def flat(z: Tensor) -> Tensor:
        changed = moves.apply(z).tensors()
        return torch.cat([changed[name].flatten() for name in moves.fields])

    still = torch.zeros_like(slope)
    j = torch.func.jacfwd(flat)(still)
    square = (j.mT @ j).double()
    lift = damping * square.diagonal().mean().clamp_min(1e-12) * torch.eye(len(square)).to(square)
    change = j @ torch.linalg.solve(square + lift, slope.double()).to(j)
    shapes = {name: moves.apply(still).tensors()[name].shape for name in moves.fields}
    parts = change.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


@dataclass(frozen=True)
class Evolve:
    """Climb any reward of the scene by evolution strategies in a space of few changes.

    The estimate is that of :func:`rl3d.estimators.score_function`; its projection on the Gaussians is this term's gradient. All
    samples are seen by the same cameras. Its weight is best said as a ratio (:attr:`rl3d.recipe.Recipe.ratios`).

    A ``surrogate`` is a reward with a gradient in the scene that stands for the black box where it can: for the drop test,
    :class:`rl3d.rewards.physics.Stands`. It only takes noise away, whatever it is.
    """

    reward: RewardPart
    space: Space = field(default_factory=Lattice)
    samples: int = 16
    """Even where ``antithetic``."""
    antithetic: bool = True
    """Whether each change is tried with its opposite; of little use where rewards only say yes or no."""
    surrogate: RewardPart | None = None
    trust: float = 1.0
    """A factor on the surrogate: how much the reward changes where it changes by one."""
    rig: Rig = field(default_factory=lambda: Orbit(views=4))
    """What rewards that look at views are shown."""
    start: float = 0.4
    """Progress in [0, 1) before which the scene is left alone."""
    every: int = 5
    """Steps from one estimate to the next; in between nothing is pulled."""

    def __post_init__(self):
        if self.samples < 2 or self.every < 1 or (self.antithetic and self.samples % 2):
            got = f"samples {self.samples}, antithetic {self.antithetic}, every {self.every}"
            raise ValueError(f"samples must be at least 2, and even in antithetic pairs, and every at least 1; got {got}")

    def build(self, situation: Situation) -> Signal:
        reward = build_reward(self.reward, situation.device)
        gaussians_of(situation.scene, "Evolve")
        surrogate = None if self.surrogate is None else build_reward(self.surrogate, situation.device)
        if surrogate is not None and surrogate.info.differentiable != "scene":
            has = surrogate.info.differentiable
            raise ValueError(
                f"a surrogate needs a gradient in the scene, and {surrogate.info.name}'s is in: {has}; take physics.Stands() "
                f"or shape.Decided(), or use {instead(surrogate.info, but='Evolve')} for it"
            )
        return _Evolve(self, reward, surrogate)


class _Evolve:
    def __init__(self, value: Evolve, reward: Reward, surrogate: Reward | None):
        self.value, self.reward, self.surrogate = value, reward, surrogate

    def cameras(self, shared: Cameras, rng: torch.Generator) -> None:
        """No views of the step: it renders its own copies."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        v = self.value
        if step.progress < v.start or step.number % v.every:
            return {}
        scene = gaussians_of(step.scene, "Evolve")
        moves = v.space.moves(scene.splats())
        fresh = v.samples // 2 if v.antithetic else v.samples
        noise = torch.randn(fresh, moves.dimensions, generator=step.rng).to(scene.device)
        noise = torch.cat([noise, -noise]) if v.antithetic else noise
        places = v.space.sigma * noise
        shown = render_each(scene, [moves.apply(z) for z in places], v.rig.cameras(step.rng).to(scene.device))
        score = compare(self.reward, shown, step)
        known = None if self.surrogate is None else self._pathwise(self.surrogate, moves, places, shown, step)
        slope = score_function(score, noise, v.space.sigma, antithetic=v.antithetic, surrogate=known, trust=v.trust)
        fields = scene.fields().tensors()
        change = carried_back(moves, slope)
        return {"scene": -torch.stack([(part * fields[name]).sum() for name, part in change.items()]).sum()}

    def _pathwise(
        self, surrogate: Reward, moves: Moves, places: Tensor, shown: Shown, step: Step
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]:
        """The surrogate's value and slope at each sample; not finite where it cannot judge."""
        values, slopes = [], []
        for k, place in enumerate(places):
            z = place.clone().requires_grad_()
            with torch.enable_grad():
                one = Shown(shown.views.sample(k), (SplatScene(moves.apply(z)),))
                score = surrogate.score(one, [step.prompt])
            valid = bool(score.valid[0])
            values.append(score.value[0].detach() if valid else torch.tensor(torch.nan).to(place))
            slope = torch.autograd.grad(score.value[0], z)[0] if valid and score.value.requires_grad else torch.zeros_like(z)
            slopes.append(slope)
        return torch.stack(values), torch.stack(slopes)


@dataclass(frozen=True)
class KeepOrDrop:
    """Decide for each group of neighbouring Gaussians whether it stays: coins that any black box teaches.

    Each group has a chance of being kept. Copies of the scene without the groups that lost their toss are judged, and the
    chances follow the reward by REINFORCE with a leave-one-out baseline. Groups with a chance below one half fade: the term's
    loss is the sum of their opacities times how far below it they are, so that pruning finds them transparent. A reward of the
    smaller object alone would drop everything: combine it with one of what it should look like.
    """

    reward: RewardPart
    count: int = 24
    """Groups."""
    samples: int = 16
    chance: float = 0.8
    """Of being kept, at first."""
    rate: float = 0.1
    """Adam's learning rate of the logits."""
    rig: Rig = field(default_factory=lambda: Orbit(views=4))
    start: float = 0.4
    every: int = 5

    def __post_init__(self):
        if self.samples < 2 or self.count < 1 or self.every < 1 or not 0 < self.chance < 1:
            got = f"samples {self.samples}, count {self.count}, every {self.every}, chance {self.chance}"
            raise ValueError(f"samples must be at least 2, count and every at least 1, and 0 < chance < 1; got {got}")

    def build(self, situation: Situation) -> Signal:
        scene = gaussians_of(situation.scene, "KeepOrDrop")
        return _KeepOrDrop(self, build_reward(self.reward, situation.device), scene)


class _KeepOrDrop(nn.Module):
    """State: where the groups are, the logits of their chances, and their optimiser."""

    centres: Tensor
    begun: Tensor

    def __init__(self, value: KeepOrDrop, reward: Reward, scene: nn.Module):
        super().__init__()
        self.value = value
        self._reward = [reward]  # in a list, so that no checkpoint holds its weights
        logit = torch.logit(torch.tensor(value.chance))
        self.learner = Learner([nn.Parameter(logit.repeat(value.count))], value.rate)
        self.register_buffer("centres", torch.zeros(value.count, 3))
        self.register_buffer("begun", torch.tensor(False))
        self.to(next(scene.parameters()).device)

    def cameras(self, shared: Cameras, rng: torch.Generator) -> None:
        """No views of the step: it renders its own copies."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        v = self.value
        if step.progress < v.start:
            return {}
        scene = gaussians_of(step.scene, "KeepOrDrop")
        splats = scene.splats()
        if not self.begun:
            # With fewer Gaussians than groups the last groups stay empty, far from everything.
            found = cluster_centres(splats.means, v.count)
            self.centres.fill_(1e3)[: len(found)] = found
            self.begun.fill_(True)
        member, logits = nearest(splats.means, self.centres), self.learner.weights[0]
        if step.number % v.every == 0:
            chance = logits.detach().sigmoid()
            kept = torch.rand(v.samples, v.count, generator=step.rng).to(chance) < chance
            slope = bernoulli_score_function(self._judge(splats, kept[:, member], step), kept, chance)
            self.learner.step(-(slope * logits).sum())
        doomed = (1 - 2 * logits.detach().sigmoid()).clamp_min(0)[member]
        return {"scene": (doomed * scene.opacity_logits.sigmoid()).sum()} if doomed.any() else {}

    def _judge(self, splats: Splats, kept: Tensor, step: Step) -> Score:
        """Judge the scene without what is not kept; where nothing is, there is nothing to judge."""
        some = kept.any(1)
        copies = [splats[mask if bool(mask.any()) else torch.ones_like(mask)] for mask in kept]
        scene = gaussians_of(step.scene, "KeepOrDrop")
        shown = render_each(scene, copies, self.value.rig.cameras(step.rng).to(scene.device))
        score = compare(self._reward[0], shown, step)
        return Score(score.value, None, score.valid & some)
