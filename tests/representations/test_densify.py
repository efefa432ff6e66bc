import math
from dataclasses import replace

import pytest
import torch

from rl3d.cameras import Orbit
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import Trace
from rl3d.representations.densify import CloneSplitPrune, Prune, Relocate, Sightings
from rl3d.representations.gaussians import Gaussians
from rl3d.types import Splats

NOW = Prune(every=1, start=0)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def row(n: int) -> Splats:
    """Gaussians in a row, at x = 0, 1, ..."""
    return from_points(torch.arange(n)[:, None] * torch.tensor([1.0, 0, 0]), torch.full((n, 3), 0.5), 0.01)


def pulled(*gradients: float) -> Sightings:
    return Sightings(torch.tensor(gradients), torch.ones(len(gradients)))


def test_pruning_drops_the_transparent_the_huge_and_the_broken():
    splats = row(5)
    splats.opacity_logits[1] = -9
    splats.log_scales[2, 0] = 2
    splats.means[3, 1] = math.nan
    change = NOW.refine(splats, pulled(*[0.0] * 5), 1, rng())
    assert change.source.tolist() == [0, 4]
    assert torch.equal(change.splats.means, splats.means[[0, 4]])


def test_pruning_never_empties_a_scene():
    splats = row(3)
    splats.opacity_logits.fill_(-9)
    assert NOW.refine(splats, pulled(0, 0, 0), 1, rng()).source.tolist() == [0, 1, 2]


def cluster(x: float, n: int, spacing: float = 0.05) -> torch.Tensor:
    """A string of ``n`` centres from (x, 0, 0) upwards."""
    return torch.stack([torch.full((n,), x), torch.zeros(n), spacing * torch.arange(n)], 1)


def clusters(*groups: torch.Tensor) -> Splats:
    means = torch.cat(groups)
    return from_points(means, torch.full((len(means), 3), 0.5), 0.02)


def test_islands_are_dropped_and_what_hangs_together_stays():
    splats = clusters(cluster(0.0, 60), cluster(0.5, 40), cluster(-0.5, 1))  # 60, 40 and 1 of 101
    assert Prune(islands=0.02).keep(splats).tolist() == [True] * 100 + [False]
    assert Prune(islands=0.45).keep(splats).tolist() == [True] * 60 + [False] * 41
    assert Prune().keep(splats).all()
    assert Prune(islands=0.02, reach=0.6).keep(splats).all(), "within reach there is no island"


def test_an_island_is_told_by_what_it_shows_and_not_by_its_number():
    splats = clusters(cluster(0.0, 50), cluster(0.5, 2))
    splats.log_scales[50:] = math.log(0.1)  # 25 times the area each: half as much as the others together
    assert Prune(islands=0.3).keep(splats).all()
    splats.opacity_logits[50:] = -3
    assert Prune(islands=0.3).keep(splats).tolist() == [True] * 50 + [False] * 2


def test_what_is_dropped_anyway_links_nothing():
    splats = clusters(cluster(0.0, 50), cluster(0.14, 2), cluster(0.07, 1))
    assert Prune(islands=0.1).keep(splats).all()
    splats.opacity_logits[52] = -9
    assert Prune(islands=0.1).keep(splats).tolist() == [True] * 50 + [False] * 3


def test_a_scene_of_islands_alone_stays():
    splats = clusters(*(cluster(x, 1) for x in (-1.0, -0.5, 0.0, 0.5, 1.0)))
    assert Prune(islands=0.3).keep(splats).all()


@pytest.mark.parametrize("wrong", [{"islands": -0.1}, {"islands": 0.5}, {"reach": 0.0}])
def test_islands_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Prune(**wrong)


def test_nothing_happens_between_the_steps_that_are_due():
    strategy = CloneSplitPrune(Prune(every=10, start=20, stop=40))
    due = [step for step in range(60) if strategy.refine(row(2), pulled(0, 0), step, rng()) is not None]
    assert due == [20, 30, 40]


def test_small_ones_are_cloned_and_large_ones_split():
    splats = row(3)
    splats.log_scales[2] = math.log(0.1)
    change = CloneSplitPrune(NOW, grow_gradient=0.5, split_scale=0.05).refine(splats, pulled(1, 0, 1), 1, rng())
    assert change.source.tolist() == [0, 1, -1, -1, -1]
    assert torch.equal(change.splats.means[2], splats.means[0])
    halves = change.splats[torch.tensor([3, 4])]
    torch.testing.assert_close(halves.log_scales.exp(), torch.full((2, 3), 0.1 / 1.6))
    assert (halves.means - splats.means[2]).abs().max() < 0.5
    assert not torch.equal(halves.means[0], halves.means[1])


def test_halves_lie_along_the_longest_axis_of_a_turned_needle():
    splats = row(1)
    splats.log_scales[:] = torch.tensor([1e-4, 1e-4, 0.4]).log()
    splats.quats[:] = torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0, 0])  # z becomes -y
    change = CloneSplitPrune(NOW, grow_gradient=0.5).refine(splats, pulled(1), 1, rng())
    offsets = (change.splats.means - splats.means).abs()
    assert offsets[:, 1].max() > 0.05
    assert offsets[:, [0, 2]].max() < 0.01


def test_the_bound_is_kept_and_the_most_pulled_grow_first():
    change = CloneSplitPrune(NOW, grow_gradient=0.5, max_gaussians=6).refine(row(4), pulled(0.6, 3, 0.1, 2), 1, rng())
    assert len(change.splats) == 6
    assert torch.equal(change.splats.means[4:, 0], torch.tensor([1.0, 3.0]))
    full = CloneSplitPrune(NOW, grow_gradient=0.5, max_gaussians=2).refine(row(4), pulled(1, 1, 1, 1), 1, rng())
    assert full.source.tolist() == [0, 1, 2, 3]


def test_the_optimisers_state_follows_each_gaussian():
    scene = Gaussians(strategy=CloneSplitPrune(NOW, grow_gradient=0.5)).build(row(4))
    optimizer = torch.optim.Adam(scene.param_groups())
    for x in scene.parameters():
        x.grad = torch.arange(1.0, 5.0).view(-1, *[1] * (x.ndim - 1)).expand_as(x).clone()
    optimizer.step()
    before = optimizer.state[scene.means]["exp_avg"].clone()
    scene.opacity_logits.data[1] = -9
    means2d = torch.zeros(2, 4, 2, requires_grad=True)
    means2d.grad = torch.zeros(2, 4, 2)
    means2d.grad[:, 3] = 1.0
    scene.refine(optimizer, Trace(means2d, torch.ones(2, 4, dtype=torch.int32), (64, 64)), 1, rng())
    assert len(scene) == 4
    state = optimizer.state[scene.means]
    assert torch.equal(state["exp_avg"], torch.cat([before[[0, 2, 3]], torch.zeros(1, 3)]))
    assert float(state["step"]) == 1
    assert [g["params"][0] is x for g, x in zip(optimizer.param_groups, scene.parameters(), strict=True)] == [True] * 5
    assert not scene.sighted_count.any()


def test_sightings_are_averaged_over_the_views_that_saw_a_gaussian():
    scene = Gaussians(strategy=CloneSplitPrune(replace(NOW, start=99))).build(row(2))
    optimizer = torch.optim.Adam(scene.param_groups())
    means2d = torch.zeros(2, 2, 2, requires_grad=True)
    means2d.grad = torch.tensor([[[3.0, 4], [1, 0]], [[0, 1], [7, 7]]])
    scene.refine(optimizer, Trace(means2d, torch.tensor([[5, 1], [5, 0]], dtype=torch.int32), (20, 20)), 1, rng())
    assert scene.sighted_count.tolist() == [2, 1]
    torch.testing.assert_close(scene.sighted_gradients, 20 * torch.tensor([6.0, 1]))


def test_opacities_are_reset_when_it_is_time_and_their_optimiser_starts_anew():
    strategy = CloneSplitPrune(NOW, grow_gradient=9.0, reset_every=2)
    assert strategy.refine(row(3), pulled(0, 0, 0), 1, rng()).anew == ()
    change = strategy.refine(row(3), pulled(0, 0, 0), 2, rng())
    torch.testing.assert_close(change.splats.opacity_logits.sigmoid(), torch.full((3,), 0.05))
    assert change.anew == ("opacity_logits",)
    with pytest.raises(ValueError, match="reset_opacity"):
        CloneSplitPrune(NOW, reset_every=2, reset_opacity=0.005)
    scene = Gaussians(strategy=strategy).build(row(3))
    optimizer = torch.optim.Adam(scene.param_groups())
    for x in scene.parameters():
        x.grad = torch.ones_like(x)
    optimizer.step()
    means2d = torch.zeros(1, 3, 2, requires_grad=True)
    scene.refine(optimizer, Trace(means2d, torch.ones(1, 3, dtype=torch.int32), (9, 9)), 2, rng())
    assert not optimizer.state[scene.opacity_logits]["exp_avg"].any()
    assert optimizer.state[scene.means]["exp_avg"].all()


def test_the_dead_move_to_the_living_and_some_are_added_within_the_budget():
    splats = row(10)
    splats.opacity_logits[[2, 5]] = -9
    splats.means[7, 0] = math.nan
    strategy = Relocate(every=1, start=0, max_gaussians=12, growth=0.5)
    change = strategy.refine(splats, pulled(*[0.0] * 10), 1, rng())
    assert len(change.splats) == 12
    assert change.splats.means.isfinite().all()
    assert (change.splats.opacity_logits.sigmoid() > 0.005).all()
    places = torch.tensor([2, 5, 7, 10, 11])
    assert (change.source[places] == -1).all()
    copied = change.splats.means[places, 0].long()
    assert not set(copied.tolist()) & {2, 5, 7}
    # Copies and what they are copies of share the light: their opacities are one, and together let through what one did.
    for g in copied.unique():
        together = change.splats.means[:, 0] == g
        logits = change.splats.opacity_logits[together]
        assert (logits == logits[0]).all()
        torch.testing.assert_close((1 - logits.sigmoid()).prod(), 1 - splats.opacity_logits[g].sigmoid())
        assert change.source[g] == -1
    rest = change.source >= 0
    assert torch.equal(change.splats.log_scales[rest], splats.log_scales[change.source[rest]])
    again = strategy.refine(splats, pulled(*[0.0] * 10), 1, rng())
    assert all(
        torch.equal(a, b) for a, b in zip(change.splats.tensors().values(), again.splats.tensors().values(), strict=True)
    )


def test_relocation_has_its_times_and_nothing_to_do_when_all_live_within_the_budget():
    strategy = Relocate(every=10, start=20, stop=40, max_gaussians=4, growth=0.5)
    due = [step for step in range(60) if strategy.refine(row(2), pulled(0, 0), step, rng()) is not None]
    assert due == [20, 30, 40]
    assert strategy.refine(row(4), pulled(0, 0, 0, 0), 20, rng()) is None


def test_centres_wander_with_the_learning_rate_of_the_means():
    scene = Gaussians(strategy=Relocate(start=99)).build(row(6))
    scene.opacity_logits.data[:3] = -9
    optimizer = torch.optim.Adam(scene.param_groups())
    before = scene.means.detach().clone()
    means2d = torch.zeros(1, 6, 2, requires_grad=True)
    scene.refine(optimizer, Trace(means2d, torch.ones(1, 6, dtype=torch.int32), (9, 9)), 1, rng())
    moved = (scene.means.detach() - before).norm(dim=-1)
    assert (moved[:3] > 1e-4).all()
    assert (moved[3:] < 1e-12).all()
    means = next(group for group in optimizer.param_groups if group["name"] == "means")
    means["lr"] *= 2
    scene.means.data.copy_(before)
    scene.refine(optimizer, Trace(means2d, torch.ones(1, 6, dtype=torch.int32), (9, 9)), 1, rng())
    torch.testing.assert_close((scene.means.detach() - before).norm(dim=-1)[:3], 2 * moved[:3], rtol=1e-3, atol=1e-6)


def test_absolute_gradients_are_noted_where_the_strategy_looks_at_them():
    scene = Gaussians(strategy=CloneSplitPrune(replace(NOW, start=99), absgrad=True)).build(row(2))
    scene.means.data *= 0.1
    optimizer = torch.optim.Adam(scene.param_groups())
    views, trace = scene.render(Orbit(views=2, size=20).cameras())
    (views.rgb * torch.randn(views.rgb.shape, generator=rng())).sum().backward()
    scene.refine(optimizer, trace, 1, rng())
    wanted = (trace.means2d.absgrad * 20).norm(dim=-1).sum(0)
    torch.testing.assert_close(scene.sighted_gradients, wanted)
    assert (wanted > 0).all()
