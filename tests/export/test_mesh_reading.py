"""Meshes are read from anyone's files, also from those that mean harm."""

import base64
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from toys import block, textured, toy
from trimesh.visual import ColorVisuals

from rl3d.assets import load_asset
from rl3d.export.meshes.files import mesh_bytes, write_mesh
from rl3d.export.meshes.reading import holds_mesh, read_mesh
from rl3d.export.meshes.srgb import srgb_from_linear

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)


class Gltf:
    """A glTF file in the making: a mesh of one primitive with these attributes."""

    def __init__(self, attributes, indices=None, **primitive):
        self.blob, self.views, self.accessors = b"", [], []
        self.attributes = {name: self.add(values) for name, values in attributes.items()}
        primitive |= {"attributes": self.attributes} | ({} if indices is None else {"indices": self.add(indices)})
        self.doc = {
            "asset": {"version": "2.0"},
            "meshes": [{"primitives": [primitive]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
            "scene": 0,
        }

    def view(self, data, **more):
        self.views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more})
        self.blob += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def add(self, values, **more):
        values = np.asarray(values)
        kind = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[values.dtype.str[1:]]
        shape = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        at = {"bufferView": self.view(values.tobytes()), "componentType": kind, "count": len(values), "type": shape}
        self.accessors.append(at | more)
        return len(self.accessors) - 1

    def picture(self, pixels):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "png")
        return {"bufferView": self.view(buffer.getvalue()), "mimeType": "image/png"}

    def write(self, path, uri=None):
        whole = self.doc | {"bufferViews": self.views, "accessors": self.accessors}
        whole = {"buffers": [{"byteLength": len(self.blob)}]} | whole
        if path.suffix == ".gltf":
            data = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
            whole["buffers"][0]["uri"] = uri or data
            path.write_text(json.dumps(whole))
        else:
            path.write_bytes(glb(json.dumps(whole).encode(), self.blob))
        return path


def glb(text, binary=b""):
    chunks = b""
    for kind, data in ((0x4E4F534A, text + b" " * (-len(text) % 4)), (0x004E4942, binary)):
        chunks += struct.pack("<II", len(data), kind) + data
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def ours(points):
    """Places of glTF in our axes."""
    return np.asarray(points)[..., [2, 0, 1]]


def corner_colours(mesh):
    return np.asarray(mesh.visual.vertex_colors)[:, :3][mesh.faces]


# ---- what is sound


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


# ---- what is not


@cache
def bomb():
    """A picture of 900 million pixels in 110 kB."""
    side = 30000
    rows = zlib.compress((b"\0" + bytes(side // 8)) * side, 9)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_picture(picture):
    file = Gltf({"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE[:, :2]}, material=0)
    file.doc |= {"images": [picture(file)], "textures": [{"source": 0}]}
    file.doc["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    return file


def changed(**changes):
    """A sound glTF with other values: of the accessor, the view, the document."""
    file = Gltf({"POSITION": TRIANGLE}, np.arange(3, dtype=np.uint16))
    for where, change in changes.items():
        {"accessor": file.accessors[0], "index": file.accessors[1], "view": file.views[0], "doc": file.doc}[where].update(
            change
        )
    return file


def places(values):
    return Gltf({"POSITION": np.array(values, np.float32)})


def crowd(vertices, primitives, nodes):
    """So many nodes that each show so many times the same vertices."""
    file = Gltf({"POSITION": np.zeros((vertices, 3), np.float32)})
    file.doc["meshes"] = [{"primitives": file.doc["meshes"][0]["primitives"] * primitives}]
    file.doc["nodes"] = [{"mesh": 0} for _ in range(nodes)]
    file.doc["scenes"] = [{"nodes": list(range(nodes))}]
    return file


def tints():
    """One large picture in thirty colours."""
    file = with_picture(lambda file: file.picture(np.zeros((2048, 2048, 3))))
    surface = file.doc["materials"][0]["pbrMetallicRoughness"]
    file.doc["materials"] = [{"pbrMetallicRoughness": surface | {"baseColorFactor": [i / 40, 0, 0, 1]}} for i in range(30)]
    primitive = file.doc["meshes"][0]["primitives"][0]
    file.doc["meshes"][0]["primitives"] = [primitive | {"material": i} for i in range(30)]
    return file


def shared():
    """Two hundred triangles in one view of ten megabytes."""
    file = Gltf({"POSITION": np.zeros((800_000, 3), np.float32)})
    file.accessors = [file.accessors[0] | {"count": 3} for _ in range(200)]
    file.doc["meshes"] = [{"primitives": [{"attributes": {"POSITION": i}} for i in range(200)]}]
    return file


GLTFS = {
    "four billion vertices": (lambda: changed(accessor={"count": 4_000_000_000}), "a count or an offset"),
    "more vertices than bytes": (lambda: changed(accessor={"count": 4_000_000}), "go beyond a view"),
    "a negative count": (lambda: changed(accessor={"count": -3}), "a count or an offset"),
    "half a vertex": (lambda: changed(accessor={"count": 2.5}), "a count or an offset"),
    "a view beyond the end": (lambda: changed(view={"byteLength": 10**8}), "cut short"),
    "an unknown view": (lambda: changed(accessor={"bufferView": 77}), "number 77 of 2"),
    "no bytes": (lambda: changed(accessor={"bufferView": None}), "number None"),
    "a stride of a byte": (lambda: changed(view={"byteStride": 1}), "rows of 1 bytes"),
    "an index to nothing": (lambda: Gltf({"POSITION": TRIANGLE}, np.array([0, 1, 9], np.uint16)), "vertex 9 of 3"),
    "text for a number": (lambda: changed(accessor={"count": "many"}), "a count or an offset"),
    "a list for the scene": (lambda: changed(doc={"scenes": 5}), ""),
    "compressed": (lambda: changed(doc={"extensionsRequired": ["KHR_draco_mesh_compression"]}), "needs KHR_draco"),
    "another version": (lambda: changed(doc={"asset": {"version": "1.0"}}), "not glTF 2.0"),
    "a circle of nodes": (lambda: changed(doc={"nodes": [{"children": [1]}, {"children": [0], "mesh": 0}]}), "a tree"),
    "a tower of nodes": (
        lambda: changed(doc={"nodes": [{"children": [i + 1]} for i in range(5000)] + [{"mesh": 0}]}),
        "a tree",
    ),
    "a crowd": (lambda: crowd(3, 200, 200), "shows 40000 meshes"),
    "a crowd of giants": (lambda: crowd(300_000, 15, 15), "more than 60000000"),
    "a picture in many tints": (tints, "pixels together"),
    "one view for many": (shared, "no area"),
    "huge numbers": (lambda: places([[1e38, 0, 0], [0, 1e38, 0], [0, 0, 1e38]]), "too far"),
    "no numbers": (lambda: places([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]]), "not finite"),
    "no area": (lambda: places([[0, 0, 0]] * 3), "no area"),
    "a matrix of infinities": (lambda: changed(doc={"nodes": [{"mesh": 0, "matrix": [1e999] * 16}]}), "not finite"),
    "a bomb": (lambda: with_picture(lambda file: {"bufferView": file.view(bomb())}), "cannot read a picture"),
    "no picture": (lambda: with_picture(lambda file: {"bufferView": file.view(b"%!PS-Adobe")}), "cannot read a picture"),
    "the web": (lambda: with_picture(lambda _: {"uri": "http://127.0.0.1:1/a.png"}), "only files beside it"),
    "a file's URL": (lambda: with_picture(lambda _: {"uri": "file:///etc/passwd"}), "only files beside it"),
    "outside": (lambda: with_picture(lambda _: {"uri": "../secret.png"}), "outside its folder"),
    "outside, hidden": (lambda: with_picture(lambda _: {"uri": "%2e%2e/secret.png"}), "outside its folder"),
    "outside, absolute": (lambda: with_picture(lambda _: {"uri": "/etc/hostname"}), "outside its folder"),
    "not there": (lambda: with_picture(lambda _: {"uri": "gone.png"}), "there is no file"),
}


@pytest.mark.parametrize("what", GLTFS)
@pytest.mark.parametrize("kind", ["glb", "gltf"])
def test_what_is_wrong_with_a_gltf_is_said(tmp_path, what, kind):
    make, says = GLTFS[what]
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "in").mkdir()
    path = make().write(tmp_path / "in" / f"a.{kind}")
    with pytest.raises(ValueError, match=re.escape(f"cannot read {path}") + "(?s:.*)" + says):
        read_mesh(path)


OTHERS = {
    "a.glb": (b"glTF", "cannot read"),
    "b.glb": (glb(b"[" * 200_000), "cannot read"),
    "c.glb": (struct.pack("<IIIII", 0x46546C67, 2, 28, 0xFFFFFFFF, 0x4E4F534A) + bytes(8), "beyond its end"),
    "d.gltf": (b'{"asset": {"version": "2.0"}, "buffers": [{"uri": "../secret.bin"}]}', "no surface"),
    "e.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot read"),
    "f.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n", "cannot read"),
    "g.obj": (b"v 0 0 0\nv 1e300 0 0\nv 0 1 0\nf 1 2 3\n", "too far"),
    "h.obj": (b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "i.obj": (b"", "no surface"),
    "j.ply": (b"ply\nformat ascii 1.0\nelement vertex 4000000000\nproperty float x\nend_header\n1\n", "promises 4000000000"),
    "k.ply": (b"ply\nformat binary_little_endian 1.0\nelement face 9\n", "cannot read"),
    "l.stl": (bytes(80) + struct.pack("<I", 4_000_000_000), "cannot read"),
    "m.stl": (b"solid\nfacet\nvertex 1 2\nendsolid", "cannot read"),
    "n.stl": (b"", "cannot read"),
    "o.fbx": (b"", "a mesh is read from .glb"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name):
    content, says = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_mesh(tmp_path / name)


def test_pictures_of_an_obj_are_in_its_folder_and_of_sane_size(tmp_path):
    folder = tmp_path / "in"
    write_mesh(folder / "a.obj", textured(block(), normal_map=False))
    (folder / "a.png").write_bytes(bomb())
    with pytest.raises(ValueError, match="cannot read a picture"):
        read_mesh(folder / "a.obj")
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "a.mtl").write_text("newmtl object\nmap_Kd ../secret.png\n")
    with pytest.raises(ValueError, match="outside its folder"):
        read_mesh(folder / "a.obj")


def test_a_folder_and_nothing_are_no_meshes(tmp_path):
    (tmp_path / "a.glb").mkdir()
    for name in ("a.glb", "b.glb"):
        with pytest.raises(ValueError, match="there is no file"):
            read_mesh(tmp_path / name)


def numbers(text, rng):
    """Another number for some in a text: of a JSON, or of an OBJ."""
    found = list(re.finditer(rb"-?\d+\.?\d*(?:e-?\d+)?", text))
    other = [
        b"-1",
        b"0",
        b"1",
        b"2",
        b"4294967295",
        b"1e308",
        b"99999999999999999999",
        b"NaN",
        b"2.5",
        b"[]",
        b'"x"',
        b"1e-320",
    ]
    for match in sorted(rng.choice(len(found), min(rng.integers(1, 4), len(found)), replace=False), reverse=True):
        start, end = found[match].span()
        text = text[:start] + other[rng.integers(len(other))] + text[end:]
    return text


def mutated(data, kind, rng):
    """One of four ways to spoil a file."""
    way = rng.integers(4)
    if way == 0:
        return data[: rng.integers(len(data))]
    spoilt = bytearray(data)
    reach = len(data) if rng.random() < 0.6 else 400  # the first bytes say what the others are
    if way == 1:
        for _ in range(rng.integers(1, 6)):
            spoilt[rng.integers(reach)] = rng.integers(256)
        return bytes(spoilt)
    if way == 2:  # a length, an offset or a count, wherever it may be
        at = 4 * rng.integers(reach // 4)
        value = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data), 2 * len(data), 0x7F800000, 0x7FC00000])
        spoilt[at : at + 4] = struct.pack("<I", value)
        return bytes(spoilt)
    if kind == "glb":
        size = int.from_bytes(data[12:16], "little")
        return glb(numbers(data[20 : 20 + size], rng), data[28 + size :])
    return numbers(data, rng) if kind == "obj" else numbers(data[:400], rng) + data[400:]


def test_five_hundred_spoilt_files_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(7)
    plain, pictured = block(), textured(block(), size=32)
    files = mesh_bytes(pictured, "obj", stem="a")
    assert isinstance(files, dict)
    ascii_ply = plain.export(file_type="ply", encoding="ascii")
    sources = {
        "glb": [mesh_bytes(plain, "glb"), mesh_bytes(pictured, "glb")],
        "obj": [mesh_bytes(plain, "obj")["mesh.obj"], files["a.obj"]],
        "stl": [mesh_bytes(plain, "stl"), plain.export(file_type="stl_ascii").encode()],
        "ply": [mesh_bytes(plain, "ply"), ascii_ply],
    }
    for name in ("a.mtl", "a.png"):
        (tmp_path / name).write_bytes(files[name])
    folder = tmp_path / "all"
    folder.mkdir()
    for number in range(500):
        kind = list(sources)[number % 4]
        data = mutated(sources[kind][number // 4 % 2], kind, rng)
        (folder / f"{number:03}.{kind}").write_bytes(data)
    bombs = [what for what in GLTFS if not what.startswith(("the web", "a file", "outside", "not there"))]
    for what in bombs:
        GLTFS[what][0]().write(folder / f"{what}.glb")
    script = Path(__file__).with_name("read_all.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(said) == 500 + len(bombs)
    wrong = {name: what for name, what in said.items() if what != "mesh" and not what.startswith("refused: cannot read")}
    assert not wrong
    for kind in sources:
        outcomes = [what == "mesh" for name, what in said.items() if name[0].isdigit() and name.endswith(kind)]
        assert 0.05 < np.mean(outcomes) < 0.95, f"{kind}: some are still read, and some are not"
