"""Where named meshes come from: Debian's packages of Sweet Home 3D, fetched whole, checked, and read without installing them.

A package is an ``ar`` archive around a compressed tar; a catalogue in it is a zip of meshes with a properties file, which says
of each its name, category, author, true size and turn. Nothing of the meshes belongs to this repository.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import urllib.request
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray
from trimesh.resolvers import Resolver

from rl3d.files import write_whole

MIRROR = "http://deb.debian.org/debian"
"""Debian's own address, which finds a mirror nearby. What comes is checked by its SHA-256, so plain HTTP will do."""

CENTIMETRE = 0.01

PANES = b"sweethome3d_window_pane"
PANE = b"\nnewmtl pane\nKd 0.85 0.9 0.95\nd 0.4\n"


@dataclass(frozen=True)
class Package:
    """A Debian package, by its place in the archive."""

    path: str
    sha256: str

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[1]


PACKAGES = (
    Package(
        "pool/main/s/sweethome3d-furniture/sweethome3d-furniture_1.8-1_all.deb",
        "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ),
    Package(
        "pool/main/s/sweethome3d/sweethome3d_7.0.2+dfsg-3_all.deb",
        "54bce4394ae763da1ffccff8f025565ce7161dc6934371e07480034ef155c411",
    ),
)

LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
    "sweethome3d": "CC-BY-3.0 OR GPL-2.0-or-later",
}
"""By catalogue, as its LICENSE.TXT (in the jar, the head of each mesh) says."""


@dataclass(frozen=True)
class Entry:
    """A mesh as its catalogue lists it."""

    id: str
    """The catalogue and a name in it: "Scopia/bed1"."""
    name: str
    """What the catalogue calls it: "Bed 140x190"."""
    category: str
    author: str
    licence: str
    """An SPDX expression."""
    size: tuple[float, float, float]
    """Width, depth and height in metres."""
    turn: tuple[float, ...]
    """A rotation to apply first, row by row, in the mesh's own axes; empty for none."""
    movable: bool
    top: float
    """Height in metres at which things can be set down on it; negative: not at all, 0: not said."""
    archive: Path = field(repr=False)
    member: str = field(repr=False)

    @property
    def source(self) -> str:
        return self.id.split("/")[0]

    def load(self) -> trimesh.Scene:
        """Read the mesh with its materials, in its own axes: y is up, and the front towards +z."""
        with zipfile.ZipFile(self.archive) as archive:
            text = _with_panes(archive.read(self.member))
            if b"mtllib" not in text:
                text = b"mtllib " + _Inside.DEFAULT.encode() + b"\n" + text
            resolver = _Inside(archive, PurePosixPath(self.member).parent)
            return trimesh.load_scene(io.BytesIO(text), file_type="obj", resolver=resolver, process=False)

    def sha256(self) -> str:
        """The checksum of the mesh's file."""
        with zipfile.ZipFile(self.archive) as archive:
            return hashlib.sha256(archive.read(self.member)).hexdigest()


class _Inside(Resolver):
    """Finds a mesh's materials and pictures beside it in its archive."""

    DEFAULT = "materials-of-the-reader.mtl"

    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath):
        self.archive, self.folder = archive, folder

    def get(self, name: str) -> bytes:
        """Read a file. Letters of another case, and the maker's own folders before the name, are forgiven."""
        if name == self.DEFAULT:
            return _default_materials(self.archive)
        name = name.replace("\\", "/").strip()
        members = {member.lower(): member for member in self.archive.namelist()}
        for way in (name, name.rsplit("/", 1)[-1], name.rsplit(maxsplit=1)[-1]):
            if member := members.get(str(self.folder / way).lower()):
                return self.archive.read(member) + (PANE if member.lower().endswith(".mtl") else b"")
        raise ValueError(f"{name} is missing beside the mesh, in {self.folder}")

    def write(self, name: str, data: bytes) -> None:
        """Refuse: archives are read only."""
        raise ValueError(f"{name} cannot be written into an archive that is read")

    def keys(self) -> list[str]:
        return self.archive.namelist()

    def namespaced(self, namespace: str) -> _Inside:
        return _Inside(self.archive, self.folder / namespace)


def _default_materials(archive: zipfile.ZipFile) -> bytes:
    """The materials that Sweet Home 3D gives meshes without a material file: strings in its reader's compiled class."""
    compiled = archive.read("com/eteks/sweethome3d/j3d/OBJLoader.class")
    return b"\n".join(re.findall(rb"newmtl [\x09\x0a\x20-\x7e]+", compiled)) + PANE


def _with_panes(text: bytes) -> bytes:
    """Give window panes a material of glass: Sweet Home 3D sees through groups of a certain name, whatever they are made of."""
    if PANES not in text:
        return text
    lines, material, pane = [], b"", False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [b"usemtl"]:
            material = line
        elif words[:1] == [b"g"]:
            was, pane = pane, len(words) > 1 and words[1].startswith(PANES)
            if pane or was:
                lines.append(b"usemtl pane" if pane else material)
        if not (pane and words[:1] == [b"usemtl"]):
            lines.append(line)
    return b"\n".join(lines)


def fetch(folder: Path, mirror: str = MIRROR) -> list[Path]:
    """Download the packages into a folder, or take those that are there; returns their files.

    One that is not what was asked for, byte by byte, is a ``ValueError``, and is not kept.
    """
    return [_fetch(package, folder, mirror) for package in PACKAGES]


def _fetch(package: Package, folder: Path, mirror: str) -> Path:
    file = folder / package.file
    if not file.exists():
        address = f"{mirror.rstrip('/')}/{package.path}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise ValueError(
                f"cannot download {address} ({error}): put the file into {folder} yourself"
                f" (`apt-get download {package.file.split('_')[0]}`), or name another mirror with --mirror"
            ) from None
        _check(package, data, address)
        write_whole(file, data)
    else:
        _check(package, file.read_bytes(), str(file))
    return file


def _check(package: Package, data: bytes, where: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != package.sha256:
        raise ValueError(f"{where} is not the {package.file} that was expected (SHA-256 {found}, not {package.sha256})")


def unpack(package: Path, folder: Path) -> list[Path]:
    """Take the catalogues (.sh3f, .jar) out of a Debian package into a folder; returns their files."""
    files = []
    with tarfile.open(fileobj=io.BytesIO(_data_of(package.read_bytes(), package)), mode="r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and name.suffix in (".sh3f", ".jar"):
                content = archive.extractfile(member)
                assert content is not None
                file = folder / name.name
                if not file.exists() or file.stat().st_size != member.size:
                    write_whole(file, content.read())
                files.append(file)
    return files


def _data_of(data: bytes, package: Path) -> bytes:
    """The member of an ``ar`` archive that holds a Debian package's files."""
    if not data.startswith(b"!<arch>\n"):
        raise ValueError(f"{package} is no Debian package: download it again")
    at = 8
    while at + 60 <= len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError(f"{package} holds no files: download it again")


def entries(archive: Path) -> Iterator[Entry]:
    """Read what a catalogue (.sh3f or the program's .jar) lists, in its order."""
    source = archive.stem
    with zipfile.ZipFile(archive) as file:
        listing = next(name for name in file.namelist() if re.search(r"(Plugin|Default)FurnitureCatalog\.properties$", name))
        text = file.read(listing).decode("latin-1")
    listed: dict[int, dict[str, str]] = defaultdict(dict)
    for key, number, value in re.findall(r"^\s*(\w+)#(\d+)\s*=\s*(.*?)\s*$", text, re.MULTILINE):
        listed[int(number)][key] = _unescaped(value)
    for of in listed.values():
        yield Entry(
            id=f"{source}/{of['id'].split('#')[-1]}",
            name=of["name"],
            category=of["category"],
            author=of["creator"],
            licence=LICENCES[source],
            size=(float(of["width"]) * CENTIMETRE, float(of["depth"]) * CENTIMETRE, float(of["height"]) * CENTIMETRE),
            turn=tuple(float(x) for x in of.get("modelRotation", "").split()),
            movable=of["movable"] == "true",
            top=float(of.get("dropOnTopElevation", 0)) * CENTIMETRE,
            archive=archive,
            member=of["model"].lstrip("/"),
        )


def _unescaped(value: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), value)


def rotation(turn: tuple[float, ...]) -> Float[ndarray, "3 3"]:
    """An entry's turn as a matrix."""
    return np.array(turn or np.eye(3)).reshape(3, 3)
