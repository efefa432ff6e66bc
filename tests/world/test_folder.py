"""Anyone's own meshes: what is read, and what is said when something is wrong."""

import json

import numpy as np
import pytest
import trimesh
from tiny_world import BLUE, RED, box

from rl3d.__main__ import main
from rl3d.world import folder, things
from rl3d.world.dataset import open_views


def put(place, name, mesh, caption=None):
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def prepare(*args, **options):
    return list(folder.prepare(*args, **options))


def test_meshes_with_captions_beside_them_or_in_a_list(tmp_path):
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    put(meshes, "tall.glb", box(1, 4, 2, RED), "a tall red tower\na red tower\n\n")
    put(meshes, "more/wide.obj", box(2, 1, 1, BLUE))
    (meshes / "captions.json").write_text(json.dumps({"more/wide.obj": ["a blue block"]}))
    assert prepare(meshes, out) == [(1, 2), (2, 2)]
    (wide, tall), nouns = things.read(out)
    assert (tall.noun, tall.colour, tall.size) == ("a tall red tower", "red", pytest.approx((1, 2, 4)))
    assert nouns["a tall red tower"].synonyms == ("a red tower",)
    assert wide.noun == "a blue block"
    assert not tall.change
    np.testing.assert_allclose(np.ptp(things.load(out, tall).bounds, axis=0), (2, 1, 4), rtol=1e-5)


def test_meshes_of_modellers_have_z_up(tmp_path):
    mesh = trimesh.Trimesh([(0, -3, 0.0), (1, 0, 0), (-1, 0, 0), (0, 0, 2)], [(0, 1, 2), (0, 1, 3), (0, 2, 3)])  # nose to -y
    put(tmp_path / "in", "nose.obj", mesh, "a nose")
    surface = folder.surface_of(tmp_path / "in" / "nose.obj", "z")
    np.testing.assert_allclose(np.ptp(surface.bounds, axis=0), (3, 2, 2), rtol=1e-5)
    nose = surface.vertices[surface.vertices[:, 0].argmax()]
    np.testing.assert_allclose(nose, (1.5, 0, 0), atol=1e-5)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    put(tmp_path, "good.glb", box(1, 1, 1), "a box")
    put(tmp_path, "silent.glb", box(1, 1, 1))
    put(tmp_path, "long.glb", box(1, 1, 1), "a box " + "very " * 30)
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    (tmp_path / "broken.txt").write_text("something broken")
    put(tmp_path, "needle.obj", box(0.001, 1, 0.001), "a needle")
    (tmp_path / "captions.json").write_text('{"gone.glb": "a ghost"}')
    with pytest.raises(ValueError, match="5 of the meshes") as caught:
        prepare(tmp_path, tmp_path / "out")
    reasons = (
        "gone.glb, which is not there",
        "silent.glb has no caption",
        "got 32: 'a box very",
        "broken.glb: it cannot be read",
    )
    for reason in (*reasons, "needle.obj: it is too thin"):
        assert reason in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a.glb": 3}', '{"a.glb": [1]}'])
def test_a_list_of_captions_has_a_form(tmp_path, content):
    put(tmp_path, "a.glb", box(1, 1, 1))
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(ValueError, match=r"captions.json (is no JSON|should hold)"):
        prepare(tmp_path, tmp_path / "out")


def test_folders_without_meshes(tmp_path):
    with pytest.raises(ValueError, match="holds no meshes"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="is no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")


def test_the_command_renders_a_data_set(tmp_path, capsys):
    put(tmp_path / "in", "box.glb", box(1, 1, 1, RED), "a red box")
    out = tmp_path / "out"
    main(["world", "build", str(tmp_path / "in"), "--out", str(out), "--count", "3", "--views", "2", "--workers", "1"])
    assert "3 scenes of 2 views, 3 words" in capsys.readouterr().out
    data = open_views(out)
    assert data.captions == ("a red box",) * 3
    assert data.rgba.shape == (3, 2, 64, 64, 4)
    again = tmp_path / "again"  # from what was prepared
    words = ["world", "build", str(out / "prepared"), "--out", str(again), "--count", "3", "--views", "2", "--workers", "1"]
    main(words)
    np.testing.assert_array_equal(np.load(again / "rgba.npy"), np.load(out / "rgba.npy"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["world"], "rl3d world build FOLDER"),
        (["world", "build", "nowhere"], "nowhere is no folder"),
        (["world", "build", ".", "--out", "."], "choose another --out"),
        (["world", "plant"], "rl3d world fetch"),
    ],
)
def test_mistakes_end_in_one_line(words, reason, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
