"""What a sound shape is, on Gaussians and on meshes, whatever it is of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import Unmeasurable, closed_form, judge_scenes, look, mesh_of
from rl3d.types import Prompt, Score, Splats, Views


def mass(splats: Splats) -> Float[Tensor, "n"]:
    """How much each Gaussian shows: opacity times the area of its larger section. Differentiable."""
    ordered = splats.log_scales.sort(dim=-1).values
    return splats.opacity_logits.sigmoid() * (ordered[:, 1] + ordered[:, 2]).exp()


@dataclass(frozen=True)
class Whole:
    """The share of the Gaussians' mass that is in pieces worth the name, in [0, 1]: floaters and debris lower it. A black box.

    Gaussians belong together where their centres are nearer than ``reach`` times the sum of their longest axes (standard
    deviations). Fainter ones than ``faint`` neither count nor connect.
    """

    least: float = 0.05
    """Pieces with less than this share of the mass are debris."""
    reach: float = 2.0
    faint: float = 0.05

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:whole", "no", (0.0, 1.0), "connected components of Gaussians", "splats")

    def build(self, device: torch.device | str = "cpu") -> Whole:
        return self

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        return judge_scenes(look(self.info, shown, prompts), lambda scene: self._share(scene.splats()))

    def _share(self, splats: Splats) -> float | None:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        from scipy.spatial import cKDTree

        splats = splats[splats.opacity_logits.sigmoid() > self.faint]
        if not len(splats) or not all(x.isfinite().all() for x in splats.tensors().values()):
            return None
        centres, sizes = splats.means.cpu().numpy(), splats.log_scales.amax(-1).exp().cpu().numpy()
        # One radius for all bounds the search; the few balloons beyond it connect less than they could.
        bound = self.reach * 2 * float(np.quantile(sizes, 0.95))
        pairs = cKDTree(centres).query_pairs(bound, output_type="ndarray")
        i, j = pairs.T
        near = np.linalg.norm(centres[i] - centres[j], axis=1) < self.reach * (sizes[i] + sizes[j])
        graph = coo_matrix((np.ones(near.sum()), (i[near], j[near])), shape=(len(splats),) * 2)
        _, piece = connected_components(graph, directed=False)
        share = np.bincount(piece, weights=mass(splats).double().cpu().numpy())
        share /= share.sum()
        return float(share[share >= self.least].sum())


@dataclass(frozen=True)
class Decided:
    """Minus the mean binary entropy of opacities in bits, in [-1, 0]: there or not. Differentiable in the scene."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:decided", "scene", (-1.0, 0.0), "Shannon's entropy of opacities", "splats")

    def build(self, device: torch.device | str = "cpu") -> Decided:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> Tensor | None:
            logits = scene.splats().opacity_logits
            p = logits.sigmoid()
            return (p * F.logsigmoid(logits) + (1 - p) * F.logsigmoid(-logits)).mean() / math.log(2) if len(logits) else None

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Thick:
    """The share of a mesh's volume that is in parts thicker than ``thickness``, in [0, 1]: what opening with a ball leaves
    (Serra 1982). A black box, exact to about a voxel.
    """

    thickness: float = 0.08
    """World units."""
    resolution: int = 64
    """Voxels along the longest side."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:thick", "no", (0.0, 1.0), "opening by a ball (Serra 1982)", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Thick:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        from scipy.ndimage import distance_transform_edt

        def one(scene) -> float:
            solid, pitch = voxels(mesh_of(scene), self.resolution)
            radius = self.thickness / 2 / pitch
            # Distances are between voxel centres; a surface lies half a voxel further out, and the core's edge is rounded.
            core = distance_transform_edt(solid) - 0.5 >= radius  # pyright: ignore[reportOperatorIssue]
            if not core.any():
                return 0.0
            opened = solid & (distance_transform_edt(~core) <= radius + 0.5)  # pyright: ignore[reportOperatorIssue]
            return float(opened.sum() / solid.sum())

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Symmetric:
    """How alike left and right are: the intersection over union of a mesh and its mirror image, in [0, 1]. A black box.

    The mirror stands upright along the front (x), through the middle of the bounding box.
    """

    resolution: int = 48

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:symmetric", "no", (0.0, 1.0), "overlap with the mirror image", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Symmetric:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> float:
            solid, _ = voxels(mesh_of(scene), self.resolution)
            filled = np.nonzero(solid.any((0, 2)))[0]
            solid = solid[:, filled[0] : filled[-1] + 1]
            turned = solid[:, ::-1]
            return float((solid & turned).sum() / (solid | turned).sum())

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Closed:
    """The share of a mesh's edges at which exactly two faces meet, in [0, 1]: 1 is watertight. A black box.

    Meshes taken from a scene of Gaussians are closed by how they are made; this is for meshes that were read.
    """

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:closed", "no", (0.0, 1.0), "edges with two faces", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Closed:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> float:
            _, count = np.unique(mesh_of(scene).edges_sorted, axis=0, return_counts=True)
            return float((count == 2).mean())

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Pieces:
    """Whether a mesh has as many pieces as it should: 1 / (1 + how many too many or too few), in (0, 1]. A black box.

    Pieces with less than ``least`` of the area are not counted; parts that overlap without sharing vertices are two pieces.
    """

    expected: int = 1
    least: float = 0.01

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:pieces", "no", (0.0, 1.0), "connected components of a mesh", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Pieces:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> float:
            mesh = mesh_of(scene)
            areas = np.array([part.area for part in mesh.split(only_watertight=False)])
            found = int((areas >= self.least * areas.sum()).sum())
            return 1 / (1 + abs(found - self.expected))

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Printable:
    """One minus the share of a mesh's area that overhangs, in [0, 1]. A black box.

    A face overhangs if it looks down by more than ``angle_deg`` from upright and does not lie on the ground.
    """

    angle_deg: float = 45.0
    ground: float = 0.02
    """World units above the lowest point that still count as the ground."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("shape:printable", "no", (0.0, 1.0), "the 45 degree rule of printing without supports", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Printable:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> float:
            mesh = mesh_of(scene)
            down = mesh.face_normals[:, 2] < -math.sin(math.radians(self.angle_deg))
            aloft = mesh.triangles_center[:, 2] > mesh.bounds[0, 2] + self.ground
            return float(1 - mesh.area_faces[down & aloft].sum() / mesh.area)

        return judge_scenes(look(self.info, shown, prompts), one)


@dataclass(frozen=True)
class Undercut:
    """The share of an object's shadow at noon that it does not stand on, in [0, 1]. A black box.

    A guard of whatever rewards stability: flat bases and plinths, which make anything stand, lower it. A cube has 0, a ball
    nearly 0.9, a table nearly 1.
    """

    ground: float = 0.05
    """Of the larger side of the object's box: what lies lower stands on the ground."""
    resolution: int = 48

    @property
    def info(self) -> RewardInfo:
        return closed_form("guard:undercut", "no", (0.0, 1.0), "voxels that stand on the ground, of those in plan", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Undercut:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene) -> float:
            solid, _ = voxels(mesh_of(scene), self.resolution)
            lowest = int(solid.any((0, 1)).argmax())
            feet = solid[..., lowest : lowest + max(1, round(self.ground * self.resolution))].any(2)
            return float(1 - feet.sum() / solid.any(2).sum())

        return judge_scenes(look(self.info, shown, prompts), one)


def voxels(mesh, resolution: int) -> tuple[Bool[ndarray, "x y z"], float]:
    """A mesh as solid voxels with a border of empty ones, and their size in world units.

    Voxels that the surface passes through are solid, so that all grows by half a voxel.

    Raises:
        Unmeasurable: if nothing is solid.
    """
    pitch = float(np.ptp(mesh.bounds, 0).max()) / resolution
    if not pitch > 0:
        raise Unmeasurable("the mesh is a point")
    solid = np.pad(mesh.voxelized(pitch).fill().matrix, 1)
    if not solid.any():
        raise Unmeasurable("the mesh fills no voxel")
    return solid, pitch
