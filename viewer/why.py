"""Why a scene moved as it did: what one step saw, what each term wanted of its pixels, what the prior and the rewards said."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from rl3d.viewer import overlays
from rl3d.viewer.cameras import as_pose, fov_y
from rl3d.viewer.gallery import data_uri
from rl3d.viewer.page import Page
from torch import Tensor

from rl3d.explanation import Explanation, Pull, read_explanation
from rl3d.types import Views

SEEN = ("render", "alpha", "depth", "normals")
"""What is shown of the step's views."""
WISHES = ("strength", "brighter or darker", "more or less opaque")
"""What is shown of a term's gradient on them."""
FRUSTUM = 0.25
"""Length of a camera in the scene, in world units; they stand at a third of their distance, so that the object is seen too."""
NEARER = 0.5
"""Where a step's cameras are drawn, as a fraction of their distance."""
SIDE = 128
"""Pixels of a picture on the page, about."""


class Why:
    """The tab that explains one step, and the step's cameras in the scene."""

    def __init__(self, page: Page):
        self.page = page
        self.explanation: Explanation | None = None
        self._read: tuple[Path, int] | None = None
        gui = page.gui
        self._about = gui.add_markdown("")
        self._seen = gui.add_dropdown("What it saw", SEEN)
        self._wish = gui.add_dropdown("Gradients", WISHES, hint="Of each term on the pixels: a descent goes against it.")
        self._cameras = gui.add_dropdown(
            "Cameras", ["hidden", "render"], hint="The step's cameras in the scene, at half their distance."
        )
        self._pictures = gui.add_html("")
        self._frustums: list = []
        self._seen.on_update(page.on(self._draw))
        self._wish.on_update(page.on(self._draw))
        self._cameras.on_update(page.on(self._draw_cameras))
        self._draw()

    def read(self, path: Path) -> None:
        """Show the explanation in a file, if it is another one than that which is shown; nothing where there is none.

        Raises:
            ValueError: if it is broken.
        """
        try:
            now = path, path.stat().st_mtime_ns
        except OSError:
            if self.explanation is not None:
                self._read = self.explanation = None
                self._draw()
            return
        if now != self._read:
            self._read = now
            self.explanation = read_explanation(path)
            self._draw()

    def _draw(self) -> None:
        told = self.explanation
        for choice in (self._seen, self._wish, self._cameras):
            choice.visible = told is not None
        if told is None:
            self._about.content = "No step of this run has been explained: it keeps that for every saved step while it runs."
            self._pictures.content = ""
        else:
            self._about.content = f"**Step {told.step}**: what it saw, and where each term pulls its pixels."
            self._pictures.content = page_of(told, self._seen.value, self._wish.value)
            terms = [f"gradient: {name}" for name, pull in told.terms.items() if pull.gradient is not None]
            if list(self._cameras.options) != (options := ["hidden", "render", *terms]):
                self._cameras.options = options
        self._draw_cameras()

    def _draw_cameras(self) -> None:
        told, kind = self.explanation, self._cameras.value
        with self.page.client.atomic():
            for old in self._frustums:
                old.remove()
            self._frustums = []
            if told is None or kind == "hidden":
                return
            pull = told.terms.get(kind.removeprefix("gradient: "))
            pictures = seen(told.views, "render")
            where = range(told.views.cameras.views)
            if pull is not None and pull.gradient is not None:
                pictures = wished(told.views, pull, self._wish.value)[0]
                where = range(*(pull.views or (0, len(pictures))))
            cameras = told.views.cameras
            for i in where:
                wxyz, place = as_pose(cameras, i)
                self._frustums.append(
                    self.page.scene.add_camera_frustum(
                        f"/cameras/{i}",
                        fov_y(cameras, i),
                        cameras.width / cameras.height,
                        scale=FRUSTUM,
                        thickness=0.006,
                        color=(90, 90, 100),
                        image=overlays.upscaled(pictures[i], SIDE),
                        wxyz=wxyz,
                        position=NEARER * place,
                    )
                )


def seen(views: Views, kind: str) -> UInt8[ndarray, "v h w 3"]:
    """The step's views as pictures: one of :data:`SEEN`; white where they do not hold it."""
    if kind == "alpha":
        return overlays.pixels(views.alpha.expand_as(views.rgb))
    if kind == "depth" and views.depth is not None:
        return overlays.pixels(overlays.depth_picture(views))
    if kind == "normals" and views.normals is not None:
        return overlays.pixels(overlays.normal_picture(views))
    return overlays.pixels(views.over(1.0) if kind == "render" else torch.ones_like(views.rgb))


def wished(views: Views, pull: Pull, kind: str) -> tuple[UInt8[ndarray, "v h w 3"], float]:
    """A term's gradient over the step's views, as one of :data:`WISHES`, and the number that has the strongest colour."""
    gradient = pull.gradient
    assert gradient is not None
    if kind == "strength":
        limit = overlays.limit_of(overlays.sizes(gradient))
        return overlays.pixels(overlays.strength(views, gradient, limit)), limit
    wish = overlays.brighter(gradient) if kind.startswith("brighter") else overlays.denser(gradient)
    limit = overlays.limit_of(wish)
    return overlays.pixels(overlays.signed(views, wish, limit)), limit


def page_of(told: Explanation, saw: str, wish: str) -> str:
    """The explanation as HTML: pictures in rows with what was said of each."""
    cameras = told.views.cameras
    sides = [
        f"{a:.0f}°, {e:.0f}° up"
        for a, e in zip(cameras.azimuths_deg[0].tolist(), cameras.elevations_deg[0].tolist(), strict=True)
    ]
    notes = [[side, *(f"{name} {_number(said[i])}" for name, said in told.guards.items())] for i, side in enumerate(sides)]
    parts = [_STYLE, _section(f"What it saw: {saw}", _pictures(seen(told.views, saw), notes))]
    for name, pull in told.terms.items():
        parts.append(_section(html.escape(name), _said_of(pull), _term(told.views, name, pull, wish)))
    return f'<div class="rl3d-why">{"".join(parts)}</div>'


def _term(views: Views, name: str, pull: Pull, wish: str) -> str:
    """One term's pictures: its gradient on the views it looked at, and what the prior said they should be."""
    first, last = pull.views or (0, views.cameras.views)
    if pull.gradient is None:
        return '<div class="rl3d-note">It looks at the scene itself: no gradient on the pixels.</div>'
    pictures, limit = wished(views, pull, wish)
    judged = pull.per_view
    notes = [[f"{html.escape(name)} {_number(judged[i])}"] if judged else [] for i in range(first, last)]
    parts = [_pictures(pictures[first:last], notes), _legend(wish, limit)]
    for what, rgba in pull.targets.items():
        parts.append(f'<div class="rl3d-note">What the prior predicts ({html.escape(what)})</div>')
        parts.append(_pictures(overlays.pixels(_on_white(rgba)), [[]] * rgba.shape[1]))
    return "".join(parts)


def _said_of(pull: Pull) -> str:
    weight = "by parameter" if pull.weight is None else f"{pull.weight:.3g}"
    heard = [f"{html.escape(name)}: {', '.join(_number(x) for x in told.raw[:8])}" for name, told in pull.heard.items()]
    reward = f"<br>reward of what it was shown — {'; '.join(heard)}" if heard else ""
    return f'<div class="rl3d-note">loss {pull.loss:.4g}, weight {weight}{reward}</div>'


def _legend(wish: str, limit: float) -> str:
    if limit == 0:
        return '<div class="rl3d-note">Its gradient was zero everywhere.</div>'
    if wish == "strength":
        ramp, left, right = overlays.HEAT, "no pull", f"{limit:.2g} a pixel"
    else:
        more, less = ("brighter", "darker") if wish.startswith("brighter") else ("denser", "thinner")
        ramp, left, right = overlays.SIGNED, f"{less} {limit:.2g}", f"{more} {limit:.2g}"
    bar = f'<span class="rl3d-bar" style="background:{overlays.gradient_css(ramp)}"></span>'
    return f'<div class="rl3d-legend"><span>{left}</span>{bar}<span>{right}</span></div>'


def _section(title: str, *parts: str) -> str:
    return f"<h4>{title}</h4>{''.join(parts)}"


def _pictures(pictures: UInt8[ndarray, "v h w 3"], notes: Sequence[Sequence[str]]) -> str:
    cells = (
        f'<figure><img src="{data_uri(overlays.upscaled(picture, SIDE), 90)}" alt="">'
        f"<figcaption>{'<br>'.join(note)}</figcaption></figure>"
        for picture, note in zip(pictures, notes, strict=True)
    )
    return f'<div class="rl3d-views">{"".join(cells)}</div>'


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.3g}"


def _on_white(rgba: Float[Tensor, "1 v h w 4"]) -> Float[Tensor, "1 v h w 3"]:
    return rgba[..., :3] + 1 - rgba[..., 3:]


_STYLE = """<style>
.rl3d-why{padding:0 10px 16px;font-size:12px;color:#495057}
.rl3d-why h4{margin:14px 0 4px;font-size:13px;color:#212529;border-top:1px solid #e9ecef;padding-top:8px}
.rl3d-views{display:grid;grid-template-columns:repeat(4,1fr);gap:4px}
.rl3d-why figure{margin:0}
.rl3d-why img{width:100%;display:block;border:1px solid #e9ecef;border-radius:3px;box-sizing:border-box}
.rl3d-why figcaption{font-size:10px;line-height:1.3;color:#868e96}
.rl3d-note{margin:3px 0}
.rl3d-legend{display:flex;align-items:center;gap:8px;margin:4px 0;font-size:11px}
.rl3d-bar{flex:1;height:10px;border-radius:3px;border:1px solid #dee2e6}
</style>"""
