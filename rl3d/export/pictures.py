"""Pictures and films of objects."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from rl3d.cameras import Orbit, look_at_origin
from rl3d.files import write_whole
from rl3d.types import Cameras, Look, Views


def to_uint8(views: Views, background: float = 1.0) -> UInt8[ndarray, "b v h w 3"]:
    """Views as 8-bit pictures over a grey level."""
    return (255 * views.over(background).detach().cpu().clamp(0, 1)).round().byte().numpy()


def sheet(pictures: UInt8[ndarray, "n h w 3"], columns: int) -> UInt8[ndarray, "H W 3"]:
    """Lay pictures out in rows; missing ones at the end are white."""
    n, h, w, _ = pictures.shape
    rows = -(-n // columns)
    full = np.concatenate([pictures, np.full((rows * columns - n, h, w, 3), 255, np.uint8)])
    return full.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)


def png_bytes(picture: UInt8[ndarray, "h w 3"]) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def contact_cameras(size: int) -> Cameras:
    """The eight sides that previews show: four around, and four from above between them."""
    azimuth = torch.tensor([[30.0, 120, 210, 300, 345, 75, 165, 255]])
    elevation = torch.tensor([[15.0] * 4 + [50.0] * 4])
    return look_at_origin(azimuth, elevation, width=size, height=size)


def contact_sheet(look: Look, size: int = 256) -> UInt8[ndarray, "h w 3"]:
    """Eight sides of an object in two rows."""
    return sheet(to_uint8(look(contact_cameras(size)))[0], 4)


def write_turntable(path: Path, look: Look, *, frames: int = 72, size: int = 256, fps: int = 24) -> None:
    """Write one full turn as H.264 MP4 that browsers play, whole or not at all."""
    import imageio.v2 as imageio

    cameras = Orbit(frames, elevation_deg=20.0, size=size).cameras()
    with tempfile.TemporaryDirectory() as scratch:
        film = Path(scratch) / "film.mp4"
        with imageio.get_writer(film, fps=fps, codec="libx264", quality=8, macro_block_size=16) as writer:
            for start in range(0, frames, 8):
                for picture in to_uint8(look(cameras.select(slice(start, start + 8))))[0]:
                    writer.append_data(picture)
        write_whole(path, film.read_bytes())
