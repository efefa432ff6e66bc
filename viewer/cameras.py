"""Cameras of browsers as ours, and ours as theirs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import viser
import viser.transforms as tf

from rl3d.cameras import look_at_origin
from rl3d.types import Cameras

FOV_Y_DEG = 40.0
AZIMUTH_DEG, ELEVATION_DEG = 30.0, 18.0
"""From where an object is first seen: its front, a little from the side and from above."""
NUDGES = 4
"""Hardly visible moves after a camera was placed. viser's client draws splats by the camera of the frame before, and draws no
further frame by itself: without them a splat scene may stay as the camera saw it from where it was."""


def of_client(camera: viser.CameraHandle, width: int, height: int) -> Cameras:
    """Where a client looks from, with so many pixels."""
    return of_pose(camera.wxyz, camera.position, camera.fov, width, height)


def of_pose(wxyz: np.ndarray, position: np.ndarray, fov_y_rad: float, width: int, height: int) -> Cameras:
    """One of viser's cameras, which are OpenCV's too: its rotation and place in the world, and its vertical field of view."""
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = tf.SO3(wxyz).as_matrix()
    world_from_cam[:3, 3] = position
    focal = 0.5 * height / math.tan(fov_y_rad / 2)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    cam_from_world = torch.from_numpy(np.linalg.inv(world_from_cam)).float()
    return Cameras(cam_from_world[None, None], intrinsics[None, None], width, height)


def look_here(camera: viser.CameraHandle, aspect: float = 1.0) -> None:
    """Put a client's camera where an object in the unit sphere is seen whole, on a canvas of this width over height."""
    camera.up_direction = (0.0, 0.0, 1.0)
    camera.position = first_position(aspect)
    camera.look_at = (0.0, 0.0, 0.0)
    camera.fov = math.radians(FOV_Y_DEG)


class Framing:
    """Keeps a whole object in a client's sight as its canvas changes, until the client moves the camera itself."""

    def __init__(self, camera_of: Callable[[], viser.CameraHandle], share: Callable[[float], float] = lambda aspect: aspect):
        self._camera_of, self._share = camera_of, share
        """The second turns the width over height of the canvas into that of what one object has of it."""
        self._placed: tuple[float, float, float] | None = None
        self._left: list[np.ndarray] = []
        """Where the camera stood when it was placed: messages from there may be under way still."""
        self._nudges = 0

    def place(self) -> None:
        """Look at the whole object, its front a little from the side and from above."""
        camera = self._camera_of()
        aspect = self._share(camera.aspect)
        self._left = [*self._left, np.array(camera.position)][-8:]
        self._placed, self._nudges = first_position(aspect), NUDGES
        look_here(camera, aspect)

    def keep(self) -> None:
        """Place the camera anew where the canvas has another shape now."""
        if self._placed is None:
            return
        camera = self._camera_of()
        if np.allclose(camera.position, self._placed, atol=0.02):
            if not np.allclose(first_position(self._share(camera.aspect)), self._placed, atol=0.02):
                self.place()
            elif self._nudges:
                self._nudges -= 1
                camera.position = np.array(self._placed) * (1 + 1e-4 * (self._nudges % 2))
        elif not any(np.allclose(camera.position, place, atol=0.02) for place in self._left):
            self._placed = None  # the client went elsewhere


def first_position(aspect: float = 1.0) -> tuple[float, float, float]:
    """From where an object is first seen; further away where the canvas is narrow."""
    distance = 3.0 / min(1.0, aspect)
    centers = look_at_origin(torch.tensor([[AZIMUTH_DEG]]), torch.tensor([[ELEVATION_DEG]]), distance=distance).centers
    x, y, z = centers[0, 0].tolist()
    return x, y, z


def as_pose(cameras: Cameras, view: int) -> tuple[np.ndarray, np.ndarray]:
    """The rotation (wxyz) and place of one of our cameras in the world, as viser's frustums take them."""
    world_from_cam = torch.linalg.inv(cameras.cam_from_world[0, view].double()).numpy()
    return tf.SO3.from_matrix(world_from_cam[:3, :3]).wxyz, world_from_cam[:3, 3]


def fov_y(cameras: Cameras, view: int) -> float:
    """The vertical field of view of one of our cameras, in radians."""
    return 2 * math.atan(0.5 * cameras.height / float(cameras.intrinsics[0, view, 1, 1]))
