"""Sampling from a prior whose answers are known: every latent is normal, with a mean that the prompt sets."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn

from rl3d.cameras import Orbit
from rl3d.math import Level, level_at
from rl3d.priors.sampling import Climb, denoise, draw_noise, guide, levels, sample_best, sample_views, step_ddim
from rl3d.protocols import PriorInfo
from rl3d.types import Prompt, Views

MEAN, STD = 0.5, 0.2


def exact(noisy, level: Level, mean=MEAN, std=STD):
    """E[clean | noisy] for normal data."""
    gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
    return mean + gain * (noisy - level.alpha * mean)


class GaussianPrior(nn.Module):
    """Its "red" latents have the mean 0.5, all others -0.5."""

    info = PriorInfo(4, 8, 4, (-90.0, 90.0), 3.0, 40.0, True, False)

    @dataclass
    class Condition:
        mean: torch.Tensor

    def embed(self, prompts, cameras):
        return self.Condition(torch.tensor([MEAN if "red" in p.text else -MEAN for p in prompts])[:, None, None, None, None])

    def encode(self, views):
        return views.rgba.movedim(-1, 2)

    def decode(self, latents, cameras):
        pixels = latents.movedim(2, -1)
        return Views(pixels[..., :3], pixels[..., 3:], None, None, cameras.resized(8, 8))

    def predict(self, noisy, level, condition, *, guidance=1.0, rescale=0.0):
        with_text = exact(noisy, level, condition.mean)
        return with_text if guidance == 1 else guide(with_text, exact(noisy, level, 0.0), guidance, rescale)


@pytest.mark.parametrize(("solver", "eta", "steps"), [("ddim", 0.0, 200), ("ddim", 1.0, 400), ("multistep", 0.0, 30)])
def test_reaches_mean_and_deviation_of_the_data(solver, eta, steps):
    # The jump from the last level to no noise is to the mean of what is possible, and shrinks deviations: hence many steps.
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 1, 1, 16, 16, generator=rng)
    clean = denoise(exact, noise, levels(steps), solver=solver, eta=eta, rng=rng)
    assert clean.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert clean.std().item() == pytest.approx(STD, rel=0.03)


def test_multistep_is_nearer_to_the_exact_flow_than_ddim():
    noise = torch.randn(4, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = denoise(exact, noise, levels(2000), solver="ddim")
    errors = {
        solver: (denoise(exact, noise, levels(30), solver=solver) - fine).abs().mean() for solver in ("ddim", "multistep")
    }
    assert errors["multistep"] < 0.5 * errors["ddim"]


def test_ddim_step_with_the_true_clean_latents_stays_on_the_line_to_their_noise():
    clean, noise = torch.randn(2, 1, 1, 1, 4, 4)
    high, low = level_at(0.8), level_at(0.3)
    stepped = step_ddim(high.alpha * clean + high.sigma * noise, clean, high, low)
    torch.testing.assert_close(stepped, low.alpha * clean + low.sigma * noise)


def test_levels_fall_to_no_noise():
    schedule = levels(10)
    assert len(schedule) == 11
    assert all(a.sigma > b.sigma for a, b in pairwise(schedule))
    assert schedule[-1] == Level(1.0, 0.0)
    with pytest.raises(ValueError, match="at least 1"):
        levels(0)


def test_guidance_one_is_conditional_and_zero_unconditional():
    a, b = torch.randn(2, 3, 4, 4, 8, 8)
    torch.testing.assert_close(guide(a, b, 1.0), a)
    torch.testing.assert_close(guide(a, b, 1.0, rescale=1.0), a)
    torch.testing.assert_close(guide(a, b, 0.0), b)


def test_full_rescale_keeps_the_deviation_of_each_group_of_views():
    a, b = torch.randn(2, 3, 4, 4, 8, 8) * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None, None]
    guided = guide(a, b, 5.0, rescale=1.0)
    torch.testing.assert_close(guided.std((1, 2, 3, 4)), a.std((1, 2, 3, 4)))
    half, none = guide(a, b, 5.0, rescale=0.5), guide(a, b, 5.0)
    torch.testing.assert_close(half, (guided + none) / 2)


def test_sampled_views_follow_their_prompts_and_are_valid_colours():
    prompts = [Prompt("a red ball"), Prompt("a ball")]
    views = sample_views(GaussianPrior(), prompts, Orbit(4, size=8).cameras(), steps=20, guidance=1.0, rng=torch.Generator())
    assert views.rgb.shape == (2, 4, 8, 8, 3)
    assert views.cameras.cam_from_world.shape == (2, 4, 4, 4)
    assert views.alpha[0].mean() > 0.4
    assert views.alpha[1].mean() < 0.1
    assert (views.rgb >= 0).all()
    assert (views.rgb <= views.alpha).all()
    assert (views.alpha <= 1).all()


def test_guidance_moves_samples_beyond_the_condition():
    cameras = Orbit(4, size=8).cameras()

    def mean_alpha(guidance: float) -> float:
        rng = torch.Generator().manual_seed(0)
        views = sample_views(GaussianPrior(), [Prompt("red")], cameras, guidance=guidance, rescale=0.0, rng=rng)
        return views.alpha.mean().item()

    assert mean_alpha(2.0) > mean_alpha(1.0) + 0.1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_generator_decides(eta):
    def draw(seed: int) -> torch.Tensor:
        rng, cameras = torch.Generator().manual_seed(seed), Orbit(2, size=8).cameras()
        return sample_views(
            GaussianPrior(), [Prompt("red")], cameras, steps=4, guidance=1.0, solver="ddim", eta=eta, rng=rng
        ).rgba

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_noise_needs_the_ddim_solver():
    with pytest.raises(ValueError, match="ddim"):
        denoise(exact, draw_noise((1, 1, 1, 2, 2), None, torch.device("cpu")), levels(2), eta=0.5)


def brightness(views, prompts):
    return views.rgb.mean((1, 2, 3, 4))


def drawn(function, *args, prompts=("red", "blue"), **options):
    rng, cameras = torch.Generator().manual_seed(4), Orbit(views=4, size=8).cameras()
    return function(GaussianPrior(), [Prompt(p) for p in prompts], cameras, *args, rng=rng, steps=6, guidance=1.0, **options)


@pytest.mark.parametrize("after", [1, 3, 6, 99])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_best_is_finished_as_if_it_had_been_drawn_alone(after, batch):
    best = drawn(sample_best, brightness, candidates=4, after=after, batch=batch)
    every = drawn(sample_views, prompts=["red"] * 4 + ["blue"] * 4)
    # Of normal data the first predictions are already in the order of what they become.
    wanted = brightness(every, []).view(2, 4).argmax(1) + torch.tensor([0, 4])
    torch.testing.assert_close(best.rgb, every.rgb[wanted])
    torch.testing.assert_close(best.alpha, every.alpha[wanted])
    assert best.cameras.cam_from_world.shape[0] == 2


def test_what_is_chosen_is_chosen_by_the_early_predictions():
    seen = []

    def dim(views, prompts):
        seen.append((views.rgb, [p.text for p in prompts]))
        return -brightness(views, prompts)

    dimmest = drawn(sample_best, dim, candidates=3, after=2, batch=4)
    assert [texts for _, texts in seen] == [["red"] * 3 + ["blue"], ["blue"] * 2]
    every = drawn(sample_views, prompts=["red"] * 3 + ["blue"] * 3)
    wanted = brightness(every, []).view(2, 3).argmin(1) + torch.tensor([0, 3])
    torch.testing.assert_close(dimmest.rgb, every.rgb[wanted])
    assert not torch.allclose(torch.cat([x for x, _ in seen]), every.rgb, atol=1e-3)


@pytest.mark.parametrize("options", [{"candidates": 0}, {"candidates": 2, "after": 0}])
def test_there_must_be_something_to_choose_by(options):
    with pytest.raises(ValueError, match="at least 1 candidate and 1 step"):
        drawn(sample_best, brightness, **options)


@pytest.mark.parametrize(("guided", "with_guidance"), [(0.0, 0), (0.25, 2), (0.5, 3), (1.0, 6)])
def test_guidance_is_for_the_first_steps(guided, with_guidance):
    asked = []

    class Noting(GaussianPrior):
        def predict(self, noisy, level, condition, *, guidance=1.0, rescale=0.0):
            asked.append(guidance)
            return super().predict(noisy, level, condition, guidance=guidance, rescale=rescale)

    sample_views(Noting(), [Prompt("red")], Orbit(4, size=8).cameras(), steps=6, guidance=2.0, guided=guided)
    assert asked == [2.0] * with_guidance + [1.0] * (6 - with_guidance)


def redness(views, prompts):
    """Of each sample; "blue" has no slope."""
    return torch.stack([x.sum() * (p.text != "blue") for x, p in zip(views.rgb[..., 0], prompts, strict=True)])


def test_a_climb_is_a_step_of_its_length_up_the_slope_of_each_sample():
    cameras, prompts = Orbit(4, size=8).cameras(), [Prompt("red"), Prompt("blue"), Prompt("green")]
    clean = torch.rand(3, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    clean[:, :, 3] = 0.9  # colours below alpha, which is below one: nothing is cut
    moved = Climb(redness, 0.3)(GaussianPrior(), clean, prompts, cameras) - clean
    for sample in (0, 2):
        torch.testing.assert_close(moved[sample, :, 0], torch.full((4, 8, 8), 0.6), atol=1e-5, rtol=0)  # a channel of four
        assert not moved[sample, :, 1:].any()
    assert not moved[1].any(), "who has no slope stays"
    steep = Climb(lambda *shown: 1e4 * redness(*shown), 0.3)(GaussianPrior(), clean, prompts, cameras)
    torch.testing.assert_close(steep - clean, moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "score", [lambda v, p: v.rgb.sum((1, 2, 3, 4)) * float("nan"), lambda v, p: (v.rgb.sum() * 1e38).exp()[None]]
)
def test_slopes_that_are_not_finite_move_nothing(score):
    clean = torch.full((1, 4, 4, 8, 8), 0.5)
    assert torch.equal(Climb(score)(GaussianPrior(), clean, [Prompt("red")], Orbit(4, size=8).cameras()), clean)


def test_samples_climb_in_their_part_of_the_steps_and_end_higher():
    seen = []

    def noting(views, prompts):
        seen.append(len(prompts))
        return redness(views, prompts)

    plain = drawn(sample_views)
    pulled = drawn(sample_views, climb=Climb(noting, 0.2, begin=0.3, end=0.7))
    assert seen == [2, 2, 2]  # of six steps, those at 2/6, 3/6 and 4/6
    assert pulled.rgb[0, ..., 0].mean() > plain.rgb[0, ..., 0].mean() + 0.02
    torch.testing.assert_close(pulled.rgb[1], plain.rgb[1])


def test_all_candidates_climb_before_one_is_chosen():
    climb = Climb(redness, 0.2)
    best = drawn(sample_best, brightness, candidates=3, after=2, climb=climb)
    every = drawn(sample_views, prompts=["red"] * 3 + ["blue"] * 3, climb=climb)
    assert any(torch.allclose(best.rgb[0], every.rgb[i], atol=1e-5) for i in range(3))
    assert best.rgb[0, ..., 0].mean() > drawn(sample_best, brightness, candidates=3, after=2).rgb[0, ..., 0].mean()
