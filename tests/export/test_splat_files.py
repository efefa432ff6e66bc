"""Files of splats: what is lost, what they are taken for, whose axes they have; and what is refused."""

import gzip
import json
import struct
import warnings
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
import trimesh
from spz4 import as_version_4

from rl3d.assets import load_asset
from rl3d.cameras import look_at_origin
from rl3d.export.splats.files import SplatKind, read_splats, splat_bytes, splat_kind
from rl3d.export.splats.gltf import splats_from_glb
from rl3d.export.splats.spz import splats_from_spz
from rl3d.math import rotation_from_quat
from rl3d.render.gaussians import look_at
from rl3d.types import Splats

KINDS = get_args(SplatKind)


def some(n=600, degree=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    sh = torch.cat([draw(n, 1, 3).clamp(-1.7, 1.7), (0.2 * draw(n, (degree + 1) ** 2 - 1, 3)).clamp(-0.9, 0.9)], 1)
    return Splats(0.3 * draw(n, 3), 0.5 * draw(n, 3) - 4, draw(n, 4), draw(n), sh)


def written(tmp_path, splats, kind):
    (tmp_path / f"a.{kind}").write_bytes(splat_bytes(splats, kind))
    return tmp_path / f"a.{kind}"


def matched(found, wanted):
    """Found Gaussians in the order of those wanted: some formats have their own."""
    order = torch.cdist(wanted.means.double(), found.means.double()).argmin(1)
    assert len(order.unique()) == len(found) == len(wanted)
    return found[order]


LOSSES = {  # of places, logarithms of scale, opacities, cosines between axes, colour, harmonics: at most
    "ply": (0, 0, 1e-7, 1e-6, 0, 0),
    "glb": (1e-7, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6),
    # Its harmonics are rounded to 1/8 in the turned axes, where one of ours is a sum of several.
    "spz": (2**-17, 1 / 32, 0.51 / 255, 1e-5, 0.0038, 1 / 8),
    "splat": (0, 1e-6, 0.51 / 255, 3e-4, 0.51 / 255, None),
    "compressed.ply": (1e-3, 2e-3, 0.51 / 255, 1e-5, 0.51 / 255, 1 / 64),
}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_loses_no_more_than_it_says(tmp_path, kind, degree):
    wanted = some(degree=degree)
    path = written(tmp_path, wanted, kind)
    assert splat_kind(path) == kind
    found = matched(read_splats(path), wanted)
    place, scale, opacity, turn, color, harmonics = LOSSES[kind]
    assert found.sh_degree == (0 if kind == "splat" else degree)
    near = lambda a, b, far: torch.testing.assert_close(a, b, atol=far + 1e-9, rtol=0)  # noqa: E731
    near(found.means, wanted.means, place)
    near(found.log_scales, wanted.log_scales, scale)
    near(found.opacity_logits.sigmoid(), wanted.opacity_logits.sigmoid(), opacity)
    near(0.2820948 * found.sh[:, 0], 0.2820948 * wanted.sh[:, 0], color)
    if harmonics is not None:
        near(found.sh[:, 1:], wanted.sh[:, 1:], harmonics)
    assert (rotation_from_quat(found.quats) * rotation_from_quat(wanted.quats)).sum(1).min() > 1 - turn


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_written_again_without_a_further_loss(tmp_path, kind):
    once = read_splats(written(tmp_path, some(degree=2), kind))
    twice = matched(read_splats(written(tmp_path, once, kind)), once)
    torch.testing.assert_close(twice.means, once.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(twice.opacity_logits.sigmoid(), once.opacity_logits.sigmoid(), atol=1e-6, rtol=0)
    torch.testing.assert_close(twice.sh, once.sh, atol=4e-3 if kind == "compressed.ply" else 1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ply", "compressed.ply", "spz", "glb"])
def test_the_content_tells_the_kind_whatever_the_name(tmp_path, kind):
    path = written(tmp_path, some(5), kind).rename(tmp_path / "a.bin")
    assert splat_kind(path) == kind
    assert len(read_splats(path)) == 5


def test_spz_and_gltf_have_y_up_and_the_front_along_z(tmp_path):
    wanted = some(degree=1)
    for kind, read in (("spz", splats_from_spz), ("glb", splats_from_glb)):
        path = written(tmp_path, wanted, kind)
        raw = read(path.read_bytes())
        x, y, z = wanted.means.unbind(1)
        torch.testing.assert_close(raw.means, torch.stack([y, z, x], 1), atol=1e-5, rtol=0)
        torch.testing.assert_close(read_splats(path, up="z").means, raw.means)
        torch.testing.assert_close(read_splats(path, up="y").means, wanted.means, atol=1e-5, rtol=0)
    path = written(tmp_path, wanted, "splat")
    torch.testing.assert_close(matched(read_splats(path), wanted).means, wanted.means)
    turned = read_splats(path, up="y").means
    assert {tuple(p) for p in turned.tolist()} == {tuple(p) for p in wanted.means[:, [2, 0, 1]].tolist()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens_as_an_asset_and_looks_alike(tmp_path, kind):
    wanted = some(300, degree=1)
    wanted = replace(wanted, means=0.8 * wanted.means / wanted.means.norm(dim=1).max())
    cameras = look_at_origin(torch.tensor([[40.0, 200]]), torch.tensor([[20.0, -10]]), width=48, height=48)
    seen, truth = load_asset(written(tmp_path, wanted, kind)).look(cameras), look_at(wanted)(cameras)
    if kind == "splat":
        truth = look_at(replace(wanted, sh=wanted.sh[:, :1]))(cameras)
    assert (seen.rgb - truth.rgb).square().mean().sqrt() < 0.01


# SPZ: what its older versions look like, made value by value as load-spz.cc does.


def spz_by_hand(version, n=40, degree=1):
    rng = np.random.default_rng(version)
    place = rng.integers(-5000, 5000, (n, 3))
    half = rng.normal(size=(n, 3)).astype("<f2")
    alpha, color, scale, sh = (rng.integers(1, 255, (n, w), dtype=np.uint8) for w in (1, 3, 3, 3 * ((degree + 1) ** 2 - 1)))
    xyzw = rng.normal(size=(n, 4))
    xyzw /= np.linalg.norm(xyzw, axis=1, keepdims=True)
    body = bytearray(struct.pack("<4sIIBBBB", b"NGSP", version, n, degree, 12, 0, 0))
    for row in place:
        for value in row if version > 1 else ():
            body += int(value).to_bytes(3, "little", signed=True)
    body += half.tobytes() if version == 1 else b""
    body += alpha.tobytes() + color.tobytes() + scale.tobytes()
    for q in xyzw:
        if version < 3:
            q = q if q[3] > 0 else -q
            body += bytes(np.clip(np.round(127.5 * q[:3] + 127.5), 0, 255).astype(int).tolist())
            continue
        largest = int(np.abs(q).argmax())
        word = largest
        for i in range(4):
            if i != largest:
                sign = (q[i] < 0) != (q[largest] < 0)
                word = word << 10 | sign << 9 | int(511 * abs(q[i]) * 2**0.5 + 0.5)
        body += struct.pack("<I", word)
    return bytes(body + sh.tobytes()), half if version == 1 else place / 4096, xyzw[:, [3, 0, 1, 2]], alpha, color, scale, sh


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_spz_files_are_read(version):
    body, place, quats, alpha, color, scale, sh = spz_by_hand(version)
    found = splats_from_spz(gzip.compress(body))
    np.testing.assert_allclose(found.means, place, atol=1e-6)
    np.testing.assert_allclose(found.opacity_logits.sigmoid()[:, None], alpha / 255, atol=1e-6)
    np.testing.assert_allclose(found.sh[:, 0], (color / 255 - 0.5) / 0.15, atol=1e-6)
    np.testing.assert_allclose(found.log_scales, scale / 16 - 10, atol=1e-6)
    np.testing.assert_allclose(found.sh[:, 1:].reshape(40, 9), (sh / 1.0 - 128) / 128, atol=1e-6)
    wanted = rotation_from_quat(torch.from_numpy(quats).float())
    # Before version 3, w is what is left of the length, and worst where it is small.
    assert (rotation_from_quat(found.quats) * wanted).sum(1).min() > 1 - (1e-5 if version == 3 else 2e-2)


@pytest.mark.parametrize("degree", [0, 2])
def test_spz_of_version_4_holds_the_same(degree):
    data = splat_bytes(some(degree=degree), "spz")
    packed = as_version_4(data)
    for name, x in splats_from_spz(packed).tensors().items():
        assert torch.equal(x, splats_from_spz(data).tensors()[name])
    toc, first = slice(32, 48), 32 + 16 * packed[15]
    for spoilt, message in (
        (packed[:-1], "cut short"),
        (packed[:40], "5 attributes|6 attributes"),
        (packed[:32] + struct.pack("<QQ", 10**15, 5400) + packed[48:], "cut short"),
        (packed[:32] + struct.pack("<QQ", *struct.unpack("<Q8x", packed[toc]), 10**15) + packed[48:], "unpacks to"),
        (packed[:8] + struct.pack("<I", 2**31) + packed[12:], "packed ones can hold"),
        (packed[:first] + bytes(4) + packed[first + 4 :], "broken SPZ: stream 0"),
    ):
        with pytest.raises(ValueError, match=message):
            splats_from_spz(spoilt)


def test_extensions_of_spz_are_ignored_with_a_warning():
    body = bytearray(spz_by_hand(3)[0])
    body[14] |= 2
    with pytest.warns(UserWarning, match="extensions"):
        assert len(splats_from_spz(gzip.compress(bytes(body) + struct.pack("<III", 0xADBE0002, 4, 0)))) == 40


def test_spz_of_degree_4_loses_it_with_a_warning():
    with pytest.warns(UserWarning, match="degree 4"):
        found = splats_from_spz(gzip.compress(spz_by_hand(3, degree=4)[0]))
    assert found.sh_degree == 3


def test_places_far_out_are_stored_less_finely(tmp_path):
    far = replace(some(50), means=1e5 * some(50).means)
    found = read_splats(written(tmp_path, far, "spz"))
    torch.testing.assert_close(found.means, far.means, atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="units from the origin"):
        splat_bytes(replace(far, means=1e3 * far.means), "spz")


def test_a_bomb_is_not_unpacked(tmp_path):
    """Twenty million Gaussians of zeros in a megabyte; one that says so, and one whose header claims a few."""
    zeros = bytes(20_000_000)
    for n in (1_000_000, 3, 2**32 - 1):
        data = gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, n, 0, 12, 0, 0) + zeros)
        (tmp_path / "a.spz").write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.spz is (broken|cut short or padded)"):
            read_splats(tmp_path / "a.spz")


# glTF: nodes, integers, and what is refused.


def repacked(data, change):
    """A GLB whose JSON, and bytes behind it, were changed."""
    size = int.from_bytes(data[12:16], "little")
    document, binary = json.loads(data[20 : 20 + size]), bytearray(data[28 + size :])
    change(document, binary)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(binary), len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(binary), b"BIN\0") + bytes(binary)


def test_nodes_move_turn_and_scale_splats():
    """As covariances say it: M C M^T, whatever M; harmonics turn along."""
    data = splat_bytes(some(60, degree=2), "glb")
    plain = splats_from_glb(data)
    outer = {"translation": [1, 2, 3], "rotation": [0.5, -0.5, 0.5, 0.5], "children": [1]}
    for scale in ([2, 2, 2], [1, 2, 0.5]):
        inner = {"mesh": 0, "scale": scale}
        found = splats_from_glb(repacked(data, lambda d, b, inner=inner: d.update(nodes=[outer, inner])))
        turn = rotation_from_quat(torch.tensor([0.5, 0.5, -0.5, 0.5]))
        m = turn @ torch.diag(torch.tensor(scale).float())
        torch.testing.assert_close(found.means, plain.means @ m.T + torch.tensor([1.0, 2, 3]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(covariances(found), m @ covariances(plain) @ m.T, atol=1e-6, rtol=1e-4)
        assert (found.sh[:, 0] == plain.sh[:, 0]).all()
        torch.testing.assert_close(found.sh[:, 1:].norm(dim=1), plain.sh[:, 1:].norm(dim=1), atol=1e-5, rtol=0)
    twice = repacked(data, lambda d, b: d.update(nodes=[{"mesh": 0}, {"mesh": 0}], scenes=[{"nodes": [0, 1]}]))
    assert len(splats_from_glb(twice)) == 120


def covariances(s):
    axes = rotation_from_quat(s.quats) * s.log_scales.exp()[:, None]
    return axes @ axes.mT


def test_integers_and_strides_are_read():
    data = splat_bytes(some(9, degree=0), "glb")
    plain = splats_from_glb(data)

    def pack(document, binary):
        of = document["meshes"][0]["primitives"][0]["attributes"]
        for name, code, kind, most in (
            ("OPACITY", 5121, "<u1", 255),
            ("ROTATION", 5122, "<i2", 32767),
            ("SCALE", 5123, "<u2", 65535),
        ):
            accessor = document["accessors"][of[f"KHR_gaussian_splatting:{name}"]]
            width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
            start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
            x = np.frombuffer(bytes(binary[start : start + 36 * width]), "<f4").reshape(9, width)
            rows = np.zeros((9, 12), np.uint8)
            rows[:, : width * np.dtype(kind).itemsize] = np.rint(x * most).astype(kind).view(np.uint8).reshape(9, -1)
            view = {"buffer": 0, "byteOffset": len(binary), "byteLength": 108, "byteStride": 12}
            accessor.update(bufferView=len(document["bufferViews"]), componentType=code, normalized=True)
            document["bufferViews"].append(view)
            binary += rows.tobytes()
        document["buffers"][0]["byteLength"] = len(binary)

    found = splats_from_glb(repacked(data, pack))
    torch.testing.assert_close(found.opacity_logits.sigmoid(), plain.opacity_logits.sigmoid(), atol=0.51 / 255, rtol=0)
    torch.testing.assert_close(found.log_scales.exp(), plain.log_scales.exp(), atol=1 / 65535, rtol=0)
    torch.testing.assert_close(found.quats, plain.quats, atol=1 / 32767, rtol=0)


def about(document):
    return document["meshes"][0]["primitives"][0]["extensions"]["KHR_gaussian_splatting"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, b: d["nodes"][0].update(children=[0]), "two parents"),
        (lambda d, b: d.update(nodes=[{"mesh": 0}] * 999, scenes=[{"nodes": list(range(999))}]), "or more out of"),
        (lambda d, b: d["nodes"][0].update(scale=[-1, 1, 1]), "mirrors"),
        (lambda d, b: d["nodes"][0].update(translation=[1e400, 0, 0]), "not finite"),
        (lambda d, b: d["accessors"][0].update(count=10**15), "or more out of"),
        (lambda d, b: d["accessors"][0].update(count=3), "not \\[3 "),
        (lambda d, b: d["accessors"][2].update(count=-3), "where an index must"),
        (lambda d, b: d["bufferViews"][3].update(byteOffset=10**9), "do not fit"),
        (lambda d, b: d["bufferViews"][3].update(byteStride=1), "do not fit"),
        (lambda d, b: d["accessors"][3].pop("bufferView"), "sparse or empty"),
        (lambda d, b: d["buffers"][0].update(uri="a.bin"), "outside"),
        (lambda d, b: d.update(extensionsRequired=["EXT_meshopt_compression"]), "EXT_meshopt_compression"),
        (lambda d, b: about(d).update(colorSpace="lin_rec709_display"), "linear"),
        (lambda d, b: about(d).update(extensions={"KHR_spz": {}}), "KHR_spz"),
        (lambda d, b: d["scenes"].clear() or d["meshes"].clear(), "holds no splats"),
        (lambda d, b: d.update(accessors=7), "broken GLB"),
        (lambda d, b: d.update(scene=-1), "where an index must"),
        (lambda d, b: b.clear(), "do not fit|or more out of"),
    ],
)
def test_hostile_gltf_is_refused(tmp_path, change, message):
    path = tmp_path / "a.glb"
    path.write_bytes(repacked(splat_bytes(some(20, degree=1), "glb"), change))
    with pytest.raises(ValueError, match=rf"a\.glb .*({message})"):
        read_splats(path)


# What is no file of splats; and values that are not finite.


def test_other_files_are_named_for_what_they_are(tmp_path):
    box = trimesh.creation.box()
    (tmp_path / "a.glb").write_bytes(box.export(file_type="glb"))
    (tmp_path / "a.ply").write_bytes(box.export(file_type="ply"))
    (tmp_path / "text.ply").write_bytes(box.export(file_type="ply", encoding="ascii"))
    (tmp_path / "points.ply").write_bytes(trimesh.PointCloud(box.vertices).export(file_type="ply"))
    (tmp_path / "a.gltf").write_text("{}")
    (tmp_path / "a.spz").write_bytes(b"")
    (tmp_path / "a.splat").write_bytes(b"123")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4")
    for name, what in (
        ("a.glb", "so a mesh"),
        ("a.ply", "PLY of a mesh"),
        ("text.ply", "PLY of a mesh"),
        ("points.ply", "PLY of points"),
        ("a.gltf", "one .glb"),
        ("a.spz", "is empty"),
        ("a.splat", "do not divide by 32"),
        ("a.zip", "neither a PLY"),
        ("none.ply", "cannot read .*No such file"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*{what}" if name != "none.ply" else what):
            read_splats(tmp_path / name)
    assert splat_kind(tmp_path / "a.glb") is None
    assert splat_kind(tmp_path / "a.ply") is None
    assert load_asset(tmp_path / "a.glb").surface is not None


@pytest.mark.parametrize("kind", KINDS)
def test_broken_gaussians_are_dropped_and_counted_and_infinities_that_mean_something_kept(tmp_path, kind):
    splats = some(20, degree=0)
    splats.means[3, 1] = float("nan")
    splats.sh[4, 0, 0] = float("inf")
    splats.log_scales[5, 2] = float("inf")
    splats.opacity_logits[6:8] = torch.tensor([float("inf"), -float("inf")])
    splats.log_scales[8, 0] = -float("inf")
    splats.quats[9] = 0
    with pytest.warns(UserWarning, match="dropped 3 of 20"):
        path = written(tmp_path, splats, kind)
    keep = torch.arange(20)[[i not in (3, 4, 5) for i in range(20)]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = matched(read_splats(path), splats[keep])
    at = {int(i): j for j, i in enumerate(keep)}
    assert all(x.isfinite().all() for x in found.tensors().values())
    assert found.opacity_logits[at[6]].sigmoid() > 0.999
    assert found.opacity_logits[at[7]].sigmoid() < 0.001
    assert found.log_scales[at[8], 0] < -9
    assert rotation_from_quat(found.quats[at[9]]).abs().amax(1).min() > 0.999
    with pytest.raises(ValueError, match="each of its 20"):
        splat_bytes(replace(splats, means=splats.means + float("nan")), kind)


def test_nan_in_a_file_is_dropped_with_a_warning(tmp_path):
    data = bytearray(splat_bytes(some(20), "splat"))
    data[32 * 7 : 32 * 7 + 4] = struct.pack("<f", float("nan"))
    data[32 * 9 + 12 : 32 * 9 + 16] = struct.pack("<f", -1.0)
    (tmp_path / "a.splat").write_bytes(data)
    with pytest.warns(UserWarning, match="dropped 2 of 20"):
        assert len(read_splats(tmp_path / "a.splat")) == 18


def test_nothing_is_not_written():
    with pytest.raises(ValueError, match="no Gaussians"):
        splat_bytes(some(5)[:0], "spz")
