"""The mesh stage, as a person types it: a mesh is refined, the run goes on after a stop, and all that reads runs reads it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import trimesh
from globes import globe

from rl3d.__main__ import main
from rl3d.assets import load_asset
from rl3d.cameras import Orbit
from rl3d.export.meshes.files import write_mesh
from rl3d.export.meshes.reading import read_mesh
from rl3d.export.splats.ply import write_ply
from rl3d.files import read_tensors, tensor_bytes
from rl3d.generate import Request, create, produce
from rl3d.geometry.surfels import on_surface
from rl3d.recipe import BestOf, load_recipe, recipe_file, starting_from
from rl3d.representations.mesh import Mesh, TexturedMesh
from rl3d.run import Run
from rl3d.snapshot import read_checkpoint, read_snapshot, saved_steps, scene_path, write_snapshot
from rl3d.start import Ball, FromMesh, Renders, beside
from rl3d.takeaway import open_source
from rl3d.types import Prompt

SMALL = ["--steps", "3", "--rig.size", "16", "--draw.size", "16", "--draw.views", "5"]
CAMERAS = Orbit(views=2, size=24).cameras()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run's folder as far as the stage looks at it, and a run that refined its mesh, with tiny random models."""
    folder = tmp_path_factory.mktemp("stage")
    first = Run(folder / "first")
    first.folder.mkdir()
    first.write_json("run.json", {"prompt": {"text": "a red mug", "negative": ""}, "recipe": "default", "seed": 0})
    write_ply(first.folder / "asset.ply", on_surface(globe(0.57), 800, torch.Generator().manual_seed(0)))
    write_mesh(first.folder / "mesh.glb", globe(0.6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path_factory.mktemp("weights"))))
        patch.chdir(folder)
        main(["generate", "a red mug", "--recipe", "refine_mesh", *SMALL, "--init", "first/mesh.glb", "--out", "run"])
        yield folder


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code not in (0, None)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_run_ends_with_the_refined_mesh(folder):
    recipe = json.loads((folder / "run/recipe.json").read_text())
    assert recipe["start"]["path"] == "first/mesh.glb"
    assert recipe["draw"]["path"] == "first/asset.ply"
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["faces"] == 1280
    assert summary["notes"] == []
    made, before = (read_mesh(folder / name / "mesh.glb") for name in ("run", "first"))
    assert len(made.faces) == len(before.faces)
    assert made.visual.material.baseColorTexture.size == (64, 64)
    # It was left where it was, and moved a little.
    moved = np.abs(made.triangles - before.triangles)
    assert 1e-5 < moved.max() < 0.1
    for name in ("asset.ply", "preview.png", "turntable.mp4"):
        assert (folder / "run" / name).is_file()


def test_a_run_that_was_left_goes_on_to_the_same_bytes(folder):
    recipe, source = starting_from(load_recipe(recipe_file("refine_mesh")), "first/mesh.glb"), recipe_file("refine_mesh")
    recipe = replace(recipe, steps=4, rig=replace(recipe.rig, size=16), draw=replace(recipe.draw, size=16, views=5), guards={})
    ends = []
    for name in ("whole", "left"):
        run = Run(folder / name)
        create(run, Request(Prompt("a red mug"), "refine_mesh"), recipe, source)
        steps = produce(run, recipe)
        if name == "left":
            next(steps), next(steps)
            steps.close()
            assert read_checkpoint(run).step == 2
            steps = produce(run, recipe)
        for _ in steps:
            pass
        ends.append([(run.folder / file).read_bytes() for file in ("mesh.glb", "asset.ply")])
    assert ends[0] == ends[1]
    one, other = (Run(folder / name).load()[0] for name in ("whole", "left"))
    assert all(torch.equal(x, other[key]) for key, x in one.items())
    assert not torch.equal(one["scene.pulls"], torch.zeros_like(one["scene.pulls"]))


def test_what_reads_runs_reads_it(folder, capsys):
    source = open_source(folder / "run")
    assert source.note == ""
    assert source.mesh is not None
    main(["export", "run", "--format", "glb,obj,ply,png", "--out", "taken", "--sheet.size", "32"])
    taken = {path.name for path in (folder / "taken").iterdir()}
    assert {"mesh.glb", "mesh.obj", "asset.ply", "sheet.png"} <= taken
    assert read_mesh(folder / "taken/mesh.glb").triangles == pytest.approx(source.mesh.triangles, abs=1e-5)
    asset = load_asset(folder / "run")
    assert isinstance(asset.surface, trimesh.Trimesh)
    assert asset.prompt == Prompt("a red mug")
    final = read_checkpoint(Run(folder / "run"))
    assert (asset.look(CAMERAS).rgba - final.look(CAMERAS).rgba).abs().mean() < 0.01
    capsys.readouterr()
    main(["score", "run", "--rewards", "encoder"])
    assert "run" in capsys.readouterr().out


def test_the_viewer_shows_its_triangles(folder):
    from rl3d.viewer.entries import entry
    from rl3d.viewer.run import newest

    subject = newest(entry(folder / "run"))
    assert subject.splats is None
    assert subject.mesh[:4] == b"glTF"
    assert "1,280 triangles" in subject.about


def test_steps_look_as_they_did_and_spoilt_ones_are_refused(folder, tmp_path):
    run = Run(folder / "run")
    assert saved_steps(run) == [3]
    final, kept = read_checkpoint(run), read_snapshot(scene_path(run, 3))
    assert isinstance(kept.scene, TexturedMesh)
    assert (final.look(CAMERAS).rgba - kept.look(CAMERAS).rgba).abs().mean() < 5e-3
    changes = [
        lambda t, a: t.pop("uv"),
        lambda t, a: t["faces"].fill_(10**6),
        lambda t, a: t["faces"].fill_(-1),
        lambda t, a: t.update(faces=t["faces"].half()),
        lambda t, a: t.update(uv=t["uv"][:3].clone()),
        lambda t, a: t["rest"].fill_(float("nan")),
        lambda t, a: t.update(texture=t["texture"][:0].clone()),
        lambda t, a: t.update(faces=t["faces"][:0].clone(), uv=t["uv"][:0].clone()),
        lambda t, a: t.update(means=torch.zeros(1).half()),
        lambda t, a: a["settings"].update(samples=10**6),
        lambda t, a: a["settings"].update(renderer="pytorch3d"),
    ]
    for change in changes:
        write_snapshot(tmp_path / "x", kept.scene, 3)
        tensors, about = read_tensors(tmp_path / "x")
        change(tensors, about)
        (tmp_path / "x").write_bytes(tensor_bytes(tensors, about))
        with pytest.raises(ValueError, match="damaged"):
            read_snapshot(tmp_path / "x")


def test_the_prior_can_be_distilled_into_it(folder):
    words = ["--steps", "2", "--rig.size", "16", "--draw.size", "16", "--draw.views", "4"]
    main(["generate", "a red mug", "--recipe", "distil_mesh", *words, "--init", "first/mesh.glb", "--out", "distilled"])
    lines = [json.loads(line) for line in (folder / "distilled/metrics.jsonl").read_text().splitlines()]
    assert all({"rough", "distill"} <= line["losses"].keys() for line in lines)
    assert not any(line["skipped"] for line in lines)


def test_a_mesh_of_colours_gets_a_texture_and_splats_get_a_mesh(folder, tmp_path):
    from fake_prior import situation

    box = trimesh.creation.box((1.0, 0.8, 0.6)).subdivide()
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.tile(np.uint8([200, 40, 20, 255]), (len(box.vertices), 1)))
    write_mesh(tmp_path / "box.glb", box)
    start = FromMesh(str(tmp_path / "box.glb"))
    small = replace(start, texture=replace(start.texture, size=64, views=6, view_size=48, refine=2))
    made = small.build(situation())
    colours = np.asarray(made.visual.material.baseColorTexture).reshape(-1, 3)
    assert np.abs(np.median(colours, axis=0) - [200, 40, 20]).max() < 8
    meshing = replace(start.mesh, resolution=32, views=12, size=48, faces=500)
    scene = Mesh().build(replace(small, path=str(folder / "first"), mesh=meshing).build(situation()))
    assert len(scene) <= 500
    # The Gaussians on the ball of 0.57 reach further, by their own size of about 0.04.
    assert (scene.mesh().extents > 1.14).all()
    assert (scene.mesh().extents < 1.4).all()


def test_renders_take_the_place_of_draws(folder):
    rng = torch.Generator().manual_seed(0)
    state = rng.get_state()
    views = Renders(str(folder / "first/mesh.glb"), views=6, size=24).draw(Prompt(""), None, rng, torch.device("cpu"))
    assert torch.equal(rng.get_state(), state)
    assert views.rgba.shape == (1, 6, 24, 24, 4)
    area = views.alpha.mean(dim=(2, 3, 4))
    # A ball of 0.6 seen from 3 fills this share of the picture.
    share = torch.pi * (0.6 / (9 - 0.6**2) ** 0.5 * views.cameras.intrinsics[0, 0, 0, 0] / 24) ** 2
    assert (area / share - 1).abs().max() < 0.1
    views = Renders(str(folder / "first"), views=6, size=24).draw(Prompt(""), None, rng, torch.device("cpu"))
    solid = Renders(str(folder / "first"), views=6, size=24, solid=True).draw(Prompt(""), None, rng, torch.device("cpu"))
    assert set((16 * solid.alpha).unique().tolist()) <= set(range(17))
    assert (solid.alpha[views.alpha < 0.05] == 0).all()
    assert (solid.alpha - views.alpha).abs().mean() < 0.05
    inner = (views.alpha > 0.99)[..., 0]
    assert (solid.rgb - views.rgb)[inner].abs().mean() < 0.02


def test_what_was_refined_can_be_refined_again(folder):
    again = starting_from(load_recipe(recipe_file("refine_mesh")), "run")
    assert (again.start.path, again.draw.path) == ("run", "run")
    assert beside("run/mesh.glb") == "run/mesh.glb"
    from fake_prior import situation

    made = again.start.build(situation())
    assert made.triangles == pytest.approx(read_mesh(folder / "run/mesh.glb").triangles)


def test_mistakes_are_answered_in_words(folder, capsys):
    small = ["generate", "a red mug", "--recipe", "refine_mesh", *SMALL, "--out", "nothing"]
    assert "name one: --init" in refused(capsys, *small)
    assert "there is no asset" in refused(capsys, *small, "--init", "none.glb")
    assert "an asset is a file" in refused(capsys, *small, "--init", "first/run.json")
    assert not (folder / "nothing").exists()
    recipe = load_recipe(recipe_file("refine_mesh"))
    with pytest.raises(ValueError, match="starts from a mesh, and no other does"):
        replace(recipe, start=Ball())
    with pytest.raises(ValueError, match="starts from a mesh, and no other does"):
        replace(load_recipe(recipe_file("default")), start=FromMesh("x.glb"))
    with pytest.raises(ValueError, match="a mesh is one: leave out `search`"):
        replace(recipe, search=BestOf())
    with pytest.raises(ValueError, match="at least 1 view"):
        Renders(views=0)


def test_without_pytorch3d_its_renderer_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch3d", None)
    words = [*SMALL, "--init", "first/mesh.glb", "--scene.renderer", "pytorch3d", "--out", "nothing"]
    said = refused(capsys, "generate", "a red mug", "--recipe", "refine_mesh", *words)
    assert "pytorch3d is not installed" in said
    assert not (folder / "nothing").exists()


def test_a_folder_that_moved_is_still_a_run(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "moved")
    (tmp_path / "moved" / "checkpoint.safetensors").unlink()
    source = open_source(Path(tmp_path / "moved"))
    assert source.mesh is not None
