"""Pictures and films of objects."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from rl3d.cameras import look_at_origin
from rl3d.files import write_whole
from rl3d.types import Cameras, Look, Views

CHUNK = 8
"""Views rendered at a time."""


def to_uint8(views: Views, background: float | torch.Tensor = 1.0) -> UInt8[ndarray, "b v h w 3"]:
    """Views as 8-bit pictures over a grey level, or a colour."""
    return (255 * views.over(background).detach().cpu().clamp(0, 1)).round().byte().numpy()


def to_rgba8(views: Views) -> UInt8[ndarray, "b v h w 4"]:
    """Views as 8-bit pictures with straight alpha, as PNG files have it."""
    alpha = views.alpha.detach().cpu().clamp(0, 1)
    straight = views.rgb.detach().cpu() / alpha.clamp(min=1e-6)
    return (255 * torch.cat([straight.clamp(0, 1), alpha], -1)).round().byte().numpy()


def colour_of(background: str) -> torch.Tensor | None:
    """A background's sRGB in [0, 1]: a CSS colour name or "#aabbcc"; None for "transparent".

    Raises:
        ValueError: if it is no colour.
    """
    if background == "transparent":
        return None
    try:
        rgb = ImageColor.getrgb(background)[:3]
    except ValueError:
        raise ValueError(
            f'a background is a colour such as "white", "black" or "#aabbcc", or "transparent"; got {background!r}'
        ) from None
    return torch.tensor(rgb) / 255


def over(views: Views, background: str) -> UInt8[ndarray, "b v h w c"]:
    """Views as 8-bit pictures over a colour, or with alpha where the background is "transparent"."""
    colour = colour_of(background)
    return to_rgba8(views) if colour is None else to_uint8(views, colour)


def sheet(pictures: UInt8[ndarray, "n h w c"], columns: int) -> UInt8[ndarray, "H W c"]:
    """Lay pictures out in rows; missing ones at the end are white, or nothing where there is alpha."""
    n, h, w, c = pictures.shape
    rows = -(-n // columns)
    full = np.concatenate([pictures, np.full((rows * columns - n, h, w, c), 255 if c == 3 else 0, np.uint8)])
    return full.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def png_bytes(picture: UInt8[ndarray, "h w c"]) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def contact_cameras(size: int) -> Cameras:
    """The eight sides that previews show: four around, and four from above between them."""
    azimuth = torch.tensor([[30.0, 120, 210, 300, 345, 75, 165, 255]])
    elevation = torch.tensor([[15.0] * 4 + [50.0] * 4])
    return look_at_origin(azimuth, elevation, width=size, height=size)


def contact_sheet(look: Look, size: int = 256, background: str = "white") -> UInt8[ndarray, "h w c"]:
    """Eight sides of an object in two rows."""
    return sheet(over(look(contact_cameras(size)), background)[0], 4)


def thumbnail(look: Look, size: int = 196) -> UInt8[ndarray, "h w 4"]:
    """One view from the front's right, slightly above, with straight alpha."""
    return to_rgba8(look(look_at_origin(torch.tensor([[30.0]]), torch.tensor([[20.0]]), width=size, height=size)))[0, 0]


@dataclass(frozen=True)
class Turntable:
    """A film of a camera that moves around an object; its end joins its beginning."""

    seconds: float = 3.0
    fps: int = 24
    size: int = 256
    """Width and height in pixels; even, for MP4."""
    path: Literal["orbit", "spiral", "swing"] = "orbit"
    """"orbit": one turn at one height. "spiral": two turns, up to ``rise_deg`` more and back. "swing": from one side of the
    front to the other and back."""
    elevation_deg: float = 20.0
    rise_deg: float = 50.0
    """How much higher a spiral reaches."""
    swing_deg: float = 50.0
    """How far a swing goes to either side."""
    background: str = "white"
    """A colour ("white", "#aabbcc"), or "transparent" for GIF."""

    def __post_init__(self):
        if self.size < 2 or self.fps < 1 or self.frames < 1:
            raise ValueError(
                f"a film needs a frame and 2 pixels or more; got {self.seconds} s, {self.fps} fps and size {self.size}"
            )
        highest = max(abs(self.elevation_deg), abs(self.elevation_deg + self.rise_deg * (self.path == "spiral")))
        if highest > 90:
            raise ValueError(f"elevations end at 90 degrees, and this film would reach {highest:g}")
        colour_of(self.background)

    @property
    def frames(self) -> int:
        return round(self.seconds * self.fps)

    def cameras(self) -> Cameras:
        """Where the camera is in each frame."""
        time = torch.arange(self.frames) / self.frames
        wave = 2 * math.pi * time
        azimuth = {"orbit": 360 * time, "spiral": 720 * time, "swing": self.swing_deg * wave.sin()}[self.path]
        rise = self.rise_deg * (1 - wave.cos()) / 2 if self.path == "spiral" else torch.zeros_like(time)
        return look_at_origin(azimuth[None], (self.elevation_deg + rise)[None], width=self.size, height=self.size)


def film(look: Look, settings: Turntable) -> Iterator[UInt8[ndarray, "h w c"]]:
    """Render the frames of a turntable, one after the other."""
    cameras = settings.cameras()
    for start in range(0, settings.frames, CHUNK):
        yield from over(look(cameras.select(slice(start, start + CHUNK))), settings.background)[0]


def check_mp4(settings: Turntable) -> None:
    """Refuse what H.264 cannot hold.

    Raises:
        ValueError: if the background is transparent, or the size odd.
    """
    if settings.background == "transparent":
        raise ValueError("an MP4 film cannot be transparent: choose a background, or the format gif")
    if settings.size % 2:
        raise ValueError(f"an MP4 film has an even width and height; got {settings.size}")


def mp4_bytes(look: Look, settings: Turntable = Turntable()) -> bytes:
    """Render a turntable as an H.264 film that browsers play: 4:2:0, BT.709, its index in front."""
    import imageio.v2 as imageio

    check_mp4(settings)
    tags = [word for name in ("colorspace", "color_primaries", "color_trc") for word in (f"-{name}", "bt709")]
    convert = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", *tags, "-movflags", "+faststart"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "film.mp4"
        options = {"codec": "libx264", "quality": 8, "macro_block_size": 2, "output_params": convert}
        with imageio.get_writer(path, fps=settings.fps, **options) as writer:
            for picture in film(look, settings):
                writer.append_data(picture)
        return path.read_bytes()


def gif_bytes(look: Look, settings: Turntable = Turntable()) -> bytes:
    """Render a turntable as a GIF that repeats, with one palette for all frames, so that colours do not flicker.

    A GIF counts time in hundredths of a second, and a pixel is there or is not: it is where it covers a half or more.
    """
    pictures = list(film(look, settings))
    some = Image.fromarray(np.concatenate([p[..., :3] for p in pictures[:: max(1, len(pictures) // 12)]]))
    colour = colour_of(settings.background)
    # 254 colours of the object, the background as it is, and last what stands for nothing.
    found = (some.quantize(254, dither=Image.Dither.NONE).getpalette() or [])[: 3 * 254]
    backdrop = found[:3] if colour is None else (255 * colour).round().int().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(found + backdrop * (256 - len(found) // 3))
    frames = []
    for picture in pictures:
        indices = np.asarray(Image.fromarray(picture[..., :3]).quantize(palette=palette, dither=Image.Dither.NONE)).copy()
        indices[indices == 255] = 254
        indices[(picture[..., :3] == backdrop).all(-1)] = 254  # exactly: Pillow's search is not
        if picture.shape[-1] == 4:
            indices[picture[..., 3] < 128] = 255
        frames.append(Image.fromarray(indices, "P"))
        frames[-1].putpalette(palette.getpalette() or [])
    buffer = io.BytesIO()
    options = {"transparency": 255, "disposal": 2} if settings.background == "transparent" else {}
    duration = 10 * max(2, round(100 / settings.fps))
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], duration=duration, loop=0, optimize=False, **options)
    return buffer.getvalue()


def write_turntable(path: Path, look: Look, settings: Turntable = Turntable()) -> None:
    """Write a turntable as MP4, whole or not at all."""
    write_whole(path, mp4_bytes(look, settings))


@dataclass(frozen=True)
class Entry:
    """A row of a comparison."""

    look: Look
    title: str
    """What was asked for."""
    name: str = ""
    """Of the run or the file."""
    scores: Mapping[str, float | None] | None = None


def comparison_sheet(
    entries: Sequence[Entry], size: int = 224, background: str = "white", views: int = 5
) -> UInt8[ndarray, "h w 3"]:
    """Objects beneath each other, all seen by the same cameras: a row each, with what it is and its scores on the left.

    Args:
        entries: The objects.
        size: Pixels along each side of a view.
        background: A colour; text is black or white, whichever stands out.
        views: Around the object; one from above is added.

    Raises:
        ValueError: if there are no objects, or the background is transparent.
    """
    colour = colour_of(background)
    if not entries or colour is None:
        raise ValueError("a comparison needs at least one object, and a background that is not transparent")
    around = 30 + torch.arange(views) * (360 / views)
    azimuth, elevation = torch.cat([around, torch.tensor([30.0])]), torch.tensor([15.0] * views + [65.0])
    cameras = look_at_origin(azimuth[None], elevation[None], width=size, height=size)
    back = tuple((255 * colour).round().int().tolist())
    dark = float(colour @ torch.tensor([0.299, 0.587, 0.114])) <= 0.5
    labels = [_label(entry, max(220, size), back, (255, 255, 255) if dark else (0, 0, 0)) for entry in entries]
    height = max(size, *(len(label) for label in labels))
    rows = []
    for entry, label in zip(entries, labels, strict=True):
        pictures = np.concatenate(list(to_uint8(entry.look(cameras), colour)[0]), 1)
        row = np.full((height + 1, label.shape[1] + pictures.shape[1], 3), back, np.uint8)
        row[: len(label), : label.shape[1]] = label
        row[(height - size) // 2 :][:size, label.shape[1] :] = pictures
        row[-1] = 70 if dark else 200
        rows.append(row)
    return np.concatenate(rows)[:-1]


def _label(entry: Entry, width: int, background: tuple, fore: tuple) -> UInt8[ndarray, "h w 3"]:
    """Write what an object is, and its scores beneath."""
    margin = 12
    quiet = tuple(round(0.65 * f + 0.35 * b) for f, b in zip(fore, background, strict=True))
    scores = [f"{name}  {'-' if x is None else format(x, '.3f')}" for name, x in (entry.scores or {}).items()]
    lines, y = [], margin
    for text, points, ink in [(entry.title, 17, fore), (entry.name, 12, quiet), *((text, 13, quiet) for text in scores)]:
        font = ImageFont.load_default(points)
        for line in _wrapped(text, font, width - 2 * margin):
            lines.append((y, line, ink, font))
            y += round(1.35 * points)
        y += 3
    picture = Image.new("RGB", (width, y + margin), background)
    for y, line, ink, font in lines:
        ImageDraw.Draw(picture).text((margin, y), line, fill=ink, font=font)
    return np.asarray(picture)


def _wrapped(text: str, font, width: int) -> list[str]:
    """Break text into lines that are not wider than this: between words, or within one that is too long."""
    lines, line = [], ""
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            cut = next(k for k in range(len(word) - 1, 0, -1) if k == 1 or font.getlength(word[:k]) <= width)
            lines, line, word = [*lines, *([line] if line else []), word[:cut]], "", word[cut:]
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
        else:
            lines, line = [*lines, line], word
    return [*lines, line] if line else lines
