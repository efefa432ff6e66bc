"""From a picture, as a person types it: `rl3d generate --image`, on a tiny random Zero123++."""

import json

import numpy as np
import pytest
import torch
from commandline import fails
from PIL import Image
from tiny_families import write_zero123plus

from rl3d.__main__ import main
from rl3d.export.splats.ply import read_ply
from rl3d.run import Run

SMALL = ["--prior.pixels", "16", "--prior.dtype", "float32", "--rig.size", "16", "--steps", "4", "--draw.steps", "2"]
SMALL += ["--start.limit", "60", "--start.resolution", "16", "--watch.every", "2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    write_zero123plus(folder / "zero123plus-1.2")
    return folder


@pytest.fixture(autouse=True)
def here(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save("my mug.png")
    return tmp_path


def test_a_picture_alone_makes_an_object_and_the_run_keeps_what_it_needs(here, capsys):
    main(["generate", "--image", "my mug.png", *SMALL])
    run = Run(here / "runs" / "my-mug")
    assert len(read_ply(run.folder / "asset.ply")) > 0
    assert run.about["prompt"] == {"text": "", "negative": "", "image": "my mug.png"}
    assert run.title == json.loads((run.folder / "summary.json").read_text())["prompt"] == "my mug"
    asset = (run.folder / "asset.ply").read_bytes()
    capsys.readouterr()
    (here / "elsewhere").mkdir()
    (here / "my mug.png").rename(here / "elsewhere" / "my mug.png")
    main(["generate", "--image", "elsewhere/my mug.png", *SMALL])
    assert "done before" in capsys.readouterr().err
    # Moved, without the picture, and cut back to its beginning: it ends in the same bytes.
    (here / "elsewhere" / "my mug.png").unlink()
    moved = here / "moved"
    run.folder.rename(moved)
    for name in ("summary.json", "checkpoint.safetensors", "asset.ply"):
        (moved / name).unlink()
    main(["resume", str(moved)])
    assert (moved / "asset.ply").read_bytes() == asset


def test_another_picture_of_that_name_is_another_run(here, capsys):
    words = ["generate", "a mug", "--image", "my mug.png", *SMALL]
    main(words)
    Image.new("RGB", (20, 20), "red").save("my mug.png")
    main(words)
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["a-mug", "a-mug-2"]
    assert "a mug" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(here, capsys):
    assert "there is no picture nowhere.png" in fails(capsys, "generate", "--image", "nowhere.png", *SMALL)
    assert "one picture shows one object" in fails(capsys, "generate", "a", "b", "--image", "my mug.png", *SMALL)
    assert "goes by a picture" in fails(capsys, "generate", "a mug", "--recipe", "image_to_3d", *SMALL)
    assert "reads no picture" in fails(capsys, "generate", "a mug", "--image", "my mug.png", "--recipe", "default")
    (here / "my mug.png").write_bytes(b"no picture")
    assert "as a picture" in fails(capsys, "generate", "--image", "my mug.png", *SMALL)
    assert not (here / "runs").exists()
