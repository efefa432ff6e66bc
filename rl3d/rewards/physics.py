"""Whether an object stands: in closed form, differentiable in the scene, and by dropping it in a simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import rotation_from_quat
from rl3d.protocols import RewardInfo, Scene, Shown
from rl3d.rewards.base import Unmeasurable, closed_form, judge_scenes, look, mesh_of
from rl3d.rewards.shape import mass
from rl3d.types import Prompt, Score, Splats, Views


def support_margin(center: Float[Tensor, "2"], contacts: Float[Tensor, "n 2"]) -> Float[Tensor, ""]:
    """How far a point lies inside the convex hull of the contacts; negative outside, by the distance to it.

    Differentiable in both; which contacts are corners is taken as given. One contact, or contacts on a line, support nothing:
    the margin is minus the distance to them.
    """
    corners = contacts[_hull(contacts.detach().double().cpu().numpy())]
    ahead = corners.roll(-1, 0)
    along = ahead - corners
    length = along.norm(dim=1).clamp(min=1e-12)
    towards = center - corners
    # Corners run counter-clockwise, so that inside is left of every edge.
    left = (along[:, 0] * towards[:, 1] - along[:, 1] * towards[:, 0]) / length
    if len(corners) > 2 and bool((left >= 0).all()):
        return left.min()
    t = ((towards * along).sum(1) / length.square()).clamp(0, 1)
    away = center - (corners + t[:, None] * along)
    return -away.square().sum(1).min().clamp(min=1e-24).sqrt()


def _hull(points: np.ndarray) -> list[int]:
    """Indices of the corners of the convex hull in the plane, counter-clockwise (Andrew 1979)."""
    order = sorted(range(len(points)), key=lambda i: tuple(points[i]))

    def half(indices) -> list[int]:
        chain: list[int] = []
        for i in indices:
            while len(chain) > 1:
                (ax, ay), (bx, by) = points[chain[-1]] - points[chain[-2]], points[i] - points[chain[-2]]
                if ax * by - ay * bx > 0:
                    break
                chain.pop()
            chain.append(i)
        return chain

    corners = half(order)[:-1] + half(reversed(order))[:-1]
    return corners or order[:1]


def solid_center(vertices: Float[Tensor, "n 3"], faces: Tensor) -> Float[Tensor, "3"]:
    """The centre of mass of a closed mesh filled evenly: the sum over signed tetrahedra from the origin to each face.

    Differentiable in the vertices.

    Raises:
        Unmeasurable: if the mesh encloses no volume.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum(1) / 6
    if not abs(float(volume.detach().sum())) > 1e-12:
        raise Unmeasurable("the mesh encloses no volume")
    return (volume[:, None] * (a + b + c) / 4).sum(0) / volume.sum()


def tipping_angle(points: Float[Tensor, "n 3"], center: Float[Tensor, "3"], *, contact: float = 0.03) -> Float[Tensor, ""]:
    """By how many radians a body on the ground must be tilted to fall, in (-pi/2, pi/2); negative if it falls by itself.

    atan(margin / height) of the centre of mass over the support polygon, which is that of the points within ``contact`` world
    units of the lowest. Differentiable in the points and the centre.
    """
    lowest = points[:, 2].min()
    feet = points[points[:, 2].detach() <= lowest.detach() + contact]
    height = (center[2] - lowest).clamp(min=1e-6)
    return torch.atan2(support_margin(center[:2], feet[:, :2]), height)


@dataclass(frozen=True)
class Stands:
    """The angle in degrees by which an object must be tilted before it falls; negative where it falls by itself.

    Static stability, as Atlas3D's (Chen et al. 2024) and "Make It Stand" (Prevost et al. 2013) have it: the
    centre of mass against the support polygon. Gaussians weigh what they show (a shell), and reach one standard deviation below
    their centres; fainter ones than one half neither weigh nor carry. A floater below the object carries it: guard with
    :class:`rl3d.rewards.shape.Whole`. Flat bases pay: guard with what the object should look like.

    ``on="splats"`` is differentiable in the scene; ``on="mesh"`` takes the mesh as solid, and is a black box.
    """

    on: Literal["splats", "mesh"] = "splats"
    contact: float = 0.03
    """World units above the lowest point within which the object touches the ground."""

    @property
    def info(self) -> RewardInfo:
        grade = "scene" if self.on == "splats" else "no"
        return closed_form(f"physics:stands ({self.on})", grade, (-90.0, 90.0), "https://arxiv.org/abs/2405.18515", self.on)

    def build(self, device: torch.device | str = "cpu") -> Stands:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        judge = self._splats if self.on == "splats" else self._mesh
        return judge_scenes(look(self.info, shown, prompts), judge)

    def _splats(self, scene: Scene) -> Tensor | None:
        splats: Splats = scene.splats()
        splats = splats[splats.opacity_logits.detach() > 0]
        if not len(splats):
            return None
        axes = rotation_from_quat(splats.quats) * splats.log_scales.exp()[:, None]
        down = axes[:, 2].norm(dim=1)
        lowest = torch.cat([splats.means[:, :2], (splats.means[:, 2] - down)[:, None]], 1)
        weight = mass(splats)
        center = (weight[:, None] * splats.means).sum(0) / weight.sum()
        return torch.rad2deg(tipping_angle(lowest, center, contact=self.contact))

    def _mesh(self, scene: Scene) -> float:
        mesh = mesh_of(scene)
        points, faces = torch.from_numpy(np.array(mesh.vertices)), torch.from_numpy(np.array(mesh.faces))
        return math.degrees(float(tipping_angle(points, solid_center(points, faces), contact=self.contact)))


@dataclass(frozen=True)
class Drop:
    """How far an object stays upright when it is set on the ground and let go in MuJoCo: 1 - tilt / 180 degrees, in [0, 1].

    As DSO's code has it (Li et al. 2025): the lowest point at the ground, ten seconds in steps of a millisecond; an object
    whose final tilt is below 20 degrees stands (:func:`standing`). Only the tilt counts here, while that code counts turns
    about the vertical, too. A black box; needs ``pip install 'rl3d[physics]'``.

    MuJoCo collides convex shapes alone. ``pieces="coacd"`` lets an approximate convex decomposition (Wei et al. 2022) stand for
    the mesh, so that a table has legs; ``pieces="hull"`` its convex hull, which is quick, and for which a table is a block.
    Every piece is solid and of one density.
    """

    pieces: Literal["coacd", "hull"] = "coacd"
    seconds: float = 10.0
    step: float = 0.001
    """Seconds."""
    concavity: float = 0.08
    """How coarse the decomposition may be: CoACD's threshold, in [0.01, 1]."""

    @property
    def info(self) -> RewardInfo:
        name = f"physics:drop ({'convex pieces' if self.pieces == 'coacd' else 'convex hull'})"
        return closed_form(name, "no", (0.0, 1.0), "https://arxiv.org/abs/2503.22677", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Drop:
        """Itself.

        Raises:
            ValueError: if the extra is not installed.
        """
        try:
            import mujoco  # noqa: F401

            if self.pieces == "coacd":
                import coacd  # noqa: F401
        except ImportError as error:
            raise ValueError(f"the drop test cannot start ({error}): pip install 'rl3d[physics]'") from error
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        def one(scene: Scene) -> float:
            return 1 - self.tilt_deg(convex_pieces(mesh_of(scene), self.pieces, self.concavity)) / 180

        return judge_scenes(look(self.info, shown, prompts), one)

    def tilt_deg(self, pieces: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """The angle between the body's upright axis before and after, in [0, 180].

        Args:
            pieces: Vertices ``[n 3]`` and faces ``[m 3]`` of each convex piece.

        Raises:
            Unmeasurable: if the simulation fails.
        """
        import mujoco

        spec = mujoco.MjSpec()
        spec.option.timestep = self.step
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[10, 10, 0.1])
        lowest = min(vertices[:, 2].min() for vertices, _ in pieces)
        body = spec.worldbody.add_body(pos=[0, 0, -float(lowest)])
        body.add_freejoint()
        for i, (vertices, faces) in enumerate(pieces):
            spec.add_mesh(name=f"piece{i}", uservert=vertices.ravel().tolist(), userface=faces.ravel().tolist())
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"piece{i}", density=1000)
        try:
            model = spec.compile()
            data = mujoco.MjData(model)
            for _ in range(round(self.seconds / self.step)):
                mujoco.mj_step(model, data)
        except ValueError as error:
            raise Unmeasurable(f"the simulation failed: {error}") from error
        w, x, y, z = data.qpos[3:7]
        upright = 1 - 2 * (x * x + y * y)
        if not np.isfinite([w, x, y, z]).all() or np.abs(data.qpos[:3]).max() > 100:
            raise Unmeasurable("the simulation blew up")
        return math.degrees(math.acos(min(1.0, max(-1.0, upright))))


def convex_pieces(mesh, pieces: Literal["coacd", "hull"], concavity: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Convex shapes that stand for a mesh in collisions; flat slivers are left out.

    Raises:
        Unmeasurable: if nothing is left.
    """
    import trimesh

    found = [mesh]
    if pieces == "coacd":
        import coacd

        coacd.set_log_level("error")
        parts = coacd.run_coacd(coacd.Mesh(np.array(mesh.vertices), np.array(mesh.faces)), threshold=concavity, seed=0)
        found = [trimesh.Trimesh(vertices, faces, process=False) for vertices, faces in parts]
    hulls = []
    for part in found:
        try:
            hull = part.convex_hull
        except Exception:  # Qhull's own, for points in a plane
            continue
        if hull.volume > 1e-9:
            hulls.append((np.array(hull.vertices), np.array(hull.faces)))
    if not hulls:
        raise Unmeasurable("the object is flat: no convex piece of it has a volume")
    return hulls


def standing(score: Score, *, limit_deg: float = 20.0) -> Tensor:
    """Which objects of a drop test still stand: a final tilt below the limit. Those that could not be tested do not."""
    return score.valid & (score.value > 1 - limit_deg / 180)
