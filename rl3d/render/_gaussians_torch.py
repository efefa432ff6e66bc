"""Rasterize Gaussians in plain torch: the readable oracle that the fast backends are compared with.

It runs on any device and in float64, is differentiable in everything (cameras included), and is dense: every pixel looks at
every Gaussian, so time grows with their product. Projection and blending follow Zwicker et al., "EWA Splatting" (2002), and
Kerbl et al., "3D Gaussian Splatting" (2023), with the conventions and cut-offs of gsplat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rl3d.math import SH_C0, rotation_from_quat

MAX_ALPHA = 0.999
"""A Gaussian covers a pixel at most this much."""
MIN_ALPHA = 1 / 255
"""What covers a pixel less is skipped."""
MIN_TRANSMITTANCE = 1e-4
"""A Gaussian that would let less light through than this is not drawn, and nothing behind it is."""


@dataclass(frozen=True)
class Settings:
    """How to rasterize: the same for every backend."""

    width: int
    height: int
    eps2d: float = 0.3
    """Variance in pixels squared that is added to every Gaussian on the screen, so that none falls between pixels."""
    antialiased: bool = False
    """Lower the opacity by as much as ``eps2d`` widens the Gaussian (Yu et al., "Mip-Splatting", 2024)."""
    near: float = 0.01
    far: float = 1e10
    depth: bool = True
    normals: bool = True


class Raster(NamedTuple):
    """What every backend returns."""

    rgb: Float[Tensor, "v h w 3"]
    """Premultiplied."""
    alpha: Float[Tensor, "v h w 1"]
    depth: Float[Tensor, "v h w 1"] | None
    """Premultiplied, as the normals are."""
    normals: Float[Tensor, "v h w 3"] | None
    means2d: Float[Tensor, "v n 2"]
    """Where each Gaussian's centre lies on the screen, in pixels; a step of the graph, so that its gradient can be kept."""
    radii: Int[Tensor, "v n"]
    """Half the larger side of its bounding box where it is visible, in pixels, rounded up; 0 where it is not seen."""


def split(image: Float[Tensor, "v h w c"], settings: Settings) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Take apart an image of alpha, colour, and where the settings ask for them depth and normals."""
    alpha, rgb, *rest = image.split([1, 3] + [1] * settings.depth + [3] * settings.normals, -1)
    return rgb, alpha, rest[0] if settings.depth else None, rest[-1] if settings.normals else None


class Projected(NamedTuple):
    """Gaussians as one camera each sees them."""

    means2d: Float[Tensor, "v n 2"]
    depths: Float[Tensor, "v n"]
    conics: Float[Tensor, "v n 3"]
    """Inverse covariances in pixels: xx, xy, yy."""
    opacities: Float[Tensor, "v n"]
    """0 where a Gaussian is not seen."""
    radii: Int[Tensor, "v n"]


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    sh: Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "v 4 4"],
    Ks: Float[Tensor, "v 3 3"],
    settings: Settings,
) -> Raster:
    """Draw Gaussians as pinhole cameras see them.

    A Gaussian that is not finite, has no rotation, or lies outside the near and far planes is not seen and gets no gradient.
    """
    means, quats, scales, opacities, sh = without_insane(means, quats, scales, opacities, sh)
    projected = project(means, quats, scales, opacities, viewmats, Ks, settings)
    features = shade(means, quats, scales, sh, viewmats, projected.depths, settings)
    views = [Projected(*(x[i] for x in projected)) for i in range(len(viewmats))]
    blended = [blend(view, colors, settings) for view, colors in zip(views, features, strict=True)]
    return Raster(*split(torch.stack(blended), settings), projected.means2d, projected.radii)


def without_insane(*gaussians: Tensor) -> tuple[Tensor, ...]:
    """Means, quats, scales, opacities and sh; what is not finite or has no rotation turns transparent and gets no gradient."""
    sane = torch.cat([x.flatten(1) if x.ndim > 1 else x[:, None] for x in gaussians], 1).isfinite().all(1)
    sane = sane & (gaussians[1] != 0).any(1)
    fallbacks = (0.0, 1.0, 0.0, 0.0, 0.0)
    return tuple(
        torch.where(sane.view(-1, *[1] * (x.ndim - 1)), x, fallback) for x, fallback in zip(gaussians, fallbacks, strict=True)
    )


def project(means, quats, scales, opacities, viewmats, Ks, settings: Settings) -> Projected:
    """Project Gaussians: a local affine approximation of the perspective, taken inside the frustum widened by 0.3."""
    size = torch.tensor([settings.width, settings.height]).to(means)
    focal, center = Ks[:, None, [0, 1], [0, 1]], Ks[:, None, [0, 1], [2, 2]]
    rotation = viewmats[:, :3, :3]
    in_camera = means @ rotation.mT + viewmats[:, None, :3, 3]
    depths = in_camera[..., 2]
    in_range = (depths > settings.near) & (depths < settings.far)
    z = torch.where(in_range, depths, 1.0)[..., None]
    xy = in_camera[..., :2] / z
    means2d = focal * xy + center
    margin = 0.15 * size / focal
    slope = torch.minimum(torch.maximum(xy, -center / focal - margin), (size - center) / focal + margin)
    jacobian = torch.cat([torch.diag_embed((focal / z).expand_as(slope)), (-focal * slope / z)[..., None]], -1)
    root = jacobian @ rotation[:, None] @ (rotation_from_quat(quats) * scales[:, None, :])
    sharp = root @ root.mT
    covariance = sharp + settings.eps2d * torch.eye(2).to(sharp)
    det = torch.linalg.det(covariance)
    seen = in_range & (det > 0)
    xx, xy, yy = (torch.where(seen, covariance[..., i, j], float(i == j)) for i, j in ((0, 0), (0, 1), (1, 1)))
    conics = torch.stack([yy, -xy, xx], -1) / torch.where(seen, det, 1.0)[..., None]
    if settings.antialiased:
        thinning = torch.where(seen, torch.linalg.det(sharp) / det, 1.0)
        opacities = opacities * torch.where(thinning > 0, thinning, 1.0).sqrt() * (thinning > 0)
    opacities = opacities.expand_as(depths)
    reach = (2 * (opacities / MIN_ALPHA).clamp(min=1).log()).sqrt()[..., None] * torch.stack([xx, yy], -1).sqrt()
    seen = seen & (opacities >= MIN_ALPHA) & (means2d + reach > 0).all(-1) & (means2d - reach < size).all(-1)
    radii = torch.where(seen, reach.amax(-1).detach().ceil().clamp(1, 2**30), 0).int()
    means2d = torch.where(seen[..., None], means2d, 0.0)
    return Projected(means2d, depths, conics, torch.where(seen, opacities, 0.0), radii)


def shade(means, quats, scales, sh, viewmats, depths, settings: Settings) -> Float[Tensor, "v n c"]:
    """The features of each Gaussian for each camera: colour, and where asked for depth and the normal that faces it."""
    centers = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[..., 0]
    rays = means - centers[:, None]
    features = [(0.5 + spherical_harmonics(sh, torch.nn.functional.normalize(rays, dim=-1))).clamp(min=0)]
    if settings.depth:
        features.append(depths[..., None])
    if settings.normals:
        axis = rotation_from_quat(quats).gather(2, scales.argmin(1)[:, None, None].expand(-1, 3, 1))[..., 0]
        features.append(torch.where((rays * axis).sum(-1, keepdim=True) > 0, -axis, axis))
    return torch.cat(features, -1)


def spherical_harmonics(sh: Float[Tensor, "n k 3"], directions: Float[Tensor, "v n 3"]) -> Float[Tensor, "v n 3"]:
    """Evaluate real spherical harmonics (k = 1, 4, 9 or 16 coefficients, with the signs of 3DGS files) at unit directions."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if sh.shape[1] > 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if sh.shape[1] > 4:
        basis += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y)]
        basis += [-1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)]
    if sh.shape[1] > 9:
        basis += [-0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
        basis += [-0.4570457994644658 * y * (4 * z * z - x * x - y * y)]
        basis += [0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        basis += [-0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y)]
        basis += [-0.5900435899266435 * x * (x * x - 3 * y * y)]
    return torch.einsum("vnk,nkc->vnc", torch.stack(basis, -1), sh)


def coverage(view: Projected, pixels: Float[Tensor, "p 2"]) -> Float[Tensor, "p n"]:
    """The alpha of each Gaussian of one view at each pixel, before the lower cut-off."""
    dx, dy = (pixels[:, None] - view.means2d).unbind(-1)
    xx, xy, yy = view.conics.unbind(-1)
    return (view.opacities * torch.exp(-0.5 * (xx * dx**2 + yy * dy**2) - xy * dx * dy)).clamp(max=MAX_ALPHA)


def blend(view: Projected, features: Float[Tensor, "n c"], settings: Settings, chunk: int = 1024) -> Float[Tensor, "h w d"]:
    """Blend the Gaussians of one view front to back, ``chunk`` pixels at a time: alpha, then the features."""
    order = torch.argsort(view.depths, stable=True)
    order = order[view.radii[order] > 0]
    view, features = Projected(*(x[order] for x in view)), features[order]
    blended = []
    for pixels in pixel_centers(settings).to(features).split(chunk):
        alpha = coverage(view, pixels)
        alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
        through = torch.log1p(-alpha).cumsum(1).exp()
        before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
        weights = torch.where(through > MIN_TRANSMITTANCE, alpha * before, 0.0)
        blended.append(torch.cat([weights.sum(1, keepdim=True), weights @ features], 1))
    return torch.cat(blended).unflatten(0, (settings.height, settings.width))


def pixel_centers(settings: Settings) -> Float[Tensor, "p 2"]:
    """Pixel centres (x, y), row by row."""
    y, x = torch.meshgrid(torch.arange(settings.height) + 0.5, torch.arange(settings.width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
