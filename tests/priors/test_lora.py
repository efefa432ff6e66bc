import pytest
import torch
from gaussian import GaussianPrior

from rl3d.cameras import Orbit
from rl3d.math import level_at
from rl3d.priors.embedded import EmbeddedPrior
from rl3d.priors.lora import Full, Lora, adapter_state, blend, load_adapter_state
from rl3d.priors.multiview import MultiviewTransformer
from rl3d.priors.rollout import Sampling
from rl3d.priors.sampling import sample_views
from rl3d.priors.words import Tokenizer
from rl3d.types import Prompt

WAYS = [Lora(rank=2), Full()]
NAMES = ("policy", "old")
LEVEL = level_at(0.5)


def tiny(dtype=torch.float32) -> EmbeddedPrior:
    torch.manual_seed(3)
    tokenizer = Tokenizer(("a", "ball"), context=4)
    net = MultiviewTransformer(
        words=len(tokenizer), context=4, size=16, patch=8, width=32, depth=2, heads=2, text_depth=1, refiner_width=8
    )
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return EmbeddedPrior(torch.nn.Module.to(net, dtype).eval(), tokenizer)


def question(prior):
    x = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return x, LEVEL, prior.embed([Prompt("a ball"), Prompt("a")], Orbit(2).cameras())


def disturb(actor, name, scale=0.1):
    with torch.no_grad():
        for p in actor.weights(name).values():
            p.add_(scale * torch.randn(p.shape))


@pytest.mark.parametrize("way", WAYS)
def test_every_version_starts_as_the_prior_itself(way):
    prior = tiny()
    asked = question(prior)
    before = prior.predict(*asked, guidance=2.0)
    actor = way.build(prior, NAMES)
    for name in (*NAMES, "reference"):
        assert torch.equal(actor.using(name).predict(*asked, guidance=2.0), before)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_reach_the_named_weights_alone(way):
    prior = tiny()
    asked, actor = question(prior), way.build(prior, NAMES)
    disturb(actor, "policy")
    frozen = {key: p.clone() for key, p in prior.named_parameters() if not p.requires_grad}
    policy = actor.using("policy").predict(*asked)
    with torch.no_grad():  # switching after the forward pass must not redirect its gradient
        actor.using("old").predict(*asked)
        actor.using("reference").predict(*asked)
    policy.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in actor.weights("policy").values())
    assert all(p.grad is None for p in actor.weights("old").values())
    learning = {id(p) for name in NAMES for p in actor.weights(name).values()}
    assert all(p.grad is None for p in actor.parameters() if id(p) not in learning)
    assert {id(p) for p in actor.parameters() if p.requires_grad} == learning
    assert frozen
    assert all(torch.equal(frozen[key], p) for key, p in prior.named_parameters() if key in frozen)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_changes_the_policy_and_nothing_else(way):
    prior = tiny()
    asked, actor = question(prior), way.build(prior, NAMES)
    before = actor.using("reference").predict(*asked)
    optimizer = torch.optim.SGD(actor.weights("policy").values(), lr=0.1)
    actor.using("policy").predict(*asked).square().mean().backward()
    optimizer.step()
    assert not torch.equal(actor.using("policy").predict(*asked), before)
    assert torch.equal(actor.using("old").predict(*asked), before)
    assert torch.equal(actor.using("reference").predict(*asked), before)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_flow_through_predictions_to_the_noisy_latents(way):
    prior = tiny()
    (x, level, condition), actor = question(prior), way.build(prior, NAMES)
    x.requires_grad_()
    actor.using("reference").predict(x, level, condition).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


@pytest.mark.parametrize("way", WAYS)
def test_blending_is_a_running_mean_and_copies_at_zero(way):
    actor = way.build(tiny(), NAMES)
    disturb(actor, "policy")
    policy, old = ({k: p.detach().clone() for k, p in actor.weights(name).items()} for name in NAMES)
    blend(actor, "policy", "old", keep=0.75)
    for key, p in actor.weights("old").items():
        torch.testing.assert_close(p.detach(), 0.75 * old[key] + 0.25 * policy[key])
    blend(actor, "policy", "old")
    asked = question(actor.prior)
    assert torch.equal(actor.using("old").predict(*asked), actor.using("policy").predict(*asked))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        blend(actor, "policy", "old", keep=2.0)


@pytest.mark.parametrize("way", [Lora(rank=2, dtype="loaded"), Full(dtype="loaded")])
def test_a_network_in_bfloat16_learns_in_float32(way):
    prior = tiny(torch.bfloat16)
    asked = question(prior)
    before = prior.predict(*asked)
    actor = way.build(prior, NAMES)
    assert all(p.dtype == torch.float32 for p in actor.weights("policy").values())
    clean = actor.using("policy").predict(*asked)
    assert clean.dtype == torch.float32
    assert torch.equal(clean, before)
    clean.square().mean().backward()
    grads = [p.grad for p in actor.weights("policy").values() if p.grad is not None]
    assert any(g.any() for g in grads)
    assert all(g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize("way", WAYS)
def test_a_rounded_network_is_refused_unless_asked_for(way):
    with pytest.raises(ValueError, match=r"float32, got bfloat16.*loaded"):
        way.build(tiny(torch.bfloat16))


@pytest.mark.parametrize("way", WAYS)
def test_state_round_trips_and_holds_no_frozen_weights(way):
    actor, other = way.build(tiny(), NAMES), way.build(tiny(), NAMES)
    disturb(actor, "policy")
    state = {key: p.clone() for key, p in adapter_state(actor).items()}
    assert len(state) == 2 * len(actor.weights("policy"))
    load_adapter_state(other, state)
    asked = question(actor.prior)
    assert torch.equal(other.using("policy").predict(*asked), actor.using("policy").predict(*asked))
    with pytest.raises(ValueError, match="other adapters"):
        load_adapter_state(way.build(tiny(), ("policy",)), state)


def test_the_generator_decides_the_adapters_start():
    one, same, other = (Lora(rank=2).build(tiny(), rng=torch.Generator().manual_seed(s)).weights("policy") for s in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_samples_are_drawn_with_any_version():
    actor = Lora(rank=2).build(tiny(), NAMES)
    disturb(actor, "policy", 0.5)

    def draw(name):
        rng = torch.Generator().manual_seed(0)
        return sample_views(actor.using(name), [Prompt("a ball")], Orbit(2).cameras(), steps=2, rng=rng).rgba

    assert torch.equal(draw("old"), draw("reference"))
    assert not torch.equal(draw("policy"), draw("reference"))


@pytest.mark.parametrize("way", WAYS)
def test_names_are_checked(way):
    with pytest.raises(ValueError, match="reference"):
        way.build(tiny(), ("policy", "reference"))
    with pytest.raises(ValueError, match="no weights named 'ema'"):
        way.build(tiny()).using("ema")


def test_lora_names_the_layers_there_are():
    with pytest.raises(ValueError, match=r"set targets"):
        Lora(targets=("nowhere",)).build(tiny())


def test_full_weights_fit_any_prior():
    sampling = Sampling(steps=3)
    actor = Full().build(GaussianPrior(sampling), NAMES)
    x, level = torch.randn(2, 1, 4, 1, 1), sampling.levels()[0]
    actor.using("policy").predict(x, level, 2).sum().backward()
    assert actor.weights("policy")["prior.net.offset"].grad.tolist() == [8.0, 0.0, 0.0]
