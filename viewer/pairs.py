"""Two assets side by side, and which is better: preferences, recorded as they are given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import viser
from PIL import Image
from rl3d.viewer.subjects import coloured_mesh

from rl3d.assets import PICTURES, load_asset
from rl3d.choices import read_pairs
from rl3d.contest import Question, Session, report, wins
from rl3d.math import rgb_from_sh, rotation_from_quat
from rl3d.types import Splats

APART = 1.15
"""From the middle to each of the two, along the camera's right; assets lie in the unit sphere."""
FIELD_OF_VIEW = 0.6
START = np.array([4.8, -2.1, 1.9])
"""Where clients first look from, z is up and the front is +x; from further away where the window is narrow."""
SETTLE = 0.35
"""Seconds for which a new pair cannot be answered, so that no key held down answers it unseen."""

KEYS = {"a": "1", "b": "2", "tie": "3", "skip": "N", "undo": "U"}
"""viser moves the camera by letters W A S D Q E and by the arrows, and the space bar presses a button that was clicked last."""


def add(
    server: viser.ViserServer,
    asked: Sequence[Question],
    file: Path,
    annotator: str = "",
    *,
    blind: bool = True,
    places: Sequence[Path] = (),
) -> None:
    """Fill a server's panel and scene with questions, one after the other.

    All who look see one question; whoever answers first has answered it. Nothing that is sent to them says where the sides of a
    blind question come from, until all are answered: then the panel says who wins.

    Args:
        server: with an empty panel and scene.
        asked: as :func:`rl3d.contest.questions` matches them.
        file: where answers are added (:mod:`rl3d.choices`). What the annotator answered there is not asked again.
        annotator: who answers.
        blind: whether names are hidden.
        places: the folders that take part, if the verdict shall name them; default: those that the assets lie in.

    Raises:
        ValueError: if the file holds something else than choices.
    """
    session = Session(asked, file, annotator)
    gui, stages = server.gui, {}
    lock = Lock()
    shown_at = 0.0

    # Beside the scene: what floats above it would hide a part of the right one alone.
    gui.configure_theme(control_layout="fixed", show_share_button=False, show_logo=False)
    gui.set_panel_label("Which is better?")
    server.initial_camera.fov = FIELD_OF_VIEW
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.initial_camera.position = tuple(START)
    server.scene.set_background_image(np.full((2, 2, 3), 236, np.uint8))
    prompt = gui.add_markdown("")
    buttons = {
        "a": gui.add_button("Left is better  [1]", color="blue", icon=viser.Icon.ARROW_LEFT),
        "b": gui.add_button("Right is better  [2]", color="blue", icon=viser.Icon.ARROW_RIGHT),
        "tie": gui.add_button("Equally good  [3]", color="gray", icon=viser.Icon.EQUAL),
        "skip": gui.add_button("Skip  [N]", color="gray", icon=viser.Icon.PLAYER_SKIP_FORWARD),
        "undo": gui.add_button("Undo  [U]", color="gray", icon=viser.Icon.ARROW_BACK_UP),
    }
    bar = gui.add_progress_bar(0.0)
    told = gui.add_markdown("")

    def update() -> None:
        """Show the current question to all."""
        nonlocal shown_at
        question = session.current
        for word, button in buttons.items():
            button.disabled = not session.undoable if word == "undo" else question is None
        bar.value = 100 * session.answered / max(1, len(session.asked))
        if question is None:
            prompt.content = "## Thank you\n\nThat was the last pair." + _verdict(file, places)
        else:
            names = "" if blind else f"\n\nLeft: `{_name(question.a)}`\n\nRight: `{_name(question.b)}`"
            prompt.content = f"## {_plain(question.prompt)}{names}"
        for stage in list(stages.values()):
            stage(question)
        shown_at = time.monotonic()
        state = f"{session.answered} of {len(session.asked)} answered" + f", {session.skipped} skipped" * bool(session.skipped)
        told.content = state + (f", by {_plain(annotator)}" if annotator else "")

    def press(word: str) -> None:
        pressed_at = time.monotonic()
        with lock:
            question = session.current
            try:
                if word == "undo":
                    done = session.undo()
                elif question is None or pressed_at - shown_at < SETTLE:
                    # It was pressed for the pair before, or for one that nobody can have looked at.
                    return
                else:
                    done = session.skip(question) if word == "skip" else session.answer(question, word)
            except OSError as error:
                told.content = f"**This was not recorded:** {error.strerror or error}"
                return
            if done:
                update()

    for word, button in buttons.items():
        command = gui.add_command(button.label.split("  ")[0], hotkey=KEYS[word])  # pyright: ignore[reportArgumentType]
        button.on_click(lambda _, word=word: press(word))
        command.on_trigger(lambda _, word=word: press(word))

    @server.on_client_connect
    def _(client: viser.ClientHandle) -> None:
        stages[client.client_id] = stage = _stage(client)
        stage(session.current)

    @server.on_client_disconnect
    def _(client: viser.ClientHandle) -> None:
        stages.pop(client.client_id, None)

    update()


def _stage(client: viser.ClientHandle) -> Callable[[Question | None], None]:
    """A client's view of two objects: they stay side by side whichever way the camera goes, so both turn alike.

    Each is moved along the camera's right as it orbits, which is what two linked cameras would see.
    """
    scene, lock = client.scene, Lock()
    frames = [scene.add_frame(f"/{side}", show_axes=False) for side in ("left", "right")]
    flat: list[Any] = []
    """Pictures, which face the camera."""

    def follow() -> None:
        right = viser.transforms.SO3(client.camera.wxyz).as_matrix()[:, 0]
        with client.atomic():
            for frame, side in zip(frames, (-1, 1), strict=True):
                frame.position = APART * side * right
            for picture in flat:
                picture.wxyz = client.camera.wxyz

    def show(question: Question | None) -> None:
        with lock:
            flat.clear()
            for side in ("left", "right"):
                for what in ("asset", "word"):
                    scene.remove_by_name(f"/{side}/{what}")
            for frame, paths, key in zip(
                frames, (question.a, question.b) if question else (), (KEYS["a"], KEYS["b"]), strict=False
            ):
                try:
                    flat.extend(_put(scene, f"{frame.name}/asset", paths))
                    word = key
                except (ValueError, OSError) as error:
                    print(f"{_name(paths)} cannot be shown: {error}")
                    word = "cannot be shown: skip it"
                scene.add_label(
                    f"{frame.name}/word", word, position=(0, 0, -1.12), anchor="center-center", font_screen_scale=1.4
                )
            follow()

    client.camera.position = START * max(1.0, 1.2 / client.camera.aspect)
    # A new position takes along what is looked at.
    client.camera.look_at = (0.0, 0.0, 0.0)
    client.camera.on_update(lambda _: follow())
    return show


def _put(scene: viser.SceneApi, name: str, paths: Sequence[str]) -> list[Any]:
    """Put an asset into a scene; gives the pictures, if it is those."""
    if paths[0].lower().endswith(PICTURES):
        sheet = _row(paths)
        scale = 1.8 / max(sheet.shape[:2])
        return [scene.add_image(name, sheet, sheet.shape[1] * scale, sheet.shape[0] * scale, format="png")]
    asset = load_asset(paths[0])
    if asset.surface is not None:
        scene.add_mesh_trimesh(name, coloured_mesh(Path(paths[0])))
    else:
        _put_splats(scene, name, asset.splats)
    return []


def _put_splats(scene: viser.SceneApi, name: str, splats: Splats) -> None:
    stretch = rotation_from_quat(splats.quats) * splats.log_scales.exp()[:, None]
    scene.add_gaussian_splats(
        name,
        centers=splats.means.numpy(),
        covariances=(stretch @ stretch.mT).numpy(),
        rgbs=rgb_from_sh(splats.sh[:, 0]).clamp(0, 1).numpy(),
        opacities=splats.opacity_logits.sigmoid()[:, None].numpy(),
    )


def _row(paths: Sequence[str], height: int = 512) -> np.ndarray:
    """Pictures beside each other ``[h w 4]``, as high as the first."""
    opened = []
    for path in paths:
        with Image.open(path) as picture:
            height = min(height, picture.height)
            opened.append(picture.convert("RGBA").resize((max(1, round(picture.width * height / picture.height)), height)))
    return np.concatenate([np.asarray(picture.resize((picture.width, height))) for picture in opened], 1)


def _verdict(file: Path, places: Sequence[Path]) -> str:
    """Who wins, in Markdown, if the file holds a contest."""
    with suppress(ValueError):
        found = wins(read_pairs(file, exist=False), places)
        return "".join("\n\n" + "\n\n".join(_plain(line.strip()) for line in report(one).splitlines()) for one in found)
    return ""


def _name(paths: Sequence[str]) -> str:
    return ", ".join("/".join(Path(path).parts[-2:]) for path in paths)


def _plain(text: str) -> str:
    """A text as Markdown that shows it as it is."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~&" else " " if c in "\r\n" else c for c in text)
