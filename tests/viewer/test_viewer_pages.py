"""The viewer in a real browser, headless and without a GPU: what is shown, what is pressed, and who else looks."""

import fcntl
import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rl3d.viewer.app import serve

from rl3d.export.splats.ply import write_ply
from rl3d.math import SH_C0
from rl3d.representations.gaussians import Gaussians
from rl3d.run import Run
from rl3d.snapshot import scene_path, write_snapshot
from rl3d.types import Splats

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def ball(red, green, blue):
    """Forty opaque Gaussians of one colour, which fill most of the sphere."""
    means = 0.35 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    colour = (torch.tensor([red, green, blue]) - 0.5) / SH_C0
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(40, 1)
    return Splats(means, torch.full((40, 3), -1.6), quats, torch.full((40,), 6.0), colour.expand(40, 1, 3).clone())


@pytest.fixture
def runs(tmp_path) -> Path:
    """A run that is done and red, one on its way that was green and is blue, a damaged one, and a broken file."""
    for name, text in (("red", "a red ball"), ("blue", "a blue ball")):
        folder = tmp_path / name
        folder.mkdir()
        about = {"prompt": {"text": text, "negative": ""}, "recipe": "draft", "arguments": [], "seed": 0}
        (folder / "run.json").write_text(json.dumps(about))
        recipe = {"terms": {"match": {}, "solid": {}}, "weights": {"match": 2.0}, "ratios": {}, "steps": 50}
        (folder / "recipe.json").write_text(json.dumps(recipe))
        lines = [{"step": i, "seconds": i, "losses": {"match": 1 / i}, "size": 40} for i in range(1, 51)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    write_ply(tmp_path / "red" / "asset.ply", ball(1, 0, 0))
    (tmp_path / "red" / "summary.json").write_text(json.dumps({"scores": {"reward": 0.5}, "notes": []}))
    for step, colour in ((25, (0, 1, 0)), (50, (0, 0, 1))):
        write_snapshot(scene_path(Run(tmp_path / "blue"), step), Gaussians().build(ball(*colour)), step)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 99\n")
    return tmp_path


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open what is at some paths; every visit is a new tab of the same viewer."""
    opened, tabs = {}, []

    def visit(*paths: Path):
        if paths not in opened:
            opened[paths] = serve(paths)
        tab = chromium.new_page(viewport={"width": 1000, "height": 320})
        tab.set_default_timeout(90_000)
        tabs.append(tab)
        tab.goto(opened[paths].url)
        return tab

    yield visit
    for tab in tabs:
        tab.close()
    for one in opened.values():
        one.server.stop()


def middle(tab) -> np.ndarray:
    """The mean colour of the middle of the canvas."""
    shot = np.asarray(Image.open(io.BytesIO(tab.screenshot(timeout=120_000))).convert("RGB"), float)
    box = tab.locator("canvas").first.bounding_box()
    x, y = int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)
    return shot[y - 6 : y + 7, x - 6 : x + 7].mean((0, 1))


def named(tab, label):
    """The field that stands beside a label."""
    return tab.locator(f"xpath=//label[contains(.,'{label}')]/following::input[1]").first


def until(check, seconds=60.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.2)


def is_colour(tab, channel):
    return lambda: (middle(tab)[channel] > 150) and (np.delete(middle(tab), channel) < 90).all()


def test_a_card_opens_a_run_whose_splats_are_drawn(visit, runs):
    tab = visit(runs)
    tab.wait_for_selector(".rl3d-card")
    words = tab.inner_text("body")
    assert all(word in words for word in ("a red ball", "a blue ball", "damaged", "broken.ply"))
    tab.click(".rl3d-card:has-text('a red ball') label >> nth=0")
    tab.wait_for_selector(".rl3d-head:has-text('40 Gaussians')")
    until(is_colour(tab, 0))


@pytest.mark.slow
def test_the_filter_leaves_what_fits(visit, runs):
    tab = visit(runs)
    tab.wait_for_selector(".rl3d-card")
    named(tab, "Filter").fill("blue ball")
    until(lambda: tab.locator(".rl3d-card").count() == 1)


@pytest.mark.slow
def test_controls_write_wishes_and_two_clients_see_the_same_run(visit, runs):
    folder = runs / "blue"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one, other = visit(folder), visit(folder)
        for tab in (one, other):
            tab.wait_for_selector("button:has-text('Pause')")
        one.click("button:has-text('Pause')")
        other.click("button:has-text('One step')")
        field = named(other, "weight: match")
        field.fill("0.5")
        field.press("Enter")
        file = folder / "control.jsonl"

        def wishes():
            return [json.loads(x) for x in file.read_text().splitlines()] if file.is_file() else []

        until(lambda: {w["wish"] for w in wishes()} == {"pause", "step", "weight"})
        assert next(w for w in wishes() if w["wish"] == "weight") | {"id": ""} == {
            "id": "",
            "wish": "weight",
            "term": "match",
            "factor": 0.5,
        }
        with open(file, "a") as answers:
            answers.write(json.dumps({"applied": wishes()[0]["id"], "step": 50, "wish": "pause"}) + "\n")
        for tab in (one, other):
            tab.wait_for_selector("button:has-text('Resume')")
        assert (folder / "live" / "watched").is_file()
        one.close()
        other.click("button:has-text('Resume')")
        until(lambda: "resume" in {w.get("wish") for w in wishes()})


@pytest.mark.slow
def test_the_slider_goes_back_in_time(visit, runs):
    tab = visit(runs / "blue")
    until(is_colour(tab, 2))
    slider = tab.locator("[role=slider]").first
    slider.focus()
    slider.press("Home")
    until(is_colour(tab, 1))


@pytest.mark.slow
def test_what_is_deleted_or_broken_is_said_and_the_server_lives(visit, runs):
    tab = visit(runs / "blue")
    tab.wait_for_selector(".rl3d-head:has-text('Gaussians')")
    shutil.rmtree(runs / "blue")
    tab.wait_for_selector("text=its folder was deleted")
    broken = visit(runs / "broken.ply")
    broken.wait_for_selector("text=cannot be shown")
    assert visit(runs / "broken").wait_for_selector("text=damaged")


@pytest.mark.slow
def test_side_by_side_shows_both_and_the_better_score(visit, runs):
    tab = visit(runs / "red", runs / "blue")
    tab.wait_for_selector(".rl3d-table")
    seen = tab.locator("canvas").first

    def colours():
        shot = np.asarray(Image.open(io.BytesIO(seen.screenshot(timeout=120_000))).convert("RGB"), float)
        red = (shot[..., 0] > 180) & (shot[..., 1:] < 80).all(-1)
        blue = (shot[..., 2] > 180) & (shot[..., :2] < 80).all(-1)
        return red.mean() > 0.01 and blue.mean() > 0.01

    until(colours)
