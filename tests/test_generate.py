"""The main job, as a person types it, on tiny random models: what lies in the folder, what survives, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2 as imageio
import pytest
import tiny
import trimesh
from commandline import fails
from PIL import Image
from rich.console import Console

import rl3d.generate
from rl3d.__main__ import main
from rl3d.commands import viewing
from rl3d.control import ask
from rl3d.export.splats.ply import read_ply
from rl3d.generate import Request, create, find_run, produce
from rl3d.recipe import load_recipe, recipe_file, recipe_files
from rl3d.run import Run
from rl3d.scene import read_prompts
from rl3d.snapshot import saved_steps
from rl3d.types import Prompt

SMALL = ["--recipe", "draft", "--steps", "6", "--rig.size", "16", "--draw.steps", "2", "--start.limit", "80"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def here(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_holds_all_that_was_promised_and_is_not_done_twice(here, capsys):
    main(["generate", "a red mug", *SMALL])
    folder = here / "runs" / "a-red-mug"
    splats = read_ply(folder / "asset.ply")
    assert 0 < len(splats) <= 80
    assert len(trimesh.load(folder / "mesh.glb", force="mesh").faces) > 0
    assert Image.open(folder / "preview.png").size == (1024, 512)
    assert len(imageio.mimread(folder / "turntable.mp4", memtest=False)) == 72
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scores"].keys() == {"reward", "judge", "sharpness", "colours", "area"}
    assert all(-1 <= summary["scores"][name] <= 1 for name in ("reward", "judge"))
    assert summary["alert"] is None
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert json.loads((folder / "recipe.json").read_text())["steps"] == 6
    assert "recipe = Recipe(" in (folder / "recipe.py").read_text()
    before = (folder / "asset.ply").stat().st_mtime_ns
    capsys.readouterr()
    main(["generate", "a red mug", *SMALL])
    assert "done before" in capsys.readouterr().err
    assert (folder / "asset.ply").stat().st_mtime_ns == before


def make(here, name, seed=0):
    run, source = Run(here / name), recipe_file("draft")
    from dataclasses import replace

    plain = load_recipe(source)
    recipe = replace(plain, steps=12, rig=replace(plain.rig, size=16), draw=replace(plain.draw, steps=2))
    create(run, Request(Prompt("a red mug"), "draft", (), seed), recipe, source)
    return run, recipe


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(here):
    assets = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run, recipe = make(here, name, seed)
        for _ in produce(run, recipe):
            pass
        assets.append((run.folder / "asset.ply").read_bytes())
    assert assets[0] == assets[1] != assets[2]


def test_a_run_that_is_left_goes_on_to_the_same_bytes(here):
    whole, recipe = make(here, "whole")
    for _ in produce(whole, recipe):
        pass
    part, recipe = make(here, "part")
    steps = produce(part, recipe)
    for _ in range(5):
        next(steps)
    steps.close()
    assert not (part.folder / "summary.json").exists()
    resumed = [report.step for report, _ in produce(part, recipe)]
    assert resumed == list(range(6, 13))
    assert (part.folder / "asset.ply").read_bytes() == (whole.folder / "asset.ply").read_bytes()
    assert [r["step"] for r in part.metrics()] == list(range(1, 13))


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_in_the_same_bytes(here):
    words = ["generate", "a red mug", *SMALL, "--steps", "150"]
    subprocess.run([sys.executable, "-m", "rl3d", *words, "--out", "whole"], check=True)
    for i, moment in enumerate((0.2, 0.5, 1.1)):
        process = subprocess.Popen([sys.executable, "-m", "rl3d", *words, "--out", f"part{i}"])
        while not Path(f"part{i}/checkpoint.safetensors").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not Path(f"part{i}/summary.json").exists(), "it was done before it could be killed: let it run longer"
        subprocess.run([sys.executable, "-m", "rl3d", "resume", f"part{i}"], check=True)
        assert Path(f"part{i}/asset.ply").read_bytes() == Path("whole/asset.ply").read_bytes()


def test_unknown_words_are_named_with_the_nearest_known_and_can_be_allowed(capsys):
    error = fails(capsys, "generate", "a red muug", *SMALL)
    assert "'muug'" in error
    assert "mug" in error
    assert "--allow-unknown" in error
    main(["generate", "a red muug", *SMALL, "--allow-unknown"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate"], "say what to make"),
        (["generate", ""], "prompt is empty"),
        (["generate", "a mug", "--recipe", "nonsense"], "no recipe 'nonsense'"),
        (["generate", "nowhere.txt"], "no prompt file"),
        (["generate", "nowhere.toml"], "no scene file"),
        (["generate", "a mug", "--steps", "0"], "steps must be at least 1"),
        (["generate", "a mug", "--steps", "many"], "many"),
        (["generate", "a " * 40], "at most"),
        (["generate", "a mug", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["generate", "a mug", "--device", "nonsense"], "no device 'nonsense'"),
        (["resume", "nowhere"], "not a run"),
        (["resume", "nowhere", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["nonsense"], "no command"),
    ],
)
def test_mistakes_are_answered_in_words(capsys, words, says):
    assert says in fails(capsys, *words)
    assert not Path("runs").exists()


def test_a_missing_weight_file_is_named(capsys, monkeypatch, here):
    monkeypatch.setenv("RL3D_WEIGHTS", str(here / "empty"))
    monkeypatch.setattr("rl3d.hub.PACKAGE", here / "nothing")
    assert "weights of 'prior' are missing" in fails(capsys, "generate", "a mug", *SMALL)


def test_a_folder_that_holds_another_run_is_left_alone(here, capsys):
    main(["generate", "a red mug", *SMALL, "--out", "mine"])
    asset = Path("mine/asset.ply").read_bytes()
    assert "holds another run" in fails(capsys, "generate", "a blue mug", *SMALL, "--out", "mine")
    assert Path("mine/asset.ply").read_bytes() == asset


def test_a_corrupt_checkpoint_is_named_and_deleting_it_starts_anew(here, capsys):
    main(["generate", "a red mug", *SMALL, "--out", "run"])
    asset, path = Path("run/asset.ply").read_bytes(), Path("run/checkpoint.safetensors")
    Path("run/summary.json").unlink()
    path.write_bytes(path.read_bytes()[:100])
    error = fails(capsys, "resume", "run")
    assert "damaged" in error
    assert "Delete" in error
    path.unlink()
    main(["resume", "run"])
    assert Path("run/asset.ply").read_bytes() == asset


def test_a_run_whose_defaults_have_changed_is_not_mixed_with_new_ones(here, capsys):
    main(["generate", "a red mug", *SMALL, "--out", "run"])
    Path("run/recipe.json").write_text("{}")
    assert "another version" in fails(capsys, "resume", "run")


def test_a_full_disk_leaves_the_last_checkpoint_whole(here, monkeypatch):
    run, recipe = make(here, "run")
    steps = produce(run, recipe)
    next(steps)
    good = (run.folder / "checkpoint.safetensors").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        steps.close()
    monkeypatch.undo()
    assert (run.folder / "checkpoint.safetensors").read_bytes() == good


def test_prompts_come_from_words_files_and_scenes(here):
    Path("list.txt").write_text("a red mug\n\n# not this\na blue cube\n")
    Path("scene.toml").write_text('prompt = "a cube"\nnegative = "red"\n')
    found = read_prompts(["a ball", "list.txt", "scene.toml", "mug"])
    assert found == [Prompt("a ball"), Prompt("a red mug"), Prompt("a blue cube"), Prompt("a cube", "red"), Prompt("a red mug")]
    Path("bad.toml").write_text("promt = 1\n")
    with pytest.raises(ValueError, match="promt"):
        read_prompts(["bad.toml"])


def test_other_requests_get_other_folders(here):
    first = Request(Prompt("a red mug"), "draft")
    run = find_run(here, "a-red-mug", first)
    create(run, first, load_recipe(recipe_file("draft")), recipe_file("draft"))
    assert find_run(here, "a-red-mug", first) == run
    assert find_run(here, "a-red-mug", Request(Prompt("a red mug"), "draft", seed=1)).folder.name == "a-red-mug-2"


@pytest.mark.parametrize("name", [p.stem for p in recipe_file("default").parent.glob("[!_]*.py")])
def test_every_recipe_loads_and_says_what_it_is(name):
    recipe = load_recipe(recipe_file(name))
    assert 20 < len(recipe.about) < 120


def test_doctor_reports(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "CPU rasterizer" in out
    assert "FAIL" not in out


def after_step_three(monkeypatch, do):
    """Have something happen while a run is at work."""
    plain = rl3d.generate.advance

    def advance(o):
        report = plain(o)
        if report.step == 3:
            do()
        return report

    monkeypatch.setattr(rl3d.generate, "advance", advance)


def test_asked_to_stop_it_leaves_as_by_ctrl_c_and_says_how_to_go_on(here, capsys, monkeypatch):
    after_step_three(monkeypatch, lambda: ask(Run(Path("run")), "stop"))
    with pytest.raises(SystemExit) as stop:
        main(["generate", "a red mug", *SMALL, "--out", "run"])
    assert stop.value.code == 130
    assert "saved; continue with: rl3d resume run" in capsys.readouterr().err
    main(["resume", "run"])
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["notes"] == []
    assert [r["step"] for r in Run(Path("run")).metrics()] == [1, 2, 3, 4, 5, 6]


def test_a_weight_that_was_changed_by_hand_is_noted_in_the_summary(here, monkeypatch):
    after_step_three(monkeypatch, lambda: ask(Run(Path("run")), "weight", term="match", factor=0.5))
    main(["generate", "a red mug", *SMALL, "--out", "run"])
    assert "weights were changed 1 times" in json.loads(Path("run/summary.json").read_text())["notes"][0]
    assert saved_steps(Run(Path("run"))) == [6]
    assert not Path("run/live").exists()


def viewer(monkeypatch, code: str) -> None:
    """A program in place of the viewer; argv[1] is the folder."""
    monkeypatch.setattr(viewing, "VIEW", (sys.executable, "-c", f"import os, sys, time; from pathlib import Path\n{code}"))


def test_the_viewer_stays_beside_a_run_and_is_no_part_of_it(here, capsys, monkeypatch):
    code = """
print("at http://localhost:1234/[a]", sys.argv[1])
while not Path(sys.argv[1], "summary.json").exists():
    time.sleep(0.05)
time.sleep(0.2)
"""
    viewer(monkeypatch, code)
    main(["generate", "a red mug", *SMALL, "--out", "run", "--view"])
    said = capsys.readouterr().err
    assert "viewer: at http://localhost:1234/[a] run" in said
    assert "stays open until Ctrl-C" in said
    main(["generate", "a red mug", *SMALL, "--out", "run"])
    assert "done before" in capsys.readouterr().err
    main(["resume", "run", "--view"])
    assert "viewer: at http" in capsys.readouterr().err


def test_a_viewer_that_fails_leaves_the_run_alone_and_one_that_hangs_is_ended(here, capsys, monkeypatch):
    console = Console(stderr=True)
    viewer(monkeypatch, "sys.exit('no port is free')")
    with viewing.viewing(here, console):
        time.sleep(0.5)
    assert "no port is free" in capsys.readouterr().err
    viewer(monkeypatch, "Path('pid').write_text(str(os.getpid())); print('up'); time.sleep(100)")

    def interrupted():
        with viewing.viewing(here, console):
            while not Path("pid").is_file() or not Path("pid").read_text():
                time.sleep(0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_an_asset_is_improved_and_the_run_goes_on_after_a_stop(here, capsys):
    main(["generate", "a red mug", *SMALL, "--out", "first"])
    words = ["generate", "a blue mug", "--steps", "6", "--rig.size", "16", "--init", "first/asset.ply", "--out"]
    main([*words, "whole"])
    recipe = json.loads(Path("whole/recipe.json").read_text())
    assert recipe["start"]["path"] == "first/asset.ply"
    assert recipe["draw"] is None
    assert recipe["terms"].keys() == {"distill", "solid"}
    Path("whole/summary.json").unlink()
    asset = Path("whole/asset.ply").read_bytes()
    Path("first/asset.ply").unlink()
    main(["resume", "whole"])
    assert Path("whole/asset.ply").read_bytes() == asset
    assert "there is no asset" in fails(capsys, *words, "again")
    assert not Path("again").exists()


def test_a_dry_run_lays_recipes_beside_their_papers_and_makes_nothing(here, capsys):
    main(["generate", "--dry-run", "--recipe", "default", "--steps", "7"])
    assert "in each of 7 steps" in capsys.readouterr().out
    main(["generate", "--dry-run"])
    out = capsys.readouterr().out
    assert all(path.stem in out for path in recipe_files())
    assert not Path("runs").exists()
