import torch

from rl3d.cameras import Orbit
from rl3d.geometry.matte import cut_out
from rl3d.types import Views


def test_the_gray_at_the_edge_goes_and_that_within_an_object_stays():
    rgb = torch.full((1, 2, 16, 16, 3), 0.5)
    rgb += 0.04 * (torch.rand(rgb.shape, generator=torch.Generator().manual_seed(0)) - 0.5)  # noise of a prior
    rgb[:, :, 4:12, 4:12] = torch.tensor([0.9, 0.1, 0.1])
    rgb[:, :, 7:9, 7:9] = 0.5
    opaque = Views(rgb, torch.ones(1, 2, 16, 16, 1), None, None, Orbit(2, size=16).cameras())
    cut = cut_out(opaque, 0.5)
    inside = torch.zeros(16, 16)
    inside[4:12, 4:12] = 1
    assert torch.equal(cut.alpha, inside[None, None, :, :, None].expand(1, 2, -1, -1, -1))
    assert torch.equal(cut.rgb, rgb * cut.alpha)
    assert torch.equal(opaque.rgb, rgb)


def test_views_without_that_gray_stay_opaque():
    white = Views(torch.ones(1, 1, 8, 8, 3), torch.ones(1, 1, 8, 8, 1), None, None, Orbit(1, size=8).cameras())
    assert cut_out(white, 0.5).alpha.min() == 1
