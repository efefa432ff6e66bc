"""Are samples of the prior carbon copies of its training data? ``python -m rl3d.evaluate.copies --data DIR [DIR ...]``.

For held-out prompts a sample is drawn, and its nearest training renders are found: in pixels, among all of them, and in the
features of the embedded encoder, or of DINOv2 (``--networks``), among those sets of views that show something of the same kind
or are near in pixels. Objects that no training saw, of the same prompts, from the same cameras and in such light as the
training's, show how near one comes without copying: a sample is suspicious if it is nearer than 95 % of them are. So are
5 % of samples that are as new as these; many more would be copies, or duller than true renders: hence the picture. Training
renders that were blurred, darkened and made noisy are put among the samples as copies that should be found.

Distances are measured between a view of one and any view of the other, and the nearest pair counts; all views are shrunk
first, so that a sample's blur and noise do not hide what it copies. "Relative" ones are divided by the mean distance to the 50
nearest sets (after Carlini et al. 2023, "Extracting Training Data from Diffusion Models", who take the nearest images): smooth
or common things are near to many, a copy is near to one.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from rl3d.cameras import Orbit
from rl3d.evaluate.worlds import Question, RealWorld, ToyWorld, World, evenly, questions_of
from rl3d.export.pictures import png_bytes
from rl3d.files import write_whole
from rl3d.priors.embedded import Embedded
from rl3d.priors.sampling import sample_views
from rl3d.protocols import Prior
from rl3d.rewards.clip import GRAY, Clip
from rl3d.toybox import assemble
from rl3d.toybox import render as toys
from rl3d.toybox.dataset import ToyViews
from rl3d.toybox.dataset import random_light as toy_light
from rl3d.toybox.sheet import contact_sheet
from rl3d.types import Cameras, Prompt
from rl3d.world.dataset import assembled, open_views
from rl3d.world.render import render_many
from rl3d.world.shading import random_light

ELEVATION_DEG = 20.0
NEIGHBOURS = 50
LEVEL = 0.05
SIDE = 32
"""Pixels along the sides of what is compared: an object that was shifted by one of 64 pixels is still the same."""

Describe = Callable[[Float[Tensor, "b v h w 4"]], Float[Tensor, "b v d"]]
"""From views, premultiplied RGBA in [0, 1], to what their distances are taken between."""


@dataclass(frozen=True)
class Match:
    """The training set of views that is nearest to an object."""

    distance: float
    relative: float
    """The distance over the mean distance to the nearest sets, in (0, 1]."""
    set: int
    render: int
    """Which of the set's views it is."""
    view: int
    """Which of the object's views is near to it."""


def shrunk(rgba: Float[Tensor, "b v h w 4"]) -> Float[Tensor, "n 4 height width"]:
    """Views one after another, channels first, no larger than ``SIDE``."""
    small = torch.movedim(rgba, -1, 2).flatten(0, 1)
    if small.shape[-1] <= SIDE:
        return small
    return F.interpolate(small, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def pixels(rgba: Float[Tensor, "b v h w 4"]) -> Float[Tensor, "b v d"]:
    """Colour and coverage; Euclidean distances are root mean squares, in [0, 1]."""
    flat = shrunk(rgba).flatten(1)
    return (flat / flat.shape[1] ** 0.5).unflatten(0, rgba.shape[:2])


def features(look: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d"]]) -> Describe:
    """What a network that gives features of unit length sees; Euclidean distances are in [0, 2]."""

    @torch.no_grad()
    def describe(rgba: Float[Tensor, "b v h w 4"]) -> Float[Tensor, "b v d"]:
        small = shrunk(rgba)
        return look(small[:, :3] + (1 - small[:, 3:]) * GRAY).unflatten(0, rgba.shape[:2])

    return describe


def encoder(networks: Path | None) -> tuple[str, Describe]:
    """The name and the eyes of DINOv2 in the folder of published networks, or of the embedded encoder."""
    if networks is not None:
        from rl3d.evaluate.independent import Network

        return "DINOv2", features(Network(networks / "dinov2").look)
    model = Clip().build()
    return "embedded encoder", features(lambda x: model.model.encode_image(model.prepare(x), normalize=True).float())  # pyright: ignore[reportCallIssue]


def nearest(objects: Float[Tensor, "q v d"], sets: Float[Tensor, "s w d"]) -> tuple[Float[Tensor, "q s"], Int[Tensor, "q s"]]:
    """The distance between each object and each set: of their two nearest views, whose indices are ``i * w + j``."""
    (q, v, _), (s, w, _) = objects.shape, sets.shape
    between = torch.cdist(objects.flatten(0, 1), sets.flatten(0, 1)).view(q, v, s, w)
    found = between.permute(0, 2, 1, 3).flatten(2).min(-1)
    return found.values, found.indices


def search(
    objects: Float[Tensor, "q v d"], data: ToyViews, which: Int[ndarray, "s"], describe: Describe, chunk: int = 32
) -> tuple[Float[Tensor, "q s"], Int[Tensor, "q s"]]:
    """Distances (:func:`nearest`) of objects to some of a data set's sets of views, some at a time."""
    parts = [nearest(objects, describe(read(data, which[i : i + chunk]))) for i in range(0, len(which), chunk)]
    distances, pairs = zip(*parts, strict=True)
    return torch.cat(distances, 1), torch.cat(pairs, 1)


def read(data: ToyViews, which: Int[ndarray, "s"]) -> Float[Tensor, "s v h w 4"]:
    """Views of some sets, as numbers in [0, 1]."""
    every = np.arange(data.rgba.shape[1])[None]
    return torch.from_numpy(data.rgba[which[:, None], every]).float() / 255


def matched(distances: Float[Tensor, "s"], pairs: Int[Tensor, "s"], which: Int[ndarray, "s"], width: int) -> Match:
    """The nearest of the sets ``which`` with ``width`` views each."""
    near = distances.topk(min(NEIGHBOURS, len(distances)), largest=False)
    best = int(near.indices[0])
    view, render = divmod(int(pairs[best]), width)
    # Zero of zero where all are the same is no copy of one of them.
    relative = float(near.values[0] / near.values.mean()) if near.values[-1] > 0 else 1.0
    return Match(float(near.values[0]), relative, int(which[best]), render, view)


def candidates(pixel_distances: Float[Tensor, "q n"], same_kind: Int[ndarray, "k"], most: int) -> Int[ndarray, "s"]:
    """The sets whose features are looked at for objects of one prompt: for each object the ``most`` nearest in pixels of all,
    and of those that show something of the same kind.
    """
    n = pixel_distances.shape[1]
    chosen = [pixel_distances.topk(min(most, n), largest=False).indices.flatten().numpy()]
    if len(same_kind):
        some = pixel_distances[:, torch.from_numpy(same_kind)].topk(min(most, len(same_kind)), largest=False).indices
        chosen.append(same_kind[some.flatten().numpy()])
    return np.unique(np.concatenate(chosen))


def unseen(world: World, question: Question, cameras: Cameras, count: int) -> UInt8[ndarray, "k v h w 4"]:
    """Render objects of what is asked for that no training has, in varied light, from cameras ``[1 v]``.

    Real ones that are too few come again in other proportions and light; of some prompts there are none.
    """
    rngs = [np.random.default_rng([zlib.crc32(question.prompt.encode()), i, 0xC0B7]) for i in range(count)]
    each = _repeated(cameras, count)
    if not isinstance(world, RealWorld):
        built = [assemble.build(question.spec, rng) for rng in rngs]
        return toys.render_many(built, each, light=[toy_light(rng) for rng in rngs], samples=2)
    held = [some for some in world.choices(question) if all(thing.held for thing in some)]
    if not held:
        return np.empty((0, cameras.views, cameras.height, cameras.width, 4), np.uint8)
    surfaces = [assembled(world.folder, question.spec, held[i % len(held)], rng) for i, rng in enumerate(rngs)]
    return render_many(surfaces, each, [random_light(rng) for rng in rngs], samples=2)[0]


def spoilt(rgba: Float[Tensor, "v h w 4"], rng: torch.Generator) -> Float[Tensor, "v h w 4"]:
    """Blur views to half their pixels, darken them by 5 % and add noise of 3 %: the copies that should be found."""
    x = torch.movedim(rgba, -1, 1)
    size = x.shape[-1]
    half = F.interpolate(x, (size // 2, size // 2), mode="bilinear", antialias=True, align_corners=False)
    soft = F.interpolate(half, (size, size), mode="bilinear", align_corners=False)
    noise = 0.03 * torch.randn(soft.shape, generator=rng) * soft[:, 3:]
    return torch.movedim((0.95 * soft + noise).clamp(0, 1), 1, -1)


def planted(data: ToyViews, count: int, views: int, seed: int) -> Float[Tensor, "b v h w 4"]:
    """Spoilt copies (:func:`spoilt`) of some views of training sets that are spread evenly over the data."""
    rng = torch.Generator().manual_seed(seed)
    chosen = np.linspace(0, len(data.captions) - 1, count).round().astype(np.int64)
    which = np.linspace(0, data.rgba.shape[1] - 1, views).round().astype(np.int64)
    return torch.stack([spoilt(one[which], rng) for one in read(data, chosen)])


def _repeated(cameras: Cameras, count: int) -> Cameras:
    shape = (count, 1, 1, 1)
    return Cameras(cameras.cam_from_world.repeat(shape), cameras.intrinsics.repeat(shape), cameras.width, cameras.height)


@dataclass(frozen=True)
class Found:
    """An object, a sample or a true one, with the nearest of the training data."""

    prompt: str
    rgba: Float[Tensor, "v h w 4"]
    features: Match
    pixels: Match

    def measures(self) -> dict[str, float]:
        """All distances by name: the smaller, the nearer to a copy."""
        return {
            "features": self.features.distance,
            "features, relative": self.features.relative,
            "pixels": self.pixels.distance,
            "pixels, relative": self.pixels.relative,
        }


def compare(
    objects: Sequence[tuple[Question, Float[Tensor, "k v h w 4"]]], data: ToyViews, describe: Describe, most: int = 64
) -> Iterator[list[Found]]:
    """Find what is nearest to the objects of each prompt; ``most``: see :func:`candidates`."""
    everything, width = np.arange(len(data.captions)), data.rgba.shape[1]
    small = pixels(torch.cat([rgba for _, rgba in objects]))
    all_distances, all_pairs = search(small, data, everything, pixels)
    kinds = [{item.kind for item in spec.items} for spec in data.specs]
    start = 0
    for question, rgba in objects:
        own = slice(start, start := start + len(rgba))
        asked = {item.kind for item in question.spec.items}
        same = np.array([i for i, kind in enumerate(kinds) if kind & asked], np.int64)
        which = candidates(all_distances[own], same, most)
        distances, pairs = search(describe(rgba), data, which, describe)
        yield [
            Found(
                question.prompt, rgba[i], matched(distances[i], pairs[i], which, width), matched(*of_pixels, everything, width)
            )
            for i, of_pixels in enumerate(zip(all_distances[own], all_pairs[own], strict=True))
        ]


def verdict(samples: Sequence[Found], true: Sequence[Found], copies: Sequence[Found] = ()) -> dict[str, Any]:
    """Which samples are nearer to the training data than all but ``LEVEL`` of true objects, by each measure.

    "below" is the share of samples for which this holds; that of true objects is ``LEVEL`` by construction. "found" is that of
    planted copies: the chance to find one, None without any.
    """
    if not true:
        raise ValueError("there is no unseen object of any of the prompts to compare with: take other prompts")
    result: dict[str, Any] = {"samples": len(samples), "true": len(true), "level": LEVEL, "measures": {}}
    suspicious: list[list[str]] = [[] for _ in samples]
    for name in samples[0].measures():
        own, other, planted = (_values(some, name) for some in (samples, true, copies))
        limit = float(other.quantile(LEVEL))
        below = own < limit
        for i in below.nonzero().flatten().tolist():
            suspicious[i].append(name)
        result["measures"][name] = {
            "below": float(below.double().mean()),
            "found": float((planted < limit).double().mean()) if len(planted) else None,
            "limit": limit,
            "median": float(own.median()),
            "true_median": float(other.median()),
        }
    return result | {"suspicious": suspicious}


def _values(some: Sequence[Found], name: str) -> Float[Tensor, "n"]:
    return torch.tensor([x.measures()[name] for x in some], dtype=torch.float64)


def picture(
    pairs: Sequence[tuple[Found, Found | None]], suspicious: Sequence[Sequence[str]], data: ToyViews
) -> UInt8[ndarray, "h w 3"]:
    """Rows of pairs: a view of a sample and the nearest in features; one and the nearest in pixels; the same first pair for a
    true object of that prompt. Below: the sample's distances, the true object's, and by what it is suspicious.
    """
    rows, texts = [], []
    for (sample, true), why in zip(pairs, suspicious, strict=True):
        shown = [_pair(sample, sample.features, data), _pair(sample, sample.pixels, data)]
        shown.append(torch.full_like(shown[0], 1.0) if true is None else _pair(true, true.features, data))
        numbers = [" ".join(f"{x:.3f}" for x in found.measures().values()) for found in (sample, true) if found is not None]
        rows.append(torch.cat(shown))
        texts.append(f"{sample.prompt}: {' | true '.join(numbers)}{'; NEAR: ' + ', '.join(why) if why else ''}")
    rgba = torch.stack(rows)
    over = (rgba[..., :3] + (1 - rgba[..., 3:]) * GRAY).clamp(0, 1)
    large = (255 * over).round().byte().numpy()
    factor = max(1, 128 // large.shape[-2])
    large = large.repeat(factor, 2).repeat(factor, 3)
    large[:, 1::2, :, -4:] = 255  # a gap after each pair
    return np.asarray(contact_sheet(large, texts, columns=2))


def _pair(found: Found, match: Match, data: ToyViews) -> Float[Tensor, "2 h w 4"]:
    return torch.stack([found.rgba[match.view], read(data, np.array([match.set]))[0, match.render]])


def drawn(
    prior: Prior, prompts: Sequence[str], cameras: Cameras, *, steps: int, guidance: float, seed: int, batch: int = 4
) -> Float[Tensor, "b v h w 4"]:
    """Draw one sample for each prompt, from cameras ``[1 v]``."""
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(prompts), batch):
        some = [Prompt(text) for text in prompts[start : start + batch]]
        with torch.no_grad():
            parts.append(sample_views(prior, some, cameras, steps=steps, guidance=guidance, rng=rng).rgba)
    return torch.cat(parts)


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Do all of it, write ``copies.json`` and ``copies.png`` into a folder, and return what the first holds."""
    data = open_views(*args.data)
    world = RealWorld.open(args.objects) if args.world == "real" else ToyWorld()
    questions = evenly(questions_of(world, args.prompts), args.limit)
    prior = Embedded(args.prior)
    for question in questions:
        prior.check(Prompt(question.prompt))
    name, describe = encoder(args.networks)
    live = prior.build()
    size = live.info.size
    if data.rgba.shape[2] != size:
        raise ValueError(f"the prior draws views of {size} pixels and the data's have {data.rgba.shape[2]}: render them alike")
    cameras = Orbit(live.info.views or 4, ELEVATION_DEG, 0.0, live.info.distance, live.info.fov_y_deg, size).cameras()
    views = drawn(live, [q.prompt for q in questions], cameras, steps=args.steps, guidance=args.guidance, seed=args.seed)
    objects = []
    for question, own, copy in zip(questions, views, planted(data, len(questions), cameras.views, args.seed), strict=True):
        true = torch.from_numpy(unseen(world, question, cameras, args.true)).float() / 255
        objects.append((question, torch.cat([own[None], copy[None], true])))
    samples, copied, trues = [], [], []
    for number, (sample, copy, *true) in enumerate(compare(objects, data, describe, args.most), 1):
        samples.append(sample)
        copied.append(copy)
        trues.append(true)
        print(f"[{number}/{len(objects)}] {sample.prompt}: {_told(sample, data)}", flush=True)
    result = verdict(samples, [x for some in trues for x in some], copied)
    marks = result.pop("suspicious")
    settings = {"prompts": args.prompts, "world": args.world, "prior": args.prior, "seed": args.seed, "features": name}
    settings |= {"steps": args.steps, "guidance": args.guidance, "training_sets": len(data.captions), "looked_at": args.most}
    records = [_record(x, data) | {"suspicious": why} for x, why in zip(samples, marks, strict=True)]
    result = settings | result | {"records": records, "true_records": [_record(x, data) for some in trues for x in some]}
    pairs = [(sample, some[0] if some else None) for sample, some in zip(samples, trues, strict=True)]
    order = sorted(range(len(pairs)), key=lambda i: samples[i].features.relative)[:40]
    write_whole(args.out / "copies.png", png_bytes(picture([pairs[i] for i in order], [marks[i] for i in order], data)))
    write_whole(args.out / "copies.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _told(found: Found, data: ToyViews) -> str:
    return f"{found.features.distance:.3f} from {data.captions[found.features.set]!r}"


def _record(found: Found, data: ToyViews) -> dict[str, Any]:
    matches = {"features": found.features, "pixels": found.pixels}
    of = {name: asdict(match) | {"caption": data.captions[match.set]} for name, match in matches.items()}
    return {"prompt": found.prompt} | of


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rl3d.evaluate.copies", description="Look for training renders that the prior's samples copy."
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of data sets that the prior learnt")
    parser.add_argument("--out", type=Path, default=Path("runs/copies"), help="folder to write copies.json and copies.png to")
    parser.add_argument("--world", choices=("toys", "real"), default="toys", help="whose prompts and unseen objects")
    parser.add_argument("--objects", type=Path, default=Path(".cache/world/debian"), help="where the real objects are")
    parser.add_argument("--prompts", default="validation", help='"validation", "test" or a file')
    parser.add_argument("--limit", type=int, default=40, help="prompts, spread evenly over the set")
    parser.add_argument("--true", type=int, default=5, help="unseen objects of each prompt")
    parser.add_argument("--most", type=int, default=64, help="sets near in pixels, whose features are compared")
    parser.add_argument("--networks", type=Path, help="compare features of DINOv2, of this folder")
    parser.add_argument("--prior", default="prior", help="the prior, or its folder")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    try:
        if min(args.limit, args.true, args.most, args.steps) < 1:
            raise ValueError("--limit, --true, --most and --steps must be at least 1")
        result = check(args)
    except ValueError as error:
        print(f"rl3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    true, count = result["true"], result["samples"]
    print(
        f"\n{count} samples, {count} planted copies; nearer to the training data than {1 - LEVEL:.0%} of {true} unseen objects:"
    )
    print(f"{'':20}{'samples':>10}{'copies':>10}{'limit':>10}{'median':>10}{'of unseen':>10}")
    for name, of in result["measures"].items():
        shares = f"{of['below']:>10.1%}{of['found']:>10.1%}"
        print(f"{name:20}{shares}{of['limit']:>10.3f}{of['median']:>10.3f}{of['true_median']:>10.3f}")
    print(f"\nlook at them: {args.out / 'copies.png'}")


if __name__ == "__main__":
    main()
