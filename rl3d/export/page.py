"""One self-contained web page of objects: splats and meshes, orbit controls, scores; it opens from disk without a network.

The page draws splats itself (``page/draw.js``), by the formulas of :mod:`rl3d.render.gaussians`, so that what is shared looks
like what was made. Numbers travel quantised: places, scales and rotations with 16 bits, colours with 8.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from typing import Any, Literal

import numpy as np
import trimesh
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from rl3d.types import Splats


@dataclass(frozen=True)
class Exhibit:
    """An object as the page shows it."""

    title: str
    """Its prompt, or its name."""
    thumbnail: UInt8[ndarray, "h w 4"]
    """A picture with straight alpha."""
    splats: Splats | None = None
    mesh: trimesh.Trimesh | None = None
    """In our axes, with its texture or colours at its vertices."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is said, by what it is: "steps", "150"."""

    def __post_init__(self):
        if self.splats is None and self.mesh is None:
            raise ValueError(f"there is nothing to show of {self.title!r}: it has neither splats nor a mesh")


def page(exhibits: Sequence[Exhibit]) -> str:
    """Make a page of one or more objects, as HTML that needs nothing else.

    Texts are data, never markup: a prompt such as ``</script>`` is shown as it is.

    Raises:
        ValueError: if there are no objects.
    """
    if not exhibits:
        raise ValueError("a page needs at least one object")
    folder = files("rl3d.export") / "page"
    part = {name: (folder / name).read_text("utf-8") for name in ("page.html", "style.css", "draw.js", "app.js")}
    data = json.dumps({"assets": [_asset(exhibit) for exhibit in exhibits]}, ensure_ascii=False, allow_nan=False)
    title = exhibits[0].title if len(exhibits) == 1 else f"{len(exhibits)} objects"
    return Template(part["page.html"]).substitute(
        title=html.escape(title),
        style=part["style.css"],
        # Within a script element only "<" can end it or begin a comment, and JSON has it in strings alone.
        data=data.replace("<", "\\u003c"),
        script=part["draw.js"] + part["app.js"],
    )


def _asset(exhibit: Exhibit) -> dict[str, Any]:
    return {
        "title": exhibit.title,
        "thumbnail": _image_url(Image.fromarray(exhibit.thumbnail)),
        "scores": {name: None if x is None or not np.isfinite(x) else float(x) for name, x in exhibit.scores.items()},
        "facts": list(exhibit.facts.items()),
        "splats": None if exhibit.splats is None else _splats(exhibit.splats),
        "mesh": None if exhibit.mesh is None else _mesh(exhibit.mesh),
    }


def _splats(splats: Splats) -> dict[str, Any]:
    """Tables of shapes (three texels of four numbers each) and of harmonics, without what is not finite."""
    s = {name: x.detach().cpu().float().numpy() for name, x in splats.tensors().items()}
    sane = np.concatenate([x.reshape(len(x), -1) for x in s.values()], 1)
    keep = np.isfinite(sane).all(1) & (s["quats"] != 0).any(1)
    s = {name: x[keep] for name, x in s.items()}
    opacity = 1 / (1 + np.exp(-s["opacity_logits"][:, None].clip(-30, 30)))
    quats = s["quats"] / np.linalg.norm(s["quats"], axis=1, keepdims=True).clip(1e-30)
    # Below e^-14 of a unit a Gaussian is thinner than any pixel; without the bound one such would coarsen all others' scales.
    scales = np.pad(s["log_scales"].clip(-14, 14), ((0, 0), (0, 1)))
    shapes = np.concatenate([s["means"], opacity, quats, scales], 1)
    return {"count": int(keep.sum()), "shapes": table(shapes, "u16"), "colours": table(s["sh"].reshape(len(quats), -1), "u8")}


def _mesh(mesh: trimesh.Trimesh) -> dict[str, Any]:
    uv, image = getattr(mesh.visual, "uv", None), None
    if uv is not None:
        material = mesh.visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    textured = uv is not None and image is not None
    colours = (
        None
        if textured
        else np.asarray(mesh.visual.to_color().vertex_colors if uv is not None else mesh.visual.vertex_colors)[:, :3]
    )
    return {
        "positions": table(np.asarray(mesh.vertices, np.float32), "u16"),
        "faces": {"type": "u32", "data": _text(np.asarray(mesh.faces, "<u4"))},
        "uv": table(np.asarray(uv, np.float32), "u16") if textured else None,
        "image": _image_url(image.convert("RGB")) if textured else None,
        "colours": None if colours is None else {"type": "u8", "data": _text(np.asarray(colours, np.uint8))},
    }


def table(values: Float[ndarray, "n c"], kind: Literal["u8", "u16"]) -> dict[str, Any]:
    """Quantise columns evenly, each between its lowest and highest value; half a step is the largest error.

    Returns ``{type, low, step, data}``: a value is ``low + step * integer``, and data is base64 of little-endian integers.
    """
    most = {"u8": 255, "u16": 65535}[kind]
    values = values.astype(np.float64)
    low = values.min(0) if len(values) else np.zeros(values.shape[1])
    step = ((values.max(0) if len(values) else low) - low) / most
    integers = np.round((values - low) / np.where(step > 0, step, 1)).astype("<u1" if kind == "u8" else "<u2")
    return {"type": kind, "low": low.tolist(), "step": step.tolist(), "data": _text(integers)}


def _text(array: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _image_url(image: Image.Image) -> str:
    """A picture as a data URL: PNG, which loses nothing, or JPEG where that would be large."""
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, kind)
    if buffer.tell() > 2**20:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, kind, quality=92, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
