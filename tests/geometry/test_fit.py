import numpy as np
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.geometry.fit import fit_splats
from rl3d.geometry.points import from_points
from rl3d.render.gaussians import look_at
from rl3d.toybox import assemble
from rl3d.toybox.render import render
from rl3d.toybox.things import Item, Spec


def test_a_true_toy_is_fitted_and_unseen_views_agree():
    toy = assemble.build(Spec((Item("mug", "red"),)), np.random.default_rng(0))
    azimuth = torch.arange(8) * 45.0
    cameras = look_at_origin(azimuth[None], torch.tensor([[5.0, 40.0] * 4]), width=48, height=48)
    splats = fit_splats(render(toy, cameras), rng=torch.Generator().manual_seed(0), steps=60)
    unseen = Orbit(3, 20.0, 20.0, size=48).cameras()
    own, true = look_at(splats)(unseen), render(toy, unseen)
    assert (own.rgba - true.rgba).square().mean() < 0.05 * true.rgba.square().mean()


def test_the_same_generator_gives_the_same_bytes():
    cloud = from_points(torch.tensor([[0.0, 0, 0.2], [0.2, 0, 0]]), torch.rand(2, 3), 0.15, opacity=0.9)
    views = look_at(cloud)(Orbit(4, size=24).cameras())
    one, other = (fit_splats(views, rng=torch.Generator().manual_seed(3), steps=5, resolution=16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))
