"""Films and sheets, read back by other programs."""

import io

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from helpers import sphere_views
from PIL import Image

from rl3d.cameras import Orbit
from rl3d.export.pictures import (
    Entry,
    Turntable,
    colour_of,
    comparison_sheet,
    contact_sheet,
    gif_bytes,
    mp4_bytes,
    to_rgba8,
    to_uint8,
)

SHORT = {"seconds": 0.5, "fps": 12, "size": 48}


def test_straight_alpha_over_a_background_is_the_premultiplied_picture_over_it():
    views = sphere_views(Orbit(2, size=32).cameras())
    faded = type(views)(0.3 * views.rgb, 0.3 * views.alpha, None, None, views.cameras)
    rgba = to_rgba8(faded)[0].astype(np.float64) / 255
    over = rgba[..., :3] * rgba[..., 3:] + 0.2 * (1 - rgba[..., 3:])
    np.testing.assert_allclose(over, to_uint8(faded, 0.2)[0] / 255, atol=1.5 / 255)


def test_a_film_has_its_length_size_and_background(tmp_path):
    (tmp_path / "film.mp4").write_bytes(mp4_bytes(sphere_views, Turntable(**SHORT | {"size": 50}, background="#aabbcc")))
    reader = imageio.get_reader(tmp_path / "film.mp4")
    frames = imageio.mimread(tmp_path / "film.mp4")
    assert len(frames) == 6
    assert frames[0].shape == (50, 50, 3)
    assert reader.get_meta_data()["fps"] == 12
    assert reader.get_meta_data()["codec"] == "h264"
    np.testing.assert_allclose(frames[3][2, 2], [0xAA, 0xBB, 0xCC], atol=3)
    # The colours of what is in it come back, too: BT.709 both ways.
    truth = to_uint8(sphere_views(Turntable(**SHORT | {"size": 50}).cameras()))[0, 0]
    np.testing.assert_allclose(frames[0][20:30, 20:30].mean((0, 1)), truth[20:30, 20:30].mean((0, 1)), atol=4)


@pytest.mark.parametrize("background", ["white", "#20c040", "transparent"])
def test_a_gif_repeats_and_keeps_its_background_exactly(background):
    film = Image.open(io.BytesIO(gif_bytes(sphere_views, Turntable(**SHORT, background=background))))
    assert film.n_frames == 6
    assert film.info["loop"] == 0
    assert film.info["duration"] == 80
    for i in range(film.n_frames):
        film.seek(i)
        pixels = np.asarray(film.convert("RGBA"))
        if background == "transparent":
            assert pixels[1, 1, 3] == 0
        else:
            assert (pixels[1, 1, :3] == (255 * colour_of(background)).round().numpy()).all()
        assert pixels[24, 24, 3] == 255
        truth = to_rgba8(sphere_views(Turntable(**SHORT).cameras().select([i])))[0, 0]
        assert np.abs(pixels[16:32, 16:32, :3].astype(int) - truth[16:32, 16:32, :3]).mean() < 8


@pytest.mark.parametrize("path", ["orbit", "spiral", "swing"])
def test_a_turntables_end_joins_its_beginning(path):
    cameras = Turntable(seconds=3, fps=24, path=path, size=32).cameras()
    eyes = cameras.centers[0]
    steps = (eyes.roll(-1, 0) - eyes).norm(dim=1)
    assert len(eyes) == 72
    # The step from the last frame to the first is no longer than its neighbours by much.
    assert steps[-1] < 1.3 * max(float(steps[0]), float(steps[-2])) + 1e-3
    if path == "orbit":
        torch.testing.assert_close(cameras.elevations_deg, torch.full((1, 72), 20.0), atol=1e-3, rtol=0)
        torch.testing.assert_close(steps, steps[:1].expand(72), atol=1e-4, rtol=0)
    if path == "spiral":
        assert float(cameras.elevations_deg.max()) == pytest.approx(70, abs=0.01)
    if path == "swing":
        assert float(cameras.azimuths_deg.abs().max()) == pytest.approx(50, abs=0.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"background": "greenish"}, "colour"), ({"seconds": 0}, "frame"), ({"path": "spiral", "elevation_deg": 60}, "90")],
)
def test_what_makes_no_film_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Turntable(**SHORT | change)


@pytest.mark.parametrize(("change", "says"), [({"background": "transparent"}, "transparent"), ({"size": 33}, "even")])
def test_what_h264_cannot_hold_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        mp4_bytes(sphere_views, Turntable(**SHORT | change))


def test_a_sheet_may_be_transparent():
    sheet = contact_sheet(sphere_views, 32, "transparent")
    assert sheet.shape == (64, 128, 4)
    assert sheet[1, 1, 3] == 0
    assert sheet[16, 16, 3] == 255


def test_a_comparison_has_a_row_for_each_object_and_legible_labels():
    small = lambda cameras: sphere_views(cameras, 0.3)  # noqa: E731
    words = "a very long prompt " * 12 + "x" * 80
    entries = [Entry(sphere_views, words, "run", {"reward": 0.5, "judge": None}), Entry(small, "b")]
    sheet = comparison_sheet(entries, 64, views=3)
    pictures = sheet[:, 220:]
    assert pictures.shape[1] == 4 * 64
    half = len(sheet) // 2
    dark = (pictures < 250).any(-1)
    assert dark[:half].sum() > 3 * dark[half + 1 :].sum() > 0
    # Text lies within its column, on white, in rows of both objects.
    label = (sheet[:, :220] < 128).any(-1)
    assert label[:half].sum() > 500
    assert label[half + 2 :].any()
    assert not label[:half, 210:].any()
    night = comparison_sheet(entries, 64, "black", views=3)
    assert night[3, 3].max() == 0
    assert (night[:half, :220] > 200).any()


def test_a_comparison_needs_objects_and_a_colour():
    with pytest.raises(ValueError, match="at least one object"):
        comparison_sheet([])
    with pytest.raises(ValueError, match="not transparent"):
        comparison_sheet([Entry(sphere_views, "a")], background="transparent")
