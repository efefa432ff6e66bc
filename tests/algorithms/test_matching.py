import pytest
import torch
from gaussian import MEAN, STD, GaussianPrior, Quadratic, exact, moments, one_camera, teach, tilted

from rl3d.algorithms.common import Panel, Samples
from rl3d.algorithms.matching import error_weight
from rl3d.algorithms.nft import Nft
from rl3d.algorithms.rwr import Rwr
from rl3d.estimators import Advantages
from rl3d.math import flow_level_at, level_at
from rl3d.priors.lora import Full
from rl3d.priors.parametrisations import add_noise, flow_from_clean, noise_from_clean
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.types import Prompt, Score

SAMPLING = Sampling(steps=4, start=0.8, stepper=Ddim(0.0))
PANEL = Panel({"quadratic": Quadratic()})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int, value=None, used=None) -> Samples:
    """Exact samples of the Gaussian, with these advantages."""
    clean = MEAN + STD * torch.randn(n, 1, 4, 1, 1, generator=generator(7))
    value = torch.zeros(n) if value is None else value(clean)
    used = torch.ones(n, dtype=torch.bool) if used is None else used
    return Samples(clean, (Prompt(""),) * n, one_camera(n), {}, Advantages(value, used))


def build(algorithm):
    actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
    return actor, algorithm.state(actor)


def descend(algorithm, actor, state, samples, steps: int = 150, lr: float = 0.05):
    optimizer, rng = torch.optim.Adam(actor.weights("policy").values(), lr=lr, betas=(0.9, 0.99)), generator(2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, _ = algorithm.loss(actor, PANEL, samples, rng, state)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()


@pytest.mark.parametrize("level", [level_at(0.4), flow_level_at(0.4)])
def test_weights_turn_errors_of_clean_latents_into_those_of_other_predictions(level):
    clean, noise, guess = torch.randn(3, 2, 1, 4, 3, 3)
    noisy = add_noise(clean, noise, level)
    error = (guess - clean).square().mean()
    of_noise = (noise_from_clean(noisy, guess, level) - noise).square().mean()
    of_flow = (flow_from_clean(noisy, guess, level) - (noise - clean)).square().mean()
    torch.testing.assert_close(error_weight(level, "noise") * error, of_noise)
    torch.testing.assert_close(error_weight(level, "flow") * error, of_flow)
    assert error_weight(level, "clean") == 1


def test_regression_weights_are_softmaxes_of_mean_one_within_prompts():
    value, groups = torch.tensor([1.0, 2.0, 5.0, -1.0, 3.0]), torch.tensor([0, 0, 0, 1, 1])
    valid = torch.tensor([True, True, False, True, True])
    found = Rwr(temperature=0.5).weights(Score(value, None, valid), groups)
    first, second = 2 * torch.softmax(2 * value[:2], 0), 2 * torch.softmax(2 * value[3:], 0)
    torch.testing.assert_close(found.value, torch.cat([first, torch.zeros(1), second]))
    assert torch.equal(found.used, valid)
    sparse = Rwr(keep=0.5).weights(Score(value, None, torch.ones(5, dtype=torch.bool)), groups)
    assert sparse.value.tolist() == [0.0, 1.5, 1.5, 0.0, 2.0]


def test_regression_on_the_references_samples_learns_the_tilted_denoiser():
    k, target, temperature = 1.0, 1.0, 1.0
    algorithm = Rwr(SAMPLING, temperature, draw_from="reference", draws=4, reduction="sum")
    actor, state = build(algorithm)
    samples = data(16384, lambda x: (-0.5 * k * (x - target).square().sum((1, 2, 3, 4))).softmax(0) * len(x))
    descend(algorithm, actor, state, samples)
    mean, std = tilted(k, target, temperature)
    for i, level in enumerate(SAMPLING.levels()[:-1]):
        gain, offset = exact(level, mean, std)
        assert actor.weights("policy")["prior.net.gain"][i].item() == pytest.approx(gain, abs=0.04)
        assert actor.weights("policy")["prior.net.offset"][i].item() == pytest.approx(offset, abs=0.04)


def test_regression_draws_from_whom_it_is_told():
    for whom in ("policy", "reference"):
        algorithm = Rwr(SAMPLING, draw_from=whom, group=16)
        actor, state = build(algorithm)
        with torch.no_grad():
            actor.weights("policy")["prior.net.offset"].add_(5.0)
        batch = algorithm.collect(actor, PANEL, [Prompt("")], one_camera(), generator(), state)
        assert (batch.clean.mean() > 2) == (whom == "policy")


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_nft_has_no_gradient_where_samples_are_neither_good_nor_bad_and_old_is_the_policy(adaptive, beta):
    algorithm = Nft(SAMPLING, beta=beta, adaptive=adaptive)
    actor, state = build(algorithm)

    def gradient(value) -> torch.Tensor:
        loss, told = algorithm.loss(actor, PANEL, data(64, value), generator(), state)
        assert told["deviation_from_old"] == 0.0
        return torch.autograd.grad(loss, list(actor.weights("policy").values()))[1]

    torch.testing.assert_close(gradient(lambda x: torch.zeros(64)), torch.zeros(4), atol=1e-5, rtol=0)
    good, bad = gradient(lambda x: torch.full((64,), 2.0)), gradient(lambda x: torch.full((64,), -2.0))
    assert good.abs().max() > 1e-3
    torch.testing.assert_close(good, -bad, atol=1e-5, rtol=1e-3)


def test_nft_is_blind_to_what_could_not_be_judged():
    algorithm = Nft(SAMPLING)
    actor, state = build(algorithm)
    used = torch.arange(32) % 3 != 0
    grads = []
    for nonsense in (0.0, 4.0):
        samples = data(32, lambda x, n=nonsense: torch.where(used, x.mean((1, 2, 3, 4)), torch.full((32,), n)), used)
        loss, _ = algorithm.loss(actor, PANEL, samples, generator(), state)
        grads.append(torch.autograd.grad(loss, actor.weights("policy")["prior.net.offset"])[0])
    assert grads[0].any()
    assert torch.equal(*grads)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_nft_moves_old_by_the_covariance_of_goodness_and_data(beta):
    # With r = 1/2 + k (sum(x) - its mean): Cov(r, x_0 | x_t) = k Var(x_0 | x_t), which does not depend on x_t.
    k = 0.05
    algorithm = Nft(SAMPLING, beta=beta, adaptive=False, anchor=0.0, draws=4, weighting="clean")
    actor, state = build(algorithm)
    samples = data(16384, lambda x: 2 * algorithm.limit * k * (x - MEAN).sum((1, 2, 3, 4)))
    descend(algorithm, actor, state, samples)
    for i, level in enumerate(SAMPLING.levels()[:-1]):
        variance = STD**2 * level.sigma**2 / (level.alpha**2 * STD**2 + level.sigma**2)
        gain, offset = exact(level)
        policy = actor.weights("policy")
        at_mean = policy["prior.net.gain"][i] * level.alpha * MEAN + policy["prior.net.offset"][i]
        shift = (at_mean - gain * level.alpha * MEAN - offset).item()
        assert shift == pytest.approx(2 * k / beta * variance, rel=0.1, abs=2e-3)
        assert policy["prior.net.gain"][i].item() == pytest.approx(gain, abs=0.03)


def test_old_follows_the_policy_more_slowly_with_time():
    algorithm = Nft(SAMPLING, follow=0.25)
    actor, state = build(algorithm)
    batch = algorithm.collect(actor, PANEL, [Prompt("")], one_camera(), generator(), state)
    old, policy = (actor.weights(n)["prior.net.offset"] for n in ("old", "policy"))
    gaps = []
    for _ in range(4):
        with torch.no_grad():
            policy.copy_(old + 1)
        algorithm.after(actor, batch, state)
        gaps.append((policy - old).mean().item())
    assert gaps == pytest.approx([0.0, 0.25, 0.5, 0.5])


def test_nft_draws_with_old_and_says_how_far_the_policy_went():
    algorithm = Nft(SAMPLING, group=16)
    actor, state = build(algorithm)
    with torch.no_grad():
        actor.weights("policy")["prior.net.offset"].add_(5.0)
    batch = algorithm.collect(actor, PANEL, [Prompt("")], one_camera(), generator(), state)
    assert batch.clean.mean() < 1
    assert algorithm.loss(actor, PANEL, batch, generator(), state)[1]["deviation_from_old"] == pytest.approx(5.0, rel=1e-4)
    with pytest.raises(ValueError, match="positive"):
        Nft(beta=0.0)


def test_forward_batches_keep_prompts_with_samples():
    algorithm = Rwr(SAMPLING, group=3)
    actor, state = build(algorithm)
    batch = algorithm.collect(actor, PANEL, [Prompt("0"), Prompt("5")], one_camera(), generator(), state)
    some = batch.select(torch.tensor([5, 0, 3]))
    assert [p.text for p in some.prompts] == ["5", "0", "5"]
    again = PANEL.scores(actor.using("policy"), some.clean, some.prompts, some.cameras)["quadratic"].value
    torch.testing.assert_close(again, some.scores["quadratic"].value)
    assert torch.equal(some.advantages.value, batch.advantages.value[[5, 0, 3]])


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(Nft(SAMPLING, group=256, draws=4, limit=2.0, anchor=0.0, follow=0.02), marks=pytest.mark.slow),
        pytest.param(Rwr(Sampling(steps=8, start=0.8), temperature=0.1, group=256, draws=8), marks=pytest.mark.slow),
    ],
    ids=["nft", "rwr"],
)
def test_round_after_round_they_climb_to_the_rewards_maximum(algorithm):
    actor = teach(algorithm, {"quadratic": Quadratic(2.0, 1.0)}, batches=200, lr=0.03)
    mean, std = moments(actor.using("policy"), algorithm.sampling)
    assert mean == pytest.approx(1.0, abs=0.15)
    assert std < 0.6 * moments(GaussianPrior(algorithm.sampling), algorithm.sampling)[1]
