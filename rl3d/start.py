"""Where an optimization starts: views drawn from the prior or rendered, and the first Gaussians or the first mesh."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch.nn import functional as F

from rl3d.cameras import Orbit, Poses, lattice_cameras
from rl3d.export.meshes.meshing import Meshing, shape
from rl3d.export.meshes.reading import MESHES, holds_mesh, read_mesh
from rl3d.export.meshes.texture import Baking, textured
from rl3d.export.splats.files import read_splats, splat_kind
from rl3d.geometry.hull import visual_hull
from rl3d.geometry.matte import cut_out
from rl3d.geometry.points import ball, from_points
from rl3d.geometry.surfels import on_surface
from rl3d.priors.sampling import Climb, sample_best, sample_views
from rl3d.protocols import Prior, PriorInfo, Situation
from rl3d.render.gaussians import look_at
from rl3d.render.textured import look_at_mesh
from rl3d.rewards.clip import Clip
from rl3d.types import Cameras, Look, Prompt, Splats, Views


@dataclass(frozen=True)
class Draw:
    """Views drawn jointly from the prior, on one or more rings around the object.

    A prior that knows certain places alone draws those, whatever the rings; and where it is known to draw a gray around
    objects, these are cut out of it.
    """

    views: int = 4
    """Views on each ring; they are drawn jointly over all rings."""
    elevations_deg: tuple[float, ...] = (20.0,)
    """One ring each; every other ring is turned by half a spacing."""
    steps: int = 16
    """Sampling steps."""
    guidance: float = 3.0
    rescale: float = 0.5
    guided: float = 1.0
    """The part of the steps, from the first on, that guidance is for: see :func:`~rl3d.priors.sampling.sample_views`."""
    candidates: int = 1
    """Sets to begin; ``chooser`` says which one is finished."""
    chosen_after: int = 4
    """Steps after which it says so, by the clean predictions: what will be good shows early. At ``steps``, all are finished."""
    climb: float = 0.0
    """How far, on the way, every clean prediction is pulled up the gradient of what the chooser thinks of it, over random
    backgrounds: root mean square, of latents; see :class:`~rl3d.priors.sampling.Climb`."""
    climbed: tuple[float, float] = (0.1, 0.8)
    """The part of the steps in which it is: the very first predictions show nothing yet, and nobody mends the last."""
    chooser: Clip = field(default_factory=Clip)

    def __post_init__(self):
        if min(self.views, self.steps, self.candidates, self.chosen_after) < 1:
            raise ValueError("a draw needs at least 1 view, 1 step and 1 candidate, and 1 step before it chooses")
        if not 0 <= self.guided <= 1:
            raise ValueError(f"guidance is for a part of the steps, from 0 to 1, got {self.guided}")
        if not (self.climb >= 0 and 0 <= self.climbed[0] <= self.climbed[1] <= 1):
            raise ValueError(f"predictions climb by 0 or more, in a part of the steps, got {self.climb} in {self.climbed}")

    def draw(self, prompt: Prompt, prior: Prior | None, rng: torch.Generator, device: torch.device) -> Views:
        """Draw one set of views, the best of the candidates."""
        if prior is None:
            raise ValueError("the recipe draws views but has no prior: give it one, or set draw to None")
        return self.draw_sets(prompt, prior, rng, device, 1)[0]

    def draw_sets(self, prompt: Prompt, prior: Prior, rng: torch.Generator, device: torch.device, count: int) -> list[Views]:
        """Draw several sets in one batch, each the best of its own candidates."""
        cameras = self._cameras(prior.info).to(device)
        prompts = [prompt] * count
        options: dict[str, Any] = {"steps": self.steps, "guidance": self.guidance, "rescale": self.rescale}
        options |= {"guided": self.guided, "rng": rng}
        chooser = self.chooser.build_signal(device) if self.candidates > 1 or self.climb else None
        if chooser is not None and self.climb:
            options["climb"] = Climb(lambda *shown: chooser.score(*shown, background=rng).value, self.climb, *self.climbed)
        if chooser is None or self.candidates == 1:
            views = sample_views(prior, prompts, cameras, **options)
        else:
            more: dict[str, Any] = {"candidates": self.candidates, "after": self.chosen_after}
            views = sample_best(prior, prompts, cameras, lambda *shown: chooser.score(*shown).value, **more, **options)
        if prior.info.background is not None:
            views = cut_out(views, prior.info.background)
        return [views.sample(i) for i in range(count)]

    def _cameras(self, info: PriorInfo) -> Cameras:
        if info.poses:
            azimuths, elevations = zip(*info.poses, strict=True)
            return Poses(azimuths, elevations, info.distance, info.fov_y_deg, info.size).cameras()
        half = 180 / self.views
        rings = [
            Orbit(self.views, e, half * (i % 2), info.distance, info.fov_y_deg, info.size).cameras()
            for i, e in enumerate(self.elevations_deg)
        ]
        poses, intrinsics = (torch.cat([getattr(r, name) for r in rings], 1) for name in ("cam_from_world", "intrinsics"))
        return Cameras(poses, intrinsics, info.size, info.size)

    @property
    def passes(self) -> float:
        """Network passes of one set of as many views as a step has, on all rings."""
        early = min(self.chosen_after, self.steps)
        twice = 0 if self.guidance == 1 else math.ceil(round(self.guided * self.steps, 6))
        asked = (self.candidates - 1) * (early + min(early, twice)) + self.steps + twice
        return asked * len(self.elevations_deg)


@dataclass(frozen=True)
class Renders:
    """Views of an object that is there already, evenly from all around, in place of views drawn from a prior.

    What :class:`~rl3d.terms.match.Match` then makes a scene resemble.
    """

    path: str = ""
    """A run's folder, or a file of splats or of a mesh. Where it is empty, ``--init`` says: of a run's mesh, its splats."""
    views: int = 64
    size: int = 128
    """Pixels along each side."""
    up: Literal["auto", "y", "z"] = "auto"
    """As in :class:`FromFile`."""
    solid: bool = False
    """Show what fades as if it did not: its colour over its alpha where that is at least a half, and nothing elsewhere. For a
    scene that cannot fade: a mesh that matches fading borders takes their dimmed colours for its own."""

    passes = 0.0

    def __post_init__(self):
        if self.views < 1 or self.size < 8:
            raise ValueError(f"at least 1 view of at least 8 pixels a side is rendered, got {self.views} of {self.size}")

    def check(self) -> None:
        """Refuse what is not there, without reading it (``ValueError``)."""
        if not self.path:
            raise ValueError("say what the recipe's views are rendered of: --init MESH, or --draw.path")
        FromFile(str(_file(self.path))).check()

    def draw(self, prompt: Prompt, prior: Prior | None, rng: torch.Generator, device: torch.device) -> Views:
        """Render them; no random number is drawn."""
        self.check()
        look, cameras = _look(self.path, self.up), lattice_cameras(self.views, self.size)
        rgba = look(cameras).rgba
        if self.solid:
            rgba = torch.cat([_solid(rgba[:, i : i + 1]) for i in range(self.views)], 1)
        return Views(rgba[..., :3].to(device), rgba[..., 3:].to(device), None, None, cameras.to(device))


def _solid(rgba: Float[torch.Tensor, "1 v h w 4"]) -> Float[torch.Tensor, "1 v h w 4"]:
    """Views made opaque or absent, cut between pixels where alpha is a half: borders are as sharp as pixels let them."""
    fine = F.interpolate(rgba[0].movedim(-1, 1), scale_factor=4, mode="bilinear", align_corners=False)
    there = (fine[:, 3:] >= 0.5).float()
    colour = (fine[:, :3] / fine[:, 3:].clamp(min=0.5)).clamp(0, 1)
    return F.avg_pool2d(torch.cat([there * colour, there], 1), 4).movedim(1, -1)[None]


@runtime_checkable
class Start(Protocol):
    """A value that makes the first Gaussians, or the first mesh where the scene is one."""

    def build(self, situation: Situation) -> Splats | trimesh.Trimesh:
        """Make them."""
        ...


@dataclass(frozen=True)
class Hull:
    """Gaussians on the surface of the drawn views' visual hull, in its colours."""

    resolution: int = 40
    """Voxels along the sides of the unit sphere's cube."""
    limit: int = 4000
    """Gaussians at most: a denser surface is thinned at random."""
    agreement: float = 0.75
    """The share of the views that must show what a hull of all would lose; see :func:`~rl3d.geometry.hull.visual_hull`."""

    def __post_init__(self):
        if not 0 < self.agreement <= 1:
            raise ValueError(f"the share of views that must agree on a hull lies in (0, 1], got {self.agreement}")

    def build(self, situation: Situation) -> Splats:
        if situation.drawn is None:
            raise ValueError("a visual hull needs views drawn from a prior: set the recipe's `draw`, or start from a ball")
        if bool((situation.drawn.alpha >= 1).all()):
            raise ValueError("the drawn views are opaque, so there is no hull to carve: start from a ball, and draw nothing")
        points, colours = visual_hull(situation.drawn, resolution=self.resolution, agreement=self.agreement)
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


@dataclass(frozen=True)
class FromFile:
    """An existing asset: the Gaussians of a file of splats, or Gaussians on the surface of a mesh, in its colours.

    What reaches beyond the unit sphere, or is smaller than half of it, is moved and scaled into it. Files with y up and z to
    the front are turned, which glTF and SPZ prescribe and OBJ files mostly have; others keep their axes.
    """

    path: str
    limit: int = 6000
    """Gaussians at most: more in a file are thinned by what they show, and a mesh gets so many."""
    up: Literal["auto", "y", "z"] = "auto"
    """The axis that is up in the file: "auto" takes y for GLB, glTF, OBJ and SPZ, and z for PLY, STL and .splat."""

    def check(self) -> None:
        """Refuse a file that is not there, or is no asset, without reading it (``ValueError``)."""
        kinds = sorted({*MESHES, ".ply", ".splat", ".spz"})
        if Path(self.path).suffix.lower() not in kinds:
            raise ValueError(f"an asset is a file of Gaussians or a mesh: {', '.join(kinds)}; got {self.path}")
        if not Path(self.path).is_file():
            raise ValueError(f"there is no asset {self.path}: check the path")

    @property
    def is_splats(self) -> bool:
        """Whether the file holds Gaussians rather than a mesh, by its name and what it begins with."""
        return not holds_mesh(self.path) or splat_kind(self.path) is not None

    def build(self, situation: Situation) -> Splats:
        self.check()
        if self.is_splats:
            splats = self._thinned(read_splats(self.path, self.up))
            if not len(splats) or not splats.means.isfinite().all():
                raise ValueError(f"{self.path} holds no object: it has no points, or some that are not finite")
            splats = _fitted(splats)
        else:
            splats = on_surface(fitted_mesh(read_mesh(self.path, self.up)), self.limit, situation.rng)
        return Splats(**{name: x.to(situation.device) for name, x in splats.tensors().items()})

    def _thinned(self, splats: Splats) -> Splats:
        if len(splats) <= self.limit:
            return splats
        size = splats.log_scales.sort(dim=1).values
        shows = splats.opacity_logits.sigmoid() * (size[:, 1] + size[:, 2]).exp()
        return splats[shows.argsort(descending=True, stable=True)[: self.limit].sort().values]


def fitted_mesh(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Move and scale a mesh that does not fit the unit sphere, or is small in it, to a radius of 0.9."""
    reach = np.linalg.norm(mesh.vertices, axis=1).max()
    if not 0.5 <= reach <= 1.02:
        mesh = mesh.copy()
        mesh.apply_translation(-mesh.bounds.mean(0))
        mesh.apply_scale(0.9 / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def _fitted(splats: Splats) -> Splats:
    """Move and scale what does not fit the unit sphere, or is small in it, to a radius of 0.9 around the middle of its box."""
    if 0.5 <= splats.means.norm(dim=1).max() <= 1.02:
        return splats
    middle = (splats.means.amin(0) + splats.means.amax(0)) / 2
    factor = 0.9 / (splats.means - middle).norm(dim=1).max().clamp_min(1e-9)
    return replace(splats, means=factor * (splats.means - middle), log_scales=splats.log_scales + factor.log())


@dataclass(frozen=True)
class FromMesh:
    """A textured mesh: one that is there already, or one made of splats as ``rl3d export`` makes it.

    A mesh without a texture gets one, baked from the colours of its vertices. What does not fit the unit sphere is moved and
    scaled as :class:`FromFile` does, unless it lies in a run's folder.
    """

    path: str = ""
    """A file of a mesh or of splats, or a run's folder, whose splats are taken, or its mesh where the scene was one."""
    up: Literal["auto", "y", "z"] = "auto"
    """As in :class:`FromFile`."""
    mesh: Meshing = field(default_factory=Meshing)
    """How splats are meshed."""
    texture: Baking = field(default_factory=Baking)
    """How a texture is baked where there is none."""

    def check(self) -> None:
        """Refuse what is not there, without reading it (``ValueError``)."""
        if not self.path:
            raise ValueError("this recipe makes a mesh better, so name one: --init runs/a-red-mug/mesh.glb, or a run's folder")
        FromFile(str(_file(self.path))).check()

    def build(self, situation: Situation) -> trimesh.Trimesh:
        """Make it, in our axes.

        Raises:
            ValueError: if there is no such object, or it has no surface.
        """
        self.check()
        path = _file(self.path)
        if FromFile(str(path)).is_splats:
            look = _look(self.path, self.up)
            return textured(shape(look, self.mesh)[0], look, self.texture)
        mesh = _mesh(path, self.up)
        if getattr(getattr(mesh.visual, "material", None), "baseColorTexture", None) is None:
            mesh = textured(mesh, look_at_mesh(mesh), self.texture)
        return mesh


def beside(path: str) -> str:
    """What a mesh was made of: the splats in its folder, if that is of a run that made splats; else itself."""
    splats = Path(path).parent / "asset.ply"
    made = Path(path).is_file() and _in_run(Path(path)) and not is_mesh_run(splats.parent)
    return str(splats) if made and splats.is_file() else path


def is_mesh_run(folder: Path) -> bool:
    """Whether the scene of the run in a folder is a mesh, by what the run says of itself."""
    try:
        return json.loads((folder / "recipe.json").read_text())["scene"]["is"] == "Mesh"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _file(path: str) -> Path:
    """A file, or what a run made: its splats, or its mesh where the scene was one."""
    folder = Path(path)
    return folder / ("mesh.glb" if is_mesh_run(folder) else "asset.ply") if folder.is_dir() else folder


def _in_run(path: Path) -> bool:
    return (path.parent / "run.json").is_file()


def _mesh(path: Path, up: Literal["auto", "y", "z"]) -> trimesh.Trimesh:
    mesh = read_mesh(path, up)
    return mesh if _in_run(path) else fitted_mesh(mesh)


def _look(path: str, up: Literal["auto", "y", "z"]) -> Look:
    """What is at a path as something to look at; in a run's folder it stays where the run left it."""
    file = _file(path)
    if not FromFile(str(file)).is_splats:
        return look_at_mesh(_mesh(file, up))
    splats = read_splats(file, up)
    return look_at(splats if _in_run(file) else _fitted(splats))
