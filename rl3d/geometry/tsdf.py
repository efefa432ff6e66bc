"""Signed distance fields fused from depth and silhouettes (Curless & Levoy 1996), and the surface in them."""

from __future__ import annotations

import math

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float32
from numpy import ndarray
from scipy.ndimage import gaussian_filter, label
from torch import Tensor

from rl3d.cameras import look_at_origin
from rl3d.geometry._tsdf_numba import contour_distances, integrate
from rl3d.geometry.hull import project, sample_pixels
from rl3d.geometry.remesh import components, taubin
from rl3d.render._threads import follow_torch
from rl3d.render.surface import normals_from_depth, points_from_depth
from rl3d.types import Cameras, Views

OVERSHOOT = 2.0
"""How much deeper expected depth lies than the lower quartile of what silhouettes betray. Of splats fitted to true renders of
a chair, a mug and a key, Chamfer distance was least near 2 (0.035 to 0.05 world units)."""

REACH, BLUR = 2.0, 0.15
"""Times the bias of depth: how far behind the surface a view counts, and the sigma by which what depth says is blurred."""

LEAST = 1e-4
"""A sum of weights that is less says nothing."""


def fuse(
    views: Views,
    *,
    resolution: int = 96,
    extent: float = 1.0,
    truncation: float = 0.03,
    votes: int = 2,
    bias: float | None = None,
) -> Float32[ndarray, "x y z"]:
    """Fuse depth and silhouettes into a grid of signed distances in world units, positive outside, within +-``truncation``.

    A voxel's distance is the largest of two. One is the mean over the views that see it of what depth says, weighed by how
    squarely the surface is seen; beyond the surface a view says less and less, so that thin sheets do not grow on their backs.
    The other is how far the voxel lies beside the silhouette: depth says little where a surface is seen edge-on, and the
    contour of alpha one half says most. So thin legs and blades stay, and edges are not stairs. What nothing ever saw is
    inside: the surface is closed without guessing. What is outside of the sphere of radius ``extent`` is cut off.

    Views do not agree where the surface of fuzzy things is; the fuzzier they are, the further behind the surface a view still
    counts, lest a single one that looks too deep carves hollows, and the more is blurred (:data:`REACH`, :data:`BLUR`).

    Angles come from depth itself, so that pixels which mix two surfaces, and hang between them, weigh nothing.

    Args:
        views: ``[1 v h w]`` with depth and alpha.
        resolution: Voxels along each side of the cube of half-width ``extent``.
        extent: World units.
        truncation: World units; at least one and a half voxels are taken.
        votes: As many views must show a voxel beside the object for it to be outside: with one, a single bad view carves.
        bias: How far depth lies behind the surface, in world units; None measures it (:func:`depth_bias`).
    """
    assert views.depth is not None
    views = _on_cpu(views)
    assert views.depth is not None
    truncation = max(truncation, 3 * extent / resolution)
    contours = _contours(views, truncation, extent)
    facing = _facing(views)
    if bias is None:
        bias = _bias(views, contours, facing)
    weight = torch.where(views.alpha[0, ..., 0] > 0.5, views.alpha[0, ..., 0] * facing.square(), 0.0)
    images = torch.stack([weight, weight * (views.depth[0, ..., 0] - bias), contours], -1)
    # Neighbouring views see the same; the sooner a voxel is seen from all around, the sooner it is known to be outside.
    order = _spread(len(images))
    pixels = (views.cameras.intrinsics[0].double() @ views.cameras.cam_from_world[0, :, :3].double()).float()
    reach = max(truncation, REACH * bias)
    grid = np.empty((resolution,) * 3 + (3,), np.float32)
    follow_torch()
    integrate(
        *(x[order].contiguous().numpy() for x in (images, pixels, views.cameras.intrinsics[0, :, 0, 0])),
        *(np.float32(extent), np.float32(truncation), np.float32(reach), min(votes, len(images)), grid),
    )  # pyright: ignore[reportCallIssue]
    total, weight, beside = (np.ascontiguousarray(grid[..., i]) for i in range(3))
    if bias > 0:
        # What no view tells of, and is not carved, is inside, with the weight of a third of a view.
        untold = (weight <= LEAST) & (beside < truncation)
        total[untold], weight[untold] = -truncation / 3, 1 / 3
        total, weight = (gaussian_filter(x, BLUR * bias * resolution / (2 * extent)) for x in (total, weight))
    seen = np.where(weight > LEAST, total / np.maximum(weight, LEAST), -truncation)
    return np.maximum(seen, beside).clip(-truncation, truncation).astype(np.float32)


def depth_bias(views: Views, *, extent: float = 1.0) -> float:
    """Measure how far behind the surface depth lies, in world units: 0 for a solid, 0.02 to 0.06 for splats and fog.

    Light reaches into fuzzy things, so the expected depth of their pixels lies deeper than where silhouettes end. A point that
    depth shows cannot lie outside of any silhouette, and on a surface that other views see edge-on it lies on theirs. How far
    inside of all silhouettes points lie is thus the bias and what silhouettes cannot carve; the lower quartile tells the first.
    """
    assert views.depth is not None
    views = _on_cpu(views)
    return _bias(views, _contours(views, 0.1, extent), _facing(views))


def _on_cpu(views: Views) -> Views:
    depth = None if views.depth is None else views.depth.detach().float().cpu()
    rgb, alpha = views.rgb.detach().float().cpu(), views.alpha.detach().float().cpu()
    return Views(rgb, alpha, depth, None, views.cameras.to("cpu"))


def _contours(views: Views, reach: float, extent: float) -> Float[Tensor, "v h w"]:
    """Signed distances in pixels from the contour of alpha one half, right up to ``reach`` world units at least."""
    cameras = views.cameras
    nearest = (cameras.centers[0].norm(dim=-1) - extent).clamp(min=0.1 * extent)
    pixels = (reach * cameras.intrinsics[0, :, 0, 0] / nearest).max().item()
    alpha = views.alpha[0, ..., 0].contiguous()
    out = torch.empty_like(alpha)
    follow_torch()
    contour_distances(alpha.numpy(), np.float32(math.ceil(pixels) + 1), out.numpy())  # pyright: ignore[reportCallIssue]
    return out


def _facing(views: Views) -> Float[Tensor, "v h w"]:
    """The cosine between each pixel's ray and the surface that depth draws there, 0 to 1; 0 where it is not known."""
    assert views.depth is not None
    rays = points_from_depth(torch.ones_like(views.depth), views.cameras)[0] - views.cameras.centers[0, :, None, None]
    cosine = (torch.nn.functional.normalize(rays, dim=-1) * normals_from_depth(views.depth, views.cameras)[0]).sum(-1)
    return cosine.abs()


def _bias(views: Views, contours: Float[Tensor, "v h w"], facing: Float[Tensor, "v h w"], count: int = 4000) -> float:
    assert views.depth is not None
    square = ((views.alpha[0, ..., 0] > 0.9) & (facing > 0.8)).flatten().nonzero()[:, 0]
    if len(square) == 0:
        return 0.0
    some = square[:: max(1, len(square) // count)]
    points = points_from_depth(views.depth, views.cameras).reshape(-1, 3)[some]
    pixels, far = project(points, views.cameras)
    focal = views.cameras.intrinsics[0, :, 0, 0, None]
    height, width = views.cameras.height, views.cameras.width
    within = (pixels > 0.5).all(-1) & (pixels[..., 0] < width - 0.5) & (pixels[..., 1] < height - 0.5)
    beside = sample_pixels(contours[..., None], pixels)[..., 0] * far / focal
    inside = -torch.where(within, beside, -torch.inf).amax(0)
    return max(0.0, OVERSHOOT * inside.quantile(0.25).item())


def _spread(count: int) -> list[int]:
    """An order of so many in which neighbours are far apart: steps of the golden section of the whole."""
    step = max(1, round(count * 0.618))
    while math.gcd(step, count) > 1:
        step += 1
    return [i * step % count for i in range(count)]


def surface(field: Float32[ndarray, "x y z"], *, extent: float = 1.0, smooth: int = 5, debris: float = 0.01) -> trimesh.Trimesh:
    """Extract the zero level of a signed distance grid as a closed mesh with outward faces (Lewiner et al. 2003).

    Hollows that cannot be reached from outside are filled: nobody sees them.

    Args:
        field: Distances, positive outside.
        extent: Half-width of the grid's cube, in world units.
        smooth: Rounds of Taubin smoothing, which keeps the volume.
        debris: Components with less than this fraction of the largest one's area are dropped.

    Raises:
        ValueError: if nothing is inside.
    """
    from skimage.measure import marching_cubes

    # A shell of outside, so that what touches the border is closed.
    grid = np.pad(field, 1, constant_values=max(float(np.abs(field).max()), 1e-6))
    if not (grid < 0).any():
        raise ValueError("there is no surface to mesh: the object is empty, or too faint; look at its renders")
    parts, _ = label(grid >= 0)  # pyright: ignore[reportGeneralTypeIssues]
    grid[(grid >= 0) & (parts != parts[0, 0, 0])] = grid.min()
    vertices, faces, _, _ = marching_cubes(grid, 0.0, gradient_direction="ascent")
    mesh = trimesh.Trimesh((vertices - 0.5) * (2 * extent / len(field)) - extent, faces, process=False)
    mesh = components(mesh, least=debris)
    if mesh.volume < 0:
        mesh.invert()
    return taubin(mesh, rounds=smooth)


def paint(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], views: Views, *, slack: float = 0.05
) -> Float[Tensor, "n 3"]:
    """Colours of surface points: the mean of the views that see them, weighted by how squarely; all views where none does."""
    assert views.depth is not None
    total, weight = torch.zeros_like(points), torch.full_like(points[:, :1], 1e-6)
    for i in range(views.cameras.views):
        camera = views.cameras.select(slice(i, i + 1))
        pixels, z = project(points, camera)
        rgba = sample_pixels(views.rgba[0, i : i + 1].detach(), pixels)[0]
        depth = sample_pixels(views.alpha[0, i : i + 1] * views.depth[0, i : i + 1], pixels)[0, :, 0] / rgba[:, 3].clamp(
            min=1e-3
        )
        towards = torch.nn.functional.normalize(camera.centers[0] - points, dim=-1)
        facing = (towards * normals).sum(-1).clamp(min=0)
        share = torch.where((z[0] < depth + slack) & (rgba[:, 3] > 0.5), facing.square(), 0.0)[:, None] + 1e-5 * rgba[:, 3:]
        total += share * rgba[:, :3] / rgba[:, 3:].clamp(min=1e-3)
        weight += share
    return (total / weight).clamp(0, 1)


def orbit_cameras(views: int, elevations_deg: tuple[float, ...], size: int) -> Cameras:
    """Rings of cameras all around, for fusing and painting."""
    azimuth = torch.arange(views) * (360 / views)
    rings = [azimuth + (180 / views if i % 2 else 0) for i in range(len(elevations_deg))]
    elevation = torch.tensor(elevations_deg).repeat_interleave(views)
    return look_at_origin(torch.cat(rings)[None], elevation[None], width=size, height=size)
