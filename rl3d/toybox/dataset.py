"""Render a data set of captioned toys: ``python -m rl3d.toybox.dataset --out DIR --count N``.

DIR holds plain arrays, for reading by memory map (:class:`ToyViews`), and a line of JSON for each toy:

- ``rgba.npy``: uint8 [n v h w 4], premultiplied sRGB and alpha;
- ``azimuth_deg.npy``, ``elevation_deg.npy``: float16 [n v];
- ``toys.jsonl``: ``{"caption": ..., "spec": ...}``;
- with ``--varied`` also ``albedo.npy``: uint8 [n v h w 3], premultiplied sRGB without any light, under the same alpha.

Toy ``i`` depends on the seed, the split and ``i`` alone, so neither the count nor the number of workers changes it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numba
import numpy as np
import torch
from jaxtyping import Float16, Float32, Int, Shaped, UInt8
from numpy import ndarray

from rl3d.cameras import look_at_origin
from rl3d.toybox.assemble import build
from rl3d.toybox.grammar import RICH, SHARES, caption, sample
from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.render import render_many
from rl3d.toybox.shading import Light
from rl3d.toybox.things import Item, Rng, Spec

LOWEST_DEG, HIGHEST_DEG = -10.0, 50.0
"""The range of elevations."""


class Stacked:
    """Arrays of several data sets as if they were one, read by arrays of indices."""

    def __init__(self, arrays: Sequence[ndarray | Stacked]):
        self.arrays = arrays
        self.ends = np.cumsum([len(array) for array in arrays])
        self.shape: tuple[int, ...] = (int(self.ends[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[Int[ndarray, "b ..."], Int[ndarray, "b v"]]) -> Shaped[ndarray, "b v ..."]:
        """Read by toys and views: indices of shapes [b 1] and [b v]."""
        toys, views = np.broadcast_arrays(*index)
        which = np.searchsorted(self.ends, toys, side="right")
        parts = [(which == k, array) for k, array in enumerate(self.arrays) if (which == k).any()]
        out: ndarray | None = None
        for mask, array in parts:
            first = int(self.ends[which[mask][0]]) - len(array)
            values = array[toys[mask] - first, views[mask]]
            out = np.empty((*toys.shape, *values.shape[1:]), values.dtype) if out is None else out
            out[mask] = values
        assert out is not None
        return out


@dataclass(frozen=True)
class ToyViews:
    """A rendered data set; the arrays are memory maps."""

    rgba: UInt8[ndarray, "n v h w 4"] | Stacked
    """Premultiplied sRGB and alpha."""
    azimuth_deg: Float16[ndarray, "n v"] | Stacked
    elevation_deg: Float16[ndarray, "n v"] | Stacked
    captions: tuple[str, ...]
    specs: tuple[Spec, ...]
    albedo: UInt8[ndarray, "n v h w 3"] | Stacked | None = None
    """Premultiplied sRGB without light, where it was rendered."""
    language: Language = TOYS

    @classmethod
    def open(cls, folder: Path | str) -> ToyViews:
        """Open the folder of a data set without reading its pixels; of the toybox, for all that it says of its language."""
        folder = Path(folder)
        if not (folder / "toys.jsonl").is_file():
            raise ValueError(f"{folder} is no data set (it has no toys.jsonl): render one first")
        lines = [json.loads(line) for line in (folder / "toys.jsonl").read_text().splitlines()]
        return cls(
            np.load(folder / "rgba.npy", mmap_mode="r"),
            np.load(folder / "azimuth_deg.npy", mmap_mode="r"),
            np.load(folder / "elevation_deg.npy", mmap_mode="r"),
            tuple(line["caption"] for line in lines),
            tuple(spec_from_dict(line["spec"]) for line in lines),
            np.load(folder / "albedo.npy", mmap_mode="r") if (folder / "albedo.npy").is_file() else None,
        )


@dataclass(frozen=True)
class Order:
    """What to render."""

    folder: Path
    count: int
    views: int = 8
    size: int = 64
    seed: int = 0
    split: str = "train"
    samples: int = 2
    """Supersampling: samples along each side of a pixel."""
    rich: bool = False
    """More of what is hard: second colours, counts, relations."""
    varied: bool = False
    """Toys in light that varies, and their albedo in ``albedo.npy``. Real objects always are."""


def spec_from_dict(fields: dict) -> Spec:
    """Undo ``asdict`` on a spec, also after JSON turned its tuples into lists."""
    items = [Item(**{**item, "accent": item["accent"] and tuple(item["accent"])}) for item in fields["items"]]
    return Spec(tuple(items), fields["relation"])


def toy_rng(seed: int, split: str, index: int) -> Rng:
    """Start the random stream of one toy of a data set."""
    return np.random.default_rng([seed, *split.encode(), index])


def make(order: Order, workers: int = 2, chunk: int = 64) -> Iterator[int]:
    """Render a data set, and yield how many toys are done as it goes. What the folder held is overwritten."""
    n, v, size = order.count, order.views, order.size
    arrays = {"rgba": (np.uint8, (n, v, size, size, 4))} | dict.fromkeys(ANGLES, (np.float16, (n, v)))
    if order.varied:
        arrays["albedo"] = (np.uint8, (n, v, size, size, 3))
    for other in ("albedo.npy", "nouns.json"):  # of another data set, that was here before
        (order.folder / other).unlink(missing_ok=True)
    jobs = ((order, start, min(start + chunk, n)) for start in range(0, n, chunk))
    yield from fill(order.folder, arrays, _render_chunk, jobs, workers)


ANGLES = ("azimuth_deg", "elevation_deg")

Job = TypeVar("Job")


def fill(
    folder: Path,
    arrays: Mapping[str, tuple[type, tuple[int, ...]]],
    render: Callable[[Job], list[str]],
    jobs: Iterable[Job],
    workers: int,
) -> Iterator[int]:
    """Lay out a data set's arrays, by name, type and shape, and do jobs that each write a part of them and return its lines of
    ``toys.jsonl``; yield how many lines there are as it goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (dtype, shape) in arrays.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape).flush()
    with (folder / "toys.jsonl").open("w") as log:

        def record(lines: list[str]) -> int:
            log.writelines(f"{line}\n" for line in lines)
            return len(lines)

        if workers <= 1:
            yield from itertools.accumulate(record(render(job)) for job in jobs)
            return
        threads = max(1, (os.cpu_count() or 1) // workers)
        # Spawned, not forked: a fork of a process whose threads hold locks may hang.
        with multiprocessing.get_context("spawn").Pool(workers, _limit_threads, (threads,)) as pool:
            yield from itertools.accumulate(record(lines) for lines in pool.imap(render, jobs))


def _limit_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)


def _render_chunk(job: tuple[Order, int, int]) -> list[str]:
    """Render toys ``start`` to ``stop`` into the files; return their lines of JSON."""
    order, start, stop = job
    rgba, azimuths, elevations = (np.load(order.folder / f"{name}.npy", mmap_mode="r+") for name in ("rgba", *ANGLES))
    toys, lights, lines = [], [], []
    azimuth = np.empty((stop - start, order.views), np.float32)
    elevation = np.empty_like(azimuth)
    for i in range(start, stop):
        rng = toy_rng(order.seed, order.split, i)
        spec = sample(rng, order.split, RICH if order.rich else SHARES)
        lines.append(json.dumps({"caption": caption(spec, rng), "spec": asdict(spec)}))
        azimuth[i - start], elevation[i - start] = random_angles(order.views, rng)
        toys.append(build(spec, rng))
        lights.append(random_light(rng) if order.varied else Light())
    cameras = look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), width=order.size, height=order.size)
    rgba[start:stop] = render_many(toys, cameras, light=lights, samples=order.samples)
    if order.varied:
        albedo = np.load(order.folder / "albedo.npy", mmap_mode="r+")
        albedo[start:stop] = render_many(toys, cameras, light=Light(none=True), samples=order.samples)[..., :3]
    azimuths[start:stop], elevations[start:stop] = azimuth, elevation
    return lines


def random_light(rng: Rng) -> Light:
    """Draw a light from any side above the horizon, brighter or darker."""
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.95)
    flat = (1 - height**2) ** 0.5
    return Light((flat * np.cos(azimuth), flat * np.sin(azimuth), height), rng.uniform(0.6, 1.1))


def random_angles(views: int, rng: Rng) -> tuple[Float16[ndarray, "v"], Float16[ndarray, "v"]]:
    """Draw azimuths, evenly spaced from a random one, and elevations, rounded as they are stored."""
    ring = rng.uniform(0, 360) + np.arange(views) * (360 / views)
    azimuth = ((ring + 180) % 360 - 180).astype(np.float16)
    return azimuth, _elevations(views, rng).astype(np.float16)


def _elevations(views: int, rng: Rng) -> Float32[ndarray, "v"]:
    """Draw elevations: for half of the toys one for all views, for a quarter two by turns, for the rest one for each view."""
    many = (1, 1, 2, views)[int(rng.integers(4))]
    return np.resize(rng.uniform(LOWEST_DEG, HIGHEST_DEG, many), views).astype(np.float32)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rl3d.toybox.dataset", description="Render captioned toys.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, required=True, help="number of toys")
    parser.add_argument("--views", type=int, default=8, help="views of each, evenly spaced in azimuth")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--samples", type=int, default=2, help="samples along each side of a pixel")
    parser.add_argument("--rich", action="store_true", help="more second colours, counts and relations")
    parser.add_argument("--varied", action="store_true", help="varied light, and albedo.npy")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    order = Order(args.out, args.count, args.views, args.size, args.seed, args.split, args.samples, args.rich, args.varied)
    for done in make(order, args.workers):
        print(f"\r{done}/{args.count} toys", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
