"""Draw a contact sheet of toys with their captions: ``python -m rl3d.toybox.sheet OUT.png [--kinds mug house] ...``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from rl3d.cameras import Orbit
from rl3d.toybox.assemble import Toy, build
from rl3d.toybox.dataset import toy_rng
from rl3d.toybox.grammar import caption, sample
from rl3d.toybox.render import render_many
from rl3d.toybox.things import Item, Spec
from rl3d.types import Cameras


def views(toys: Sequence[Toy], rig: Orbit, background: int = 238, samples: int = 3) -> UInt8[ndarray, "b v h w 3"]:
    """Render toys from the same ring of cameras over a grey level."""
    cameras = rig.cameras()
    shape = (len(toys), 1, 1, 1)
    each = Cameras(cameras.cam_from_world.repeat(shape), cameras.intrinsics.repeat(shape), rig.size, rig.size)
    rgba = render_many(toys, each, samples=samples).astype(np.float32)
    return (rgba[..., :3] + (1 - rgba[..., 3:] / 255) * background + 0.5).astype(np.uint8)


def contact_sheet(images: UInt8[ndarray, "b v h w 3"], captions: Sequence[str], columns: int = 6) -> Image.Image:
    """Lay images out in rows of ``columns`` captioned cells; a cell shows the views of one toy side by side."""
    b, v, h, w, _ = images.shape
    columns = min(columns, b)
    text_size = max(10, h // 18)
    font, line = ImageFont.load_default(text_size), round(text_size * 1.3)
    wrapped = [textwrap.wrap(text, max(8, int(1.9 * v * w / text_size))) for text in captions]
    cell_height = h + line * max(map(len, wrapped)) + line // 2
    sheet = Image.new("RGB", (columns * v * w, -(-b // columns) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (rows, lines) in enumerate(zip(images, wrapped, strict=True)):
        x, y = i % columns * v * w, i // columns * cell_height
        sheet.paste(Image.fromarray(np.concatenate(list(rows), axis=1)), (x, y))
        for k, text in enumerate(lines):
            draw.text((x + v * w / 2, y + h + line * k), text, fill="black", font=font, anchor="ma")
    return sheet


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rl3d.toybox.sheet", description="Draw toys with their captions.")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--kinds", nargs="+", help="show plain toys of these kinds instead of random ones")
    parser.add_argument("--paints", nargs="+", help="show every kind in each of these colours or materials")
    parser.add_argument("--count", type=int, default=24, help="number of random toys, or of toys of each kind and paint")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--elevation", type=float, default=20.0, help="degrees")
    parser.add_argument("--azimuth", type=float, default=30.0, help="of the first view, degrees")
    parser.add_argument("--size", type=int, default=256, help="of a view, pixels")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    args = parser.parse_args()
    rngs = (toy_rng(args.seed, args.split, i) for i in range(1_000_000))
    if args.kinds:
        plain = [Spec((Item(kind, paint),)) for kind in args.kinds for paint in args.paints or [None]]
        drawn = [(spec, next(rngs)) for spec in plain for _ in range(args.count)]
    else:
        drawn = [(sample(rng, args.split), rng) for _, rng in zip(range(args.count), rngs, strict=False)]
    captions = [caption(spec, rng) for spec, rng in drawn]
    toys = [build(spec, rng) for spec, rng in drawn]
    rig = Orbit(args.views, args.elevation, args.azimuth, size=args.size)
    contact_sheet(views(toys, rig), captions, args.columns).save(args.out)


if __name__ == "__main__":
    main()
