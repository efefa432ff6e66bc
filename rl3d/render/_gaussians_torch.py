"""Rasterize Gaussians in plain torch: the readable oracle that the fast backends are compared with.

It runs on any device and in float64, is differentiable in everything (cameras included), and is dense: every pixel looks at
every Gaussian, so time grows with their product. Projection and blending follow Zwicker et al., "EWA Splatting" (2002), and
Kerbl et al., "3D Gaussian Splatting" (2023), with the conventions and cut-offs of gsplat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
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
    radius_clip: float = 0.0
    """Skip what is not larger than this on the screen: both halves of its bounding box, rounded up, in pixels."""
    ortho: bool = False
    """Orthographic cameras: focal lengths are pixels for each world unit, at any depth."""
    sh_degree: int | None = None
    """Colours are coefficients of spherical harmonics, of which those up to this degree (0 to 3) count; None: plain values."""
    depth: bool = False
    """Blend depth too, as a channel after the colours."""
    normals: bool = False
    """Blend normals too, as three channels after all others."""
    absgrad: bool = False
    """Leave ``means2d.absgrad`` in the backward pass: the sum over pixels of the absolute values of the gradients of centres
    (Ye et al., "AbsGS", 2024)."""


class Projected(NamedTuple):
    """Gaussians as one camera each sees them: all of it is differentiable but the radii."""

    means2d: Float[Tensor, "v n 2"]
    """Centres on the screen, in pixels."""
    depths: Float[Tensor, "v n"]
    conics: Float[Tensor, "v n 3"]
    """Inverse covariances in pixels: xx, xy, yy."""
    opacities: Float[Tensor, "v n"]
    """0 where a Gaussian is not seen."""
    radii: Int[Tensor, "v n 2"]
    """Half the width and height of its bounding box where it is visible, in pixels, rounded up; 0 where it is not seen."""
    features: Float[Tensor, "v n c"]
    """What is blended: colours, then depth and the normal that faces the camera where the settings ask for them."""


class Raster(NamedTuple):
    """What every backend returns."""

    image: Float[Tensor, "v h w c"]
    """The blended features, premultiplied."""
    alpha: Float[Tensor, "v h w 1"]
    projected: Projected


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    colors: Float[Tensor, "..."],
    viewmats: Float[Tensor, "v 4 4"],
    Ks: Float[Tensor, "v 3 3"],
    settings: Settings,
) -> Raster:
    """Draw Gaussians as cameras see them: :func:`project` and :func:`blend`.

    Colours are values [n c] or coefficients [n k 3], with another axis [v ...] in front where each view has its own. A Gaussian
    that is not finite, has no rotation, or lies outside the near and far planes is not seen and gets no gradient.
    """
    projected = project(means, quats, scales, opacities, colors, viewmats, Ks, settings)
    return Raster(*blend(projected, settings, absgrad_of(projected, settings)), projected)


def absgrad_of(projected: Projected, settings: Settings) -> Callable[[Tensor], None] | None:
    """What takes the absolute gradients of the centres, if anybody asks for them."""
    return partial(setattr, projected.means2d, "absgrad") if settings.absgrad else None


def without_insane(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, settings: Settings
) -> tuple[Tensor, ...]:
    """The same, but that what is not finite or has no rotation is transparent and gets no gradient."""
    per_view = colors.ndim - (2 if settings.sh_degree is None else 3)
    sane = torch.cat([means, quats, scales, opacities[:, None]], 1).isfinite().all(1) & (quats != 0).any(1)
    finite = colors.isfinite().flatten(per_view + 1).all(-1)
    sane = sane & (finite.all(0) if per_view else finite)

    def keep(x: Tensor, fallback: float, axes: int) -> Tensor:
        return torch.where(sane.view(-1, *[1] * axes), x, fallback)

    axes = colors.ndim - per_view - 1
    return keep(means, 0, 1), keep(quats, 1, 1), keep(scales, 0, 1), keep(opacities, 0, 0), keep(colors, 0, axes)


def project(means, quats, scales, opacities, colors, viewmats, Ks, settings: Settings) -> Projected:
    """Project and shade Gaussians: a local affine approximation of the camera, taken inside the frustum widened by 0.3."""
    means, quats, scales, opacities, colors = without_insane(means, quats, scales, opacities, colors, settings)
    size = torch.tensor([settings.width, settings.height]).to(means)
    focal, center = Ks[:, None, [0, 1], [0, 1]], Ks[:, None, [0, 1], [2, 2]]
    rotation = viewmats[:, :3, :3]
    in_camera = means @ rotation.mT + viewmats[:, None, :3, 3]
    depths = in_camera[..., 2]
    in_range = (depths >= settings.near) & (depths <= settings.far)
    z = torch.where(in_range, depths, 1.0)[..., None]
    if settings.ortho:
        z = torch.ones_like(z)
    xy = in_camera[..., :2] / z
    means2d = focal * xy + center
    margin = 0.15 * size / focal
    slope = torch.minimum(torch.maximum(xy, -center / focal - margin), (size - center) / focal + margin)
    jacobian = torch.cat([torch.diag_embed((focal / z).expand_as(slope)), (-focal * slope / z)[..., None]], -1)
    if settings.ortho:
        jacobian = torch.nn.functional.pad(jacobian[..., :2], (0, 1))
    root = jacobian @ rotation[:, None] @ (rotation_from_quat(quats) * scales[:, None, :])
    # By Cauchy and Binet the determinant is a sum of squares, which keeps its digits where the Gaussian is a needle.
    sharp, sharp_det = root @ root.mT, torch.linalg.cross(root[..., 0, :], root[..., 1, :]).square().sum(-1)
    det = sharp_det + settings.eps2d * (sharp[..., 0, 0] + sharp[..., 1, 1]) + settings.eps2d**2
    seen = in_range & (det > 0) & (det < 1e30)
    xx, yy = (torch.where(seen, sharp[..., i, i] + settings.eps2d, 1.0) for i in range(2))
    conics = torch.stack([yy, torch.where(seen, -sharp[..., 0, 1], 0.0), xx], -1) / torch.where(seen, det, 1.0)[..., None]
    if settings.antialiased:
        thinning = torch.where(seen, sharp_det / det, 1.0)
        opacities = opacities * torch.where(thinning > 0, thinning, 1.0).sqrt() * (thinning > 0)
    opacities = opacities.expand_as(depths)
    reach = (2 * (opacities / MIN_ALPHA).clamp(min=1).log()).sqrt()[..., None] * torch.stack([xx, yy], -1).sqrt()
    radii = reach.detach().ceil()
    seen = seen & (opacities >= MIN_ALPHA) & (radii > settings.radius_clip).any(-1)
    seen = seen & (means2d + radii > 0).all(-1) & (means2d - radii < size).all(-1)
    features = shade(means, quats, scales, colors, viewmats, depths, settings)
    return Projected(
        means2d=torch.where(seen[..., None], means2d, 0.0),
        depths=torch.where(seen, depths, 0.0),
        conics=torch.where(seen[..., None], conics, 0.0),
        opacities=torch.where(seen, opacities, 0.0),
        radii=torch.where(seen[..., None], radii.clamp(max=2**30), 0).int(),
        features=torch.where(seen[..., None], features, 0.0),
    )


def shade(means, quats, scales, colors, viewmats, depths, settings: Settings) -> Float[Tensor, "v n c"]:
    """The features of each Gaussian for each camera: colour, and where asked for depth and the normal that faces it."""
    centers = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[..., 0]
    rays = means - centers[:, None]
    if settings.sh_degree is None:
        features = [colors.expand(len(viewmats), -1, -1)]
    else:
        sh = colors[..., : (settings.sh_degree + 1) ** 2, :]
        features = [(0.5 + spherical_harmonics(sh, torch.nn.functional.normalize(rays, dim=-1))).clamp(min=0)]
    if settings.depth:
        features.append(depths[..., None])
    if settings.normals:
        axis = rotation_from_quat(quats).gather(2, scales.argmin(1)[:, None, None].expand(-1, 3, 1))[..., 0]
        features.append(torch.where((rays * axis).sum(-1, keepdim=True) > 0, -axis, axis))
    return torch.cat(features, -1)


def spherical_harmonics(sh: Float[Tensor, "*v n k 3"], directions: Float[Tensor, "v n 3"]) -> Float[Tensor, "v n 3"]:
    """Evaluate real spherical harmonics (k = 1, 4, 9 or 16 coefficients, with the signs of 3DGS files) at unit directions."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if sh.shape[-2] > 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if sh.shape[-2] > 4:
        basis += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y)]
        basis += [-1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)]
    if sh.shape[-2] > 9:
        basis += [-0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z]
        basis += [-0.4570457994644658 * y * (4 * z * z - x * x - y * y)]
        basis += [0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        basis += [-0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y)]
        basis += [-0.5900435899266435 * x * (x * x - 3 * y * y)]
    return torch.einsum("vnk,nkc->vnc" if sh.ndim == 3 else "vnk,vnkc->vnc", torch.stack(basis, -1), sh)


def coverage(view: Projected, pixels: Float[Tensor, "p 2"], means2d: Float[Tensor, "..."]) -> Float[Tensor, "p m"]:
    """The alpha of each Gaussian of one view at each pixel, before cut-offs; ``means2d`` [m 2] or [p m 2] are their centres."""
    dx, dy = (pixels[:, None] - means2d).unbind(-1)
    xx, xy, yy = view.conics.unbind(-1)
    return view.opacities * torch.exp(-0.5 * (xx * dx**2 + yy * dy**2) - xy * dx * dy)


class Layers(NamedTuple):
    """What each of m Gaussians, front to back, does to each of p pixels."""

    alpha: Float[Tensor, "p m"]
    """0 where it is below the cut-off."""
    weight: Float[Tensor, "p m"]
    """Its share of the pixel; 0 from where the pixel is opaque."""
    through: Float[Tensor, "p m"]
    """The light that all Gaussians up to this one let through."""


def layers(coverage: Float[Tensor, "p m"]) -> Layers:
    """Weigh the Gaussians that cover some pixels, front to back."""
    alpha = coverage.clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    through = torch.log1p(-alpha).cumsum(1).exp()
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
    return Layers(alpha, torch.where(through > MIN_TRANSMITTANCE, alpha * before, 0.0), through)


def front_to_back(projected: Projected, i: int) -> tuple[Projected, Int[Tensor, "m"]]:
    """The Gaussians that view i sees, sorted by depth, and which they are."""
    order = torch.argsort(projected.depths[i], stable=True)
    order = order[projected.radii[i, order].amax(-1) > 0]
    return Projected(*(x[i, order] for x in projected)), order


def blend(
    projected: Projected, settings: Settings, absgrad: Callable[[Tensor], None] | None = None, chunk: int = 1024
) -> tuple[Float[Tensor, "v h w c"], Float[Tensor, "v h w 1"]]:
    """Blend features front to back, ``chunk`` pixels at a time: the image, and alpha.

    ``absgrad`` is called in the backward pass with the absolute gradients of the centres [v n 2].
    """
    images, alphas, absolute = [], [], torch.zeros_like(projected.means2d)
    if absgrad is not None and projected.means2d.requires_grad:
        projected.means2d.register_hook(lambda _: absgrad(absolute))
    for i in range(len(projected.depths)):
        view, order = front_to_back(projected, i)
        blended = []
        for pixels in pixel_centers(settings).to(view.means2d).split(chunk):
            means2d = view.means2d
            if absgrad is not None and means2d.requires_grad:
                means2d = means2d.expand(len(pixels), -1, -1)
                means2d.register_hook(partial(_add_absolute, absolute[i], order))
            weight = layers(coverage(view, pixels, means2d)).weight
            blended.append(torch.cat([weight @ view.features, weight.sum(1, keepdim=True)], 1))
        image = torch.cat(blended).unflatten(0, (settings.height, settings.width))
        images.append(image[..., :-1])
        alphas.append(image[..., -1:])
    return torch.stack(images), torch.stack(alphas)


def _add_absolute(total: Float[Tensor, "n 2"], order: Int[Tensor, "m"], gradient: Float[Tensor, "p m 2"]) -> None:
    total.index_add_(0, order, gradient.abs().sum(0))


def median_gaussian(projected: Projected, settings: Settings, chunk: int = 1024) -> Int[Tensor, "v h w"]:
    """The Gaussian in each pixel that leaves half of the light or less first; -1 where none does."""
    found = []
    for i in range(len(projected.depths)):
        view, order = front_to_back(projected, i)
        order = torch.cat([order, order.new_full((1,), -1)])
        for pixels in pixel_centers(settings).to(view.means2d).split(chunk):
            found.append(order[(layers(coverage(view, pixels, view.means2d)).through > 0.5).sum(1)])
    return torch.cat(found).view(-1, settings.height, settings.width).int()


def cutoff_pixels(projected: Projected, settings: Settings, width: float = 1e-4, chunk: int = 1024) -> Bool[Tensor, "v h w"]:
    """The pixels in which rounding may decide what is seen.

    There a Gaussian's alpha lies within ``width`` (relative) of a cut-off, or the light let through does, before the pixel is
    opaque; or two Gaussians that touch the pixel lie within 1e-6 (relative) of the same depth. Backends agree elsewhere.
    """
    found = []
    for i in range(len(projected.depths)):
        view, _ = front_to_back(projected, i)
        tied = torch.nn.functional.pad(view.depths.diff() <= 1e-6 * view.depths[1:], (1, 0)) if len(view.depths) else None
        for pixels in pixel_centers(settings).to(view.means2d).split(chunk):
            free = coverage(view, pixels, view.means2d)
            # What is just too faint to count takes part; the light let through is that of the scene as it is.
            alpha, through = layers(free * (1 + width)).alpha, layers(free).through
            near = (alpha > 0) & (alpha < MIN_ALPHA * (1 + 2 * width)) | ((free / MAX_ALPHA - 1).abs() < width)
            near |= (alpha > 0) & ((through / MIN_TRANSMITTANCE - 1).abs() < 30 * width)
            if tied is not None:
                near |= tied & (alpha > 0) & (alpha.roll(1, 1) > 0)
            before = torch.nn.functional.pad(through[:, :-1], (1, 0), value=1.0) if len(view.depths) else through
            found.append((near & (before > MIN_TRANSMITTANCE / 2)).any(1))
    return torch.cat(found).view(-1, settings.height, settings.width)


def pixel_centers(settings: Settings) -> Float[Tensor, "p 2"]:
    """Pixel centres (x, y), row by row."""
    y, x = torch.meshgrid(torch.arange(settings.height) + 0.5, torch.arange(settings.width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
