"""The data set, as an independent reader of nerfstudio's conventions sees it, and as nerfstudio itself does."""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from helpers import sphere_views
from PIL import Image

from rl3d.export.nerfstudio import Posed, data_set
from rl3d.files import write_folder

SMALL = Posed(views=6, size=48, points=300)
CENTER = (0.2, -0.1, 0.15)


def look(cameras):
    return sphere_views(cameras, 0.5, CENTER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "nerfstudio"
    write_folder(path, data_set(look, SMALL))
    return path


def rays(about, frame):
    """Origins [3] and directions [h w 3], of unit length along the axis, as "Data conventions" has them: OpenGL's axes."""
    matrix = np.array(frame["transform_matrix"])
    x, y = np.meshgrid(np.arange(about["w"]) + 0.5, np.arange(about["h"]) + 0.5)
    local = np.stack([(x - about["cx"]) / about["fl_x"], -(y - about["cy"]) / about["fl_y"], -np.ones_like(x)], -1)
    return matrix[:3, 3], local @ matrix[:3, :3].T, matrix[:3, :3]


def test_poses_depth_pictures_and_normals_agree(folder):
    about = json.loads((folder / "transforms.json").read_text())
    assert len(about["frames"]) == 6
    for frame in about["frames"]:
        origin, direction, turn = rays(about, frame)
        assert np.linalg.det(turn) == pytest.approx(1)
        rgba = np.asarray(Image.open(folder / frame["file_path"])) / 255
        depth = np.asarray(Image.open(folder / frame["depth_file_path"]))
        assert depth.dtype == np.uint16
        solid = depth > 0
        np.testing.assert_array_equal(solid, rgba[..., 3] >= 0.5)
        points = origin + direction * (0.001 * depth)[..., None]
        outward = (points - CENTER)[solid]
        # All are on the sphere, to half a millimetre; the picture has the colour of the place.
        np.testing.assert_allclose(np.linalg.norm(outward, axis=-1), 0.5, atol=1e-3)
        np.testing.assert_allclose(rgba[solid][:, :3], 0.5 + outward / 0.5 / 2, atol=5e-3)
        normals = np.asarray(Image.open(folder / frame["normal_file_path"]))[solid] / 127.5 - 1
        np.testing.assert_allclose(normals @ turn.T, outward / 0.5, atol=0.02)


def test_first_points_are_on_the_surface_in_its_colours(folder):
    about = json.loads((folder / "transforms.json").read_text())
    cloud = trimesh.load(folder / about["ply_file_path"])
    assert 200 < len(cloud.vertices) <= 300
    outward = cloud.vertices - np.array(CENTER)
    np.testing.assert_allclose(np.linalg.norm(outward, axis=1), 0.5, atol=1e-4)
    np.testing.assert_allclose(np.asarray(cloud.colors)[:, :3] / 255, 0.5 + outward, atol=5e-3)


def test_cameras_stand_all_around_and_their_mean_is_the_middle():
    eyes = Posed(views=200).cameras().centers[0]
    assert eyes.norm(dim=1).allclose(eyes.new_tensor(3.0))
    assert eyes.mean(0).norm() < 0.02


def test_a_representation_without_normals_gets_those_of_its_depth():
    def bare(cameras):
        views = look(cameras)
        return type(views)(views.rgb, views.alpha, views.depth, None, cameras)

    files = dict(data_set(bare, Posed(views=1, size=64, points=10)))
    assert list(files)[-1] == "transforms.json"
    ours = np.asarray(Image.open(io.BytesIO(files["normals/0000.png"]))) / 127.5 - 1
    truth = np.asarray(Image.open(io.BytesIO(dict(data_set(look, Posed(views=1, size=64)))["normals/0000.png"]))) / 127.5 - 1
    known = (ours.max(-1) > -1) & (truth.max(-1) > -1)
    assert known.sum() > 200
    assert ((ours * truth).sum(-1)[known] > 0.95).mean() > 0.9


def test_a_folder_takes_the_place_of_an_older_one_only_when_it_is_complete(tmp_path):
    write_folder(tmp_path / "set", [("a/b.txt", b"old"), ("c.txt", b"old")])

    def broken():
        yield "a/b.txt", b"new"
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="full"):
        write_folder(tmp_path / "set", broken())
    assert (tmp_path / "set/a/b.txt").read_bytes() == b"old"
    write_folder(tmp_path / "set", [("d.txt", b"new")])
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["d.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("change", [{"views": 0}, {"distance": 0.5}, {"fov_y_deg": 180}])
def test_what_makes_no_data_set_is_refused(change):
    with pytest.raises(ValueError, match="got"):
        Posed(**change)


PARSE = """
import sys
from pathlib import Path
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.depth_dataset import DepthDataset
parser = NerfstudioDataParserConfig(data=Path(sys.argv[1])).setup()
counts = [len(parser.get_dataparser_outputs(split).image_filenames) for split in ("train", "val")]
data = DepthDataset(parser.get_dataparser_outputs("train"))
first, scale = data[0], data._dataparser_outputs.dataparser_scale
print("RESULT", *counts, *first["image"].shape, float(first["depth_image"].max()) / scale)
"""


@pytest.mark.slow
@pytest.mark.skipif("NERFSTUDIO_PYTHON" not in os.environ, reason="NERFSTUDIO_PYTHON names no Python that has nerfstudio")
def test_nerfstudio_reads_it(folder, tmp_path):
    (tmp_path / "parse.py").write_text(PARSE)
    command = [os.environ["NERFSTUDIO_PYTHON"], "-W", "ignore", tmp_path / "parse.py", folder]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    train, val, height, width, channels, deepest = said.split("RESULT")[1].split()
    assert (int(train) + int(val), int(height), int(width), int(channels)) == (6, 48, 48, 4)
    depths = [np.asarray(Image.open(path)).max() for path in sorted(Path(folder, "depths").iterdir())]
    assert any(float(deepest) == pytest.approx(0.001 * depth, rel=1e-3) for depth in depths)
