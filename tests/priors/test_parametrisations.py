import pytest
import torch

from rl3d.math import flow_level_at, level_at
from rl3d.priors.parametrisations import (
    add_noise,
    clean_from_flow,
    clean_from_noise,
    clean_from_velocity,
    flow_from_clean,
    noise_from_clean,
    velocity_from_clean,
)

LEVELS = [level_at(0.7), flow_level_at(0.7), level_at(0.05), flow_level_at(0.95)]


@pytest.fixture
def pair():
    return torch.randn(2, 3, 2, 4, 5, 5).unbind()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("clean_from", "predict"),
    [
        (clean_from_noise, lambda clean, noise, level: noise),
        (clean_from_velocity, lambda clean, noise, level: level.alpha * noise - level.sigma * clean),
        (clean_from_flow, lambda clean, noise, level: noise - clean),
    ],
    ids=["eps", "v", "flow"],
)
def test_a_perfect_prediction_of_any_kind_gives_the_clean_latents(pair, level, clean_from, predict):
    clean, noise = pair
    found = clean_from(add_noise(clean, noise, level), predict(clean, noise, level), level)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("there", "back"),
    [
        (noise_from_clean, clean_from_noise),
        (velocity_from_clean, clean_from_velocity),
        (flow_from_clean, clean_from_flow),
    ],
)
def test_conversions_undo_each_other_for_imperfect_predictions_too(pair, level, there, back):
    noisy, clean = pair
    torch.testing.assert_close(back(noisy, there(noisy, clean, level), level), clean, atol=1e-4, rtol=1e-4)


def test_velocity_at_variance_preserving_levels_is_the_papers(pair):
    noisy, v = pair
    level = level_at(0.4)
    torch.testing.assert_close(clean_from_velocity(noisy, v, level), level.alpha * noisy - level.sigma * v)


def test_half_precision_predictions_become_float32(pair):
    noisy, v = (x.bfloat16() for x in pair)
    assert clean_from_velocity(noisy, v, level_at(0.4)).dtype == torch.float32
