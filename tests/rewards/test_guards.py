import math

import pytest
import torch
from world import random_views

from rl3d.rewards.guards import Area, ColourEntropy, Sharpness, alarm
from rl3d.types import Prompt, Views


def shown(rgb, alpha=None):
    base = random_views(1, 1, rgb.shape[0])
    alpha = torch.ones(*rgb.shape[:2], 1) if alpha is None else alpha
    return Views((rgb * alpha)[None, None], alpha[None, None], None, None, base.cameras)


def value(reward, views):
    return float(reward.score(views, [Prompt("a")]).value)


def test_area_is_the_mean_of_alpha():
    alpha = torch.zeros(8, 8, 1)
    alpha[:4, :4] = 1
    assert value(Area(), shown(torch.rand(8, 8, 3), alpha)) == pytest.approx(0.25)


def test_sharpness_of_stripes_of_flat_colour_and_of_nothing():
    stripes = (torch.arange(8) % 2)[:, None, None].expand(8, 8, 3).float()
    assert value(Sharpness(), shown(stripes)) == pytest.approx(math.sqrt(0.5), abs=1e-4)
    assert value(Sharpness(), shown(torch.full((8, 8, 3), 0.5))) == pytest.approx(0, abs=1e-5)
    assert value(Sharpness(), shown(stripes, torch.zeros(8, 8, 1))) == pytest.approx(0, abs=1e-5)


def test_the_outline_is_not_detail():
    alpha = torch.zeros(8, 8, 1)
    alpha[2:6, 2:6] = 1
    assert value(Sharpness(), shown(torch.full((8, 8, 3), 0.9), alpha)) == pytest.approx(0, abs=1e-5)


def test_entropy_counts_colours_of_the_object_alone():
    rgb = torch.zeros(8, 8, 3)
    rgb[:4, :, 0] = 1.0
    assert value(ColourEntropy(), shown(rgb)) == pytest.approx(1.0)
    rgb[:, :4, 2] = 1.0
    assert value(ColourEntropy(), shown(rgb)) == pytest.approx(2.0)
    top = torch.zeros(8, 8, 1)
    top[:4] = 1
    assert value(ColourEntropy(), shown(rgb, top)) == pytest.approx(1.0)


def noisy(line, amount=0.05, seed=0):
    noise = amount * torch.randn(len(line), generator=torch.Generator().manual_seed(seed))
    return (torch.as_tensor(line) + noise).tolist()


N = 60
UP, DOWN, FLAT = torch.linspace(0, 1, N), torch.linspace(1, 0, N), torch.full((N,), 0.5)
HILL = 1 - (torch.linspace(-1, 1, N)).square()


def test_a_reward_that_rises_while_a_guard_falls_is_caught():
    found = alarm(noisy(UP), {"judge": noisy(DOWN, seed=1), "area": noisy(FLAT, seed=2), "sharp": noisy(UP, seed=3)})
    assert found is not None
    assert set(found.guards) == {"judge"}
    assert found.guards["judge"] == pytest.approx(0.93, abs=0.1)
    assert found.since < 10
    assert found.gain > 0.7


@pytest.mark.parametrize("guard", [UP, FLAT])
@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_alarm(guard, seed):
    assert alarm(noisy(UP, seed=seed), {"judge": noisy(guard, seed=seed + 100)}) is None


def test_a_run_that_gets_worse_in_all_is_not_hacked():
    assert alarm(noisy(DOWN), {"judge": noisy(DOWN, seed=1)}) is None


def test_the_place_to_go_back_to_is_the_guards_best():
    found = alarm(noisy(UP, 0.01), {"judge": noisy(HILL, 0.01, 1)})
    assert found is not None
    assert abs(found.since - N / 2) < 6


def test_short_histories_and_missing_entries():
    assert alarm([0.0, 1.0], {"judge": [1.0, 0.0]}) is None
    holes = noisy(DOWN, seed=1)
    holes[::3] = [math.nan] * len(holes[::3])
    assert alarm(noisy(UP), {"judge": holes}) is not None
    with pytest.raises(ValueError, match="together"):
        alarm([0.0], {"judge": []})
