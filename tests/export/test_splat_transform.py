"""PlayCanvas' splat-transform reads what we write, and we what it writes."""

import json
from dataclasses import replace

import pytest
import torch
from node import node, node_package

from rl3d.export.splats.files import read_splats, splat_bytes
from rl3d.export.splats.ply import read_ply, write_ply
from rl3d.geometry.turn import turned
from rl3d.math import rotation_from_quat
from rl3d.types import Splats


def some(n=700, degree=3, seed=1):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    sh = torch.cat([draw(n, 1, 3).clamp(-3, 3), (0.2 * draw(n, (degree + 1) ** 2 - 1, 3)).clamp(-0.9, 0.9)], 1)
    return Splats(0.4 * draw(n, 3), 0.5 * draw(n, 3) - 4, draw(n, 4), draw(n), sh)


@pytest.fixture
def transform():
    cli = node_package("@playcanvas/splat-transform") / "bin" / "cli.mjs"
    return lambda *arguments: node(cli, "-q", "-w", *arguments)


def as_its_ply(splats: Splats) -> Splats:
    """What it makes of an SPZ file's Gaussians in PLY: version 2 takes PLY for y down, version 3 leaves axes as they are."""
    version = json.loads((node_package("@playcanvas/splat-transform") / "package.json").read_text())["version"]
    return turned(splats, (0.0, 1, 0, 0)) if version.startswith("2.") else splats


def agree(found: Splats, wanted: Splats, *, places=1e-6, scales=1e-5, logits=1e-5, turn=2e-6, sh=1e-5):
    """The same Gaussians in any order, within the largest differences of each field; turn is 1 - cosine between axes."""
    assert len(found) == len(wanted)
    match = torch.cdist(wanted.means.double(), found.means.double()).argmin(1)
    assert len(match.unique()) == len(wanted)
    found = found[match]
    torch.testing.assert_close(found.means, wanted.means, atol=places, rtol=0)
    torch.testing.assert_close(found.log_scales, wanted.log_scales, atol=scales, rtol=0)
    torch.testing.assert_close(found.opacity_logits, wanted.opacity_logits, atol=logits, rtol=0)
    torch.testing.assert_close(found.sh, wanted.sh, atol=sh, rtol=0)
    # Axes may point either way.
    along = (rotation_from_quat(found.quats) * rotation_from_quat(wanted.quats)).sum(1).abs()
    assert along.min() > 1 - turn


@pytest.mark.parametrize("kind", ["ply", "compressed.ply", "splat", "spz"])
def test_it_reads_what_we_write_as_we_do(tmp_path, transform, kind):
    ours = tmp_path / f"ours.{kind}"
    ours.write_bytes(splat_bytes(some(), kind))
    transform(ours, tmp_path / "theirs.ply")
    wanted = read_splats(ours, up="z")
    wanted = as_its_ply(wanted) if kind == "spz" else wanted
    # It divides quaternions of .splat by 127.5, not by 128.
    agree(read_ply(tmp_path / "theirs.ply"), wanted, turn=2e-6 if kind != "splat" else 4e-4)


@pytest.mark.parametrize(
    ("kind", "flags", "far"),
    [
        ("compressed.ply", (), {"places": 2e-3, "scales": 2e-3, "logits": 0.04, "turn": 1e-5, "sh": 0.02}),
        ("v3.spz", ("--spz-version", "3"), {"places": 1.3e-4, "scales": 0.032, "logits": 0.04, "turn": 1e-5, "sh": 0.07}),
        ("v4.spz", (), {"places": 1.3e-4, "scales": 0.032, "logits": 0.04, "turn": 1e-5, "sh": 0.07}),
    ],
)
def test_we_read_what_it_writes(tmp_path, transform, kind, flags, far):
    if kind == "v4.spz":
        pytest.importorskip("zstandard")
    write_ply(tmp_path / "ours.ply", some())
    transform(*flags, tmp_path / "ours.ply", tmp_path / f"theirs.{kind}")
    wanted = as_its_ply(some()) if kind.endswith("spz") else some()
    agree(read_splats(tmp_path / f"theirs.{kind}", up="z"), wanted, **far)


def test_we_read_its_gltf_where_it_turns_harmonics_as_we_do(tmp_path, transform):
    # It takes PLY for y down and turns it by half a turn around z.
    write_ply(tmp_path / "ours.ply", some())
    transform(tmp_path / "ours.ply", tmp_path / "theirs.glb")
    agree(read_splats(tmp_path / "theirs.glb", up="z"), turned(some(), (0.0, 0, 0, 1)), sh=1e-5, logits=1e-4)


def test_a_quarter_turn_of_harmonics_agrees(tmp_path, transform):
    write_ply(tmp_path / "ours.ply", some(n=50))
    transform(tmp_path / "ours.ply", "-r", "30,0,0", tmp_path / "theirs.ply")
    angle = torch.tensor(30.0).deg2rad() / 2
    found = read_ply(tmp_path / "theirs.ply")
    # Its angles are those of its own axes, which are ours turned half around z.
    wanted = turned(some(n=50), (float(angle.cos()), -float(angle.sin()), 0, 0))
    agree(found, wanted, places=1e-5, sh=1e-4)


def test_opaque_gaussians_of_another_program_are_not_lost(tmp_path, transform):
    opaque = replace(some(), opacity_logits=torch.full((700,), 30.0))
    (tmp_path / "ours.compressed.ply").write_bytes(splat_bytes(opaque, "compressed.ply"))
    transform(tmp_path / "ours.compressed.ply", tmp_path / "theirs.ply")
    found = read_ply(tmp_path / "theirs.ply")
    assert len(found) == 700
    assert (found.opacity_logits.sigmoid() > 0.999).all()
    assert found.opacity_logits.isfinite().all()


def test_khronos_validator_finds_nothing_but_names_that_it_does_not_know(tmp_path):
    validator = node_package("gltf-validator")
    (tmp_path / "a.glb").write_bytes(splat_bytes(some(), "glb"))
    script = tmp_path / "check.cjs"
    script.write_text(
        f"require({json.dumps(str(validator))}).validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[2])))"
        ".then(report => console.log(JSON.stringify(report)))"
    )
    report = json.loads(node(script, tmp_path / "a.glb"))
    # Names of attributes that begin with an extension's: https://github.com/KhronosGroup/glTF-Validator/issues/252
    names = ("MESH_PRIMITIVE_INVALID_ATTRIBUTE", "UNSUPPORTED_EXTENSION")
    others = [m for m in report["issues"]["messages"] if m["code"] not in names or "KHR_gaussian" not in str(m)]
    assert not others
    assert report["info"]["totalVertexCount"] == 700
