"""Packages and catalogues: a small one, made here, is read as Debian's are."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from rl3d.world import debian, sources, things
from rl3d.world.sources import LICENCES, PACKAGES, Package, entries, fetch, rotation, unpack
from rl3d.world.surface import read

MESH = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nusemtl {}\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
LIST = """
id=SweetHome3D#KatorLegazModels
id#1=Kator Legaz#stool
name#1=Stool
category#1=Kitchen
model#1=/things/stool/stool.obj
width#1=40
depth#1=50
height#1=60
dropOnTopElevation#1=59
movable#1=true
creator#1=Andr\\u00e9

id#2=Kator Legaz#lamp
name#2=White light source
category#2=Lights
model#2=/things/lamp/lamp.obj
width#2=10
depth#2=10
height#2=10
movable#2=true
creator#2=Someone
modelRotation#2=0 0 1 0 1 0 -1 0 0
"""


@pytest.fixture
def package(tmp_path):
    """A Debian package with a catalogue of two: a stool, and something that nobody can see."""
    catalogue = io.BytesIO()
    with zipfile.ZipFile(catalogue, "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", LIST)
        file.writestr("PluginFurnitureCatalog_de.properties", LIST.replace("Stool", "Hocker"))
        file.writestr("things/stool/stool.obj", "mtllib C:\\making\\Stool.MTL\n" + MESH.format("seat"))
        file.writestr("things/stool/stool.mtl", "newmtl seat\nKd 1 0 0\n")
        file.writestr("things/lamp/lamp.obj", "mtllib lamp.mtl\n" + MESH.format("air"))
        file.writestr("things/lamp/lamp.mtl", "newmtl air\nKd 1 1 1\nd 0\n")
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        info = tarfile.TarInfo("./usr/share/furniture/KatorLegaz.sh3f")
        info.size = len(catalogue.getvalue())
        archive.addfile(info, io.BytesIO(catalogue.getvalue()))
    members = {"debian-binary": b"2.0", "control.tar.xz": b"odd", "data.tar.xz": inner.getvalue()}
    data = b"!<arch>\n"
    for name, content in members.items():
        data += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        )
    file = tmp_path / "small.deb"
    file.write_bytes(data)
    return file


def test_a_catalogue_is_read_with_sizes_authors_and_materials(package, tmp_path):
    (archive,) = unpack(package, tmp_path)
    stool, lamp = entries(archive)
    assert (stool.id, stool.name, stool.category) == ("KatorLegaz/stool", "Stool", "Kitchen")
    assert (stool.author, stool.licence) == ("André", "CC-BY-3.0-US")
    assert stool.size == pytest.approx((0.4, 0.5, 0.6))
    assert stool.top == pytest.approx(0.59)
    surface = read(stool.load())
    assert len(surface.faces) == 4
    assert surface.texels[0, 0] == 255  # the material is found, though its letters and its folder differ
    np.testing.assert_allclose(rotation(lamp.turn) @ (0, 0, 1), (1, 0, 0))
    assert rotation(stool.turn).tolist() == np.eye(3).tolist()


def test_objects_are_prepared_named_and_left_out_for_a_reason(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "fetch", lambda folder, mirror: [package])
    assert list(debian.prepare(tmp_path / "out")) == [(1, 2), (2, 2)]
    (stool, lamp), nouns = things.read(tmp_path / "out")
    assert (stool.noun, stool.kept, stool.colour) == ("stool", True, "red")
    assert stool.flat
    assert stool.small
    assert not lamp.kept
    assert "no visible triangles" in lamp.reason
    assert nouns["stool"].colours == ("red",)
    surface = things.load(tmp_path / "out", stool)
    np.testing.assert_allclose(np.ptp(surface.bounds, axis=0), (0.5, 0.4, 0.6), rtol=1e-5)
    table = list(things.rows((tmp_path / "out" / "catalogue.csv").read_text()))
    assert [row["id"] for row in table] == ["KatorLegaz/stool", "KatorLegaz/lamp"]
    assert table[0]["size"] == "0.4x0.5x0.6"
    assert len(table[0]["sha256"]) == 64


def test_a_package_that_is_not_the_expected_one_is_refused(tmp_path):
    (tmp_path / PACKAGES[0].file).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the sweethome3d-furniture"):
        fetch(tmp_path)
    with pytest.raises(ValueError, match="no Debian package"):
        unpack(tmp_path / PACKAGES[0].file, tmp_path)


def test_without_a_connection_the_way_out_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"apt-get download sweethome3d-furniture.*--mirror"):
        fetch(tmp_path, "http://127.0.0.1:9")


def test_a_downloaded_package_is_kept_only_if_it_is_whole(tmp_path, monkeypatch):
    made = Package("pool/small.deb", "0" * 64)
    monkeypatch.setattr(sources, "PACKAGES", (made,))
    place = tmp_path / "mirror" / "pool"
    place.mkdir(parents=True)
    (place / "small.deb").write_bytes(b"bytes")
    with pytest.raises(ValueError, match=r"not the small\.deb"):
        fetch(tmp_path / "out", f"file://{tmp_path}/mirror")
    assert not (tmp_path / "out" / "small.deb").exists()
    right = Package("pool/small.deb", "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9")
    monkeypatch.setattr(sources, "PACKAGES", (right,))
    assert fetch(tmp_path / "out", f"file://{tmp_path}/mirror")[0].read_bytes() == b"bytes"


def test_every_licence_is_free():
    assert all(licence.startswith(("CC0", "CC-BY-3")) for licence in LICENCES.values())


def test_window_panes_are_of_glass_and_what_follows_is_not(tmp_path):
    text = (
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\ng frame\nusemtl wood\nf 1 2 3\n"
        "g sweethome3d_window_pane_1\nusemtl wood\nf 1 2 4\ng sill\nf 1 3 4\n"
    )
    archive = tmp_path / "sweethome3d.jar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("window.obj", text)
        file.writestr("com/eteks/sweethome3d/j3d/OBJLoader.class", b"\x01\x00newmtl wood\nKd 0.5 0.25 0\n\x01\x00\x05odd")
    entry = sources.Entry("sweethome3d/window", "Window", "", "eTeks", "", (1, 1, 1), (), True, 0.0, archive, "window.obj")
    surface = read(entry.load())
    faces = {name: int((surface.labels == k).sum()) for k, name in enumerate(surface.names)}
    assert faces == {"wood": 2, "pane": 1}
    assert len(read(entry.load(), least=0.5).faces) == 2
