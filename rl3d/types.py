"""The values that everything else passes around, and the conventions they keep.

Said once, here, for the whole library:

- **World**: z is up, an object's front looks along +x, and it fits the unit sphere around the origin.
- **Cameras** are OpenCV: x right, y down, z forward. Matrices read in order, ``p_cam = cam_from_world @ p_world``.
  Pixel centres lie at half-integers. Azimuth 0 looks at an object's front; azimuths grow counter-clockwise seen from above.
- **Quaternions** are ``wxyz``.
- **Images** are ``[b v h w c]``: scenes or samples, views, rows, columns, channels; premultiplied sRGB, float32, not
  clamped. Whoever looks at them chooses the background (:meth:`Views.over`).
- **Units** stand in names (``fov_y_deg``) unless they are pixels or world units.

Axis letters: ``b`` scenes or samples, ``v`` views, ``h w`` pixels, ``n`` primitives, ``c`` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """What is asked for: in words, by a picture, or both.

    ``negative`` is what is not wanted; a prior without negative prompts refuses one that is not empty.
    """

    text: str
    negative: str = ""
    image: str = ""
    """The path of a picture of it, seen from the front; a prior that reads no pictures refuses one, and one that needs it asks
    for it.
    """

    def plain(self) -> dict[str, str]:
        """As JSON holds it: the picture only where there is one."""
        found = {"text": self.text, "negative": self.negative}
        return found | {"image": self.image} if self.image else found


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras, for ``b`` scenes seen from ``v`` sides each; one scene has ``b = 1``."""

    cam_from_world: Float[Tensor, "b v 4 4"]
    """Rigid transforms from world to camera space."""
    intrinsics: Float[Tensor, "b v 3 3"]
    """Focal lengths and principal points, in pixels."""
    width: int
    height: int

    @property
    def views(self) -> int:
        return self.cam_from_world.shape[1]

    @property
    def centers(self) -> Float[Tensor, "b v 3"]:
        """Camera centres in world space."""
        rotation, translation = self.cam_from_world[..., :3, :3], self.cam_from_world[..., :3, 3]
        return -(rotation.mT @ translation[..., None])[..., 0]

    @property
    def azimuths_deg(self) -> Float[Tensor, "b v"]:
        """Azimuth of each camera centre in [-180, 180]; 0 looks at the front."""
        x, y, _ = self.centers.unbind(-1)
        return torch.rad2deg(torch.atan2(y, x))

    @property
    def elevations_deg(self) -> Float[Tensor, "b v"]:
        """Elevation of each camera centre above the horizon, in [-90, 90]."""
        x, y, z = self.centers.unbind(-1)
        return torch.rad2deg(torch.atan2(z, torch.hypot(x, y)))

    def select(self, views) -> Cameras:
        """The cameras at these view indices (anything that indexes a tensor's axis, but an integer)."""
        return replace(self, cam_from_world=self.cam_from_world[:, views], intrinsics=self.intrinsics[:, views])

    def resized(self, width: int, height: int) -> Cameras:
        """The same cameras with another number of pixels."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0]).to(self.intrinsics)
        return replace(self, intrinsics=scale[:, None] * self.intrinsics, width=width, height=height)

    def to(self, device: torch.device | str) -> Cameras:
        return replace(self, cam_from_world=self.cam_from_world.to(device), intrinsics=self.intrinsics.to(device))


@dataclass(frozen=True)
class Views:
    """What cameras see. Everything a renderer or a prior shows has this form."""

    rgb: Float[Tensor, "b v h w 3"]
    """Premultiplied sRGB: colour times alpha."""
    alpha: Float[Tensor, "b v h w 1"]
    """Coverage in [0, 1]."""
    depth: Float[Tensor, "b v h w 1"] | None
    """Expected depth along the camera's z axis in world units, 0 where alpha is 0; None where it is not known."""
    normals: Float[Tensor, "b v h w 3"] | None
    """World-space normals facing the camera, 0 where alpha is 0; None where they are not known."""
    cameras: Cameras

    def over(self, background: float | Tensor) -> Float[Tensor, "b v h w 3"]:
        """Composite over a background: a grey level, or colours that broadcast to ``[b v h w 3]``."""
        return self.rgb + (1 - self.alpha) * background

    @property
    def rgba(self) -> Float[Tensor, "b v h w 4"]:
        """Premultiplied colour and alpha."""
        return torch.cat([self.rgb, self.alpha], dim=-1)

    def select(self, views) -> Views:
        """The views at these indices (anything that indexes a tensor's axis, but an integer)."""
        return self._each(lambda x: x[:, views], self.cameras.select(views))

    def sample(self, index: int) -> Views:
        """One sample of the batch, as a batch of one."""
        one, cameras = slice(index, index + 1), self.cameras
        cameras = replace(cameras, cam_from_world=cameras.cam_from_world[one], intrinsics=cameras.intrinsics[one])
        return self._each(lambda x: x[one], cameras)

    def detach(self) -> Views:
        return self._each(Tensor.detach, self.cameras)

    def leaves(self) -> Views:
        """The same pixels, cut off from what made them, as leaves that collect gradients."""
        return self._each(lambda x: x.detach().requires_grad_(), self.cameras)

    def tensors(self) -> list[Tensor]:
        """The images that there are, in the order of the fields."""
        return [x for x in (self.rgb, self.alpha, self.depth, self.normals) if x is not None]

    def like(self, images: Sequence[Tensor]) -> Views:
        """Other images in the places of :meth:`tensors`, seen by the same cameras."""
        one = iter(images)
        return self._each(lambda _: next(one), self.cameras)

    def _each(self, change: Callable[[Tensor], Tensor], cameras: Cameras) -> Views:
        rgb, alpha = change(self.rgb), change(self.alpha)
        depth = None if self.depth is None else change(self.depth)
        normals = None if self.normals is None else change(self.normals)
        return Views(rgb, alpha, depth, normals, cameras)


Look = Callable[[Cameras], Views]
"""Anything that can be looked at, as what exporters and measures want of it: ``[1 v]`` cameras to what they see."""


@dataclass(frozen=True)
class Splats:
    """3D Gaussians, in the unconstrained form that optimisers see and PLY files store."""

    means: Float[Tensor, "n 3"]
    log_scales: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    """Rotations, wxyz, of any non-zero length."""
    opacity_logits: Float[Tensor, "n"]
    sh: Float[Tensor, "n k 3"]
    """Spherical-harmonics coefficients of colour, k = 1, 4, 9 or 16; colour is 0.5 + their sum."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, in order."""
        return {name: getattr(self, name) for name in ("means", "log_scales", "quats", "opacity_logits", "sh")}

    def __getitem__(self, keep) -> Splats:
        """The Gaussians at these indices, or where this mask is true."""
        return Splats(**{name: x[keep] for name, x in self.tensors().items()})


@dataclass(frozen=True)
class Score:
    """Judgements of ``b`` samples; higher is better."""

    value: Float[Tensor, "b"]
    per_view: Float[Tensor, "b v"] | None
    """The same per view, where the reward judges views one by one."""
    valid: Bool[Tensor, "b"]
    """False where a judgement could not be had: such a value counts nowhere, and is never zero by default."""
