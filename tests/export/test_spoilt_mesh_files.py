"""Files that are broken, or mean harm, are named or read, and cost no more than they may."""

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
from gltf_making import TRIANGLE, Gltf, glb
from toys import block, textured

from rl3d.export.meshes.files import mesh_bytes, write_mesh
from rl3d.export.meshes.reading import read_mesh


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
