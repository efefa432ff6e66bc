"""The stage: what stands in the middle of a run's page, its ground and its background."""

from __future__ import annotations

import numpy as np
import viser
from rl3d.viewer.cameras import Framing
from rl3d.viewer.page import Page
from rl3d.viewer.stream import Stream
from rl3d.viewer.subjects import Subject, Way, colours, covariances

from rl3d.export.pictures import to_uint8

BACKGROUNDS = {"white": 255, "light": 225, "grey": 128, "dark": 28}
"""Grey levels of 8 bits."""
WAYS: tuple[Way, ...] = ("splats", "pictures", "mesh")
FROM_GLTF = (0.5, 0.5, 0.5, 0.5)
"""Turns glTF's axes (y up, front +z) into ours: a third of a turn around (1, 1, 1)."""
GROUND_Z = -1.0


class Stage:
    """Puts one subject at a time before a page's camera, and the switches for how it is seen where it is made."""

    def __init__(self, page: Page, *, live: bool = False):
        self.page, self.live = page, live
        self.subject: Subject | None = None
        self._splats: viser.GaussianSplatHandle | None = None
        self._mesh: viser.GlbHandle | None = None
        self._stream: Stream | None = None
        gui = page.gui
        self._shape = gui.add_dropdown("Show", WAYS, visible=False)
        self._background = gui.add_dropdown("Background", list(BACKGROUNDS), initial_value="white")
        self._grid = gui.add_checkbox(
            "Grid", True, hint="Under the unit sphere; a cell is a quarter, and the arrow shows the front."
        )
        home = gui.add_button("Reset the camera", icon=viser.Icon.HOME)
        self._shape.on_update(page.on(self._draw))
        self._background.on_update(page.on(self._draw))
        self._grid.on_update(page.on(self._draw_ground))
        framing = Framing(lambda: page.client.camera)
        home.on_click(page.on_each(framing.place))
        framing.place()
        page.every(0.5, framing.keep, thrifty=False)
        self._draw_ground()

    def put(self, subject: Subject) -> None:
        """Show this instead of what was shown."""
        self.subject = subject
        if tuple(self._shape.options) != subject.ways:
            self._shape.options = subject.ways
            self._shape.value = subject.ways[0]
        self._shape.visible = len(subject.ways) > 1
        self._draw()

    def _draw(self) -> None:
        subject, level = self.subject, BACKGROUNDS[self._background.value]
        scene = self.page.scene
        if subject is None:
            scene.set_background_image(_plain(level), format="png")
            return
        way = self._shape.value
        with self.page.client.atomic():
            self._draw_mesh(subject.mesh if way == "mesh" else None)
            self._draw_splats(subject if way == "splats" else None)
        streamed = way == "pictures"
        if streamed and self._stream is None:
            self._stream = Stream(self.page, self._paint, thrifty=self.live)
        if self._stream is not None:
            self._stream.active = streamed
        if streamed and self._stream is not None:
            self._stream.changed()
        else:
            scene.set_background_image(_plain(level), format="png")

    def _draw_splats(self, subject: Subject | None) -> None:
        if subject is None or subject.splats is None:
            if self._splats is not None:
                self._splats.visible = False
            return
        splats = subject.splats
        parts = (splats.means.numpy(), covariances(splats), colours(splats), splats.opacity_logits.sigmoid()[:, None].numpy())
        if self._splats is None:
            self._splats = self.page.scene.add_gaussian_splats("/splats", *parts)
        else:
            self._splats.set_gaussians(*parts)
            self._splats.visible = True

    def _draw_mesh(self, mesh: bytes | None) -> None:
        if self._mesh is not None and mesh != self._mesh.glb_data:
            self._mesh.remove()
            self._mesh = None
        if mesh is not None and self._mesh is None:
            self._mesh = self.page.scene.add_glb("/mesh", mesh, wxyz=FROM_GLTF)

    def _draw_ground(self) -> None:
        self.page.scene.add_grid(
            "/ground", 2.0, 2.0, cell_size=0.25, section_size=1.0, position=(0.0, 0.0, GROUND_Z), visible=self._grid.value
        )
        front = np.array([[[1.0, 0.0, GROUND_Z], [1.3, 0.0, GROUND_Z]]], np.float32)
        self.page.scene.add_arrows("/front", front, (214, 51, 51), visible=self._grid.value)

    def _paint(self, width: int, height: int) -> np.ndarray:
        assert self.subject is not None
        return to_uint8(self.subject.look(self.page.camera(width, height)), BACKGROUNDS[self._background.value] / 255)[0, 0]


def _plain(level: int) -> np.ndarray:
    return np.full((2, 2, 3), level, np.uint8)
