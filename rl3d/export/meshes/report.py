"""How good a mesh is: what is wrong with its faces, how its texture lies, and what was lost from the representation."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from rl3d.cameras import lattice_cameras
from rl3d.export.meshes.topology import layout, topology
from rl3d.export.pictures import png_bytes
from rl3d.render.textured import look_at_mesh
from rl3d.types import Cameras, Look, Views

BACKGROUNDS = {"white": 1.0, "black": 0.0}


def unseen_cameras(views: int = 20, size: int = 256) -> Cameras:
    """Cameras all around that stand between those of the baker."""
    return lattice_cameras(views, size, turn_deg=31.0)


def report(
    mesh: trimesh.Trimesh, look: Look, *, cameras: Cameras | None = None, truth: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Say all that is known of a mesh made of a representation, as JSON.

    Args:
        mesh: In the representation's place; textured, with colours at vertices, or grey.
        look: The representation.
        cameras: ``[1 v]`` from which both are compared; they should be no cameras that it was made from.
        truth: What was measured against the true object, where there is one
            (:func:`rl3d.evaluate.worlds.surface_errors`).

    Returns:
        ``topology`` (:func:`topology`), ``layout`` (:func:`layout`; None without a texture), ``bake_gap``
        (:func:`bake_gap`), ``truth``.
    """
    cameras = unseen_cameras() if cameras is None else cameras
    gap = bake_gap(look(cameras), look_at_mesh(mesh)(cameras))
    return {"topology": topology(mesh), "layout": layout(mesh), "bake_gap": gap, "truth": dict(truth) if truth else None}


def bake_gap(made: Views, baked: Views) -> dict[str, float | int]:
    """Measure what a mesh lost of a representation, over all views, inside the union of both silhouettes (alpha at least 1/2).

    A mesh is solid, a representation often fades towards its border; no texture mends that. So there are three PSNRs on each
    background, in dB, at most 99: ``psnr_*`` compares with the representation as it is; ``psnr_solid_*`` with it made solid
    (colour over alpha where alpha is at least 1/2, nothing elsewhere), which is the mesh's part of the gap;
    ``psnr_limit_*`` compares the representation with itself made solid, which is about the best that any mesh could have.
    ``psnr_core`` looks only where both are solid (alpha at least 0.99): the texture alone, on any background.

    ``ssim_*`` is the structural similarity with the representation as it is (Wang et al. 2004: Gaussian window of 11 pixels,
    sigma 1.5), ``silhouette_iou`` the intersection over union of the silhouettes.
    """
    one, two = made.alpha >= 0.5, baked.alpha >= 0.5
    inside = (one | two)[..., 0]
    straight = made.rgb / made.alpha.clamp(min=1e-3)
    found: dict[str, float | int] = {"views": made.cameras.views}
    for name, grey in BACKGROUNDS.items():
        soft, mesh = made.over(grey).clamp(0, 1), baked.over(grey).clamp(0, 1)
        solid = torch.where(one, straight.clamp(0, 1), grey)
        found[f"psnr_{name}"] = psnr(soft, mesh, inside)
        found[f"psnr_solid_{name}"] = psnr(solid, mesh, inside)
        found[f"psnr_limit_{name}"] = psnr(soft, solid, inside)
        found[f"ssim_{name}"] = float(ssim(soft[0], mesh[0])[inside[0]].mean()) if inside.any() else 1.0
    core = ((made.alpha >= 0.99) & (baked.alpha >= 0.99))[..., 0]
    found["psnr_core"] = psnr(made.over(0.0).clamp(0, 1), baked.over(0.0).clamp(0, 1), core)
    found["silhouette_iou"] = float((one & two).sum() / (one | two).sum().clamp(min=1))
    return found


def psnr(a: Float[Tensor, "*n 3"], b: Float[Tensor, "*n 3"], where: Bool[Tensor, "*n"]) -> float:
    """Peak signal-to-noise ratio of two images in [0, 1] over the pixels where a mask is true, in dB; at most 99."""
    error = (a - b).square()[where].mean() if where.any() else torch.zeros(())
    return float(-10 * torch.log10(error.clamp(min=10**-9.9)))


def ssim(a: Float[Tensor, "v h w 3"], b: Float[Tensor, "v h w 3"]) -> Float[Tensor, "v h w"]:
    """The structural similarity of two images in [0, 1] at each pixel, the mean over channels (Wang et al. 2004, eq. 13)."""
    reach = torch.arange(-5, 6, dtype=a.dtype)
    window = torch.exp(-reach.square() / (2 * 1.5**2))
    window /= window.sum()

    def mean(x: Tensor) -> Tensor:
        x = F.pad(x.movedim(-1, 1), (5, 5, 5, 5), mode="replicate")
        across = F.conv2d(x, window.expand(3, 1, 1, -1), groups=3)
        return F.conv2d(across, window[:, None].expand(3, 1, -1, 1), groups=3).movedim(1, -1)

    x, y = mean(a), mean(b)
    xx, yy, xy = mean(a * a) - x * x, mean(b * b) - y * y, mean(a * b) - x * y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * x * y + c1) * (2 * xy + c2) / ((x * x + y * y + c1) * (xx + yy + c2))).mean(-1)


def side_by_side(look: Look, mesh: trimesh.Trimesh, cameras: Cameras) -> UInt8[ndarray, "h w 3"]:
    """Three rows of pictures on white: the representation, the mesh, and four times their difference from grey."""
    soft, hard = (view(cameras).over(1.0)[0].clamp(0, 1) for view in (look, look_at_mesh(mesh)))
    rows = torch.cat([torch.cat(list(x), 1) for x in (soft, hard, (0.5 + 2 * (hard - soft)).clamp(0, 1))], 0)
    return (255 * rows).round().byte().numpy()


def report_page(facts: Mapping[str, Any], mesh: trimesh.Trimesh, look: Look, *, title: str = "mesh") -> str:
    """Write a report as one page of HTML that needs no other file: tables, renders beside the representation's, the texture."""
    cameras = unseen_cameras(20, 256).select([4, 8, 11, 15])
    figures = [("Representation, mesh, difference (four times, from grey)", side_by_side(look, mesh, cameras))]
    material = getattr(mesh.visual, "material", None)
    for name, text in (("baseColorTexture", "Texture"), ("normalTexture", "Normal map")):
        if (picture := getattr(material, name, None)) is not None:
            figures.append((text, np.asarray(picture.convert("RGB"))))
    tables = [_table(_TITLES.get(name, name), part) for name, part in facts.items() if part]
    pictures = [
        f'<figure><img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png_bytes(pixels)).decode()}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text, pixels in figures
    ]
    return _PAGE.format(title=html.escape(title), body="\n".join([*pictures[:1], *tables, *pictures[1:]]))


_TITLES = {
    "topology": "Faces",
    "layout": "Texture's layout",
    "bake_gap": "Bake gap, at views that were not baked",
    "truth": "Against the true object",
}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: quality report</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 0 0 1.5rem; }}
td {{ border-top: 1px solid #ddd; padding: .2rem 2rem .2rem 0; }}
td + td {{ text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .3rem; }}
figure {{ margin: 1rem 0; }} img {{ max-width: 100%; }} figcaption {{ color: #666; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def _table(title: str, part: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{html.escape(_shown(value))}</td></tr>"
        for name, value in part.items()
    )
    return f"<h2>{html.escape(title)}</h2><table>{rows}</table>"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else f"{value}"
