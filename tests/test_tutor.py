"""Both actors at once: what is taught, what it changes, and that a stop in between changes nothing."""

from dataclasses import replace

import pytest
import tiny
import torch
from fake_prior import blob, redness, tiny_recipe
from fake_prior import reward as as_reward

from rl3d.__main__ import main
from rl3d.algorithms.adjoint import AdjointMatching
from rl3d.algorithms.backprop import Draft, Refl, align_prop
from rl3d.algorithms.d3po import D3po
from rl3d.algorithms.ddpo import Ddpo
from rl3d.algorithms.dpo import DiffusionDpo
from rl3d.algorithms.dpok import Dpok
from rl3d.algorithms.grpo import Grpo, Window
from rl3d.algorithms.nabla import Nabla
from rl3d.algorithms.nft import Nft
from rl3d.algorithms.rwr import Rwr
from rl3d.algorithms.spo import Spo
from rl3d.cameras import RandomOrbit
from rl3d.math import level_at
from rl3d.optimize import begin, optimize, restore, state
from rl3d.priors.embedded import Embedded
from rl3d.priors.lora import Lora
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.rewards.base import Paired
from rl3d.rewards.combine import Cached
from rl3d.search import BestOf
from rl3d.terms.distillation import Distill
from rl3d.terms.variational import Variational
from rl3d.tutor import Teach
from rl3d.types import Prompt

RED = as_reward(redness, "pixels")
QUICK, SDE = Sampling(steps=2, stepper=Ddim(0.0)), Sampling(steps=2, stepper=Ddim(1.0))
RIG = RandomOrbit(views=2, size=16)
BOTH_WAYS = [Nft(QUICK, group=2, limit=1.0, follow=0.5), DiffusionDpo(SDE, beta=10.0, refresh=2), Rwr(QUICK, group=2)]
"""Algorithms that learn from samples of any source."""
OWN_SAMPLES = [
    Ddpo(SDE, group=2, remember_least=2),
    Dpok(SDE, group=2),
    Grpo(SDE, group=2, kl=0.1),
    Grpo(Sampling(steps=3, stepper=Ddim(1.0)), group=2, window=Window(1)),
    D3po(SDE),
    Spo(SDE, candidates=2),
    Draft(QUICK),
    align_prop(QUICK),
    Refl(QUICK, weight=1.0),
    Nabla(SDE),
    AdjointMatching(SDE),
]
"""Those that must draw them themselves."""


def named(one) -> str:
    return one if isinstance(one, str) else type(one).__name__.lower()


def teach(algorithm=None, **changes) -> Teach:
    algorithm = algorithm or Nft(QUICK, group=2, limit=1.0, follow=0.5)
    return replace(Teach(algorithm, {"red": RED}, every=2, rate=1e-2, rig=RIG, memory=3), **changes)


@pytest.fixture(autouse=True)
def weights(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(tiny.write_weights(tmp_path_factory.mktemp("weights"))))


def recipe(**changes):
    terms = {"distill": Distill()}
    return tiny_recipe(terms=terms, prior=Embedded(dtype="float32"), rig=RIG, steps=6, **changes)


def begun(**changes):
    return begin(recipe(**changes), Prompt("a red mug"), seed=0)


def answer(prior) -> torch.Tensor:
    cameras = RIG.cameras(torch.Generator().manual_seed(3))
    noisy = torch.randn(1, 2, prior.info.channels, 16, 16, generator=torch.Generator().manual_seed(4))
    return prior.predict(noisy, level_at(0.6), prior.embed([Prompt("a red mug")], cameras))


def test_without_a_lesson_the_taught_prior_is_the_prior():
    plain, both = begun(), begun(teach=teach(start=0.9, every=100))
    torch.testing.assert_close(answer(both.prior), answer(plain.prior))
    for one in (plain, both):
        for _ in optimize(one):
            pass
    torch.testing.assert_close(answer(both.prior), answer(plain.prior))


@pytest.mark.parametrize("source", ["prior", "scene"])
@pytest.mark.parametrize("algorithm", [Nft(QUICK, group=2, limit=1.0, follow=0.5), DiffusionDpo(QUICK, beta=10.0), Rwr(QUICK)])
def test_lessons_change_what_the_scene_is_told_and_not_the_network(algorithm, source):
    o = begun(teach=teach(algorithm, source=source))
    before = answer(o.prior)
    network = {name: p.clone() for name, p in o.tutor.actor.prior.named_parameters() if "lora" not in name}
    told = [report.taught for report in optimize(o)]
    assert [bool(one) for one in told] == [False, True, False, True, False, True]
    # One rendering alone cannot be compared.
    assert [one["learned"] for one in told if one] == ([1.0, 1.0, 1.0] if source == "prior" else [0.0, 1.0, 1.0])
    assert (answer(o.prior) - before).abs().max() > 1e-5
    torch.testing.assert_close(answer(o.tutor.actor.using("reference")), before)
    for name, p in o.tutor.actor.prior.named_parameters():
        if "lora" not in name:
            assert torch.equal(p, network[name])


def test_terms_ask_the_taught_prior():
    same, other = begun(teach=teach(every=100)), begun(teach=teach(every=100))

    def apart() -> float:
        pairs = zip(same.scene.parameters(), other.scene.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    for one in (same, other):
        next(optimize(one))
    assert apart() == 0
    with torch.no_grad():
        for p in other.tutor.actor.weights("policy").values():
            p += 0.5
    for one in (same, other):
        next(optimize(one))
    assert apart() > 1e-4


@pytest.mark.parametrize(
    ("algorithm", "source"),
    [(a, source) for a in BOTH_WAYS for source in ("prior", "scene")] + [(a, "prior") for a in OWN_SAMPLES],
    ids=named,
)
def test_a_stop_in_between_changes_nothing(algorithm, source):
    recipes = recipe(teach=teach(algorithm, source=source, every=1))
    whole = begin(recipes, Prompt("a red mug"), seed=0)
    parts = begin(recipes, Prompt("a red mug"), seed=0)
    first = {name: p.clone() for name, p in whole.tutor.actor.weights("policy").items()}
    for _ in optimize(whole):
        pass
    # Those who weigh pairs have learned something by then, and have copied the policy once.
    assert any(not torch.equal(p, first[name]) for name, p in whole.tutor.actor.weights("policy").items())
    for report in optimize(parts):
        if report.step == 3:
            break
    parts = restore(recipes, *state(parts))
    for _ in optimize(parts):
        pass
    one, other = state(whole)[0], state(parts)[0]
    assert one.keys() == other.keys()
    assert any(name.startswith("tutor.") for name in one)
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_slow_reward_is_asked_about_each_rendering_once():
    asked = []

    def slow(shown, prompts):
        asked.append(len(prompts))
        return redness(shown, prompts)

    made = {}
    for name, part in {"plain": RED, "cached": Cached(as_reward(slow))}.items():
        o = begun(teach=teach(rewards={"red": part}, source="scene", every=1))
        taught = [report.taught for report in optimize(o)]
        made[name] = taught, o.scene.splats().means
    # A memory of three: six lessons, of which the first has nothing to compare and judges with the second.
    assert asked == [2, 1, 1, 1, 1]
    assert [one["learned"] for one in made["cached"][0]] == [one["learned"] for one in made["plain"][0]]
    torch.testing.assert_close(made["cached"][1], made["plain"][1])


def test_the_scenes_states_teach_the_prior_to_make_what_the_reward_prefers():
    """Of grey and red states of a scene the red ones are preferred: the prior's own samples become redder."""
    o = begun(teach=teach(Nft(QUICK, limit=1.0, draws=4, follow=0.5, anchor=0.0), source="scene", memory=4))
    cameras = RIG.cameras(torch.Generator().manual_seed(5))

    @torch.no_grad()
    def redder() -> float:
        torch.manual_seed(0)
        latents = answer(o.prior)
        return float(redness(type("Shown", (), {"views": o.prior.decode(latents, cameras)}), []).mean())

    before, rng = redder(), torch.Generator().manual_seed(1)
    scene = blob()
    for i in range(30):
        with torch.no_grad():
            scene.sh[:, 0] = torch.tensor([1.5, -1.5, -1.5]) if i % 2 else 0.0
        o.tutor.lesson(scene, rng)
    assert redder() > before + 0.02


def test_a_run_leaves_its_lora_which_another_run_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--steps", "4", "--rig.size", "16", "--draw.steps", "2", "--draw.candidates", "1", "--start.limit", "80"]
    small += ["--teach.rig.size", "16", "--teach.every", "1", "--teach.start", "0", "--prior.dtype", "float32"]
    main(["generate", "a red mug", "--recipe", "both", *small, "--out", "one"])
    assert (tmp_path / "one" / "lora" / "pytorch_lora_weights.safetensors").is_file()
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    assert sum('"taught"' in line for line in lines) == 4
    plain = ["--recipe", "draft", *small[:10], "--prior.lora", "one/lora", "--out", "two"]
    main(["generate", "a red mug", *plain])
    assert (tmp_path / "two" / "asset.ply").is_file()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"every": 0}, "between lessons"),
        ({"memory": 1}, "renderings"),
        ({"rewards": {}}, "at least one reward"),
        ({"weights": {"blue": 2.0}}, "no reward blue to weigh"),
        ({"source": "scene", "algorithm": Ddpo(QUICK)}, "take Nft, DiffusionDpo or Rwr"),
    ],
)
def test_mistakes_are_answered_in_words(changes, says):
    with pytest.raises(ValueError, match=says):
        teach(**changes)


def test_what_cannot_be_taught_is_refused():
    with pytest.raises(ValueError, match="no prior to teach"):
        begin(replace(recipe(teach=teach()), prior=None), Prompt("a red mug"))
    with pytest.raises(ValueError, match="leave out `search` or `teach`"):
        recipe(teach=teach(), search=BestOf(seeds=2))
    with pytest.raises(ValueError, match="would lack"):
        replace(recipe(teach=teach()), prior=Embedded(lora="some"))
    with pytest.raises(ValueError, match="leave out `teach`, or this term"):
        begin(replace(recipe(teach=teach()), terms={"distill": Variational()}), Prompt("a red mug"))
    scene_reward = as_reward(lambda shown, prompts: [0.0], needs=("splats",), name="whole")
    with pytest.raises(ValueError, match="wrap it in Lifted"):
        begun(teach=teach(rewards={"whole": scene_reward}))


GREY = as_reward(redness, "no", name="grey box")
NO_GRADIENT = [Draft(QUICK), align_prop(QUICK), Refl(QUICK), Nabla(SDE), AdjointMatching(SDE)]


class Pairs:
    """A judge of pairs, as a recipe holds it."""

    def build(self, device="cpu"):
        return Paired(GREY)


@pytest.mark.parametrize("algorithm", NO_GRADIENT, ids=named)
@pytest.mark.parametrize("reward", [GREY, Pairs()], ids=["black box", "pairs"])
def test_rewards_without_a_gradient_are_refused_at_once_by_those_who_follow_it(algorithm, reward):
    with pytest.raises(ValueError, match="has no gradient in the pixels: take DDPO"):
        begun(teach=teach(algorithm, rewards={"grey": reward}))
    # One that is only watched need not have any.
    begun(teach=teach(algorithm, rewards={"red": RED, "grey": reward}, weights={"grey": 0.0}))


def test_a_judge_of_pairs_is_refused_where_there_is_nobody_to_compare_with():
    for algorithm in (Ddpo(SDE, group=1), Spo(SDE, candidates=3)):
        with pytest.raises(ValueError, match="judges pairs, and this algorithm shows it 1 sample"):
            begun(teach=teach(algorithm, rewards={"pairs": Pairs()}))
    for one in (teach(Nft(QUICK, group=2, limit=1.0)), teach(Nft(QUICK, group=1), source="scene")):
        o = begun(teach=replace(one, rewards={"pairs": Pairs()}))
        assert [report.taught["learned"] for report in optimize(o) if report.taught][-1] == 1.0


@pytest.mark.parametrize("algorithm", [Ddpo, Dpok, Grpo, D3po, Spo, Nabla], ids=lambda kind: kind.__name__)
def test_steps_that_never_draw_are_refused_at_once_by_those_who_learn_them(algorithm):
    with pytest.raises(ValueError, match=r"take Ddim\(eta=1.0\) or FlowSde"):
        begun(teach=teach(algorithm(QUICK)))


def test_a_gradient_through_the_sampler_needs_the_priors_own_samples():
    o = begun(teach=teach(Draft(QUICK, last=1)))
    assert [report.taught["learned"] for report in optimize(o) if report.taught] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="take Nft"):
        teach(Draft(QUICK, last=1), source="scene")


def test_low_rank_weights_on_a_rounded_network_are_allowed():
    assert Teach().adapt == Lora(dtype="loaded")
