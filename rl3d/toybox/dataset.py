"""Render a data set of captioned toys: ``python -m rl3d.toybox.dataset --out DIR --count N``.

DIR holds plain arrays, for reading by memory map (:class:`ToyViews`), and a line of JSON for each toy:

- ``rgba.npy``: uint8 [n v h w 4], premultiplied sRGB and alpha;
- ``azimuth_deg.npy``, ``elevation_deg.npy``: float16 [n v];
- ``toys.jsonl``: ``{"caption": ..., "spec": ...}``.

Toy ``i`` depends on the seed, the split and ``i`` alone, so neither the count nor the number of workers changes it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from jaxtyping import Float16, Float32, UInt8
from numpy import ndarray

from rl3d.cameras import look_at_origin
from rl3d.toybox.assemble import build
from rl3d.toybox.grammar import RICH, SHARES, caption, sample
from rl3d.toybox.render import render_many
from rl3d.toybox.things import Item, Rng, Spec

LOWEST_DEG, HIGHEST_DEG = -10.0, 50.0
"""The range of elevations."""


@dataclass(frozen=True)
class ToyViews:
    """A rendered data set; the arrays are memory maps."""

    rgba: UInt8[ndarray, "n v h w 4"]
    """Premultiplied sRGB and alpha."""
    azimuth_deg: Float16[ndarray, "n v"]
    elevation_deg: Float16[ndarray, "n v"]
    captions: tuple[str, ...]
    specs: tuple[Spec, ...]

    @classmethod
    def open(cls, folder: Path | str) -> ToyViews:
        """Open the folder of a data set without reading its pixels."""
        folder = Path(folder)
        lines = [json.loads(line) for line in (folder / "toys.jsonl").read_text().splitlines()]
        return cls(
            np.load(folder / "rgba.npy", mmap_mode="r"),
            np.load(folder / "azimuth_deg.npy", mmap_mode="r"),
            np.load(folder / "elevation_deg.npy", mmap_mode="r"),
            tuple(line["caption"] for line in lines),
            tuple(spec_from_dict(line["spec"]) for line in lines),
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


def spec_from_dict(fields: dict) -> Spec:
    """Undo ``asdict`` on a spec, also after JSON turned its tuples into lists."""
    items = [Item(**{**item, "accent": item["accent"] and tuple(item["accent"])}) for item in fields["items"]]
    return Spec(tuple(items), fields["relation"])


def toy_rng(seed: int, split: str, index: int) -> Rng:
    """Start the random stream of one toy of a data set."""
    return np.random.default_rng([seed, *split.encode(), index])


def make(order: Order, workers: int = 2, chunk: int = 64) -> Iterator[int]:
    """Render a data set, and yield how many toys are done as it goes. What the folder held is overwritten."""
    order.folder.mkdir(parents=True, exist_ok=True)
    n, v, size = order.count, order.views, order.size
    for name, dtype, shape in (
        ("rgba", np.uint8, (n, v, size, size, 4)),
        ("azimuth_deg", np.float16, (n, v)),
        ("elevation_deg", np.float16, (n, v)),
    ):
        np.lib.format.open_memmap(order.folder / f"{name}.npy", "w+", dtype, shape).flush()
    starts = range(0, n, chunk)
    jobs = zip(itertools.repeat(order), starts, [min(start + chunk, n) for start in starts])
    with (order.folder / "toys.jsonl").open("w") as log:

        def record(lines: list[str]) -> int:
            log.writelines(f"{line}\n" for line in lines)
            return len(lines)

        if workers <= 1:
            yield from itertools.accumulate(record(_render_chunk(job)) for job in jobs)
            return
        threads = max(1, (os.cpu_count() or 1) // workers)
        # Spawned, not forked: a fork of a process whose threads hold locks may hang.
        with multiprocessing.get_context("spawn").Pool(workers, _limit_threads, (threads,)) as pool:
            yield from itertools.accumulate(record(lines) for lines in pool.imap(_render_chunk, jobs))


def _limit_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)


def _render_chunk(job: tuple[Order, int, int]) -> list[str]:
    """Render toys ``start`` to ``stop`` into the files; return their lines of JSON."""
    order, start, stop = job
    rgba, azimuths, elevations = (
        np.load(order.folder / f"{name}.npy", mmap_mode="r+") for name in ("rgba", "azimuth_deg", "elevation_deg")
    )
    toys, lines = [], []
    azimuth = np.empty((stop - start, order.views), np.float32)
    elevation = np.empty_like(azimuth)
    for i in range(start, stop):
        rng = toy_rng(order.seed, order.split, i)
        spec = sample(rng, order.split, RICH if order.rich else SHARES)
        lines.append(json.dumps({"caption": caption(spec, rng), "spec": asdict(spec)}))
        ring = rng.uniform(0, 360) + np.arange(order.views) * (360 / order.views)
        # Rounded to what is stored, so that the stored angles are the exact ones.
        azimuth[i - start] = ((ring + 180) % 360 - 180).astype(np.float16)
        elevation[i - start] = _elevations(order.views, rng).astype(np.float16)
        toys.append(build(spec, rng))
    cameras = look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), width=order.size, height=order.size)
    rgba[start:stop] = render_many(toys, cameras, samples=order.samples)
    azimuths[start:stop], elevations[start:stop] = azimuth, elevation
    return lines


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
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    order = Order(args.out, args.count, args.views, args.size, args.seed, args.split, args.samples, args.rich)
    for done in make(order, args.workers):
        print(f"\r{done}/{args.count} toys", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
