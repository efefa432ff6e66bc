import numpy as np
import pytest
import torch
import trimesh

from rl3d.export.ply import ply_bytes, read_ply, write_ply
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
