import math
from dataclasses import replace

import pytest
import torch
from gaussian import MEAN, STD, GaussianPrior, moments, one_camera

from rl3d.math import Level, flow_level_at, level_at
from rl3d.priors.rollout import (
    Ddim,
    FlowSde,
    Preserving,
    Sampling,
    Transition,
    flow_levels,
    kl_divergence,
    log_prob,
    roll_out,
    transition_at,
)
from rl3d.priors.sampling import levels, step_ddim
from rl3d.types import Prompt


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(*b: int) -> torch.Tensor:
    return torch.randn(*b, 2, 4, 3, 3)


def prompts(n: int) -> list[Prompt]:
    return [Prompt("")] * n


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_samplers_own_step(eta):
    noisy, clean, noise = latents(3, 2)
    high, low = level_at(0.8), level_at(0.5)
    mean, std = Ddim(eta).transition(noisy, clean, high, low)
    torch.testing.assert_close(mean + std * noise, step_ddim(noisy, clean, high, low, noise=noise, eta=eta))


@pytest.mark.parametrize("at", [level_at, flow_level_at])
def test_ancestral_steps_draw_from_the_posterior(at):
    noisy, clean = latents(2, 2)
    t, s = at(0.8), at(0.5)
    # x_s = alpha_s x_0 + sigma_s e is the prior; x_t = a x_s + b e' is the likelihood.
    a = t.alpha / s.alpha
    b2 = t.sigma**2 - (a * s.sigma) ** 2
    variance = 1 / (1 / s.sigma**2 + a**2 / b2)
    expected = variance * (s.alpha * clean / s.sigma**2 + a * noisy / b2)
    mean, std = Ddim(1.0).transition(noisy, clean, t, s)
    assert std == pytest.approx(variance**0.5)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("at", [level_at, flow_level_at])
def test_preserving_steps_keep_both_coefficients(at):
    clean, noise = latents(2, 2)
    t, s = at(0.8), at(0.5)
    mean, std = Preserving(0.6).transition(t.alpha * clean + t.sigma * noise, clean, t, s)
    assert std == pytest.approx(s.sigma * math.sin(0.3 * math.pi))
    left = math.sqrt(s.sigma**2 - std**2)
    torch.testing.assert_close(mean, s.alpha * clean + left * noise, atol=1e-5, rtol=1e-5)


def test_the_flow_sde_has_flow_grpos_coefficients():
    noisy, clean = latents(2, 2)
    t, to = 0.8, 0.7
    v, s, dt = (noisy - clean) / t, 0.7 * math.sqrt(t / (1 - t)), to - t
    expected = noisy * (1 + s**2 / (2 * t) * dt) + v * (1 + s**2 * (1 - t) / (2 * t)) * dt
    mean, std = FlowSde(0.7).transition(noisy, clean, flow_level_at(t), flow_level_at(to))
    torch.testing.assert_close(mean, expected, atol=1e-5, rtol=1e-5)
    assert std == pytest.approx(s * math.sqrt(-dt))
    assert FlowSde(0.3, "dance_grpo").transition(noisy, clean, flow_level_at(t), flow_level_at(to)).std == pytest.approx(
        0.3 * math.sqrt(-dt)
    )


def test_without_noise_a_step_of_a_flow_is_eulers():
    noisy, clean = latents(2, 2)
    velocity = (noisy - clean) / 0.8
    mean, std = Ddim(0.0).transition(noisy, clean, flow_level_at(0.8), flow_level_at(0.5))
    torch.testing.assert_close(mean, noisy - 0.3 * velocity, atol=1e-5, rtol=1e-5)
    assert std == 0


def test_the_flow_sde_is_finite_at_pure_noise_and_refuses_other_paths():
    noisy, clean = latents(2, 2)
    mean, std = FlowSde().transition(noisy, clean, Level(0.0, 1.0), flow_level_at(0.9))
    assert mean.isfinite().all()
    assert 0 < std < 10
    with pytest.raises(ValueError, match="path"):
        FlowSde().transition(noisy, clean, level_at(0.8), level_at(0.7))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(path="flow", stepper=FlowSde(0.7)),
        Sampling(path="flow", stepper=FlowSde(0.5, "dance_grpo")),
        Sampling(path="flow", stepper=Ddim(0.0)),
        Sampling(stepper=Ddim(1.0)),
        Sampling(path="flow", stepper=Ddim(1.0)),
    ],
    ids=["flow_sde", "dance_sde", "ode", "ancestral", "ancestral_flow"],
)
def test_marginals_of_sde_and_ode_meet_at_first_order(sampling):
    # Exactly, by the recursion of moments, from the exact marginal at the first level: nothing hides the scheme's order.
    def error(steps: int) -> float:
        fine = replace(sampling, steps=steps, start=0.95)
        first = fine.levels()[0]
        variance = first.alpha**2 * STD**2 + first.sigma**2
        mean, std = moments(GaussianPrior(fine), fine, first.alpha * MEAN, variance)
        return abs(std - STD) + abs(mean - MEAN)

    coarse, middle, fine = (error(steps) for steps in (50, 100, 200))
    assert fine < 0.02
    assert coarse / middle == pytest.approx(2, rel=0.25)
    assert middle / fine == pytest.approx(2, rel=0.25)


def test_preserving_steps_are_not_consistent_but_bounded():
    # Their fresh noise does not shrink with the step, so marginals do not meet the ODE's however many steps there are.
    def std(steps: int) -> float:
        sampling = Sampling(path="flow", stepper=Preserving(0.5), steps=steps, start=0.999)
        return moments(GaussianPrior(sampling), sampling)[1]

    errors = [STD - std(steps) for steps in (100, 200, 400, 800)]
    assert all(0.04 < error < 0.08 for error in errors)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_log_probability_and_divergence_are_torchs(reduction):
    x, mean, other = latents(3, 2)
    p, q = Transition(mean, 0.3), Transition(other, 0.3)
    normal, rest = (torch.distributions.Normal(m, 0.3) for m in (mean, other))
    reduce = getattr(torch.Tensor, reduction)
    torch.testing.assert_close(log_prob(x, p, reduction), reduce(normal.log_prob(x).flatten(1), 1))
    kl = torch.distributions.kl_divergence(normal, rest)
    torch.testing.assert_close(kl_divergence(p, q, reduction), reduce(kl.flatten(1), 1))
    assert log_prob(x.bfloat16(), p, reduction).dtype == torch.float32


@pytest.mark.parametrize("stepper", [Ddim(1.0), Preserving(0.7), FlowSde(0.7)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_recorded_log_probabilities_are_found_again_exactly(stepper, reduction):
    sampling = Sampling(steps=5, stepper=stepper, path="flow", reduction=reduction)
    prior = GaussianPrior(sampling)
    trajectory = roll_out(prior, prompts(6), one_camera(), sampling, generator())
    assert trajectory.stochastic == (0, 1, 2, 3)
    assert trajectory.levels[-1].sigma == 0
    for step in trajectory.stochastic:
        again = transition_at(prior, trajectory.latents[step], step, 6, sampling)
        assert torch.equal(log_prob(trajectory.latents[step + 1], again, reduction), trajectory.log_probs[step])
    assert not trajectory.log_probs[4].any()


def test_only_the_steps_of_a_window_draw():
    sampling = Sampling(steps=6, path="flow", stepper=FlowSde())
    prior, start = GaussianPrior(sampling), torch.randn(3, 1, 4, 1, 1)
    one, other = (
        roll_out(prior, prompts(3), one_camera(), sampling, generator(seed), among=(2, 3), noise=start) for seed in (0, 1)
    )
    assert one.stochastic == (2, 3)
    assert torch.equal(one.latents[:3], other.latents[:3])
    assert not torch.equal(one.latents[3], other.latents[3])
    assert one.log_probs.any(1).tolist() == [False, False, True, True, False, False]


def test_a_deterministic_stepper_draws_nowhere():
    sampling = Sampling(steps=4, stepper=Ddim(0.0))
    trajectory = roll_out(GaussianPrior(sampling), prompts(2), one_camera(), sampling, generator())
    assert trajectory.stochastic == ()


def test_the_generator_decides():
    sampling = Sampling(steps=4)
    one, same, other = (
        roll_out(GaussianPrior(sampling), prompts(2), one_camera(), sampling, generator(seed)).clean for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_prompts_and_cameras_stay_with_their_samples():
    sampling, names = Sampling(steps=3), [Prompt(str(i)) for i in range(5)]
    cameras = one_camera(5)
    cameras = replace(cameras, intrinsics=torch.arange(5.0)[:, None, None, None] * cameras.intrinsics)
    trajectory = roll_out(GaussianPrior(sampling), names, cameras, sampling, generator())
    chosen = trajectory.select(torch.tensor([3, 0]))
    assert [p.text for p in chosen.prompts] == ["3", "0"]
    assert chosen.cameras.intrinsics[:, 0, 0, 0].tolist() == [3.0, 0.0]
    assert torch.equal(chosen.latents, trajectory.latents[:, [3, 0]])
    assert torch.equal(chosen.log_probs, trajectory.log_probs[:, [3, 0]])
    assert len(chosen) == 2


def test_levels_of_flows_fall_to_no_noise_and_shift_towards_noise():
    plain, shifted = flow_levels(4), flow_levels(4, shift=3.0)
    assert plain[0] == Level(0.0, 1.0)
    assert plain[-1] == shifted[-1] == Level(1.0, 0.0)
    assert shifted[2].sigma == pytest.approx(3 * 0.5 / 2)
    with pytest.raises(ValueError, match="at least 1"):
        flow_levels(0)
    assert Sampling(steps=3).levels() == tuple(levels(3))
