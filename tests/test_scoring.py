"""Scoring what somebody made, whatever its form."""

import json

import numpy as np
import pytest
import tiny
import torch
import trimesh
from commandline import fails
from PIL import Image

from rl3d.__main__ import main
from rl3d.assets import load_asset, load_pictures
from rl3d.cameras import Orbit, evaluation_cameras
from rl3d.export.meshes.files import write_mesh
from rl3d.export.splats.ply import write_ply
from rl3d.geometry.points import from_points
from rl3d.rewards.clip import Clip
from rl3d.rewards.shape import Whole
from rl3d.rewards.trained import Trained
from rl3d.scoring import PLAIN, reward_of, score
from rl3d.types import Prompt

SMALL = ["--recipe", "draft", "--steps", "3", "--rig.size", "16", "--draw.steps", "2", "--start.limit", "80"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def here(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block() -> trimesh.Trimesh:
    """A flat block, red above and blue below, that reaches further to its front (x)."""
    mesh = trimesh.creation.box((1.0, 0.4, 0.3)).subdivide().subdivide()
    mesh.apply_translation((0.1, 0, 0))
    up = mesh.vertices[:, 2] > 0
    colours = np.where(up[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
    return mesh


def covered_rows(alpha: torch.Tensor) -> list[int]:
    return alpha.amax(1).nonzero()[:, 0].tolist()


def test_a_mesh_comes_back_where_it_was_with_its_colours(here):
    write_mesh(here / "block.glb", block())
    asset = load_asset(here / "block.glb")
    np.testing.assert_allclose(asset.surface.bounds, block().bounds, atol=1e-5)
    views = asset.look(Orbit(4, 0.0, size=64).cameras())
    # From the front it is 0.4 wide, from the side 1.
    covered = views.alpha.sum((2, 3, 4))[0]
    assert covered[1] / covered[0] > 1.8
    # The two halves meet in the middle quarter of its height, where corners of both colours share triangles.
    rows = covered_rows(views.alpha[0, 1, :, :, 0])
    edge = len(rows) // 3
    above, below = views.rgb[0, 1, rows[:edge]].sum((0, 1)), views.rgb[0, 1, rows[-edge:]].sum((0, 1))
    assert above[0] > 20 * above[2]
    assert below[2] > 20 * below[0]
    solid = views.alpha[0, 1, :, :, 0] == 1
    depth = views.depth[0, 1][solid]
    torch.testing.assert_close(depth, torch.full_like(depth, 2.8), atol=0.01, rtol=0)
    assert len(asset.splats) == 6000
    assert asset.splats.means.abs().amax(0).numpy() == pytest.approx([0.6, 0.2, 0.15], abs=0.02)


def test_a_mesh_without_colours_is_grey_and_a_large_one_is_brought_in(here):
    mesh = trimesh.creation.box((30, 10, 10))
    mesh.export(here / "big.obj")
    asset = load_asset(here / "big.obj")
    assert np.linalg.norm(asset.surface.vertices, axis=1).max() == pytest.approx(0.9)
    views = asset.look(Orbit(1, size=32).cameras())
    assert views.rgb[views.alpha[..., 0] == 1].unique().tolist() == pytest.approx([0.5], abs=0.2)


def test_all_gaussians_of_a_ply_are_looked_at(here):
    points = 0.6 * torch.nn.functional.normalize(torch.randn(7000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    write_ply(here / "ball.ply", from_points(points, torch.full((7000, 3), 0.5), 0.03, opacity=0.9))
    asset = load_asset(here / "ball.ply")
    assert len(asset.splats) == 7000
    assert asset.prompt is None
    found = score(asset, Prompt("a red mug"), {"whole": Whole()})
    assert found["whole"]["value"] == pytest.approx(1.0)


def test_a_run_is_scored_as_its_own_summary_has_it(here, capsys):
    main(["generate", "a red mug", *SMALL, "--out", "run"])
    capsys.readouterr()
    main(["score", "run", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"]["text"] == "a red mug"
    summary = json.loads((here / "run" / "summary.json").read_text())["scores"]
    for here_named, there in (("judge", "judge"), ("encoder", "reward"), ("area", "area")):
        assert found["scores"][here_named]["value"] == pytest.approx(summary[there], abs=2e-3)
    assert len(found["scores"]["judge"]["per_view"]) == 8
    main(["score", "run", "--prompt", "a blue cube", "--rewards", "encoder"])
    other = capsys.readouterr().out
    assert "a blue cube" in other
    assert f"{found['scores']['encoder']['value']:.4f}" not in other


def test_rewards_of_ones_own_and_those_that_do_not_apply(here, capsys):
    write_mesh(here / "block.glb", block())
    (here / "mine.py").write_text("def red(shown, prompts):\n    return shown.views.rgb[..., 0].mean((2, 3))\n\nnumber = 3\n")
    main(["score", "block.glb", "--prompt", "zebras in love", "--rewards", "mine.py:red", "verified", "stands", "closed"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert float(lines["mine.py:red"].split()[1]) > 0
    assert lines["verified"].split()[1] == "-"
    assert "verified:" in lines
    assert float(lines["closed"].split()[1]) > 0.99
    assert float(lines["stands"].split()[1]) > 30


def test_names_of_rewards():
    assert reward_of("clip:ViT-B-32:openai") == Clip("ViT-B-32", "openai")
    assert reward_of("clip:hf-hub:owner/name") == Clip("hf-hub:owner/name")
    assert reward_of("trained:some/folder") == Trained("some/folder")
    assert reward_of("judge") == Clip("judge")


def test_mistakes_are_named(here, capsys):
    write_mesh(here / "block.glb", block())
    (here / "mine.py").write_text("number = 3\n")
    (here / "broken.glb").write_bytes(b"glTF")
    (here / "empty").mkdir()
    assert "there is no asset" in fails(capsys, "score", "nothing.ply")
    assert "--prompt" in fails(capsys, "score", "block.glb")
    wrong = fails(capsys, "score", "block.glb", "--prompt", "a", "--rewards", "beauty")
    assert all(name in wrong for name in PLAIN)
    assert "no function 'number'" in fails(capsys, "score", "block.glb", "--prompt", "a", "--rewards", "mine.py:number")
    assert "there is no file" in fails(capsys, "score", "block.glb", "--prompt", "a", "--rewards", "other.py:f")
    assert "cannot read" in fails(capsys, "score", "broken.glb", "--prompt", "a")
    assert "is not a run" in fails(capsys, "score", "empty", "--prompt", "a")
    assert "trained reward" in fails(capsys, "score", "block.glb", "--prompt", "a", "--rewards", "trained:empty")


def test_pictures_are_views(here):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(here / "half.png")
    views = load_pictures([here / "half.png"] * 2, size=8)
    assert views.rgb.shape == (1, 2, 8, 8, 3)
    assert views.alpha[0, 0, 0].min() == 1
    assert views.rgb[0, 0, 7].max() == 0
    (here / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot read"):
        load_pictures([here / "text.png"])


def test_evaluation_sides_are_eight():
    assert evaluation_cameras().views == 8
