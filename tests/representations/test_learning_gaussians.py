import pytest
import torch

from rl3d.cameras import Orbit
from rl3d.geometry.points import ball, from_points
from rl3d.render.gaussians import render_splats
from rl3d.representations.densify import CloneSplitPrune, Prune
from rl3d.representations.gaussians import Gaussians, GaussianSplats, LearningRates
from rl3d.types import Splats

CAMERAS = Orbit(views=3, size=24).cameras()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def target():
    """Three coloured blobs."""
    points = torch.tensor([[0.0, 0, 0.4], [0, 0.4, -0.3], [0, -0.4, -0.3]])
    return render_splats(from_points(points, torch.eye(3), 0.25, opacity=0.9), CAMERAS)[0]


def fit(scene: GaussianSplats, steps: int, seed: int = 0, start: int = 0, optimizer=None):
    wanted, generator, losses = target(), rng(seed), []
    optimizer = optimizer or torch.optim.Adam(scene.param_groups(), eps=1e-15)
    for step in range(start, steps):
        optimizer.zero_grad()
        views, trace = scene.render(CAMERAS)
        loss = (views.rgba - wanted.rgba).square().mean()
        loss.backward()
        optimizer.step()
        scene.refine(optimizer, trace, step + 1, generator)
        losses.append(float(loss))
    return losses, optimizer


@pytest.mark.parametrize("strategy", [None, Prune(every=10, start=10), CloneSplitPrune(Prune(10, 10), 1e-4, 0.1, 120)])
def test_a_ball_learns_to_look_like_the_target(strategy):
    scene = Gaussians(strategy=strategy).build(ball(80, rng()))
    losses, optimizer = fit(scene, 60)
    assert losses[-1] < 0.1 * losses[0]
    assert len(scene) == 80 if strategy is None else len(scene) <= 120
    for group, (name, x) in zip(optimizer.param_groups, scene.splats().tensors().items(), strict=True):
        (parameter,) = group["params"]
        assert parameter is getattr(scene, name)
        assert optimizer.state[parameter]["exp_avg"].shape == x.shape
    assert len(optimizer.state) == 5


def test_every_parameter_gets_a_gradient():
    scene = Gaussians(sh_degree=2).build(ball(20, rng()))
    scene.log_scales.data += 0.3 * torch.randn(20, 3, generator=rng(1))
    views, _ = scene.render(CAMERAS)
    (
        views.rgba.square().sum() + views.depth.square().sum() + (views.normals * views.normals.detach().roll(1, -1)).sum()
    ).backward()
    for name, x in scene.named_parameters():
        assert x.grad is not None, name
        assert x.grad.abs().sum() > 0, name


def test_groups_have_the_names_and_rates_of_the_fields():
    rates = LearningRates(means=1.0, sh=2.0)
    groups = GaussianSplats.from_splats(ball(3, rng())).param_groups(rates)
    assert [g["name"] for g in groups] == list(Splats.__dataclass_fields__)
    assert groups[0]["lr"] == 1.0
    assert groups[-1]["lr"] == 2.0


def test_a_restored_scene_goes_on_bit_for_bit():
    settings = Gaussians(strategy=CloneSplitPrune(Prune(7, 7), 1e-4, 0.1, 150))
    whole = settings.build(ball(60, rng()))
    fit(whole, 10)
    saved = {k: x.clone() for k, x in whole.state_dict().items()}
    again = settings.restore(saved)
    assert len(again) == len(whole)
    fit(whole, 18, start=10)
    fit(again, 18, start=10)
    for name, x in whole.state_dict().items():
        assert torch.equal(x, again.state_dict()[name]), name


def test_harmonics_are_added_or_dropped_to_the_degree_asked_for():
    start = ball(5, rng())
    assert Gaussians(sh_degree=2).build(start).sh.shape == (5, 9, 3)
    rich = Splats(**{**start.tensors(), "sh": torch.randn(5, 16, 3, generator=rng())})
    poor = Gaussians(sh_degree=1).build(rich)
    assert torch.equal(poor.sh.data, rich.sh[:, :4])
    with pytest.raises(ValueError, match="sh_degree"):
        Gaussians(sh_degree=4)


def test_points_show_their_colours():
    color = torch.tensor([[0.9, 0.1, 0.4]])
    views, _ = render_splats(from_points(torch.zeros(1, 3), color, 0.3, opacity=0.9), CAMERAS)
    torch.testing.assert_close(views.rgb[0, 0, 12, 12] / views.alpha[0, 0, 12, 12], color[0], atol=1e-5, rtol=0)


def test_a_ball_fills_its_radius_and_repeats_with_its_seed():
    a, b = ball(500, rng(3), radius=0.7), ball(500, rng(3), radius=0.7)
    assert torch.equal(a.means, b.means)
    distance = a.means.norm(dim=-1)
    assert distance.max() <= 0.7
    assert (distance < 0.7 / 2 ** (1 / 3)).float().mean() == pytest.approx(0.5, abs=0.07)
