from dataclasses import replace

import pytest
import torch
from fake_prior import RED, Hold, blob, reward, run, situation, step, tiny_recipe, views

from rl3d.cameras import Orbit
from rl3d.optimize import advance, begin, restore, state
from rl3d.representations.nerf import Nerf
from rl3d.rewards.clip import Clip
from rl3d.rewards.physics import Stands
from rl3d.rewards.shape import Decided, Whole
from rl3d.terms.subspace import (
    Clusters,
    Evolve,
    KeepOrDrop,
    Lattice,
    Pose,
    carried_back,
    cluster_centres,
    nearest,
)

SMALL = Orbit(views=1, size=16)
SPACES = [Pose(), Lattice(), Lattice(points=2), Clusters(count=5), Clusters(count=3, colour=True)]


def pushed(scene, loss):
    """The direction in which a scene loss moves the Gaussians."""
    fields = [p for p in scene.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, fields, allow_unused=True)
    return [-g if g is not None else torch.zeros_like(p) for g, p in zip(found, fields, strict=True)]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_zeros_change_nothing_and_changes_are_differentiable(space):
    splats = blob().splats()
    moves = space.moves(splats)
    same = moves.apply(torch.zeros(moves.dimensions))
    for name, x in splats.tensors().items():
        torch.testing.assert_close(same.tensors()[name], x)
    z = 0.05 * torch.randn(moves.dimensions)
    moved = moves.apply(z).tensors()
    assert {name for name, x in splats.tensors().items() if not torch.equal(x, moved[name])} == set(moves.fields)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_is_carried_back_is_the_gradients_projection_on_the_space(space):
    splats = blob(200).splats()
    moves = space.moves(splats)
    weights = {name: torch.randn_like(splats.tensors()[name]) for name in moves.fields}

    def slope(weights):
        def value(z):
            changed = moves.apply(z).tensors()
            return torch.stack([(w * changed[name]).sum() for name, w in weights.items()]).sum()

        return torch.func.grad(value)(torch.zeros(moves.dimensions))

    change = carried_back(moves, slope(weights), damping=1e-6)
    again = carried_back(moves, slope(change), damping=1e-6)
    for name in change:
        torch.testing.assert_close(again[name], change[name], atol=1e-3, rtol=1e-2)
    # What is left of the gradient is perpendicular to the space.
    left = slope({name: weights[name] - change[name] for name in change})
    assert left.norm() < 1e-2 * slope(weights).norm()


def test_a_pose_turns_gaussians_with_the_whole():
    scene = blob(30)
    with torch.no_grad():
        scene.log_scales[:, 0] += 1.0
    from rl3d.math import rotation_from_quat

    moves = Pose().moves(scene.splats())
    z = torch.tensor([0.1, 0, 0, 0, 0, 0.2, 0])
    moved, before = moves.apply(z), scene.splats()
    angle = 2 * torch.atan(torch.tensor(0.1))
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    centre = before.means.mean(0)
    torch.testing.assert_close(moved.means, (before.means - centre) @ turn.T + centre + z[:3])
    torch.testing.assert_close(rotation_from_quat(moved.quats), turn @ rotation_from_quat(before.quats), atol=1e-5, rtol=1e-5)


def test_a_lattices_weights_reproduce_straight_lines():
    splats = blob().splats()
    low, high = splats.means.amin(0), splats.means.amax(0)
    axis = [low + (high - low) * i / 2 for i in range(3)]
    nodes = torch.stack(
        [torch.stack([axis[a][0], axis[b][1], axis[c][2]]) for a in range(3) for b in range(3) for c in range(3)]
    )
    moved = Lattice(points=3).moves(splats).apply((0.1 * nodes).flatten())
    torch.testing.assert_close(moved.means, 1.1 * splats.means, atol=1e-5, rtol=1e-5)


def test_clusters_cover_and_are_no_more_than_there_are_points():
    points = torch.cat([torch.randn(20, 3) * 0.01 + c for c in torch.eye(3) * 2])
    centres = cluster_centres(points, 3)
    assert sorted(torch.bincount(nearest(points, centres)).tolist()) == [20, 20, 20]
    assert len(cluster_centres(points[:2], 5)) == 2


def height(shown, prompts):
    return torch.stack([scene.splats().means[:, 2].mean() for scene in shown.scenes])


def lifted(grade="no", needs=("splats",), function=height):
    return reward(function, grade, needs, "height")


@pytest.mark.parametrize("antithetic", [True, False])
def test_in_expectation_a_linear_rewards_own_gradient_is_followed(antithetic):
    scene = blob()
    signal = Evolve(lifted(), Pose(), samples=16, antithetic=antithetic, rig=SMALL).build(situation(scene=scene))
    total = 0
    for seed in range(100):
        total = total + pushed(scene, signal.losses(step(views(), scene=scene, seed=seed))["scene"])[0] / 100
    wanted = torch.tensor([0.0, 0.0, 1 / len(scene)]).expand_as(total)
    assert (total - wanted).norm() < 0.25 * wanted.norm()


def test_a_perfect_surrogate_leaves_no_noise():
    scene = blob()
    noisy = Evolve(lifted(), Pose(), samples=4).build(situation(scene=scene))
    clean = Evolve(lifted(), Pose(), samples=4, surrogate=lifted("scene")).build(situation(scene=scene))

    def scatter(signal):
        found = [pushed(scene, signal.losses(step(views(), scene=scene, seed=s))["scene"])[0] for s in range(10)]
        return torch.stack(found).std(0).mean()

    assert scatter(clean) < 1e-3 * scatter(noisy)


def test_a_bad_surrogate_does_no_harm_in_expectation():
    scene = blob()

    def sideways(shown, prompts):
        return torch.stack([scene.splats().means[:, 0].mean() for scene in shown.scenes])

    bad = lifted("scene", function=sideways)
    signal = Evolve(lifted(), Pose(), samples=16, surrogate=bad, trust=0.5, rig=SMALL).build(situation(scene=scene))
    total = 0
    for seed in range(150):
        total = total + pushed(scene, signal.losses(step(views(), scene=scene, seed=seed))["scene"])[0] / 150
    wanted = torch.tensor([0.0, 0.0, 1 / len(scene)]).expand_as(total)
    assert (total - wanted).norm() < 0.3 * wanted.norm()


def tilted():
    """A tall ellipsoid of Gaussians that leans, on a narrow foot: it falls."""
    scene = blob(200)
    with torch.no_grad():
        scene.means.mul_(torch.tensor([0.4, 0.4, 1.0]))
        scene.means[:, 0] += 0.6 * scene.means[:, 2]
        scene.opacity_logits.fill_(2.0)
    return scene


@pytest.mark.parametrize("surrogate", [None, Stands()], ids=["alone", "surrogate"])
def test_a_black_box_of_physics_is_mended(surrogate):
    scene = tilted()
    black = reward(lambda shown, prompts: Stands().score(shown, prompts).value.detach(), "no", ("splats",), "black box")
    signal = Evolve(black, Pose(), samples=16, surrogate=surrogate, start=0.0, every=1, rig=SMALL).build(situation(scene=scene))
    optimizer = torch.optim.Adam(scene.parameters(), lr=0.02)
    at = step(views(), scene=scene)

    def angle():
        return black.score(signal_shown(scene), [RED]).value.item()

    before = angle()
    for _ in range(15):
        optimizer.zero_grad()
        signal.losses(at)["scene"].backward()
        optimizer.step()
    assert angle() > before + 5


def signal_shown(scene):
    from rl3d.terms.rewarded import render_each

    return render_each(scene, [scene.splats()], views().cameras)


def test_keeping_and_dropping_removes_what_a_reward_dislikes():
    scene = blob(60)
    with torch.no_grad():
        scene.means[:20] = scene.means[:20] * 0.2 + torch.tensor([0.0, 0.0, 0.9])
        scene.means[20:] *= 0.5
        scene.opacity_logits.fill_(1.0)

    def low(shown, prompts):
        """Nothing may be aloft, and the rest should stay."""
        return torch.stack(
            [(s.splats().means[:, 2] < 0.5).float().sum() - 2 * (s.splats().means[:, 2] > 0.5).sum() for s in shown.scenes]
        )

    term = KeepOrDrop(reward(low, needs=("splats",), name="low"), count=6, start=0.0, every=1, rate=0.2)
    signal = term.build(situation(scene=scene))
    optimizer = torch.optim.Adam([scene.opacity_logits], lr=0.3)
    for i in range(60):
        optimizer.zero_grad()
        losses = signal.losses(step(views(), scene=scene, seed=i))
        if losses:
            losses["scene"].backward()
            optimizer.step()
    opacity = scene.opacity_logits.detach().sigmoid()
    assert opacity[:20].max() < 0.1
    assert opacity[20:].min() > 0.5


def test_rewards_that_fail_everywhere_pull_at_nothing():
    scene = blob()
    broken = reward(lambda shown, prompts: [None] * len(prompts), needs=("splats",), name="broken")
    loss = Evolve(broken, samples=4).build(situation(scene=scene)).losses(step(views(), scene=scene))["scene"]
    assert all(g.abs().max() == 0 for g in pushed(scene, loss))
    signal = KeepOrDrop(broken, start=0.0).build(situation(scene=scene))
    before = signal.learner.weights[0].detach().clone()
    signal.losses(step(views(), scene=scene))
    assert torch.equal(signal.learner.weights[0], before)


@pytest.mark.parametrize(
    "term",
    [Evolve(lifted(), samples=4, start=0.0, every=2), KeepOrDrop(Whole(), count=4, samples=4, start=0.0, every=2, chance=0.4)],
    ids=lambda t: type(t).__name__,
)
def test_runs_resume_bit_for_bit(term):
    r = replace(tiny_recipe(), prior=None, terms={"hold": Hold(), "search": term}, steps=10)
    whole, part = begin(r, RED, seed=1), begin(r, RED, seed=1)
    run(whole)
    for _ in range(5):
        advance(part)
    part = run(restore(r, *state(part)))
    one, other = state(whole)[0], state(part)[0]
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["scene.means"], begin(r, RED, seed=1).scene.means) or isinstance(term, KeepOrDrop)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: Evolve(lifted(), samples=3), "antithetic"),
        (lambda: Lattice(points=1), "at least 2 points"),
        (lambda: Clusters(count=0), "at least 1 cluster"),
        (lambda: KeepOrDrop(Whole(), chance=1.0), "chance"),
        (lambda: Evolve(Clip("judge")).build(situation(scene=blob())), "only ever reported"),
        (lambda: Evolve(Whole(), surrogate=Whole()).build(situation(scene=blob())), "surrogate needs a gradient in the scene"),
        (lambda: Evolve(Whole()).build(situation(scene=Nerf().build(blob().splats()))), "is a RadianceField"),
        (lambda: KeepOrDrop(Decided()).build(situation(scene=Nerf().build(blob().splats()))), "is a RadianceField"),
    ],
)
def test_mistakes_are_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()
