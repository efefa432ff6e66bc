"""Scenes as data: they look as they did, are small, and a damaged or hostile file is refused without harm."""

import itertools
import json
import pickle
import threading

import pytest
import safetensors.torch
import torch
from fake_prior import blob

from rl3d.cameras import Orbit
from rl3d.files import read_tensors, tensor_bytes, write_whole
from rl3d.geometry.points import ball
from rl3d.representations.gaussians import Gaussians, GaussianSplats
from rl3d.representations.nerf import Nerf
from rl3d.run import Run
from rl3d.snapshot import is_kept, read_snapshot, saved_steps, scene_path, write_snapshot
from rl3d.types import Splats

CAMERAS = Orbit(views=2, size=24).cameras()
SMALL = Nerf(levels=3, finest=16, table=2**10, hidden=8, samples=16, occupancy_cells=8)


def gaussians(degree=0):
    scene = Gaussians(strategy=None, sh_degree=degree, eps2d=0.1, antialiased=True).build(
        ball(50, torch.Generator().manual_seed(0))
    )
    with torch.no_grad():
        scene.sh.add_(0.3 * torch.randn(scene.sh.shape, generator=torch.Generator().manual_seed(1)))
    return scene


def nerf():
    scene = SMALL.build(ball(50, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        scene.grid.table.add_(0.5 * torch.randn(scene.grid.table.shape, generator=torch.Generator().manual_seed(1)))
    return scene


@pytest.mark.parametrize("scene", [gaussians(), gaussians(3), nerf()], ids=["degree 0", "degree 3", "nerf"])
def test_a_scene_looks_as_it_did(tmp_path, scene):
    write_snapshot(tmp_path / "x", scene, 25)
    found = read_snapshot(tmp_path / "x")
    assert found.step == 25
    with torch.no_grad():
        before, after = scene.render(CAMERAS)[0], found.look(CAMERAS)
    assert before.alpha.max() > 0.5
    assert (before.rgba - after.rgba).abs().mean() < 2e-3
    assert (before.rgba - after.rgba).abs().max() < 0.03
    assert (tmp_path / "x").stat().st_size < 0.6 * sum(4 * x.numel() for x in scene.state_dict().values()) + 4000


def test_splats_come_back_to_half_precision(tmp_path):
    scene = gaussians(1)
    write_snapshot(tmp_path / "x", scene, 0)
    found = read_snapshot(tmp_path / "x").splats()
    for name, x in scene.splats().tensors().items():
        torch.testing.assert_close(found.tensors()[name], x, rtol=1e-3, atol=1e-4)
    assert read_snapshot(tmp_path / "x").scene.settings.eps2d == 0.1


def test_a_field_reads_as_gaussians_too(tmp_path):
    write_snapshot(tmp_path / "x", nerf(), 3)
    assert len(read_snapshot(tmp_path / "x").splats()) > 0


def test_reading_draws_no_random_number(tmp_path):
    write_snapshot(tmp_path / "x", nerf(), 3)
    before = torch.get_rng_state()
    read_snapshot(tmp_path / "x")
    assert torch.equal(torch.get_rng_state(), before)


def damaged(tmp_path, scene, change) -> str:
    path = tmp_path / "x"
    write_snapshot(path, scene, 25)
    tensors, about = read_tensors(path)
    change(tensors, about)
    path.write_bytes(tensor_bytes(tensors, about))
    with pytest.raises(ValueError, match="damaged") as error:
        read_snapshot(path)
    return str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda t, a: t.pop("means"),
        lambda t, a: t.update(extra=torch.zeros(1).half()),
        lambda t, a: t.update(means=t["means"][:3]),
        lambda t, a: t.update(means=t["means"].double()),
        lambda t, a: t.update(sh=t["sh"].repeat(1, 2, 1)),
        lambda t, a: t.update(sh=t["sh"].flatten()),
        lambda t, a: t["means"].fill_(float("nan")),
        lambda t, a: a.pop("step"),
        lambda t, a: a.update(step=-1),
        lambda t, a: a.update(step="1"),
        lambda t, a: a.update(snapshot="os.system"),
        lambda t, a: a.update(snapshot=["nerf"]),
        lambda t, a: a.update(snapshot="nerf"),
        lambda t, a: a.update(settings=[1]),
        lambda t, a: a["settings"].update(backend="torch"),
        lambda t, a: a["settings"].update(eps2d=float("nan")),
        lambda t, a: a["settings"].update(eps2d="0.3"),
    ],
)
def test_damaged_gaussians_are_refused(tmp_path, change):
    damaged(tmp_path, gaussians(), change)


@pytest.mark.parametrize(
    "change",
    [
        lambda t, a: t.pop("grid.table"),
        lambda t, a: t.update({"grid.table": t["grid.table"][:4]}),
        lambda t, a: t.update(occupancy=t["occupancy"].half()),
        lambda t, a: a["settings"].update(levels=10**9),
        lambda t, a: a["settings"].update(levels=-1),
        lambda t, a: a["settings"].update(samples=10**8),
        lambda t, a: a["settings"].update(table=3),
        lambda t, a: a["settings"].update(table=2**24, finest=4096, levels=32),
        lambda t, a: a["settings"].update(occupancy_cells=512),
        lambda t, a: a["settings"].update(hidden=1.5),
        lambda t, a: a["settings"].pop("chunk"),
    ],
)
def test_damaged_or_greedy_fields_are_refused(tmp_path, change):
    damaged(tmp_path, nerf(), change)


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "x"
    write_snapshot(path, gaussians(), 25)
    data = path.read_bytes()
    for end in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="damaged"):
            read_snapshot(path)


def test_flipped_bytes_are_refused_or_read_but_never_run(tmp_path):
    path = tmp_path / "x"
    write_snapshot(path, gaussians(), 25)
    data, rng = path.read_bytes(), torch.Generator().manual_seed(0)
    read = 0
    for _ in range(200):
        broken = bytearray(data)
        for at in torch.randint(0, len(data), (4,), generator=rng).tolist():
            broken[at] = int(torch.randint(0, 256, (), generator=rng))
        path.write_bytes(broken)
        try:
            found = read_snapshot(path)
        except ValueError:
            continue
        read += 1
        assert all(x.isfinite().all() for x in found.splats().tensors().values())
    assert read < 200


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "x"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="damaged"):
        read_snapshot(path)
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="damaged"):
        read_snapshot(path)
    path.write_bytes(safetensors.torch.save({"means": torch.zeros(1, 3)}, metadata={"rl3d": json.dumps([1])}))
    with pytest.raises(ValueError, match="damaged"):
        read_snapshot(path)


def test_a_scene_of_another_kind_is_not_written(tmp_path):
    class Odd:
        device, splats, state_dict, render, param_groups, refine, __len__ = (lambda self: 0,) * 7

    with pytest.raises(ValueError, match="Odd"):
        write_snapshot(tmp_path / "x", Odd(), 0)
    assert not (tmp_path / "x").exists()


def test_a_reader_sees_whole_scenes_while_they_are_replaced(tmp_path):
    path, stop, seen = tmp_path / "x", threading.Event(), []
    one, many = blob(10), blob(5000)
    write_snapshot(path, one, 10)

    def replace():
        for _ in range(60):
            write_snapshot(path, many, 5000, durable=False)
            write_snapshot(path, one, 10, durable=False)
        stop.set()

    writer = threading.Thread(target=replace)
    writer.start()
    while not stop.is_set():
        found = read_snapshot(path)
        assert len(found.scene) == found.step
        seen.append(found.step)
    writer.join()
    assert seen
    assert list(tmp_path.iterdir()) == [path]


def test_saved_steps_are_in_order_and_other_files_do_not_matter(tmp_path):
    run = Run(tmp_path)
    assert saved_steps(run) == []
    for step in (100, 25, 123456):
        write_snapshot(scene_path(run, step), blob(3), step)
    write_whole(tmp_path / "steps" / "scene_x.safetensors", b"")
    write_whole(tmp_path / "steps" / "scene_00001.safetensors.part", b"")
    assert saved_steps(run) == [25, 100, 123456]


@pytest.mark.parametrize("steps", [1, 24, 25, 150, 500, 501, 1234, 30_000])
def test_of_long_runs_fewer_steps_are_kept_evenly_and_always_the_last(steps):
    checkpoints = [step for step in range(1, steps + 1) if step % 25 == 0 or step == steps]
    kept = [step for step in checkpoints if is_kept(step, steps, 25)]
    assert len(kept) <= 21
    assert kept[-1] == steps
    assert len(kept) == len(checkpoints) or len(kept) >= 10
    assert len({b - a for a, b in itertools.pairwise(kept[:-1])}) <= 1


def test_no_gaussians_are_a_scene_too(tmp_path):
    none = Splats(**{name: x[:0] for name, x in gaussians().splats().tensors().items()})
    write_snapshot(tmp_path / "x", GaussianSplats(none), 4)
    assert len(read_snapshot(tmp_path / "x").splats()) == 0
