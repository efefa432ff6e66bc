"""gsplat's call on any machine: code written for gsplat 1.5 renders on a CPU when its import is changed.

This is a thin adapter over our own backends. On CUDA it hands everything on to gsplat.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rl3d.render._gaussians_torch import Projected, Settings
from rl3d.render.gaussians import implementation


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: Any = None,
    viewmats_rs: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render n Gaussians of each scene as its c cameras see them, differentiably in everything.

    Scenes are any leading axes ``...``. What is called float32 here may be float64 too, which takes the readable but slow
    oracle; ``backend`` chooses another (:func:`rl3d.render.gaussians.render_splats` says which there are).

    Args:
        means: Centres in world space, [... n 3].
        quats: Rotations, wxyz, of any non-zero length, [... n 4].
        scales: Standard deviations in world units, [... n 3].
        opacities: In [0, 1], [... n].
        colors: Features of any number of channels, [... n d] or [... c n d]; with ``sh_degree``, coefficients of spherical
            harmonics, [... n k 3] or [... c n k 3], whose sum is shown plus 0.5 and cut at 0.
        viewmats: Rigid transforms from world to camera, [... c 4 4].
        Ks: Intrinsics in pixels, [... c 3 3].
        width: Of the images, in pixels.
        height: Of the images, in pixels.
        near_plane: What is nearer to the camera's plane is not seen.
        far_plane: What is farther is not seen either.
        radius_clip: Gaussians whose bounding box is nowhere larger than twice this, in pixels, are not seen.
        eps2d: Variance in pixels squared that widens every Gaussian on the screen.
        sh_degree: 0 to 3, which may be less than the coefficients allow; None for plain features.
        packed: Give the entries of ``info`` for each Gaussian that a camera sees, [nnz ...], with ``batch_ids``, ``camera_ids``
            and ``gaussian_ids``; otherwise for all, [... c n ...].
        tile_size: Ignored, as are ``channel_chunk`` and ``segmented``: nothing but speed depends on them, and only in gsplat.
        backgrounds: Colours behind everything, [... c d].
        render_mode: RGB for ``colors``, D for accumulated and ED for expected depth along z, or both with depth last.
        sparse_grad: Refused on CPUs if true.
        absgrad: Leave ``info["means2d"].absgrad`` in the backward pass.
        rasterize_mode: "antialiased" lowers opacities by what ``eps2d`` adds.
        channel_chunk: Ignored.
        distributed: Refused on CPUs if true.
        camera_model: "pinhole" or "ortho"; others are refused on CPUs.
        segmented: Ignored.
        covars: Refused on CPUs, as is everything that follows.
        with_ut: Refused on CPUs.
        with_eval3d: Refused on CPUs.
        radial_coeffs: Refused on CPUs.
        tangential_coeffs: Refused on CPUs.
        thin_prism_coeffs: Refused on CPUs.
        ftheta_coeffs: Refused on CPUs.
        rolling_shutter: Refused on CPUs, but for a global shutter.
        viewmats_rs: Refused on CPUs.
        backend: See above.

    Returns:
        Images [... c height width x] (x channels as ``render_mode`` says), alphas [... c height width 1], and ``info``: means2d
        (a step of the graph: ``retain_grad()`` keeps its gradient), radii (two each, 0 where not seen), depths, conics and
        opacities (thinned where antialiased, 0 where not seen), the ids of ``packed`` or None, width, height, tile_size,
        tile_width, tile_height, n_batches and n_cameras. gsplat's lists of tile intersections exist on CUDA only.

    Raises:
        ValueError: For what is not supported, which it names, and for shapes that do not fit together.
        RuntimeError: If gsplat is needed and does not work here; the message says what to do.
    """
    module = implementation(means, backend)
    arguments = dict(locals())
    del arguments["module"], arguments["backend"]
    if module.__name__.endswith("_cuda"):
        return module.gsplat().rasterization(**{k: x for k, x in arguments.items() if k != "rolling_shutter" or x is not None})
    _refuse(arguments)
    scenes = _scenes(means, quats, scales, opacities, colors, viewmats, Ks, sh_degree)
    settings = Settings(
        width,
        height,
        eps2d,
        antialiased=rasterize_mode == "antialiased",
        near=near_plane,
        far=far_plane,
        radius_clip=radius_clip,
        ortho=camera_model == "ortho",
        sh_degree=None if render_mode in ("D", "ED") else sh_degree,
        depth="D" in render_mode,
        absgrad=absgrad,
    )
    if render_mode in ("D", "ED"):
        scenes = [(*scene[:4], scene[0][:, :0], *scene[5:]) for scene in scenes]
    projected = [module.project(*scene, settings) for scene in scenes]
    batch, cameras = means.shape[:-2], viewmats.shape[-3]
    screen = _Screen.of(projected, batch, packed)
    blended = [
        module.blend(p._replace(means2d=screen.centers[i]), settings, screen.absgrad_of(i) if absgrad else None)
        for i, p in enumerate(projected)
    ]
    image, alpha = (_together(list(x), batch) for x in zip(*blended, strict=True))
    values = scenes[0][4].shape[-1]
    image = _finish(image, alpha, values, backgrounds, render_mode)
    info = screen.info() | {
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "tile_width": math.ceil(width / tile_size),
        "tile_height": math.ceil(height / tile_size),
        "n_batches": math.prod(batch),
        "n_cameras": cameras,
    }
    return image, alpha, info


def _refuse(arguments: dict[str, Any]) -> None:
    """Raise what cannot be had here."""
    choices = {
        "render_mode": ("RGB", "D", "ED", "RGB+D", "RGB+ED"),
        "rasterize_mode": ("classic", "antialiased"),
        "camera_model": ("pinhole", "ortho"),
        "sh_degree": (None, 0, 1, 2, 3),
    }
    for name, allowed in choices.items():
        if arguments[name] not in allowed:
            known = ", ".join(map(repr, allowed))
            raise ValueError(f"{name}={arguments[name]!r} is not supported by the CPU rasterizer; it takes {known}.")
    for name in ("sparse_grad", "distributed", "with_ut", "with_eval3d"):
        if arguments[name]:
            raise ValueError(f"{name}=True is not supported by the CPU rasterizer; leave it out, or use CUDA tensors.")
    optional = ("covars", "radial_coeffs", "tangential_coeffs", "thin_prism_coeffs", "ftheta_coeffs", "viewmats_rs")
    for name in optional:
        if arguments[name] is not None:
            raise ValueError(f"{name} is not supported by the CPU rasterizer; leave it out, or use CUDA tensors.")
    shutter = arguments["rolling_shutter"]
    if shutter is not None and getattr(shutter, "name", "") != "GLOBAL":
        raise ValueError(
            f"rolling_shutter={shutter!r} is not supported by the CPU rasterizer; leave it out, or use CUDA tensors."
        )


def _scenes(means, quats, scales, opacities, colors, viewmats, Ks, sh_degree: int | None) -> list[tuple[Tensor, ...]]:
    """Take scenes apart, and check that shapes fit."""
    batch, n, c = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    wanted = {
        "means": (means, (*batch, n, 3)),
        "quats": (quats, (*batch, n, 4)),
        "scales": (scales, (*batch, n, 3)),
        "opacities": (opacities, (*batch, n)),
        "viewmats": (viewmats, (*batch, c, 4, 4)),
        "Ks": (Ks, (*batch, c, 3, 3)),
    }
    for name, (x, shape) in wanted.items():
        if tuple(x.shape) != shape:
            raise ValueError(f"{name} must have the shape {list(shape)} that means and viewmats imply; got {list(x.shape)}.")
    last = colors.shape[len(batch) :]
    own = (1 if sh_degree is None else 2) + 1
    if len(last) not in (own, own + 1) or last[-own] != n or (len(last) > own and last[0] != c):
        form = "[... n d] or [... c n d]" if sh_degree is None else "[... n k 3] or [... c n k 3]"
        raise ValueError(
            f"colors must be {form} with n = {n} and c = {c} (sh_degree is {sh_degree}); got {list(colors.shape)}."
        )
    if sh_degree is not None and (last[-1] != 3 or last[-2] < (sh_degree + 1) ** 2):
        need = (sh_degree + 1) ** 2
        raise ValueError(f"colors must end in [k 3] with k >= {need} for sh_degree {sh_degree}; got {list(colors.shape)}.")
    viewmats, Ks = viewmats.to(means), Ks.to(means)
    tensors = (means, quats, scales, opacities, colors, viewmats, Ks)
    if not batch:
        return [tensors]
    return list(zip(*(x.flatten(0, len(batch) - 1) for x in tensors), strict=True))


def _together(parts: list[Tensor], batch: torch.Size) -> Tensor:
    """What belongs to each scene as one tensor [... x]; nothing is copied where there is one scene."""
    return torch.stack(parts).view(*batch, *parts[0].shape) if batch else parts[0]


class _Screen(NamedTuple):
    """What projection found, as ``info`` shows it."""

    means2d: Tensor
    """As in ``info``, and in the graph before what is blended."""
    centers: list[Tensor]
    """The same, [c n 2] for each scene."""
    ids: tuple[Tensor, ...] | None
    """Scene, camera and Gaussian of each packed entry."""
    fields: dict[str, Tensor]
    """The rest, as in ``info``."""
    absolute: Tensor
    """Absolute gradients of centres [b c n 2]; filled in the backward pass."""

    @classmethod
    def of(cls, projected: list[Projected], batch: torch.Size, packed: bool) -> _Screen:
        names = ("radii", "depths", "conics", "opacities")
        fields = {name: _together([getattr(p, name) for p in projected], batch) for name in names}
        absolute = projected[0].means2d.new_zeros(len(projected), *projected[0].means2d.shape)
        if not packed:
            whole = _together([p.means2d for p in projected], batch)
            return cls(whole, list(whole.view(absolute.shape)), None, fields, absolute)
        seen = (fields["radii"] > 0).all(-1).view(absolute.shape[:-1])
        ids = seen.nonzero(as_tuple=True)
        flat = torch.stack([p.means2d for p in projected])[ids]
        centers = list(torch.zeros_like(absolute).index_put(ids, flat))
        fields = {name: x.view(*seen.shape, *x.shape[len(batch) + 2 :])[ids] for name, x in fields.items()}
        return cls(flat, centers, ids, fields, absolute)

    def info(self) -> dict[str, Any]:
        ids = self.ids or (None, None, None)
        return (
            dict(zip(("batch_ids", "camera_ids", "gaussian_ids"), ids, strict=True)) | {"means2d": self.means2d} | self.fields
        )

    def absgrad_of(self, scene: int):
        """What takes the absolute gradients of one scene's centres."""

        def take(absolute: Tensor) -> None:
            self.absolute[scene] = absolute
            whole = self.absolute.view_as(self.means2d) if self.ids is None else self.absolute[self.ids]
            self.means2d.absgrad = whole  # pyright: ignore

        return take


def _finish(image: Tensor, alpha: Tensor, values: int, backgrounds: Tensor | None, mode: str) -> Tensor:
    """Put values over their background, and divide depth by alpha where it is to be expected depth."""
    depths = int("D" in mode)
    values_, depth, _ = image.split([values, depths, image.shape[-1] - values - depths], -1)
    if image.shape[-1] == values:
        values_ = image
    if backgrounds is not None and values:
        if backgrounds.shape[-1] != values:
            raise ValueError(f"backgrounds must have {values} channels, as the colours have; got {list(backgrounds.shape)}.")
        values_ = values_ + (1 - alpha) * backgrounds[..., None, None, :].to(image)
    if mode.endswith("ED"):
        depth = depth / alpha.clamp(min=1e-10)
    return torch.cat([values_, depth], -1) if values and depths else (values_ if values else depth)
