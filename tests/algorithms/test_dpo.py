import math
from dataclasses import replace

import pytest
import torch
from gaussian import MEAN, STD, GaussianPrior, Linear, Quadratic, exact, moments, one_camera, reached, teach
from tiny import tiny_prior

from rl3d.algorithms.common import Panel
from rl3d.algorithms.d3po import D3po
from rl3d.algorithms.dpo import DiffusionDpo, Pairs, online_dpo
from rl3d.algorithms.spo import Spo
from rl3d.cameras import Orbit
from rl3d.priors.lora import Full, Lora
from rl3d.priors.rollout import Ddim, FlowSde, Sampling
from rl3d.types import Prompt, Score

SAMPLING = Sampling(steps=4, reduction="sum")
ALL = [
    DiffusionDpo(SAMPLING, group=4),
    DiffusionDpo(replace(SAMPLING, path="flow"), weighting="flow", reduction="sum", beta=10.0, draws=3),
    online_dpo(sampling=SAMPLING),
    D3po(SAMPLING, group=3),
    D3po(Sampling(4, FlowSde(), path="flow"), clip=0.1, group=3),
    Spo(SAMPLING, candidates=3),
    Spo(Sampling(4, FlowSde(), path="flow"), clip=None),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(algorithm, reward=None, prompts=("", "2", "-1")):
    actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
    panel, state = Panel({"quadratic": reward or Quadratic()}), algorithm.state(actor)
    batch = algorithm.collect(actor, panel, [Prompt(p) for p in prompts], one_camera(), generator(), state)
    return actor, panel, batch, state


@pytest.mark.parametrize("algorithm", ALL)
def test_preference_losses_start_at_log_two_with_a_gradient(algorithm):
    actor, panel, batch, state = begin(algorithm)
    loss, told = algorithm.loss(actor, panel, batch, generator(), state)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert told["accuracy"] == 0.0
    loss.backward()
    assert actor.weights("policy")["prior.net.offset"].grad.any()


@pytest.mark.parametrize("way", [Lora(rank=2), Full()])
def test_a_network_starts_at_log_two(way):
    class Bright(Quadratic):
        def score(self, views, prompts):
            return Score(views.rgb.mean((1, 2, 3, 4)), None, torch.ones(len(prompts), dtype=torch.bool))

    for algorithm in (DiffusionDpo(Sampling(steps=3)), D3po(Sampling(steps=3))):
        actor, panel = way.build(tiny_prior(), algorithm.adapters()), Panel({"bright": Bright()})
        state, prompts = algorithm.state(actor), [Prompt("a mug"), Prompt("a cube")]
        batch = algorithm.collect(actor, panel, prompts, Orbit(2).cameras(), generator(), state)
        loss, _ = algorithm.loss(actor, panel, batch, generator(), state)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("algorithm", ALL)
def test_a_step_down_makes_winners_likelier(algorithm):
    actor, panel, batch, state = begin(algorithm)
    loss, _ = algorithm.loss(actor, panel, batch, generator(), state)
    loss.backward()
    with torch.no_grad():
        for p in actor.weights("policy").values():
            p.sub_(1e-5 * p.grad / p.grad.norm().clamp_min(1e-12))
    later, told = algorithm.loss(actor, panel, batch, generator(), state)
    assert later < loss
    assert told["accuracy"] > 0


def test_winners_are_the_better_ones_of_their_prompt_even_after_shuffling():
    targets = ("0", "3", "-7")
    actor, panel, pairs, _ = begin(DiffusionDpo(SAMPLING, group=4), prompts=targets)
    some = pairs.select(torch.tensor([2, 0]))
    assert [p.text for p in some.prompts] == ["-7", "0"]
    for batch in (pairs, some):
        best, worst = (
            panel.scores(actor.using("policy"), x, batch.prompts, batch.cameras)["quadratic"].value
            for x in (batch.winners, batch.losers)
        )
        assert (best > worst).all()
        torch.testing.assert_close(best, batch.scores["quadratic"].value)
    actor, panel, rolled, _ = begin(D3po(SAMPLING, group=4), prompts=targets)
    assert [p.text for p in rolled.winners.prompts] == list(targets) == [p.text for p in rolled.losers.prompts]
    part = rolled.select(torch.tensor([1]))
    assert part.winners.prompts == part.losers.prompts == (Prompt("3"),)


def test_groups_without_a_difference_give_no_pairs_and_a_clear_message():
    for algorithm in (DiffusionDpo(SAMPLING, least=1e9), D3po(SAMPLING, least=1e9), Spo(SAMPLING, least=1e9)):
        actor, panel, batch, state = begin(algorithm)
        with pytest.raises(ValueError, match="no pairs"):
            algorithm.loss(actor, panel, batch, generator(), state)


def test_the_published_clip_of_d3po_confines_its_loss():
    algorithm = D3po(SAMPLING, group=3, clip=0.1, beta=0.1)
    actor, panel, batch, state = begin(algorithm)
    with torch.no_grad():
        actor.weights("policy")["prior.net.offset"].add_(20.0)
    assert 0.683 < algorithm.loss(actor, panel, batch, generator(), state)[0].item() < 0.7033
    free = replace(algorithm, clip=None)
    assert abs(free.loss(actor, panel, batch, generator(), state)[0].item() - math.log(2)) > 0.05


def test_the_reference_of_online_dpo_is_renewed():
    algorithm = online_dpo(refresh=2, sampling=SAMPLING)
    actor, panel, batch, state = begin(algorithm)
    with torch.no_grad():
        actor.weights("policy")["prior.net.offset"].add_(0.1)
    algorithm.after(actor, batch, state)
    assert abs(algorithm.loss(actor, panel, batch, generator(), state)[0].item() - math.log(2)) > 1e-3
    algorithm.after(actor, batch, state)
    assert algorithm.loss(actor, panel, batch, generator(), state)[0].item() == pytest.approx(math.log(2), abs=1e-6)


def test_dpo_on_bradley_terry_pairs_finds_the_shift_that_explains_them():
    # With a linear reward k sum(x) the margin of a policy whose predictions are all shifted by d is
    # beta w d (1 - gain alpha) sum(x_w - x_l): where that is the reward's difference, the model of the preferences is exact.
    k, beta = 0.4, 2.0
    sampling = Sampling(steps=3, start=0.7)
    algorithm = DiffusionDpo(sampling, beta=beta, reduction="sum", draws=3)
    actor = Full().build(GaussianPrior(sampling), ("policy",))
    one, other = MEAN + STD * torch.randn(2, 8192, 1, 4, 1, 1, generator=generator())
    difference = k * (one - other).sum((1, 2, 3, 4))
    first = torch.rand(8192, generator=generator(1)) < difference.sigmoid()
    first = first[:, None, None, None, None]
    cameras = one_camera(8192)
    pairs = Pairs(torch.where(first, one, other), torch.where(first, other, one), (Prompt(""),) * 8192, cameras, {})
    optimizer = torch.optim.Adam(actor.weights("policy").values(), lr=0.05, betas=(0.9, 0.99))
    cosine, rng = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120), generator(2)
    for _ in range(120):
        loss, _ = algorithm.loss(actor, Panel({"linear": Linear(k)}), pairs, rng, algorithm.state(actor))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
    policy = actor.weights("policy")
    for i, level in enumerate(sampling.levels()[:-1]):
        gain, offset = exact(level)
        shift = k / (beta * (level.alpha / level.sigma) ** 2 * (1 - gain * level.alpha))
        at_mean = policy["prior.net.gain"][i] * level.alpha * MEAN + policy["prior.net.offset"][i]
        assert (at_mean - gain * level.alpha * MEAN - offset).item() == pytest.approx(shift, rel=0.15)
        assert policy["prior.net.gain"][i].item() == pytest.approx(gain, abs=0.1)


@pytest.mark.parametrize(
    "algorithm",
    [
        online_dpo(beta=2.0, group=2, refresh=10, sampling=replace(SAMPLING, stepper=Ddim(1.0))),
        pytest.param(D3po(SAMPLING, beta=0.02), marks=pytest.mark.slow),
        pytest.param(Spo(SAMPLING, beta=0.02, clip=None, least=0.0), marks=pytest.mark.slow),
    ],
    ids=["online_dpo", "d3po", "spo"],
)
def test_online_preferences_climb_to_the_rewards_maximum(algorithm):
    if isinstance(algorithm, DiffusionDpo):
        algorithm = replace(algorithm, reduction="sum", draws=2)
    actor = teach(algorithm, {"quadratic": Quadratic(2.0, 1.0)}, batches=200, prompts=256, lr=0.02, seed=3)
    reference = GaussianPrior(SAMPLING)
    before = reached(reference, reference, SAMPLING, 2.0, 1.0, 0.0).objective
    after = reached(actor.using("policy"), reference, SAMPLING, 2.0, 1.0, 0.0)
    assert moments(actor.using("policy"), SAMPLING)[0] == pytest.approx(1.0, abs=0.15)
    assert after.objective > 0.35 * before
