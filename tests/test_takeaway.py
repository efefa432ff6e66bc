"""``rl3d export``: runs and files, in every format, read back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import trimesh
from PIL import Image

from rl3d.__main__ import main
from rl3d.cameras import Orbit
from rl3d.export.meshes.files import write_mesh
from rl3d.export.splats.files import read_splats
from rl3d.export.splats.ply import read_ply, write_ply
from rl3d.geometry.points import from_points
from rl3d.recipe import describe
from rl3d.representations.nerf import Nerf
from rl3d.run import Run
from rl3d.snapshot import read_checkpoint
from rl3d.takeaway import open_source

SMALL = ["--steps", "3", "--rig.size", "16", "--draw.steps", "2", "--start.limit", "80"]
QUICK = ["--mesh.resolution", "24", "--mesh.views", "12", "--mesh.size", "48", "--colours", "vertices", "--no-report"]
FAST = ["--turntable.seconds", "0.25", "--turntable.size", "32", "--sheet.size", "32", "--posed.views", "4"]
FAST += ["--posed.size", "32"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of Gaussians, made with tiny random models; the same as if it had been stopped; and one of a radiance field."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path_factory.mktemp("weights"))))
        patch.chdir(folder)
        main(["generate", "a red mug", "--recipe", "draft", *SMALL, "--out", "mug"])
    shutil.copytree(folder / "mug", folder / "stopped")
    for name in ("summary.json", "asset.ply"):
        (folder / "stopped" / name).unlink()
    field_run(folder / "cube")
    return folder


def field_run(folder: Path) -> None:
    """The files of a finished run of a radiance field, which would take long to make."""
    value, run = Nerf(finest=16, samples=16, occupancy_cells=16), Run(folder)
    splats = from_points(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[1.0, 0, 0]]), 0.1)
    scene = value.build(splats)
    run.save({f"scene.{name}": x for name, x in scene.state_dict().items()}, {"step": 3})
    write_ply(folder / "asset.ply", splats)
    run.write_json("recipe.json", {"scene": describe(value)})
    run.write_json("run.json", {"prompt": {"text": "a blue cube", "negative": ""}, "recipe": "nerf", "seed": 0})
    run.write_json("summary.json", {"steps": 3, "gaussians": 1, "seconds": 5.0, "scores": {"reward": 0.1}, "alert": None})


@pytest.fixture
def block(tmp_path):
    """A mesh's file: a blue block."""
    mesh = trimesh.creation.box((1.0, 0.8, 0.6))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile(np.uint8([20, 40, 200, 255]), (8, 1)))
    write_mesh(tmp_path / "my block.glb", mesh)
    return tmp_path / "my block.glb"


def export(*words) -> None:
    main(["export", *map(str, words), *QUICK, *FAST])


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stopped:
        export(*words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_run_gives_its_splats_films_pictures_and_page(runs, tmp_path, capsys):
    kinds = "ply,compressed.ply,splat,spz,splats.glb,mp4,gif,png,nerfstudio"
    export(runs / "mug", "--format", kinds, "--out", tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    splats = {"asset.ply", "asset.compressed.ply", "asset.splat", "asset.spz", "splats.glb"}
    assert made == splats | {"turntable.mp4", "turntable.gif", "sheet.png", "nerfstudio"}
    truth = read_ply(runs / "mug" / "asset.ply")
    for name in splats:
        torch.testing.assert_close(read_splats(tmp_path / name).means.mean(0), truth.means.mean(0), atol=0.01, rtol=0)
    assert Image.open(tmp_path / "sheet.png").size == (128, 64)
    assert len(json.loads((tmp_path / "nerfstudio/transforms.json").read_text())["frames"]) == 4
    assert len(capsys.readouterr().out.splitlines()) == len(made)


def test_what_a_run_shows_is_what_it_ended_with(runs):
    cameras = Orbit(2, size=24).cameras()
    for name in ("mug", "cube"):
        source = open_source(runs / name)
        scene = read_checkpoint(Run(runs / name))
        torch.testing.assert_close(source.look(cameras).rgb, scene.look(cameras).rgb)
        assert source.note == ""
    # The field is seen itself, not by the splats that were fitted to it.
    assert type(read_checkpoint(Run(runs / "cube")).scene).__name__ == "RadianceField"
    assert len(open_source(runs / "cube").splats()) == len(read_ply(runs / "cube/asset.ply"))


def test_nothing_of_a_run_is_executed(runs, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (runs / "mug").iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / "recipe.py").write_text("raise SystemExit('run')")
    export(copy, "--format", "png")
    assert (copy / "sheet.png").is_file()


def test_a_damaged_checkpoint_leaves_the_splats(runs, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.json", "recipe.json", "summary.json", "asset.ply"):
        (copy / name).write_bytes((runs / "mug" / name).read_bytes())
    (copy / "checkpoint.safetensors").write_bytes(b"nonsense")
    source = open_source(copy)
    assert "splats alone" in source.note
    assert float(source.look(Orbit(1, size=16).cameras()).alpha.max()) >= 0


def test_a_run_that_is_not_finished_is_seen_as_it_is(runs, tmp_path):
    export(runs / "stopped", "--format", "ply,png", "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00003-asset.ply", "step_00003-sheet.png"]
    assert not (runs / "stopped" / "asset.ply").exists()


def test_a_mesh_keeps_its_form_in_every_format(block):
    export(block, "--format", "glb,obj,stl,mesh.ply,html,png")
    names = {path.name for path in block.parent.iterdir()}
    assert names >= {"my_block-mesh.glb", "my_block-mesh.obj", "my_block-mesh.stl", "my_block-mesh.ply", "my block-page.html"}
    for kind, order, unit in (("glb", [1, 2, 0], 1), ("obj", [1, 2, 0], 1), ("stl", [0, 1, 2], 1000), ("ply", [0, 1, 2], 1)):
        found = trimesh.load(block.parent / f"my_block-mesh.{kind}", force="mesh")
        size = np.array([1.0, 0.8, 0.6])[order] * unit
        np.testing.assert_allclose(found.extents, size, rtol=1e-4)


def test_metres_say_how_large_it_is(block):
    export(block, "--format", "glb", "--metres", "0.1")
    found = trimesh.load(block.parent / "my_block-mesh.glb", force="mesh")
    np.testing.assert_allclose(found.extents, [0.08, 0.06, 0.1], rtol=1e-4)


def test_several_objects_share_a_page_and_a_comparison(runs, block, tmp_path):
    out = tmp_path / "out"
    export(runs / "mug", block, block, "--format", "html,png,gif", "--compare", "--out", out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "comparison.png",
        "mug/turntable.gif",
        "my block-2/my block-turntable.gif",
        "my block/my block-turntable.gif",
        "page.html",
    ]
    assert Image.open(out / "comparison.png").width == 220 + 6 * 32
    text = (out / "page.html").read_text()
    assert "a red mug" in text
    assert "my block" in text


def test_what_cannot_be_had_is_refused_before_anything_is_made(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    said = refused(capsys, runs / "mug", "--format", "png,fbx", "--out", out)
    assert "fbx" in said
    assert "nerfstudio" in said
    assert "transparent" in refused(
        capsys, runs / "mug", "--format", "png,mp4", "--turntable.background", "transparent", "--out", out
    )
    assert "format" in refused(capsys, runs / "mug", "--format", ",", "--out", out)
    assert "no" in refused(capsys, tmp_path / "nothing", "--format", "png", "--out", out)
    assert "not a run" in refused(capsys, tmp_path, "--format", "png", "--out", out)
    assert "--compare" in refused(capsys, runs / "mug", "--format", "gif", "--compare", "--out", out)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "usd-core" in refused(capsys, runs / "mug", "--format", "png,usdz", "--out", out)
    assert not out.exists()


def test_a_folder_that_is_no_data_set_stays(runs, tmp_path, capsys):
    (tmp_path / "nerfstudio").mkdir()
    (tmp_path / "nerfstudio" / "mine.txt").write_text("mine")
    assert "no data set" in refused(capsys, runs / "mug", "--format", "nerfstudio", "--out", tmp_path)
    assert (tmp_path / "nerfstudio" / "mine.txt").read_text() == "mine"


def test_a_run_becomes_a_mesh_with_a_report(tmp_path, monkeypatch):
    from helpers import sphere_views

    from rl3d.export.meshes.meshing import Meshing
    from rl3d.export.meshes.texture import Baking
    from rl3d.takeaway import Settings, Source, take_away

    ball = Source(tmp_path, "", "ball", "a ball", sphere_views, lambda: pytest.fail("no splats are needed"))
    quick = Meshing(resolution=32, views=16, size=64, faces=600)
    settings = Settings(mesh=quick, texture=Baking(size=128, views=12, view_size=64, refine=2))
    made = [path.name for path in take_away(ball, ["glb", "obj"], settings, tmp_path)]
    assert made == ["mesh.glb", "mesh.png", "mesh.mtl", "mesh.obj", "mesh-report.json", "mesh-report.html"]
    found = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert np.linalg.norm(found.vertices, axis=1).mean() == pytest.approx(0.6, abs=0.03)
    assert json.loads((tmp_path / "mesh-report.json").read_text())["bake_gap"]["silhouette_iou"] > 0.9
    plain = replace(settings, colours="vertices", report=False)
    assert [path.name for path in take_away(ball, ["glb"], plain, tmp_path / "plain")] == ["mesh.glb"]
    assert Path(tmp_path / "plain/mesh.glb").stat().st_size < (tmp_path / "mesh.glb").stat().st_size
