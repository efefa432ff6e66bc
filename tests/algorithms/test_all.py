"""What holds for every algorithm: on a network, with LoRA, through a checkpoint, for any mix of rewards."""

import dataclasses

import pytest
import torch
from gaussian import GaussianPrior, Linear, Quadratic, one_camera
from tiny import tiny_prior

from rl3d.algorithms.adjoint import AdjointMatching
from rl3d.algorithms.backprop import Draft, Refl, align_prop, draft_lv
from rl3d.algorithms.common import Algorithm, Panel, in_groups
from rl3d.algorithms.d3po import D3po
from rl3d.algorithms.ddpo import Ddpo
from rl3d.algorithms.dpo import DiffusionDpo, online_dpo
from rl3d.algorithms.dpok import Dpok
from rl3d.algorithms.grpo import Grpo, Window, dance_grpo, flow_cps, flow_grpo, mix_grpo
from rl3d.algorithms.nabla import Nabla, nabla_r2d3
from rl3d.algorithms.nft import Nft
from rl3d.algorithms.rwr import Rwr
from rl3d.algorithms.spo import Spo
from rl3d.cameras import Orbit
from rl3d.priors.lora import Full, Lora, adapter_state, blend, load_adapter_state
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.protocols import Actor, RewardInfo
from rl3d.types import Prompt, Score

S, ODE = Sampling(steps=3), Sampling(steps=3, stepper=Ddim(0.0))
ALL = {
    "ddpo": Ddpo(S, group=2),
    "dpok": Dpok(S, group=2),
    "grpo": Grpo(S, group=2),
    "flow_grpo": flow_grpo(steps=3, group=2),
    "flow_cps": flow_cps(steps=3, group=2),
    "dance_grpo": dance_grpo(steps=3, group=2),
    "mix_grpo": mix_grpo(steps=4, group=2, window=Window(2)),
    "draft": Draft(ODE),
    "draft_lv": draft_lv(ODE),
    "align_prop": align_prop(ODE),
    "refl": Refl(ODE),
    "dpo": DiffusionDpo(S),
    "online_dpo": online_dpo(sampling=S, group=2),
    "d3po": D3po(S),
    "spo": Spo(S, candidates=2),
    "rwr": Rwr(S, group=2),
    "nft": Nft(ODE, group=2),
    "nabla": Nabla(S),
    "nabla_joint": Nabla(S, joint=True),
    "nabla_r2d3": nabla_r2d3(sampling=S),
    "adjoint_matching": AdjointMatching(S),
}
each = pytest.mark.parametrize("algorithm", ALL.values(), ids=ALL)


class Bright(torch.nn.Module):
    info = RewardInfo("bright", "pixels", (0.0, 1.0), "", "", "")

    def score(self, views, prompts):
        return Score(views.rgb.mean((1, 2, 3, 4)), None, torch.ones(len(prompts), dtype=torch.bool))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each
def test_each_is_a_value_with_the_interface(algorithm):
    assert isinstance(algorithm, Algorithm)
    assert dataclasses.is_dataclass(algorithm)
    hash(algorithm)
    assert algorithm.adapters()[0] == "policy"


@each
def test_each_teaches_lora_adapters_of_a_network_and_nothing_else(algorithm):
    actor = Lora(rank=2).build(tiny_prior(), algorithm.adapters(), generator())
    assert isinstance(actor, Actor)
    panel, state, rng = Panel({"bright": Bright()}), algorithm.state(actor), generator()
    prompts = [Prompt("a mug"), Prompt("a red cube")]
    before = {key: p.detach().clone() for key, p in actor.named_parameters()}
    batch = algorithm.collect(actor, panel, prompts, Orbit(2).cameras(), rng, state)
    assert all(torch.equal(before[key], p) for key, p in actor.named_parameters())
    loss, told = algorithm.loss(actor, panel, batch, rng, state)
    assert loss.isfinite()
    assert told
    loss.backward()
    grads = {name: [p.grad for p in actor.weights(name).values()] for name in algorithm.adapters()}
    assert any(g is not None and g.any() for g in grads.pop("policy"))
    assert all(g is None for others in grads.values() for g in others)
    ours = {id(p) for p in actor.weights("policy").values()}
    assert all(p.grad is None for p in actor.parameters() if id(p) not in ours)
    part = batch.select(torch.tensor([1]))
    assert len(part) == 1
    assert algorithm.loss(actor, panel, part, rng, state)[0].isfinite()
    algorithm.after(actor, batch, state)


@each
def test_each_goes_on_after_a_checkpoint_as_if_nothing_had_happened(algorithm):
    panel = Panel({"quadratic": Quadratic(), "linear": Linear(0.1)}, {"linear": 0.5})

    def begin():
        torch.manual_seed(0)
        actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
        state = algorithm.state(actor)
        optimizer = torch.optim.Adam([*actor.weights("policy").values(), *state.parameters()], lr=0.01)
        return actor, state, optimizer

    def run(actor, state, optimizer, rng, steps):
        for _ in range(steps):
            batch = algorithm.collect(actor, panel, [Prompt("1"), Prompt("-1")], one_camera(), rng, state)
            loss, _ = algorithm.loss(actor, panel, batch, rng, state)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            algorithm.after(actor, batch, state)

    whole, rng = begin(), generator()
    run(*whole, rng, 4)
    first, rng = begin(), generator()
    run(*first, rng, 2)
    held = {key: p.clone() for key, p in adapter_state(first[0]).items()}
    saved, moments, random = first[1].state_dict(), first[2].state_dict(), rng.get_state()
    later, rng = begin(), generator(9)
    load_adapter_state(later[0], held)
    later[1].load_state_dict(saved)
    later[2].load_state_dict(moments)
    rng.set_state(random)
    run(*later, rng, 2)
    for key, p in adapter_state(whole[0]).items():
        assert torch.equal(p, adapter_state(later[0])[key])


@each
def test_each_says_the_same_twice(algorithm):
    losses = []
    for _ in range(2):
        torch.manual_seed(len(losses))  # the global generator must not matter
        actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
        panel, rng = Panel({"quadratic": Quadratic()}), generator()
        state = algorithm.state(actor, rng)
        batch = algorithm.collect(actor, panel, [Prompt("1"), Prompt("-1")], one_camera(), rng, state)
        if isinstance(algorithm, Nabla) and algorithm.correction:
            state.leave.weight.data.fill_(0.01)  # else it is 0, whatever else it is
        losses.append(algorithm.loss(actor, panel, batch, rng, state)[0])
    assert torch.equal(*losses)


class Broken(Quadratic):
    """Fails on some samples, with a gradient that is not finite."""

    def score(self, views, prompts):
        value = super().score(views, prompts).value.clone()
        good = torch.arange(len(prompts)) % 2 == 0
        value[~good] = (views.rgba[~good].sum((1, 2, 3, 4)) * 0 - 1).sqrt()
        return Score(value, None, good)


@each
def test_rewards_that_fail_on_some_samples_leave_finite_gradients(algorithm):
    if hasattr(algorithm, "group"):
        algorithm = dataclasses.replace(algorithm, group=4)
    if hasattr(algorithm, "candidates"):
        algorithm = dataclasses.replace(algorithm, candidates=4)
    actor = Full().build(GaussianPrior(algorithm.sampling), algorithm.adapters())
    panel, rng = Panel({"broken": Broken()}), generator()
    state = algorithm.state(actor, rng)
    batch = algorithm.collect(actor, panel, [Prompt("1"), Prompt("-1"), Prompt("2")], one_camera(), rng, state)
    loss, told = algorithm.loss(actor, panel, batch, rng, state)
    loss.backward()
    grads = [p.grad for p in actor.weights("policy").values() if p.grad is not None]
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads)
    assert told.get("valid/broken", 1.0) > 0


def test_every_field_of_an_algorithm_is_a_flag():
    import tyro

    found = tyro.cli(Grpo, args=["--sampling.steps", "5", "--group", "3", "--kl", "0.1", "--clip", "None"])
    assert found == dataclasses.replace(Grpo(), sampling=Sampling(steps=5), group=3, kl=0.1, clip=None)
    for algorithm in ALL.values():
        assert tyro.cli(type(algorithm), default=algorithm, args=[]) == algorithm


def test_panels_weigh_and_refuse_to_be_empty():
    prior, x = GaussianPrior(S), torch.randn(3, 1, 4, 1, 1, generator=generator())
    panel = Panel({"quadratic": Quadratic(), "linear": Linear(0.3)}, {"quadratic": 2.0})
    prompts, cameras = [Prompt("")] * 3, one_camera(3)
    gradient = panel.gradient(prior, x, prompts, cameras)
    torch.testing.assert_close(gradient, -2 * (x - 1) + 0.3)
    assert panel.total(prior, x, prompts, cameras).valid.all()
    with pytest.raises(ValueError, match="at least one"):
        Panel({})


def test_groups_repeat_prompts_with_their_cameras():
    cameras = dataclasses.replace(one_camera(2), intrinsics=torch.arange(2.0)[:, None, None, None] * torch.ones(2, 1, 3, 3))
    prompts, many = in_groups([Prompt("a"), Prompt("b")], cameras, 3)
    assert "".join(p.text for p in prompts) == "aaabbb"
    assert many.intrinsics[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_copy_of_the_policy_is_where_an_average_starts():
    actor = Full().build(GaussianPrior(S), ("policy", "ema"))
    with torch.no_grad():
        actor.weights("policy")["prior.net.offset"].add_(1.0)
    for _ in range(3):
        blend(actor, "policy", "ema", keep=0.5)
    gap = actor.weights("policy")["prior.net.offset"] - actor.weights("ema")["prior.net.offset"]
    torch.testing.assert_close(gap.detach(), torch.full_like(gap, 0.125))
