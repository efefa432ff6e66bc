"""Rigs: where cameras stand. Every camera looks at the origin with z up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.types import Cameras


def look_at_origin(
    azimuth_deg: Float[Tensor, "b v"],
    elevation_deg: Float[Tensor, "b v"],
    *,
    distance: float = 3.0,
    fov_y_deg: float = 40.0,
    width: int = 64,
    height: int = 64,
) -> Cameras:
    """Place cameras on a sphere around the origin.

    The defaults frame the unit sphere with a margin of 2.5 %. Elevations of +-90 degrees are allowed: there the image's up is
    the direction in which the azimuth points away from the object.
    """
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    zero = torch.zeros_like(azimuth)
    right = torch.stack([-sin_a, cos_a, zero], -1)
    down = torch.stack([sin_e * cos_a, sin_e * sin_a, -cos_e], -1)
    forward = -torch.stack([cos_e * cos_a, cos_e * sin_a, sin_e], -1)
    cam_from_world = torch.eye(4).to(azimuth).repeat(*azimuth.shape, 1, 1)
    cam_from_world[..., :3, :3] = torch.stack([right, down, forward], -2)
    cam_from_world[..., 2, 3] = distance
    focal = 0.5 * height / math.tan(math.radians(fov_y_deg) / 2)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]).to(azimuth)
    return Cameras(cam_from_world, intrinsics.repeat(*azimuth.shape, 1, 1), width, height)


@dataclass(frozen=True)
class Orbit:
    """A fixed ring of cameras, evenly spaced in azimuth."""

    views: int = 4
    elevation_deg: float = 20.0
    start_deg: float = 0.0
    """Azimuth of the first camera."""
    distance: float = 3.0
    fov_y_deg: float = 40.0
    size: int = 64
    """Width and height in pixels."""

    def cameras(self, rng: torch.Generator | None = None) -> Cameras:
        """The same cameras each time; ``rng`` is not used."""
        azimuth = self.start_deg + torch.arange(self.views) * (360 / self.views)
        return look_at_origin(
            azimuth[None],
            torch.full_like(azimuth, self.elevation_deg)[None],
            distance=self.distance,
            fov_y_deg=self.fov_y_deg,
            width=self.size,
            height=self.size,
        )


@dataclass(frozen=True)
class RandomOrbit:
    """A ring of evenly spaced cameras at a random azimuth and a random common elevation."""

    views: int = 4
    elevation_min_deg: float = 0.0
    elevation_max_deg: float = 40.0
    distance: float = 3.0
    fov_y_deg: float = 40.0
    size: int = 64
    """Width and height in pixels."""

    def cameras(self, rng: torch.Generator | None = None) -> Cameras:
        start, tilt = torch.rand(2, generator=rng).tolist()
        elevation = self.elevation_min_deg + tilt * (self.elevation_max_deg - self.elevation_min_deg)
        return Orbit(self.views, elevation, start * 360, self.distance, self.fov_y_deg, self.size).cameras()


@dataclass(frozen=True)
class Poses:
    """Fixed cameras, each in a place of its own: for priors that know no others (``PriorInfo.poses``).

    The defaults are those of Zero123++ 1.2.
    """

    azimuths_deg: tuple[float, ...] = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
    elevations_deg: tuple[float, ...] = (20.0, -10.0, 20.0, -10.0, 20.0, -10.0)
    distance: float = 3.73
    fov_y_deg: float = 30.0
    size: int = 64
    """Width and height in pixels."""

    def __post_init__(self):
        if not self.azimuths_deg or len(self.azimuths_deg) != len(self.elevations_deg):
            got = f"{len(self.azimuths_deg)} azimuths and {len(self.elevations_deg)} elevations"
            raise ValueError(f"poses need an azimuth and an elevation for each camera, and at least one; got {got}")

    def cameras(self, rng: torch.Generator | None = None) -> Cameras:
        """The same cameras each time; ``rng`` is not used."""
        azimuths, elevations = torch.tensor([self.azimuths_deg]), torch.tensor([self.elevations_deg])
        how = {"distance": self.distance, "fov_y_deg": self.fov_y_deg, "width": self.size, "height": self.size}
        return look_at_origin(azimuths, elevations, **how)  # pyright: ignore[reportArgumentType]


Rig = Orbit | RandomOrbit | Poses


def evaluation_cameras(size: int = 128) -> Cameras:
    """Eight sides that no optimization has seen: below and above its elevations, another field of view, twice the pixels."""
    azimuth = torch.tensor([[22.5, 112.5, 202.5, 292.5, 67.5, 157.5, 247.5, 337.5]])
    elevation = torch.tensor([[-8.0] * 4 + [52.0] * 4])
    return look_at_origin(azimuth, elevation, distance=3.6, fov_y_deg=33.0, width=size, height=size)


def worded(text: str, azimuth_deg: float, elevation_deg: float) -> str:
    """Say from where a prompt's object is seen (Poole et al. 2022, "DreamFusion", sec. 3.2).

    "overhead view" above 60 degrees of elevation; else "front view" within 45 degrees of azimuth 0, "back view" within 45 of
    180, "side view" between. A model that does not know these words takes no notice, or harm.
    """
    away = abs((azimuth_deg + 180) % 360 - 180)
    side = "overhead" if elevation_deg > 60 else "front" if away <= 45 else "back" if away >= 135 else "side"
    return f"{text}, {side} view"


def lattice_cameras(views: int, size: int, *, turn_deg: float = 0.0) -> Cameras:
    """Cameras spread evenly over the whole sphere, poles and below included: a Fibonacci lattice (González 2010).

    ``turn_deg`` turns all of them about z.
    """
    i = torch.arange(views) + 0.5
    elevation = torch.rad2deg(torch.asin(1 - 2 * i / views))
    azimuth = (i * (180 * (3 - math.sqrt(5))) + turn_deg) % 360
    return look_at_origin(azimuth[None], elevation[None], width=size, height=size)


OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1, -1, 1]))
"""OpenGL's camera has x to the right, y up and z backward; whoever has it (nerfstudio, Blender) keeps matrices from it to the
world."""


def to_opengl(cameras: Cameras) -> Float[Tensor, "b v 4 4"]:
    """Matrices from OpenGL's camera to the world."""
    return torch.linalg.inv(cameras.cam_from_world) @ OPENGL_FROM_OPENCV.to(cameras.cam_from_world)


def from_opengl(world_from_cam: Float[Tensor, "n _ 4"], intrinsics: Float[Tensor, "n 3 3"], width: int, height: int) -> Cameras:
    """Cameras of one scene, from rigid matrices of 3 or 4 rows that lead from OpenGL's camera to the world.

    Args:
        world_from_cam: The matrices.
        intrinsics: Focal lengths and principal points in pixels, y downward, pixel centres at half-integers.
        width: Of the pictures, in pixels.
        height: Of the pictures, in pixels.
    """
    rotation = world_from_cam[:, :3, :3] @ OPENGL_FROM_OPENCV[:3, :3].to(world_from_cam)
    pose = torch.eye(4).to(world_from_cam).repeat(len(world_from_cam), 1, 1)
    pose[:, :3, :3] = rotation.mT
    pose[:, :3, 3] = -(rotation.mT @ world_from_cam[:, :3, 3:])[..., 0]
    return Cameras(pose[None], intrinsics[None], width, height)
