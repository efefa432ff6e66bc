"""Whether views agree on one object: by their depth, by a quick fit, by their normals.

A rendered scene agrees with itself in colour by construction: there :class:`Normals` says something, and the others are for
views that come from a prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rl3d.geometry.fit import fit_splats
from rl3d.geometry.hull import project, sample_pixels
from rl3d.geometry.reproject import normals_from_depth, unproject
from rl3d.protocols import RewardInfo, Shown
from rl3d.render.gaussians import render_splats
from rl3d.rewards.base import closed_form, judge_each, judged, look
from rl3d.rewards.clip import GRAY, Clip, ClipReward
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Reprojection:
    """How well colours agree where two views see the same place.

    The covered pixels of each view are carried to their points by its depth, and from there into every other view. A point
    counts where that view is covered too and has about its depth there, so that nothing hidden is compared. The value is minus
    the mean absolute difference of straight colours, in [-1, 0]. Differentiable in the pixels: in colour, alpha and depth, but
    not in what counts. A sample whose views share no place is not valid.
    """

    slack: float = 0.05
    """World units by which depths may differ and still be of one place."""

    @property
    def info(self) -> RewardInfo:
        source = "Schoenberger et al. 2016, 'Pixelwise View Selection' (forward-backward reprojection), for colour"
        return closed_form("consistency:reprojection", "pixels", (-1.0, 0.0), source, "views", "depth")

    def build(self, device: torch.device | str = "cpu") -> Reprojection:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views
        rgb = views.rgb

        def one(i: int) -> Tensor | None:
            sample = views.sample(i)
            if not all(x.detach().isfinite().all() for x in sample.tensors()):
                return None
            difference, shared = self._compare(sample)
            return -difference.sum() / shared.sum() if shared.any() else None

        return judge_each(len(rgb), one, rgb)

    def _compare(self, views: Views) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
        """For each ordered pair of views: the sum of differences over shared pixels, and the number of these."""
        assert views.depth is not None
        depth = torch.where(views.alpha > 0, views.depth, 0.0)
        points = unproject(depth[0], views.cameras)
        straight = views.rgb[0] / views.alpha[0].clamp(min=1e-3)
        solid = views.alpha[0, ..., 0].detach() > 0.9
        layers = torch.cat([views.rgb[0], views.alpha[0], views.alpha[0] * depth[0]], -1)
        differences, counts = [], []
        for i in range(views.cameras.views):
            here = solid[i]
            pixels, z = project(points[i][here], views.cameras)
            found = sample_pixels(layers, pixels)
            colour, cover = found[..., :3] / found[..., 3:4].clamp(min=1e-3), found[..., 3].detach()
            far = (found[..., 4] / found[..., 3].clamp(min=1e-3)).detach()
            shared = (cover > 0.9) & ((z.detach() - far).abs() < self.slack)
            shared[i] = False
            apart = (colour - straight[i][here]).abs().mean(-1)
            differences.append(torch.where(shared, apart, 0.0).sum(1))
            counts.append(shared.sum(1).to(apart))
        return torch.cat(differences), torch.cat(counts)


@dataclass(frozen=True)
class Normals:
    """How well rendered normals agree with those of the rendered depth: the mean cosine, in [-1, 1].

    After Nabla-R2D3's depth-normal consistency (Liu et al. 2025). Counted where a pixel and its neighbours are
    covered and depth does not jump. Differentiable in the pixels (depth and normals), but not in what counts.
    """

    jump: float = 0.15
    """World units between neighbours but one, beyond which they are of two surfaces."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("consistency:normals", "pixels", (-1.0, 1.0), "https://arxiv.org/abs/2506.15684", "views", "depth")

    def build(self, device: torch.device | str = "cpu") -> Normals:
        return self

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        """Judge; a view of nothing is not valid, and neither is its sample."""
        views = look(self.info, shown, prompts).views
        per_view = torch.stack([self._agreement(views.sample(i)) for i in range(len(views.rgb))])
        finite = torch.stack([x.detach().isfinite().flatten(2).all(2) for x in (views.rgb, views.alpha)]).all(0)
        return judged(torch.where(finite, per_view, torch.nan))

    def _agreement(self, views: Views) -> Float[Tensor, "v"]:
        assert views.depth is not None
        assert views.normals is not None
        covered = views.alpha[0].detach() > 0.9
        found, jumps = normals_from_depth(torch.where(views.alpha[0] > 0, views.depth[0], 0.0), views.cameras)
        counts = _eroded(covered) & (jumps.detach() < self.jump)
        cosine = (found * views.normals[0]).sum(-1, keepdim=True)
        total = torch.where(counts, cosine, 0.0).sum((1, 2, 3))
        return total / counts.sum((1, 2, 3)).where(counts.any(3).any(2).any(1), torch.nan)


def _eroded(mask: Bool[Tensor, "v h w 1"]) -> Bool[Tensor, "v h w 1"]:
    """Pixels of a mask whose four neighbours are in it; none on the border."""
    inner = torch.zeros_like(mask)
    inner[:, 1:-1, 1:-1] = mask[:, 1:-1, 1:-1] & mask[:, :-2, 1:-1] & mask[:, 2:, 1:-1] & mask[:, 1:-1, :-2] & mask[:, 1:-1, 2:]
    return inner


@dataclass(frozen=True)
class Refit:
    """How like themselves views look when a scene is fitted to them and rendered again: what they disagree on is lost.

    The idea of Carve3D's multi-view reconstruction consistency (Xie et al. 2023), with a quick fit of splats whose
    colours do not change with the direction in place of its reconstruction model, and an encoder's features, or colours, in
    place of LPIPS. Both views are cropped to the square around the object. A black box.
    """

    encoder: Clip | None = None
    """Whose features are compared, by cosine; None compares colours, by minus their mean absolute difference."""
    steps: int = 80
    """Of the fit."""
    margin: float = 0.05
    """By which the crop is larger than the object, as a fraction of the view."""
    seed: int = 0

    def build(self, device: torch.device | str = "cpu") -> RefitReward:
        return RefitReward(self, self.encoder.build(device) if self.encoder else None)


class RefitReward(torch.nn.Module):
    """A live :class:`Refit`. A sample of which nothing is covered is not valid."""

    def __init__(self, value: Refit, encoder: ClipReward | None):
        super().__init__()
        self.value, self.encoder = value, encoder
        low = (-1.0, 0.0) if encoder is None else (-1.0, 1.0)
        self.info = RewardInfo(
            name="consistency:refit",
            differentiable="no",
            range=low,
            weights=encoder.info.weights if encoder else "",
            licence=encoder.info.licence if encoder else "Apache-2.0",
            source="https://arxiv.org/abs/2312.13980",
        )
        self.eval()

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views.detach()
        rows = []
        for i in range(len(views.rgb)):
            sample = views.sample(i)
            good = sample.rgba.isfinite().all() and (sample.alpha > 0.5).any()
            rows.append(self._likeness(sample) if good else sample.alpha.new_full((sample.cameras.views,), torch.nan))
        return judged(torch.stack(rows))

    def _likeness(self, views: Views) -> Float[Tensor, "v"]:
        rng = torch.Generator().manual_seed(self.value.seed)
        again, _ = render_splats(fit_splats(views, rng=rng, steps=self.value.steps), views.cameras, depth=False, normals=False)
        found = []
        for v in range(views.cameras.views):
            rows, columns = _square(views.alpha[0, v, ..., 0] > 0.5, self.value.margin)
            pair = [x.over(GRAY)[0, v, rows, columns].clamp(0, 1) for x in (views, again)]
            if self.encoder is None:
                found.append(-(pair[0] - pair[1]).abs().mean())
            else:
                pictures = torch.stack(pair).movedim(-1, 1).to(next(self.encoder.parameters()).device)
                a, b = self.encoder.model.encode_image(self.encoder.prepare(pictures), normalize=True)  # pyright: ignore[reportCallIssue]
                found.append((a @ b).float())
        return torch.stack(found)


def _square(mask: Bool[Tensor, "h w"], margin: float) -> tuple[slice, slice]:
    """The square around what is covered, within the picture; all of it where nothing is."""
    h, w = mask.shape
    if not mask.any():
        return slice(0, h), slice(0, w)
    (y,), (x,) = (torch.nonzero(mask.any(d), as_tuple=True) for d in (1, 0))
    half = max(int(y[-1] - y[0]), int(x[-1] - x[0])) / 2 + 0.5 + margin * max(h, w)
    spans = []
    for place, size in ((float(y[0] + y[-1] + 1) / 2, h), (float(x[0] + x[-1] + 1) / 2, w)):
        spans.append(slice(max(0, round(place - half)), min(size, round(place + half))))
    return spans[0], spans[1]
