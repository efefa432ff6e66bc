"""Meshes are read from anyone's files."""

import numpy as np
import pytest
import trimesh
from gltf_making import SQUARE, TRIANGLE, Gltf, corner_colours, ours
from toys import block, textured, toy
from trimesh.visual import ColorVisuals

from rl3d.assets import load_asset
from rl3d.export.meshes.files import write_mesh
from rl3d.export.meshes.reading import holds_mesh, read_mesh
from rl3d.export.meshes.srgb import srgb_from_linear


def test_strips_and_fans_and_lists_are_triangles(tmp_path):
    for mode, order in ((5, [0, 1, 2, 3]), (6, [0, 1, 3, 2]), (4, [0, 1, 2, 2, 1, 3])):
        found = read_mesh(Gltf({"POSITION": SQUARE}, np.array(order, np.uint8), mode=mode).write(tmp_path / "a.glb"))
        assert found.area == pytest.approx(1)
        np.testing.assert_allclose(found.face_normals, [[1, 0, 0]] * 2, err_msg="glTF's front is our x")
    bare = read_mesh(Gltf({"POSITION": TRIANGLE}).write(tmp_path / "a.gltf"))
    np.testing.assert_allclose(bare.triangles[0], ours(TRIANGLE))
    with pytest.raises(ValueError, match="no surface"):
        read_mesh(Gltf({"POSITION": SQUARE}, mode=0).write(tmp_path / "points.glb"))


def test_values_may_be_normalized_apart_or_sparse(tmp_path):
    file = Gltf({"POSITION": TRIANGLE})
    file.accessors[0] |= {"componentType": 5122, "normalized": True, "count": 3}
    packed = np.zeros((3, 4), "<i2")
    packed[:, :3] = 32767 * TRIANGLE
    file.accessors[0]["bufferView"] = file.view(packed.tobytes(), byteStride=8)
    moved = file.view(np.array([2], "<u2").tobytes()), file.view(np.array([[0, 16384, 0]], "<i2").tobytes())
    file.accessors[0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": moved[0], "componentType": 5123},
        "values": {"bufferView": moved[1]},
    }
    found = read_mesh(file.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(found.triangles[0], ours([[0, 0, 0], [1, 0, 0], [0, 0.5, 0]]), atol=1e-4)


def test_nodes_place_meshes_and_mirrors_turn_faces(tmp_path):
    file = Gltf({"POSITION": TRIANGLE})
    quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # xyzw: x to y
    file.doc["nodes"] = [
        {"children": [1], "translation": [5, 0, 0], "scale": [2, 2, 2]},
        {"mesh": 0, "rotation": quarter, "scale": [1, 1, -1]},
    ]
    found = read_mesh(file.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(
        sorted(found.vertices.tolist()), sorted(ours([[5, 0, 0], [5, 2, 0], [3, 0, 0]]).tolist()), atol=1e-6
    )
    np.testing.assert_allclose(found.face_normals, [[-1, 0, 0]], atol=1e-6)


def test_a_scene_of_several_parts_is_what_trimesh_makes_of_it(tmp_path):
    scene = trimesh.Scene()
    rng = np.random.default_rng(0)
    for _ in range(4):
        place = trimesh.transformations.random_rotation_matrix(rng.random(3))
        place[:3, 3] = rng.normal(size=3)
        scene.add_geometry(trimesh.creation.box(rng.random(3) + 0.1), transform=place)
    scene.export(tmp_path / "a.glb")
    found, theirs = read_mesh(tmp_path / "a.glb"), trimesh.load_mesh(tmp_path / "a.glb")
    assert len(found.faces) == 48
    for mine, other in ((found.area, theirs.area), (found.volume, theirs.volume)):
        assert mine == pytest.approx(other, rel=1e-5)
    np.testing.assert_allclose(found.bounds, ours(theirs.bounds), atol=1e-5)


def test_factors_are_linear_and_multiply_textures_and_colours(tmp_path):
    file = Gltf({"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE[:, :2]}, material=0)
    file.doc["images"] = [file.picture([[[255, 128, 10]]])]
    file.doc["textures"] = [{"source": 0}]
    surface = {"baseColorFactor": [0.5, 0.25, 1, 1], "baseColorTexture": {"index": 0}}
    file.doc["materials"] = [{"pbrMetallicRoughness": surface}]
    found = read_mesh(file.write(tmp_path / "a.glb"))
    half, quarter = srgb_from_linear(np.array([0.5, 0.25 * ((128 / 255 + 0.055) / 1.055) ** 2.4]))
    assert np.asarray(found.visual.material.baseColorTexture)[0, 0].tolist() == [half, quarter, 10]
    del surface["baseColorTexture"]
    file.attributes["COLOR_0"] = file.add(np.array([[65535, 32768, 0, 65535]] * 3, np.uint16), normalized=True)
    expected = srgb_from_linear(np.array([0.5, 0.125, 0]))
    np.testing.assert_allclose(corner_colours(read_mesh(file.write(tmp_path / "b.glb"))), np.tile(expected, (1, 3, 1)), atol=1)


def test_places_in_textures_may_be_moved(tmp_path):
    file = Gltf({"POSITION": TRIANGLE, "TEXCOORD_1": TRIANGLE[:, :2]}, material=0)
    file.doc["images"] = [file.picture([[[1, 2, 3]]])]
    file.doc["textures"] = [{"source": 0}]
    moved = {"offset": [0.5, 0], "scale": [0.5, 1], "rotation": np.pi / 2, "texCoord": 1}
    info = {"index": 0, "extensions": {"KHR_texture_transform": moved}}
    file.doc["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": info}}]
    found = read_mesh(file.write(tmp_path / "a.glb"))
    # The matrix of the extension: offset, then rotation [cos sin; -sin cos], then scale; v is down there.
    down = np.array([[0.5, 0], [0.5, -0.5], [1.5, 0]])
    np.testing.assert_allclose(found.visual.uv[found.faces[0]], np.stack([down[:, 0], 1 - down[:, 1]], 1), atol=1e-6)


def test_parts_with_and_without_textures_become_one_picture(tmp_path):
    red, green = textured(block(), normal_map=False), trimesh.creation.box((0.2, 0.2, 0.2))
    green.visual = ColorVisuals(green, vertex_colors=np.tile(np.array([0, 255, 0, 255], np.uint8), (8, 1)))
    green.apply_translation((3, 0, 0))
    trimesh.Scene([red, green]).export(tmp_path / "a.glb")
    found = read_mesh(tmp_path / "a.glb")
    rgb = np.asarray(found.visual.to_color().vertex_colors)[:, :3][found.faces]
    far = found.triangles_center[:, 1] > 2  # glTF's x is our y
    assert far.sum() == 12
    assert (np.abs(rgb[far] - np.array([0, 255, 0])) <= 1).all()
    top = rgb[~far].reshape(-1, 3).astype(int)
    assert (np.abs(top - [200, 20, 20]).max(1) < 40).any()
    assert (np.abs(top - [20, 20, 200]).max(1) < 40).any()


def test_an_obj_of_two_materials_keeps_their_colours(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    text = "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl red\nf 1 2 3\nusemtl blue\nf -4 -3 -1\n"
    (tmp_path / "a.obj").write_text(text)
    found = read_mesh(tmp_path / "a.obj")
    assert sorted(map(tuple, corner_colours(found)[:, 0].tolist())) == [(0, 0, 255), (255, 0, 0)]
    (tmp_path / "m.mtl").unlink()
    assert read_mesh(tmp_path / "a.obj").visual.kind is None, "as most readers do, it does without"


def test_colours_of_faces_stay_sharp(tmp_path):
    mesh = trimesh.creation.box()
    mesh.visual = ColorVisuals(mesh, face_colors=np.arange(48).reshape(12, 4).astype(np.uint8) * 5)
    mesh.export(tmp_path / "a.ply")
    found = corner_colours(read_mesh(tmp_path / "a.ply"))
    np.testing.assert_array_equal(found, np.repeat(np.asarray(mesh.visual.face_colors)[:, None, :3], 3, 1))


def test_which_axis_is_up_may_be_said(tmp_path):
    for kind in ("glb", "stl"):
        write_mesh(tmp_path / f"a.{kind}", block())
    turned = read_mesh(tmp_path / "a.glb", "z")
    np.testing.assert_allclose(turned.extents, [0.6, 0.8, 1.2], rtol=1e-6)
    np.testing.assert_allclose(read_mesh(tmp_path / "a.stl", "y").extents, [0.8, 1.2, 0.6], rtol=1e-6)


def test_an_stl_may_be_text_and_a_ply_has_faces_or_is_of_splats(tmp_path):
    (tmp_path / "a.stl").write_text(trimesh.creation.box((1000, 500, 200)).export(file_type="stl_ascii"))
    np.testing.assert_allclose(read_mesh(tmp_path / "a.stl").extents, [1, 0.5, 0.2])
    write_mesh(tmp_path / "a.ply", block())
    assert holds_mesh(tmp_path / "a.ply")
    (tmp_path / "b.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nend_header\n")
    assert not holds_mesh(tmp_path / "b.ply")


@pytest.mark.parametrize("kind", ["glb", "obj", "stl", "ply"])
def test_assets_are_what_was_written_and_closed_whatever_the_seams(tmp_path, kind):
    mesh = textured(toy())
    write_mesh(tmp_path / f"a.{kind}", mesh)
    asset = load_asset(tmp_path / f"a.{kind}")
    np.testing.assert_allclose(asset.surface.bounds, mesh.bounds, atol=1e-5)
    assert asset.surface.is_watertight
    assert len(asset.splats) == 6000
