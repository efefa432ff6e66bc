from dataclasses import replace

import pytest
import torch
from fake_prior import RED, Fake, GaussianViews, pixel_gradient, redness, reward, run, situation, step, tiny_recipe, views

from rl3d.cameras import Orbit
from rl3d.optimize import begin
from rl3d.protocols import RewardInfo
from rl3d.rewards.combine import Combine, Part
from rl3d.rewards.guards import Area, Sharpness
from rl3d.rewards.physics import Stands
from rl3d.rewards.shape import Whole
from rl3d.terms.denoising import draw_time, noised, predict, seen
from rl3d.terms.distillation import Distill
from rl3d.terms.noise_search import SearchNoise, noise_weights
from rl3d.terms.preference import Prefer
from rl3d.types import Prompt, Score


def score(*values, invalid=()):
    valid = torch.ones(len(values), dtype=torch.bool)
    valid[list(invalid)] = False
    return Score(torch.tensor(values), None, valid)


def test_weights_of_noises_are_as_published():
    s = score(3.0, 1.0, 4.0, 2.0, 0.0, 9.0, invalid=(5,))
    assert noise_weights(s, "minmax").tolist() == pytest.approx([0.45, -0.05, 0.45, 0, -0.05, 0])
    assert noise_weights(s, "best").tolist() == [0, 0, 1, 0, 0, 0]
    soft = noise_weights(s, "softmax", temperature=0.5)
    values = s.value[:5]
    torch.testing.assert_close(soft[:5], (values / (0.5 * values.std(correction=0))).softmax(0))
    assert soft[5] == 0
    group = noise_weights(s, "group", distil=0.0)
    torch.testing.assert_close(group[:5], (values - values.mean()) / values.std(correction=0) / 5)
    assert noise_weights(s, "group", distil=2.0).sum() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("strategy", ["minmax", "best", "softmax", "group"])
def test_without_judgements_all_noises_weigh_alike(strategy):
    assert noise_weights(score(1.0, 2.0, 3.0, invalid=(0, 1)), strategy).tolist() == pytest.approx([1 / 3] * 3)


def test_two_noises_with_minmax_are_still_told_apart():
    assert noise_weights(score(1.0, 2.0), "minmax").tolist() == pytest.approx([-0.1, 0.9])


@pytest.mark.parametrize("strategy", ["minmax", "best", "softmax", "group"])
def test_the_gradient_is_the_weighed_sum_of_each_noises_pull(strategy):
    prior, shown, judge = GaussianViews(), views((0.4, 0.5, 0.6)), reward()
    term = SearchNoise(judge, noises=5, strategy=strategy, temperature=0.3)
    found = pixel_gradient(term.build(situation(prior)), step(shown, prior, seed=4))
    rng = torch.Generator().manual_seed(4)
    from rl3d.math import level_at

    level, clean = level_at(draw_time(term, 0.5, rng)), prior.encode(shown)
    guesses = predict(prior, noised(clean, level, 5, rng), level, RED, shown.cameras, guidance=3.0, rescale=0.5)
    weight = noise_weights(judge.score(seen(prior, guesses, shown.cameras), [RED] * 5), strategy, temperature=0.3)
    wanted = (weight.view(-1, 1, 1, 1, 1) * (clean - guesses)).sum(0, keepdim=True) / 2
    torch.testing.assert_close(found.movedim(-1, 2), 2 * wanted[:, :, :3], atol=1e-5, rtol=1e-4)


def test_a_reward_that_likes_all_alike_leaves_plain_distillation():
    prior, shown = GaussianViews(), views()
    flat = reward(lambda shown, prompts: torch.zeros(len(prompts)), name="flat")
    term = SearchNoise(flat, strategy="group", noises=3, guidance=1, rescale=0)
    found = pixel_gradient(term.build(situation(prior)), step(shown, prior))
    plain = pixel_gradient(Distill(guidance=1, rescale=0).build(situation(prior)), step(shown, prior))
    # The mean over three noises instead of one, at the same time.
    assert torch.nn.functional.cosine_similarity(found.flatten(), plain.flatten(), dim=0) > 0.9
    silent = SearchNoise(flat, strategy="group", noises=3, distil=0.0).build(situation(prior))
    assert pixel_gradient(silent, step(shown, prior)).abs().max() == 0


@pytest.mark.parametrize(
    "term",
    [
        SearchNoise(reward(), noises=3, judged_after=4),
        SearchNoise(reward(), noises=2, until=1.0),
        Prefer(reward(), gap=0.0),
        Prefer(reward(), gap=0.0, per="view", start=0.5),
    ],
)
def test_costs_are_what_the_network_is_asked(term):
    prior = GaussianViews()
    signal = term.build(situation(prior))
    for i in range(100):
        signal.losses(step(views(), prior, progress=i / 100, seed=i))
    assert prior.asked / 100 == pytest.approx(term.passes, rel=0.02)


# Preference.


def gradients(gap, seed=0, progress=0.5, per="group", judge=None, guidance=3.0):
    prior, shown = GaussianViews(), views((0.4, 0.5, 0.6))
    term = Prefer(judge or reward(), gap=gap, per=per, guidance=guidance, rescale=0)
    found = pixel_gradient(term.build(situation(prior)), step(shown, prior, seed=seed, progress=progress))
    from rl3d.math import level_at

    rng = torch.Generator().manual_seed(seed)
    level, clean = level_at(draw_time(term, progress, rng)), prior.encode(shown)
    noisy = noised(clean, level, 2, rng)
    strong, weak = (predict(prior, noisy, level, RED, shown.cameras, guidance=g) for g in (guidance, 1.0))
    value = redness(type("S", (), {"views": seen(prior, strong, shown.cameras)}), None)
    return found.movedim(-1, 2), clean[:, :, :3], strong[:, :, :3], weak[:, :, :3], value


@pytest.mark.parametrize("seed", range(4))
def test_the_winner_pulls_and_the_loser_pushes(seed):
    found, _, strong, weak, value = gradients(0.0, seed)
    best = int(value.mean(1).argmax())
    torch.testing.assert_close(found[0], weak[1 - best] - strong[best], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_below_the_gap_the_winner_is_distilled(seed):
    found, clean, strong, _, value = gradients(100.0, seed)
    torch.testing.assert_close(found[0], clean[0] - strong[int(value.mean(1).argmax())], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_each_view_may_win_for_itself(seed):
    found, _, strong, weak, value = gradients(0.0, seed, per="view")
    for i in range(2):
        best = int(value[:, i].argmax())
        torch.testing.assert_close(found[0, i], weak[1 - best, i] - strong[best, i], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_judged_distils():
    broken = reward(lambda shown, prompts: [None] * len(prompts), name="silent")
    found, clean, strong, _, _ = gradients(0.0, judge=broken)
    errors = [(found[0] - (clean[0] - s)).abs().max().item() for s in strong]
    assert min(errors) < 1e-5


class Picky:
    """A judge of pairs that likes red."""

    info = RewardInfo("picky", "no", (0.0, 1.0), "", "", "")

    def build(self, device="cpu"):
        return self

    def prefer(self, a, b, prompts):
        gap = redness(a, prompts).mean(1) - redness(b, prompts).mean(1)
        return Score((10 * gap).sigmoid(), None, torch.ones(len(gap), dtype=torch.bool))


def test_a_judge_of_pairs_will_do():
    found, _, strong, weak, value = gradients(0.0, judge=Picky())
    best = int(value.mean(1).argmax())
    torch.testing.assert_close(found[0], weak[1 - best] - strong[best], atol=1e-5, rtol=1e-4)


def test_combinations_sum_advantages():
    both = Combine({"red": Part(reward()), "sharp": Part(Sharpness(), weight=0.5)})
    prior = GaussianViews()
    for term in (SearchNoise(both, strategy="group"), Prefer(both)):
        assert pixel_gradient(term.build(situation(prior)), step(views(), prior)).isfinite().all()


def last_redness(o):
    seen = o.scene.render(Orbit(size=16).cameras())[0].detach()
    return redness(type("S", (), {"views": seen}), None).mean().item()


GREY = Prompt("")
"""The prior has no opinion on colours that would drown the reward's."""


@pytest.mark.parametrize(
    "term",
    [
        SearchNoise(reward(), strategy="minmax", t_max=0.6, until=1.0),
        SearchNoise(reward(), strategy="best", until=1.0),
        SearchNoise(reward(), strategy="softmax", until=1.0, temperature=0.3),
        SearchNoise(reward(), strategy="group", noises=8, until=1.0),
        SearchNoise(reward(), strategy="minmax", judged_after=2, until=1.0),
        Prefer(reward(), gap=0.0),
    ],
    ids=lambda t: f"{type(t).__name__}-{getattr(t, 'strategy', '')}",
)
def test_a_black_box_raises_its_score_through_the_noises(term):
    recipe = tiny_recipe(steps=40, prior=Fake(coarse=True))
    o = run(begin(replace(recipe, terms={"search": term}), GREY))
    plain = run(begin(replace(recipe, terms={"search": Distill()}), GREY))
    assert last_redness(o) > last_redness(plain) + 0.04


@pytest.mark.parametrize("signal", [SearchNoise, Prefer])
@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Stands(), "Ascend or Evolve"),
        (Whole(), "Evolve or KeepOrDrop"),
        (Stands(on="mesh"), "needs mesh"),
    ],
)
def test_rewards_that_need_more_than_views_are_refused_with_what_to_use(signal, part, says):
    with pytest.raises(ValueError, match=says):
        signal(part).build(situation(GaussianViews()))


@pytest.mark.parametrize("signal", [SearchNoise, Prefer])
def test_the_judge_is_refused_wherever_it_hides(signal):
    from rl3d.rewards.clip import Clip

    hidden = Combine({"a": Part(Area()), "b": Part(Clip("judge"))})
    with pytest.raises(ValueError, match="only ever reported"):
        signal(hidden).build(situation(GaussianViews()))


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: SearchNoise(noises=1), "noises 1"),
        (lambda: SearchNoise(judged_after=0), "judged_after 0"),
        (lambda: Prefer(gap=-1.0), "gap"),
        (lambda: SearchNoise(reward()).build(situation()), "needs a prior"),
        (lambda: Prefer(reward()).build(situation()), "needs a prior"),
    ],
)
def test_mistakes_are_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()
