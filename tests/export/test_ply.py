import numpy as np
import pytest
import torch
import trimesh

from rl3d.export.splats.ply import ply_bytes, read_ply, write_ply
from rl3d.types import Splats


def splats(n=5, degree=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Splats(
        torch.randn(n, 3, generator=rng),
        torch.randn(n, 3, generator=rng) - 3,
        torch.nn.functional.normalize(torch.randn(n, 4, generator=rng), dim=-1),
        torch.randn(n, generator=rng),
        torch.randn(n, (degree + 1) ** 2, 3, generator=rng),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_round_trip_is_exact(tmp_path, degree, n):
    s = splats(n, degree)
    write_ply(tmp_path / "a.ply", s)
    for name, x in read_ply(tmp_path / "a.ply").tensors().items():
        torch.testing.assert_close(x, s.tensors()[name], atol=1e-7, rtol=1e-6)


def test_another_program_reads_it(tmp_path):
    s = splats(4)
    write_ply(tmp_path / "a.ply", s)
    cloud = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.vertices, s.means.numpy(), rtol=1e-6)
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    # Harmonics lie channel by channel: the first three f_rest are red's.
    np.testing.assert_allclose(raw["f_rest_1"].ravel(), s.sh[:, 2, 0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(raw["f_rest_3"].ravel(), s.sh[:, 1, 1].numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b[:-3], lambda b: b + b"x", lambda b: b"", lambda b: b.replace(b"opacity", b"opacitx"), lambda b: b[:40]],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "spoilt.ply"
    path.write_bytes(spoil(ply_bytes(splats())))
    with pytest.raises(ValueError, match=r"spoilt\.ply"):
        read_ply(path)


def as_table(s: Splats, order: str, number: str = "f4", extra: str = ""):
    """The rows of a splat PLY by hand, as NumPy's structured arrays."""
    names = ["opacity", "x", "y", "z", "rot_0", "rot_1", "rot_2", "rot_3", "scale_0", "scale_1", "scale_2"]
    names += ["f_dc_0", "f_dc_1", "f_dc_2", *(["red", "green"] if extra else [])]
    dtype = np.dtype([(name, order + ("u1" if name in ("red", "green") else number)) for name in names])
    table = np.zeros(len(s), dtype)
    flat = torch.cat([s.opacity_logits[:, None], s.means, s.quats, s.log_scales, s.sh[:, 0]], 1).numpy()
    for i, name in enumerate(names[:14]):
        table[name] = flat[:, i]
    return table


TYPES = {"f4": "float", "f8": "double", "u1": "uchar"}


def by_hand(table, order, before="", after="", lines="\n"):
    kind = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    properties = "".join(f"property {TYPES[table.dtype[name].str[1:]]} {name}\n" for name in table.dtype.names)
    text = f"ply\nformat {kind} 1.0\n{before}element vertex {len(table)}\n{properties}{after}end_header\n"
    return text.replace("\n", lines).encode() + table.tobytes()


@pytest.mark.parametrize(
    ("order", "number", "extra", "around"),
    [
        (">", "f4", "", {}),
        ("<", "f8", "", {}),
        ("<", "f4", "colours", {"before": "comment end_header is not here\nobj_info by hand\n\n"}),
        ("<", "f4", "", {"lines": "\r\n"}),
        (">", "f8", "colours", {"after": "element face 0\nproperty list uchar int vertex_indices\n"}),
        ("<", "f4", "", {"after": "element camera 0\nproperty double fov\n"}),
    ],
)
def test_headers_of_others_are_read(tmp_path, order, number, extra, around):
    s = splats(6, degree=0)
    (tmp_path / "a.ply").write_bytes(by_hand(as_table(s, order, number, extra), order, **around))
    for name, x in read_ply(tmp_path / "a.ply").tensors().items():
        torch.testing.assert_close(x, s.tensors()[name])


def test_elements_before_and_after_are_passed_over(tmp_path):
    s = splats(6, degree=0)
    table = as_table(s, "<")
    plain = by_hand(table, "<", before="element camera 2\nproperty double fov\n")
    data = plain[: -table.nbytes] + np.ones(2).tobytes() + table.tobytes()
    (tmp_path / "a.ply").write_bytes(data)
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").means, s.means)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"vertex 5", b"vertex 999999999999999", "cut short: 999999999999999 rows"),
        (b"vertex 5", b"vertex 99999999999999999999", "line in its PLY header"),
        (b"vertex 5", b"vertex -5", "line in its PLY header"),
        (b"vertex 5", b"vertex 4", "padded"),
        (b"vertex 5", b"vertices 5", "no element 'vertex'"),
        (b"property float nx", b"property float x", "line in its PLY header"),
        (b"property float nx", b"property quad nx", "line in its PLY header"),
        (b"property float nx", b"property list uchar float nx", "lists in it"),
        (b"element vertex 5\n", b"", "line in its PLY header"),
        (b"little_endian 1.0", b"little_endian 2.0", "line in its PLY header"),
        (b"format binary_little_endian 1.0\n", b"", "no PLY format"),
        (b"binary_little_endian", b"ascii", "in text form"),
        (b"end_header", b"comment " + b"x" * 100_000 + b"\nend_header", "does not end"),
        (b"property float f_rest_8\n", b"property float g\n", "has 8 f_rest"),
        (b"property float scale_2\n", b"property float g\n", "lacks scale_2"),
        (b"ply\n", b"plot\n", "does not begin"),
    ],
)
def test_hostile_headers_are_refused_with_what_is_wrong(tmp_path, old, new, message):
    data = ply_bytes(splats())
    assert old in data
    (tmp_path / "a.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"a\.ply .*{message}"):
        read_ply(tmp_path / "a.ply")


def test_plyfile_reads_it(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    s = splats(4, degree=3)
    write_ply(tmp_path / "a.ply", s)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    np.testing.assert_array_equal(vertex["x"], s.means[:, 0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_44"], s.sh[:, 15, 2].numpy())
    np.testing.assert_array_equal(vertex["opacity"], s.opacity_logits.numpy())
