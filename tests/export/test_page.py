"""The page to share: what is in it, and what Chromium makes of it."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from rl3d.cameras import look_at_origin
from rl3d.export.page import Exhibit, page, table
from rl3d.export.pictures import thumbnail, to_uint8
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import look_at
from rl3d.types import Splats

HOSTILE = "</script><script>document.title='owned'</script><!-- $title & \"quotes\" <img src=x onerror=alert(1)>"


def scene(degree: int = 2) -> Splats:
    """Two hundred Gaussians of several shapes around the origin, whose colours depend on the side."""
    rng = torch.Generator().manual_seed(1)
    points = 0.5 * torch.nn.functional.normalize(torch.randn(200, 3, generator=rng), dim=1)
    plain = from_points(points, torch.rand(200, 3, generator=rng), 0.08, opacity=0.8)
    sh = torch.cat([plain.sh, 0.1 * torch.randn(200, (degree + 1) ** 2 - 1, 3, generator=rng)], 1)
    stretched = plain.log_scales + 0.5 * torch.randn(200, 3, generator=rng)
    return Splats(plain.means, stretched, torch.randn(200, 4, generator=rng), plain.opacity_logits, sh)


def block(*, textured: bool) -> trimesh.Trimesh:
    """A flat block: green, or red to the left of its texture and blue to the right, by x."""
    mesh = trimesh.creation.box((1.0, 0.6, 0.4))
    if textured:
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[:, :4], picture[:, 4:] = (255, 0, 0), (0, 0, 255)
        uv = np.stack([(mesh.vertices[:, 0] > 0) * 1.0, np.full(8, 0.5)], 1)
        mesh.visual = TextureVisuals(uv=uv, material=PBRMaterial(baseColorTexture=Image.fromarray(picture)))
    else:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile(np.uint8([0, 200, 0, 255]), (8, 1)))
    return mesh


def exhibits() -> list[Exhibit]:
    small = thumbnail(look_at(scene()), 32)
    return [
        Exhibit("a ball", small, scene(), block(textured=False), {"reward": 0.25, "judge": None}, {"Steps": "150"}),
        Exhibit(HOSTILE, small, mesh=block(textured=True), scores={"reward": 0.5}),
    ]


def data_of(text: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[0])


@pytest.mark.parametrize(("kind", "steps"), [("u8", 255), ("u16", 65535)])
def test_quantised_columns_are_right_to_half_a_step(kind, steps):
    values = np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 0] + [0, 5, 7]
    packed = table(values, kind)
    integers = np.frombuffer(base64.b64decode(packed["data"]), {"u8": "<u1", "u16": "<u2"}[kind]).reshape(50, 3)
    error = np.abs(packed["low"] + np.array(packed["step"]) * integers - values).max(0)
    assert (error <= 0.5001 * np.ptp(values, axis=0) / steps + 1e-12).all()


def test_a_page_needs_nothing_else_and_texts_are_data():
    text = page(exhibits())
    assert HOSTILE not in text
    assert text.count("<script") == 2
    assert "Content-Security-Policy" in text
    assert not re.findall(r"https?://", text)
    assert [asset["title"] for asset in data_of(text)["assets"]] == ["a ball", HOSTILE]
    alone = page(exhibits()[1:])
    assert "<script>document" not in alone
    assert data_of(alone)["assets"][0]["splats"] is None


def test_what_is_not_finite_is_left_out():
    splats = scene(0)
    splats.means[3] = float("nan")
    splats.quats[4] = 0
    found = data_of(page([Exhibit("x", thumbnail(look_at(scene()), 8), splats)]))["assets"][0]["splats"]
    assert found["count"] == 198
    assert np.isfinite(found["shapes"]["step"]).all()


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="neither splats nor a mesh"):
        Exhibit("x", np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(ValueError, match="at least one"):
        page([])


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with api.sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=found, args=flags)
        except api.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    """The page, opened from disk; and what it said and asked for."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(exhibits()), encoding="utf-8")
    tab = chromium.new_page(viewport={"width": 900, "height": 700}, reduced_motion="reduce")
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    # The stage is white and square, and nothing lies over it: what is seen is what is drawn.
    place = "position:fixed!important;left:0;top:0;z-index:9;width:300px!important;height:356px!important"
    plain = "background:#fff!important;border:0!important;border-radius:0!important;min-height:0!important"
    tab.add_style_tag(content=f"#stage{{{place};{plain}}} #bar{{opacity:0}}")
    yield tab, said, asked
    tab.close()


def pixels(tab) -> np.ndarray:
    """What the canvas shows once it has been drawn anew, [h w 3]."""
    tab.evaluate("new Promise(done => { rl3d.state.dirty = true; requestAnimationFrame(() => requestAnimationFrame(done)); })")
    return np.asarray(Image.open(io.BytesIO(tab.locator("canvas").screenshot())).convert("RGB")).astype(np.float64)


def show(tab, asset: int, mode: str) -> None:
    tab.evaluate(f"rl3d.show({asset}, '{mode}')")
    tab.wait_for_selector(f"#canvas[data-shown='{asset} {mode}']")


def test_splats_look_as_our_rasterizer_draws_them(opened):
    tab, said, _ = opened
    show(tab, 0, "splats")
    for azimuth, elevation in ((30, 20), (200, -35), (-100, 80)):
        tab.evaluate(f"Object.assign(rl3d.view, {{azimuth: {azimuth}, elevation: {elevation}}})")
        seen = pixels(tab)
        h, w = seen.shape[:2]
        assert (h, w) == (300, 300)
        cameras = look_at_origin(torch.tensor([[float(azimuth)]]), torch.tensor([[float(elevation)]]), width=w, height=h)
        ours = to_uint8(look_at(scene())(cameras))[0, 0].astype(np.float64)
        inside = ours.min(-1) < 250
        assert inside.mean() > 0.1
        assert 10 * np.log10(255**2 / ((seen - ours)[inside] ** 2).mean()) > 38
    assert said == []


def test_it_asks_nothing_of_the_network(opened):
    _, said, asked = opened
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert said == []


def test_dragging_keys_and_wheel_move_the_camera_and_reset_brings_it_back(opened):
    tab, said, _ = opened
    show(tab, 0, "splats")
    tab.click("#reset", force=True)
    first = pixels(tab)
    box = tab.locator("canvas").bounding_box()
    x, y = box["x"] + 150, box["y"] + 150
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 10, steps=3)
    tab.mouse.up()
    assert tab.evaluate("rl3d.view.azimuth") == pytest.approx(30 - 24)
    assert tab.evaluate("rl3d.view.elevation") == pytest.approx(20 + 4)
    assert np.abs(pixels(tab) - first).max() > 30
    tab.mouse.wheel(0, -300)
    tab.focus("canvas")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("rl3d.view.azimuth") == pytest.approx(30 - 24 + 6)
    for _ in range(100):  # the page's policy forbids what playwright's own waiting would evaluate
        if tab.evaluate("rl3d.view.distance") < 2.9:
            break
        tab.wait_for_timeout(50)
    assert tab.evaluate("rl3d.view.distance") < 2.9
    tab.keyboard.press("Home")
    np.testing.assert_allclose(pixels(tab), first)
    assert said == []


def test_the_mesh_and_its_shape_are_a_button_away(opened):
    tab, said, _ = opened
    show(tab, 0, "splats")
    tab.click('[data-mode="mesh"]', force=True)
    tab.wait_for_selector("#canvas[data-shown='0 mesh']")
    seen = pixels(tab)
    np.testing.assert_allclose(seen[150, 150], [0, 200, 0], atol=1)
    np.testing.assert_allclose(seen[5, 5], 255)
    tab.click('[data-mode="shape"]', force=True)
    tab.wait_for_selector("#canvas[data-shown='0 shape']")
    assert np.ptp(pixels(tab)[150, 150]) < 40
    assert said == []


def test_a_textured_mesh_shows_its_texture_the_right_way_round(opened):
    tab, said, _ = opened
    show(tab, 1, "mesh")
    tab.evaluate("Object.assign(rl3d.view, {azimuth: -90, elevation: 0})")  # from the right: x grows to the right
    seen = pixels(tab)
    assert seen[150, 110, 0] > 250
    assert seen[150, 110, 2] < 5
    assert seen[150, 190, 2] > 250
    assert seen[150, 190, 0] < 5
    assert tab.locator("#modes button").count() == 2
    assert said == []


def test_texts_do_nothing_but_say_what_they_say(opened):
    tab, said, _ = opened
    show(tab, 1, "mesh")
    assert tab.text_content("h1") == HOSTILE
    assert tab.title() == "2 objects"
    assert tab.locator("img[src=x]").count() == 0
    assert tab.locator("#gallery button").count() == 2
    assert tab.locator("#comparison tbody tr").count() == 2
    assert "0.500" in tab.text_content("#scores")
    assert said == []


def test_a_phone_needs_no_sideways_scrolling(opened):
    tab, _, _ = opened
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.set_viewport_size({"width": 900, "height": 700})
