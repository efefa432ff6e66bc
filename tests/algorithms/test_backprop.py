from dataclasses import replace

import pytest
import torch
from gaussian import GaussianPrior, Quadratic, moments, one_camera, teach
from tiny import tiny_prior

from rl3d.algorithms.backprop import Draft, Refl, align_prop, draft_lv
from rl3d.algorithms.common import Panel
from rl3d.cameras import Orbit
from rl3d.priors.lora import Full, Lora
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.types import Prompt, Score

ODE = Sampling(steps=6, stepper=Ddim(0.0))
PANEL = Panel({"quadratic": Quadratic()})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begin(algorithm, panel=PANEL, n: int = 8, seed: int = 0):
    actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
    rng = generator(seed)
    batch = algorithm.collect(actor, panel, [Prompt("")] * n, one_camera(), rng, algorithm.state(actor))
    return actor, batch


def offset_gradient(algorithm, actor, batch, panel=PANEL):
    loss, _ = algorithm.loss(actor, panel, batch, generator(1), torch.nn.Module())
    return torch.autograd.grad(loss, actor.weights("policy")["prior.net.offset"])[0]


@pytest.mark.parametrize("last", [1, 2, 4, 6])
def test_steps_before_the_last_k_get_exactly_no_gradient(last):
    algorithm = Draft(ODE, last=last)
    gradient = offset_gradient(algorithm, *begin(algorithm))
    assert (gradient[: 6 - last] == 0).all()
    assert (gradient[6 - last :] != 0).all()


def test_all_steps_give_the_gradient_of_the_whole_sampler():
    algorithm = Draft(ODE, last=6)
    actor, batch = begin(algorithm)
    gradient = offset_gradient(algorithm, actor, batch)
    offset = actor.weights("policy")["prior.net.offset"]

    def loss() -> float:
        return algorithm.loss(actor, PANEL, batch, generator(1), torch.nn.Module())[0].item()

    for i in range(6):
        values = []
        for h in (1e-2, -1e-2):
            with torch.no_grad():
                offset[i] += h
                values.append(loss())
                offset[i] -= h
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(gradient[i].item(), rel=2e-2, abs=1e-3)


def test_remembering_less_changes_no_gradient():
    algorithm = Draft(ODE, last=4)
    actor, batch = begin(algorithm)
    less = offset_gradient(replace(algorithm, remember_less=True), actor, batch)
    torch.testing.assert_close(less, offset_gradient(algorithm, actor, batch))


def test_remembering_less_computes_anew_with_the_same_adapter():
    class Bright(Quadratic):
        def score(self, views, prompts):
            return Score(views.rgb.square().mean((1, 2, 3, 4)), None, torch.ones(len(prompts), dtype=torch.bool))

    found = []
    for less in (False, True):
        algorithm = Draft(ODE, last=3, remember_less=less)
        actor = Lora(rank=2).build(tiny_prior(), ("policy", "old"), generator())
        with torch.no_grad():
            for p in actor.weights("policy").values():
                p.add_(0.1 * torch.randn(p.shape, generator=generator(4)))
        panel, state = Panel({"bright": Bright()}), algorithm.state(actor)
        batch = algorithm.collect(actor, panel, [Prompt("a mug")], Orbit(2).cameras(), generator(), state)
        loss, _ = algorithm.loss(actor, panel, batch, generator(), state)
        with torch.no_grad():  # another adapter is active when the backward pass begins
            actor.using("old").predict(batch.latents, ODE.levels()[0], actor.prior.embed([Prompt("a")], batch.cameras))
        found.append(torch.autograd.grad(loss, list(actor.weights("policy").values())))
    for more, less in zip(*found, strict=True):
        assert more.any()
        torch.testing.assert_close(less, more)


def test_align_prop_draws_how_far_gradients_flow():
    algorithm = align_prop(ODE)
    reaches = {int((offset_gradient(algorithm, *begin(algorithm, seed=s)) != 0).sum()) for s in range(40)}
    assert reaches == {1, 2, 3, 4, 5, 6}


def test_copies_have_the_same_mean_gradient_and_less_variance():
    def spread(copies: int) -> tuple[float, float]:
        algorithm, found = draft_lv(ODE, copies), []
        for seed in range(60):
            actor, batch = begin(algorithm, n=1, seed=seed)
            loss, _ = algorithm.loss(actor, PANEL, batch, generator(100 + seed), torch.nn.Module())
            gradient = torch.autograd.grad(loss, actor.weights("policy")["prior.net.offset"])[0]
            assert not gradient[:-1].any()
            found.append(gradient[-1])
        return torch.stack(found).mean().item(), torch.stack(found).std().item()

    (mean_two, two), (mean_many, many) = spread(2), spread(16)
    assert many < two
    assert mean_many == pytest.approx(mean_two, abs=3 * two / 60**0.5)


def test_refl_scores_the_clean_prediction_of_a_late_step():
    algorithm = Refl(ODE, first=0.5, last=1.0, margin=None, weight=1.0)
    steps = set()
    for seed in range(20):
        actor, batch = begin(algorithm, seed=seed)
        gradient = offset_gradient(algorithm, actor, batch)
        assert gradient.nonzero()[:, 0].tolist() == [batch.step]
        net = actor.prior.net
        clean = net.gain[batch.step] * batch.latents + net.offset[batch.step]
        torch.testing.assert_close(gradient[batch.step], (clean - 1).sum((1, 2, 3, 4)).mean())
        steps.add(batch.step)
    assert steps == {3, 4, 5}


@pytest.mark.parametrize("make", [lambda m: Draft(ODE, last=2, margin=m), lambda m: Refl(ODE, margin=m, weight=1.0)])
def test_samples_beyond_the_margin_are_left_alone(make):
    actor, batch = begin(make(-1e6))
    assert not offset_gradient(make(-1e6), actor, batch).any()
    assert offset_gradient(make(1e6), actor, batch).any()


def test_rewards_without_a_gradient_are_refused_with_a_way_out():
    blind = Panel({"physics": Quadratic(differentiable="no")})
    for algorithm in (Draft(ODE), Refl(ODE)):
        with pytest.raises(ValueError, match=r"physics has no gradient.*DDPO"):
            begin(algorithm, blind)
    begin(Draft(ODE), Panel({"physics": Quadratic(differentiable="no"), "clip": Quadratic()}, {"physics": 0.0}))


def test_impossible_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="1 to 6 steps, got 7"):
        Draft(ODE, last=7)
    with pytest.raises(ValueError, match="DRaFT-LV"):
        Draft(ODE, last=2, copies=2)
    with pytest.raises(ValueError, match="first <= last"):
        Refl(ODE, first=0.9, last=0.1)


@pytest.mark.parametrize(
    "algorithm",
    [
        Draft(ODE, last=1),
        Draft(ODE, last=6),
        align_prop(ODE),
        Refl(ODE, first=0.5, last=1.0, margin=None, weight=1.0),
    ],
    ids=["draft_1", "draft_all", "align_prop", "refl"],
)
def test_they_reach_the_rewards_maximum(algorithm):
    actor = teach(algorithm, {"quadratic": Quadratic(1.0, 1.5)}, batches=150, prompts=64, lr=0.05)
    mean, std = moments(actor.using("policy"), ODE)
    assert mean == pytest.approx(1.5, abs=0.03)
    # The maximum is a point: diversity goes.
    assert std < 0.3 * moments(GaussianPrior(ODE), ODE)[1]


def test_draft_lv_maximises_the_reward_of_what_it_renoises():
    # Its fixed point is that of its own samples, renoised at the last level: how they got there is none of its business.
    algorithm = draft_lv(ODE)
    actor, batch = begin(algorithm, n=64)
    before = algorithm.loss(actor, PANEL, batch, generator(), torch.nn.Module())[0].item()
    taught = teach(algorithm, {"quadratic": Quadratic()}, batches=150, prompts=64, lr=0.05, actor=actor)
    batch = algorithm.collect(taught, PANEL, [Prompt("")] * 64, one_camera(), generator(5), torch.nn.Module())
    assert algorithm.loss(taught, PANEL, batch, generator(), torch.nn.Module())[0].item() < 0.05 * before
