"""Pictures of objects, as priors that go by them want them: square, the object in the middle, over gray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl3d.types import Prompt

GRAY = 127
"""Of the background, in [0, 255]."""
FILL = 0.8
"""The share of the square's side that a cut-out object's longer side takes."""


def refuse_image(prompt: Prompt, name: str) -> None:
    """Refuse a prompt with a picture, on behalf of a prior of this name that reads text alone (``ValueError``)."""
    if prompt.image:
        raise ValueError(f"the prior {name} reads no picture ({prompt.image}): take --recipe image_to_3d, or leave out --image")


def read_picture(path: str | Path) -> Any:
    """Read a picture as a square RGB one (a ``PIL.Image``).

    One with transparency is cut out: the box of what is not wholly transparent is centred, takes :data:`FILL` of the side, and
    is laid over gray. An opaque one is taken as it is, background and all, and padded with gray to a square: priors take
    whatever it shows for the object, so cut it out first.

    Raises:
        ValueError: if it is no picture, or shows nothing.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not Path(path).is_file():
        raise ValueError(f"there is no picture {path}: check the path")
    try:
        with Image.open(path) as file:
            found = ImageOps.exif_transpose(file).convert("RGBA")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {path} as a picture ({error}): give a PNG, JPEG or WebP file") from None
    alpha = found.getchannel("A")
    box, opaque = alpha.getbbox(), alpha.getextrema() == (255, 255)
    if box is None:
        raise ValueError(f"{path} is wholly transparent: there is nothing to see")
    shown = found if opaque else found.crop(box)
    side = max(shown.size) if opaque else round(max(shown.size) / FILL)
    square = Image.new("RGB", (side, side), (GRAY, GRAY, GRAY))
    square.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2), shown.getchannel("A"))
    return square
