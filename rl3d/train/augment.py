"""Augmentations for encoders that must recognise splats as well as meshes, on any background.

Each is a function of premultiplied ``[n 4 h w]`` pictures in [0, 1] and a generator, and changes each picture differently;
:func:`compose` lays them over a background, after which there are three channels. None changes a hue but :func:`dye`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.toybox.things import Spec

Rng = torch.Generator
Change = Callable[[Tensor, Rng], Tensor]


def between(low: float, high: float, n: int, rng: Rng) -> Float[Tensor, "n 1 1 1"]:
    """Draw a number for each picture."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=rng)


def frame(
    x: Float[Tensor, "n c h w"], rng: Rng, *, zoom: tuple[float, float], shift: float, wobble: float = 0.0
) -> Float[Tensor, "n c h w"]:
    """Zoom and shift; and bend smoothly by ``wobble`` (all in units of half the picture), as splats do to straight edges."""
    n = len(x)
    scale, move = 1 / between(*zoom, n, rng), shift * (2 * torch.rand(n, 1, 1, 2, generator=rng) - 1)
    grid = _grid(x)
    if wobble:
        bend = _bend(x, rng)
        grid = grid + wobble * torch.rand(n, 1, 1, 1, generator=rng) * bend
    return F.grid_sample(x, grid * scale + move, align_corners=False)


def _grid(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w 2"]:
    """Where each pixel is, in units of half the picture."""
    return F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)


def _bend(x: Float[Tensor, "n c h w"], rng: Rng) -> Float[Tensor, "n h w 2"]:
    """A smooth field of random shifts."""
    return F.interpolate(torch.randn(len(x), 2, 6, 6, generator=rng), list(x.shape[-2:]), mode="bicubic").movedim(1, -1)


def coverage(x: Float[Tensor, "n 4 h w"], rng: Rng, *, steepness: tuple[float, float], veil: float) -> Float[Tensor, "n 4 h w"]:
    """Harden or soften edges, and let the background shine through a little (up to ``veil``)."""
    alpha = x[:, 3:]
    changed = ((alpha - 0.5) * between(*steepness, len(x), rng) + 0.5).clamp(0, 1) * (alpha > 0.02)
    return x * (changed * (1 - between(0.0, veil, len(x), rng)) / alpha.clamp(min=0.02))


def blobs(x: Float[Tensor, "n 4 h w"], rng: Rng, *, count: int, opacity: float, share: float = 0.5) -> Float[Tensor, "n 4 h w"]:
    """Add soft blobs in the colours of the object to a share of the pictures, on the object and astray beside it."""
    some = torch.nonzero(torch.rand(len(x), generator=rng) < share)[:, 0]
    if not len(some):
        return x
    y, (n, _, h, w) = x[some], x[some].shape
    rows, columns = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)
    for _ in range(count):
        # The colour of a random pixel, where it is covered at all.
        pick = torch.randint(h * w, (n, 1, 1), generator=rng).expand(n, 4, 1)
        colour = y.flatten(2).gather(2, pick)[..., None]
        colour = colour / colour[:, 3:].clamp(min=0.02) * (colour[:, 3:] > 0.3)
        dx, dy = (between(-0.8, 0.8, n, rng)[:, 0] for _ in range(2))
        a, b = (between(0.02, 0.12, n, rng)[:, 0] for _ in range(2))
        veil = torch.exp(-0.5 * (((columns - dx) / a) ** 2 + ((rows - dy) / b) ** 2))[:, None] * between(0.0, opacity, n, rng)
        y = y * (1 - veil * (colour[:, 3:] > 0)) + veil * colour
    return x.index_copy(0, some, y)


def occlude(x: Float[Tensor, "n c h w"], rng: Rng, *, size: float) -> Float[Tensor, "n c h w"]:
    """Erase a small box anywhere."""
    rows, columns = torch.linspace(0, 1, x.shape[2])[:, None], torch.linspace(0, 1, x.shape[3])
    (left, top), (width, height) = (
        (between(low, high, len(x), rng) for _ in range(2)) for low, high in ((0.0, 1.0), (0.0, size))
    )
    return x * ~((columns > left) & (columns < left + width) & (rows > top) & (rows < top + height))


def over(x: Float[Tensor, "n 4 h w"], rng: Rng) -> Float[Tensor, "n 3 h w"]:
    """Lay over a background each: a plain colour or gray, a gradient, a checkerboard, or smooth noise."""
    n, _, h, w = x.shape
    style = torch.randint(5, (n, 1, 1, 1), generator=rng)
    colours = torch.rand(n, 3, 1, 1, generator=rng)
    gray = torch.rand(n, 1, 1, 1, generator=rng)
    ramp = F.interpolate(torch.rand(n, 3, 2, 2, generator=rng), [h, w], mode="bilinear", align_corners=True)
    noise = F.interpolate(torch.rand(n, 3, 9, 9, generator=rng), [h, w], mode="bilinear")
    cells = torch.randint(2, 7, (n, 1, 1, 1), generator=rng)
    odd = (torch.arange(h)[:, None] * cells // h + torch.arange(w) * cells // w) % 2
    checks = torch.where(odd.bool(), colours, gray)
    behind = torch.where(style == 0, colours, torch.where(style == 1, gray, torch.where(style == 2, ramp, checks)))
    behind = torch.where(style == 4, noise, behind)
    return x[:, :3] + (1 - x[:, 3:]) * behind


def light(x: Float[Tensor, "n c h w"], rng: Rng, *, gain: float, gamma: float) -> Float[Tensor, "n c h w"]:
    """Make colours brighter or darker, all three alike: which of them is the strongest stays so."""
    strength = 1 + between(-gain, gain, len(x), rng)
    curve = torch.exp(between(-gamma, gamma, len(x), rng))
    colour, alpha = x[:, :3].clamp(0, 1), x[:, 3:]
    return torch.cat([(colour**curve * strength).clamp(0, 1), alpha], 1)


def blur(x: Float[Tensor, "n c h w"], rng: Rng, *, most: float) -> Float[Tensor, "n c h w"]:
    """Mix with a copy blurred over 5 pixels, by up to ``most``."""
    h, w = x.shape[-2:]
    soft = F.pad(x, (2, 2, 2, 2), mode="replicate")
    taps = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    soft = torch.stack([tap * soft[..., i : i + h, :] for i, tap in enumerate(taps)]).sum(0)
    soft = torch.stack([tap * soft[..., i : i + w] for i, tap in enumerate(taps)]).sum(0)
    return torch.lerp(x, soft, between(0.0, most, len(x), rng))


def coarsen(x: Float[Tensor, "n c h w"], rng: Rng, *, size: int, share: float) -> Float[Tensor, "n c h w"]:
    """Show a share of the pictures as if rendered with ``size`` x ``size`` pixels."""
    small = F.interpolate(x, [size, size], mode="bilinear", antialias=True)
    coarse = F.interpolate(small, list(x.shape[-2:]), mode="bilinear")
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=rng) < share, coarse, x)


def grain(x: Float[Tensor, "n c h w"], rng: Rng, *, most: float) -> Float[Tensor, "n c h w"]:
    """Add noise of a standard deviation up to ``most``."""
    return (x + between(0.0, most, len(x), rng) * torch.randn(x.shape, generator=rng)).clamp(0, 1)


AUGMENT: dict[str, tuple[Change, ...]] = {
    "encoder": (
        partial(frame, zoom=(0.75, 1.15), shift=0.12, wobble=0.03),
        partial(coverage, steepness=(0.7, 3.0), veil=0.2),
        partial(blobs, count=3, opacity=0.6),
        over,
        partial(light, gain=0.15, gamma=0.2),
        partial(blur, most=0.8),
        partial(grain, most=0.06),
    ),
    "judge": (
        partial(occlude, size=0.3),
        partial(light, gain=0.1, gamma=0.25),
        partial(coverage, steepness=(1.0, 2.0), veil=0.1),
        partial(blobs, count=2, opacity=0.4, share=0.3),
        partial(frame, zoom=(0.65, 1.05), shift=0.18, wobble=0.015),
        partial(coarsen, size=40, share=0.3),
        over,
        partial(grain, most=0.1),
        partial(blur, most=0.5),
    ),
}
"""Other changes in another order for the judge, so that it does not share the encoder's blind spots."""


def dye(x: Float[Tensor, "n 4 h w"], rng: Rng, inverted: float = 0.5) -> Float[Tensor, "n 4 h w"]:
    """Paint anew: channels exchanged, a share of the pictures inverted, faded and tinted. Shapes stay as they were, and light
    where nothing is inverted.
    """
    colour, alpha = x[:, :3], x[:, 3:]
    order = torch.rand(len(x), 3, generator=rng).argsort(1)[..., None, None]
    colour = colour.gather(1, order.expand_as(colour))
    colour = torch.where(between(0.0, 1.0, len(x), rng) < inverted, alpha - colour, colour)
    colour = torch.lerp(colour, colour.mean(1, keepdim=True).expand_as(colour), between(0.0, 1.0, len(x), rng))
    tint = 0.3 + 0.7 * torch.rand(len(x), 3, 1, 1, generator=rng)
    return torch.cat([colour * tint, alpha], 1)


def unpainted(spec: Spec) -> Spec:
    """What is left of a spec when colours and stuff are not spoken of, as of what was dyed."""
    return replace(spec, items=tuple(replace(item, paint=None, accent=None, stuff=None) for item in spec.items))


def melt(x: Float[Tensor, "n c h w"], rng: Rng) -> Float[Tensor, "n c h w"]:
    """Bend so much that shapes are lost. Colours stay as they were."""
    return F.grid_sample(x, _grid(x) + 0.3 * _bend(x, rng), align_corners=False)


def compose(changes: tuple[Change, ...], x: Float[Tensor, "n 4 h w"], rng: Rng, share: float = 1.0) -> Float[Tensor, "n 3 h w"]:
    """Apply changes in order, to a share of the pictures drawn at random; the others are laid over light gray."""
    changed = torch.rand(len(x), generator=rng) < share
    out = x[:, :3] + (1 - x[:, 3:]) * 0.8
    if changed.any():
        some = x[changed]
        for change in changes:
            some = change(some, rng)
        out[changed] = some
    return out
