"""What all rewards share: looking at what is shown, judging sample by sample, and making rewards of functions and of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.geometry.tsdf import fuse, orbit_cameras, surface
from rl3d.protocols import Need, PairReward, Reward, RewardInfo, Scene, Shown
from rl3d.render.gaussians import look_at
from rl3d.types import Cameras, Prompt, Score, Splats, Views


@dataclass
class SplatScene:
    """Gaussians as a scene; their mesh is made when it is first asked for, and kept."""

    gaussians: Splats
    _mesh: object = None

    def splats(self) -> Splats:
        return self.gaussians

    def mesh(self):
        """Fuse depth rendered from 36 sides and take its surface, in which nothing is dropped as debris.

        Raises:
            ValueError: if there is nothing to mesh.
        """
        if self._mesh is None:
            gaussians = Splats(**{name: x.detach() for name, x in self.gaussians.tensors().items()})
            views = look_at(gaussians)(orbit_cameras(12, (-25.0, 15.0, 55.0), 96))
            self._mesh = surface(fuse(views, resolution=64), debris=0.0)
        return self._mesh


@dataclass
class MeshScene:
    """A mesh as a scene."""

    surface: object
    """A ``trimesh.Trimesh``."""

    def splats(self) -> Splats:
        raise ValueError("this scene is a mesh and has no Gaussians: fit some to its views with rl3d.geometry.fit.fit_splats")

    def mesh(self):
        return self.surface


def closed_form(
    name: str,
    differentiable: Literal["pixels", "scene", "no"],
    range: tuple[float, float],
    source: str,
    *needs: Need,
) -> RewardInfo:
    """What a reward without weights says of itself; it needs views if nothing else is named."""
    return RewardInfo(name, differentiable, range, "", "Apache-2.0", source, frozenset(needs or ("views",)))


def shown(what: Shown | Views) -> Shown:
    """What is shown, whether it came as views alone or not."""
    return what if isinstance(what, Shown) else Shown(what)


def look(info: RewardInfo, what: Shown | Views, prompts: Sequence[Prompt]) -> Shown:
    """What is shown, once it is certain that it has all that a reward needs, and a prompt for each sample.

    Raises:
        ValueError: if it has not.
    """
    what = shown(what)
    if len(prompts) != len(what.views.rgb):
        raise ValueError(f"{len(prompts)} prompts for {len(what.views.rgb)} samples: give one prompt to each sample")
    if "depth" in info.needs and (what.views.depth is None or what.views.normals is None):
        raise ValueError(f"{info.name} needs depth and normals, and these views have none: render them, or take another reward")
    if info.needs & {"splats", "mesh"} and not what.scenes:
        raise ValueError(f"{info.name} needs a scene, and views alone were shown: give it Shown(views, scenes)")
    return what


def pick(what: Shown | Views, index: Sequence[int]) -> Shown:
    """Some samples of what is shown, in this order."""
    what, rows = shown(what), list(index)
    views, cameras = what.views, what.views.cameras
    some = replace(cameras, cam_from_world=cameras.cam_from_world[rows], intrinsics=cameras.intrinsics[rows])
    depth = None if views.depth is None else views.depth[rows]
    normals = None if views.normals is None else views.normals[rows]
    chosen = Views(views.rgb[rows], views.alpha[rows], depth, normals, some)
    return Shown(chosen, tuple(what.scenes[i] for i in rows) if what.scenes else ())


def together(parts: Sequence[Shown | Views]) -> Shown:
    """Samples from several places as one batch; depth, normals and scenes stay where all have them."""
    all_shown = [shown(part) for part in parts]
    views = [part.views for part in all_shown]
    first = views[0].cameras
    pose = torch.cat([v.cameras.cam_from_world for v in views])
    cameras = Cameras(pose, torch.cat([v.cameras.intrinsics for v in views]), first.width, first.height)
    depth = [v.depth for v in views if v.depth is not None]
    normals = [v.normals for v in views if v.normals is not None]
    joined = Views(
        torch.cat([v.rgb for v in views]),
        torch.cat([v.alpha for v in views]),
        torch.cat(depth) if len(depth) == len(views) else None,
        torch.cat(normals) if len(normals) == len(views) else None,
        cameras,
    )
    scenes = tuple(scene for part in all_shown for scene in part.scenes)
    return Shown(joined, scenes if all(part.scenes for part in all_shown) else ())


def judged(per_view: Float[Tensor, "b v"]) -> Score:
    """The mean over views; not valid where a view's value is not finite."""
    return Score(per_view.mean(1), per_view, per_view.detach().isfinite().all(1))


def judge_each(count: int, judge: Callable[[int], Tensor | float | None], like: Tensor) -> Score:
    """Judge samples one by one, where a scene has to be looked at. None, or what is not finite, is not valid."""
    values = []
    for i in range(count):
        value = judge(i)
        values.append(like.new_full((), torch.nan) if value is None else torch.as_tensor(value, device=like.device).to(like))
    value = torch.stack(values)
    return Score(value, None, value.detach().isfinite())


def judge_scenes(what: Shown, judge: Callable[[Scene], Tensor | float | None]) -> Score:
    """Judge each sample's scene; one that cannot be meshed, or that shows anything but finite pixels, is not valid."""

    def one(i: int) -> Tensor | float | None:
        if not what.views.rgb[i].detach().isfinite().all():
            return None
        try:
            return judge(what.scenes[i])
        except Unmeasurable:
            return None

    return judge_each(len(what.views.rgb), one, what.views.rgb)


class Unmeasurable(ValueError):
    """There is nothing to measure: an empty scene, a surface without area."""


def mesh_of(scene: Scene):
    """A scene's mesh.

    Raises:
        Unmeasurable: if it has no surface.
    """
    try:
        mesh = scene.mesh()
    except ValueError as error:
        raise Unmeasurable(str(error)) from error
    if mesh is None or len(mesh.faces) == 0 or not mesh.area > 0:
        raise Unmeasurable("the mesh has no surface")
    return mesh


Judge = Callable[[Shown, list[Prompt]], Tensor | Sequence[float | None]]
"""A user's function: what is shown and its prompts to a number for each sample; None where there is none."""


@dataclass(frozen=True)
class FromCallable:
    """Any function as a reward. It builds itself."""

    function: Judge
    info: RewardInfo

    def build(self, device: torch.device | str = "cpu") -> FromCallable:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        """Judge; ``[b]`` and ``[b v]`` tensors keep their graph, anything else has none."""
        seen = look(self.info, shown, prompts)
        found = self.function(seen, prompts)
        rgb = seen.views.rgb
        if not isinstance(found, Tensor):
            found = rgb.new_tensor([torch.nan if value is None else float(value) for value in found])
        allowed = (rgb.shape[:1], rgb.shape[:2])
        if found.shape not in allowed:
            got = f"it gave {list(found.shape)}"
            raise ValueError(f"{self.info.name} must give {list(allowed[0])} or {list(allowed[1])} numbers; {got}")
        if found.ndim == 2:
            return judged(found)
        return Score(found, None, found.detach().isfinite())


def from_callable(function: Judge, *, info: RewardInfo | None = None) -> FromCallable:
    """Make a reward of a function ``f(shown, prompts)`` that gives each sample a number, or each view one.

    Without ``info`` it is a black box that needs views alone, of unknown range and licence.
    """
    name = getattr(function, "__name__", type(function).__name__)
    unknown = RewardInfo(f"function:{name}", "no", (-torch.inf, torch.inf), "", "", "a function of the user's")
    return FromCallable(function, info or unknown)


@dataclass(frozen=True)
class Paired:
    """A reward as a judge of pairs: P(a better than b) = sigmoid((r_a - r_b) / temperature) (Bradley & Terry 1952)."""

    reward: Reward
    temperature: float = 1.0

    @property
    def info(self) -> RewardInfo:
        return replace(self.reward.info, name=f"pairs of {self.reward.info.name}", range=(0.0, 1.0))

    def prefer(self, a: Shown | Views, b: Shown | Views, prompts: list[Prompt]) -> Score:
        one, other = self.reward.score(a, prompts), self.reward.score(b, prompts)
        return Score(torch.sigmoid((one.value - other.value) / self.temperature), None, one.valid & other.valid)


@dataclass(frozen=True)
class Tournament:
    """A judge of pairs as a reward: the mean probability of being preferred to the other samples of the same prompt.

    Every pair is shown both ways round, since judges favour a place. A sample that no valid pair has is not valid.
    """

    pairs: PairReward

    @property
    def info(self) -> RewardInfo:
        return replace(self.pairs.info, name=f"tournament of {self.pairs.info.name}", range=(0.0, 1.0), differentiable="no")

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        seen = look(self.info, shown, prompts)
        meetings = [(i, j) for i, p in enumerate(prompts) for j, q in enumerate(prompts) if i != j and p == q]
        rgb = seen.views.rgb
        total, count = rgb.new_zeros(len(prompts)), rgb.new_zeros(len(prompts))
        if meetings:
            left, right = ([pair[k] for pair in meetings] for k in (0, 1))
            found = self.pairs.prefer(pick(seen, left), pick(seen, right), [prompts[i] for i in left])
            won, valid = torch.where(found.valid, found.value, 0.0), found.valid.to(rgb)
            total.index_add_(0, torch.tensor(left, device=rgb.device), won)
            total.index_add_(0, torch.tensor(right, device=rgb.device), torch.where(found.valid, 1 - found.value, 0.0))
            for side in (left, right):
                count.index_add_(0, torch.tensor(side, device=rgb.device), valid)
        return Score(torch.where(count > 0, total / count.clamp(min=1), torch.nan), None, count > 0)
