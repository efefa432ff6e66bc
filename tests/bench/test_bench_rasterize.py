"""The scenes that rasterizers are timed on."""

from __future__ import annotations

import torch
from benches import load

Case = load("rasterize_scenes").Case


def test_large_gaussians_are_the_same_ones_but_larger():
    usual, cameras = Case(1_000, 64, 1).scene()
    large, same = Case(1_000, 64, 1, large=4).scene()
    assert torch.equal(cameras.cam_from_world, same.cam_from_world)
    for name, one, other in zip(("means", "quats", "scales", "opacities", "colors"), usual, large, strict=True):
        torch.testing.assert_close(other, (4 if name == "scales" else 1) * one, msg=name)


def test_names_tell_cases_apart():
    cases = [Case(n, 64, v, large) for n in (1_000, 1_000_000) for v in (1, 4) for large in (1.0, 4.0)]
    assert len({case.name for case in cases}) == len(cases)
    assert Case(1_000, 512, 1, large=4).name == "1k@512large"
