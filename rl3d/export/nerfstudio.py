"""An object as a data set of posed renders, in the layout that nerfstudio's ``ns-train`` reads.

``transforms.json`` follows nerfstudio's "Data conventions": matrices from camera to world with OpenGL's axes (x right, y up,
z back), focal lengths and principal point in pixels, and the world's z up, as ours. Pictures are RGBA with straight alpha.
Depth is along the camera's axis, in thousandths of a world unit, 0 where nothing is seen; nerfstudio multiplies it by its
``depth_unit_scale_factor``, 0.001 unless told otherwise.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from rl3d.cameras import look_at_origin, to_opengl
from rl3d.export.pictures import CHUNK, png_bytes, to_rgba8
from rl3d.render.surface import normals_from_depth, points_from_depth
from rl3d.types import Cameras, Look, Views

GOLDEN_ANGLE_DEG = 180 * (3 - math.sqrt(5))
SOLID = 0.5
"""The alpha from which a pixel has a depth, and a normal."""


@dataclass(frozen=True)
class Posed:
    """Which renders a data set has: cameras all around, evenly spread over the sphere, below the object too.

    Their mean lies in the object's middle, whither nerfstudio moves the origin.
    """

    views: int = 80
    size: int = 400
    """Width and height in pixels."""
    distance: float = 3.0
    fov_y_deg: float = 40.0
    points: int = 20_000
    """At most so many points of the surface, in points.ply, for methods that start from some (splatfacto)."""

    def __post_init__(self):
        if min(self.views, self.size, self.points) < 1:
            raise ValueError(f"a data set needs views, pixels and points; got {self.views}, {self.size} and {self.points}")
        if not (self.distance > 1 and 0 < self.fov_y_deg < 180):
            raise ValueError(f"cameras stand outside the unit sphere; got {self.distance} away, {self.fov_y_deg} degrees wide")

    def cameras(self) -> Cameras:
        """Cameras on a Fibonacci spiral, from below to above, away from the poles."""
        number = torch.arange(self.views)
        height = 0.97 * ((2 * number + 1) / self.views - 1)
        azimuth, elevation = GOLDEN_ANGLE_DEG * number % 360, torch.rad2deg(height.asin())
        options = {"distance": self.distance, "fov_y_deg": self.fov_y_deg, "width": self.size, "height": self.size}
        return look_at_origin(azimuth[None], elevation[None], **options)


def data_set(look: Look, settings: Posed = Posed()) -> Iterator[tuple[str, bytes]]:
    """Render a data set, as its files by name, ``transforms.json`` last.

    Beside ``file_path`` and ``depth_file_path`` a frame has ``normal_file_path``, which nerfstudio's own methods do not read:
    normals in the camera's OpenGL axes, n in [-1, 1] stored as 255 (n + 1) / 2.

    Args:
        look: The object; it must show depth.
        settings: Which views.
    """
    cameras, frames, surface = settings.cameras(), [], []
    share = -(-2 * settings.points // settings.views)
    for start in range(0, settings.views, CHUNK):
        views = look(cameras.select(slice(start, start + CHUNK)))
        pictures, depth, normals = to_rgba8(views)[0], depth_mm(views), camera_normals(views)
        surface.append(_surface(views, share, start))
        precise = replace(views.cameras, cam_from_world=views.cameras.cam_from_world.double())
        for i, matrix in enumerate(to_opengl(precise)[0].tolist()):
            name = f"{start + i:04d}.png"
            paths = {"file_path": f"images/{name}", "depth_file_path": f"depths/{name}", "normal_file_path": f"normals/{name}"}
            yield paths["file_path"], png_bytes(pictures[i])
            yield paths["depth_file_path"], _png16(depth[i])
            yield paths["normal_file_path"], png_bytes(normals[i])
            frames.append({**paths, "transform_matrix": matrix})
    points = np.concatenate(surface)
    keep = np.random.default_rng(0).permutation(len(points))[: settings.points]
    yield "points.ply", _points_ply(points[np.sort(keep)])
    k = cameras.intrinsics[0, 0].double()
    about = {
        "camera_model": "PINHOLE",
        **{name: float(k[at]) for name, at in (("fl_x", (0, 0)), ("fl_y", (1, 1)), ("cx", (0, 2)), ("cy", (1, 2)))},
        "w": settings.size,
        "h": settings.size,
        "ply_file_path": "points.ply",
        # The world is upright already: without this nerfstudio would turn it by what it thinks is up.
        "orientation_override": "none",
        "frames": frames,
    }
    yield "transforms.json", (json.dumps(about, indent=1) + "\n").encode()


def depth_mm(views: Views) -> ndarray:
    """Depth in thousandths of a world unit, ``uint16 [v h w]``, 0 where nothing solid is seen."""
    assert views.depth is not None, "the object shows no depth"
    depth = torch.where(views.alpha >= SOLID, views.depth, 0.0)[0, ..., 0].detach().cpu()
    return (1000 * depth).round().clamp(0, 65535).numpy().astype(np.uint16)


def camera_normals(views: Views) -> UInt8[ndarray, "v h w 3"]:
    """Normals in the camera's OpenGL axes as 8-bit pictures, black where nothing solid is seen.

    Where a representation shows none, they are those of its depth.
    """
    assert views.depth is not None, "the object shows no depth"
    normals = views.normals if views.normals is not None else normals_from_depth(views.depth, views.cameras)
    local = torch.einsum("bvij,bvhwj->bvhwi", views.cameras.cam_from_world[..., :3, :3], normals)
    local = local * torch.tensor([1.0, -1, -1])
    colours = (255 * (local + 1) / 2).round().clamp(0, 255)
    known = (views.alpha >= SOLID) & (normals.norm(dim=-1, keepdim=True) > 0.5)
    return torch.where(known, colours, 0.0)[0].detach().cpu().byte().numpy()


def _surface(views: Views, share: int, seed: int) -> Float[ndarray, "n 6"]:
    """Points that some views show, with their colours in [0, 1]: at most a share from each."""
    assert views.depth is not None
    points = points_from_depth(views.depth, views.cameras)[0].detach().cpu().numpy()
    rgba = to_rgba8(views)[0]
    rng, found = np.random.default_rng(seed), []
    for place, colour in zip(points, rgba, strict=True):
        solid = np.argwhere(colour[..., 3] > 230)
        row, column = solid[rng.permutation(len(solid))[:share]].T
        found.append(np.concatenate([place[row, column], colour[row, column, :3] / np.float32(255)], 1))
    return np.concatenate(found)


def _points_ply(points: Float[ndarray, "n 6"]) -> bytes:
    """Coloured points as a binary little-endian PLY."""
    table = np.zeros(len(points), [("place", "<f4", 3), ("colour", "u1", 3)])
    table["place"], table["colour"] = points[:, :3], np.round(255 * points[:, 3:])
    properties = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {name}" for name in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header", ""]
    return "\n".join(header).encode() + table.tobytes()


def _png16(picture: ndarray) -> bytes:
    """A 16-bit grey picture ``[h w]`` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()
