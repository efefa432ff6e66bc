"""Draw contact sheets of prepared objects, or of a data set: ``python -m rl3d.world.sheet FOLDER OUT.png``.

A prepared folder is shown by category, one sheet for every so many objects, each with its number, its noun and its catalogue's
name: that is how the nouns were written, and how broken objects are found. A data set is shown with its captions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rl3d.cameras import Orbit
from rl3d.toybox.sheet import contact_sheet
from rl3d.types import Cameras
from rl3d.world import things
from rl3d.world.dataset import open_views
from rl3d.world.render import render_many
from rl3d.world.shading import Light
from rl3d.world.things import Thing

BACKGROUND = (150, 170, 160)
"""Behind objects: neither white nor black ones vanish on it."""


def over(rgba: UInt8[ndarray, "b v h w 4"]) -> UInt8[ndarray, "b v h w 3"]:
    """Lay premultiplied views over the background."""
    seen = rgba.astype(np.float32)
    return (seen[..., :3] + (1 - seen[..., 3:] / 255) * np.array(BACKGROUND, np.float32) + 0.5).astype(np.uint8)


def views(folder: Path, some: Sequence[Thing], rig: Orbit) -> UInt8[ndarray, "b v h w 3"]:
    """Render prepared objects as they are, in the plain light."""
    cameras = rig.cameras()
    shape = (len(some), 1, 1, 1)
    each = Cameras(cameras.cam_from_world.repeat(shape), cameras.intrinsics.repeat(shape), rig.size, rig.size)
    surfaces = [things.unit(things.load(folder, thing), 0.95) for thing in some]
    return over(render_many(surfaces, each, [Light()] * len(some), samples=3)[0])


def sheets(folder: Path, rig: Orbit, most: int, wanted: Sequence[str] = ()) -> Iterator[tuple[ndarray, list[str]]]:
    """Views and texts of a prepared folder's objects by category, ``most`` at a time; of some nouns or categories only."""
    kept = [thing for thing in things.read(folder)[0] if thing.kept]
    if wanted:
        kept = [thing for thing in kept if thing.noun in wanted or thing.category in wanted]
    kept.sort(key=lambda thing: (thing.category, thing.noun, thing.id))
    if not kept:
        raise ValueError(f"{folder} has no objects of {', '.join(wanted) or 'any kind'}: look into its things.jsonl")
    for start in range(0, len(kept), most):
        some = kept[start : start + most]
        texts = [f"{start + i} {thing.noun} ({thing.id.split('/')[-1]})" for i, thing in enumerate(some)]
        yield views(folder, some, rig), texts


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rl3d.world.sheet", description="Draw contact sheets.")
    parser.add_argument("folder", type=Path, help="a prepared folder, or a data set")
    parser.add_argument("out", type=Path, help="picture to write; for several sheets they are numbered")
    parser.add_argument("--only", nargs="+", default=[], help="nouns or categories to show, of a prepared folder")
    parser.add_argument("--count", type=int, default=140, help="objects on a sheet")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--size", type=int, default=112, help="of a view of a prepared object, pixels")
    parser.add_argument("--columns", type=int, default=14)
    args = parser.parse_args()
    if (args.folder / "toys.jsonl").is_file():
        data = open_views(args.folder)
        count = min(args.count, len(data.captions))
        rgba = data.rgba[np.arange(count)[:, None], np.tile(np.arange(args.views), (count, 1))]
        contact_sheet(over(rgba), data.captions[:count], args.columns).save(args.out)
        return
    rig = Orbit(args.views, 20.0, 30.0, size=args.size)
    for i, (images, texts) in enumerate(sheets(args.folder, rig, args.count, args.only)):
        name = args.out.with_stem(f"{args.out.stem}-{i}") if i else args.out
        contact_sheet(images, texts, args.columns).save(name)


if __name__ == "__main__":
    main()
