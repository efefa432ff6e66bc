from dataclasses import replace

import pytest
import torch
from fake_prior import RED, Fake, GaussianViews, pixel_gradient, situation, step, tiny_recipe, views

from rl3d.math import level_at
from rl3d.optimize import advance, begin, optimize, restore, state
from rl3d.priors.embedded import latents_from_pixels
from rl3d.terms.denoising import passes, perpendicular, predict
from rl3d.terms.distillation import Distill, Interval, noise_in
from rl3d.terms.variational import Variational
from rl3d.types import Prompt


def mean_gradient(term, prior, seen, prompt=RED, seeds=200, **where):
    signal = term.build(situation(prior))
    return torch.stack([pixel_gradient(signal, step(seen, prior, prompt=prompt, seed=s, **where)) for s in range(seeds)])


@pytest.mark.parametrize("form", ["x0", "noise"])
def test_the_mean_gradient_of_distillation_has_its_closed_form(form):
    prior, t = GaussianViews(), 0.5
    level = level_at(t)
    term = Distill(form=form, guidance=1, rescale=0, t_min=t, t_end=t, t_max=t)
    seen = views((0.2, 0.6, 0.4))
    found = mean_gradient(term, prior, seen).mean((0, 2, 3, 4))[0]
    gain = level.alpha * prior.std**2 / (level.alpha**2 * prior.std**2 + level.sigma**2)
    off = (prior.encode(seen) - prior.mean("red"))[0, 0, :3, 0, 0]
    weight = 1.0 if form == "x0" else level.alpha * level.sigma
    # Latents are twice the colours; the loss is a mean over the two views.
    torch.testing.assert_close(found, weight * (1 - gain * level.alpha) * off, atol=0.02, rtol=0.02)


def test_the_noise_form_is_the_noise_that_was_predicted_minus_the_one_that_was_drawn():
    prior, level = GaussianViews(), level_at(0.6)
    clean = prior.encode(views((0.1, 0.2, 0.3)))
    noise = torch.randn_like(clean)
    noisy = level.alpha * clean + level.sigma * noise
    guess = prior.predict(noisy, level, prior.embed([RED], views().cameras))
    eps = noise_in(noisy, guess, level)
    torch.testing.assert_close(level.sigma**2 * (eps - noise), level.alpha * level.sigma * (clean - guess))


def test_perpendicular_parts_are_perpendicular_and_vanish_along_the_prompt():
    a, b = torch.randn(3, 2, 4, 5, 5), torch.randn(3, 2, 4, 5, 5)
    across = perpendicular(a, b)
    torch.testing.assert_close((across * b).sum((1, 2, 3, 4)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(perpendicular(-2 * b, b), torch.zeros_like(b), atol=1e-5, rtol=0)


def test_a_negative_prompt_pushes_only_across_the_prompt_with_perp_neg():
    prior, level, seen = GaussianViews(), level_at(0.5), views()
    noisy = torch.randn(2, *prior.encode(seen).shape[1:])
    prompt = Prompt("red", negative="blue")

    def guess(prompt, **how):
        return predict(prior, noisy, level, prompt, seen.cameras, guidance=4.0, **how)

    plain, perp, opposite = guess(RED), guess(prompt, perp_neg=1.0), guess(Prompt("red", "red"), perp_neg=1.0)
    push, wanted = perp - plain, guess(RED) - predict(prior, noisy, level, Prompt(""), seen.cameras)
    assert push.abs().max() > 0.1
    blue = prior.mean("blue") - prior.mean("")
    assert (push * blue).sum() < 0
    torch.testing.assert_close((push * wanted).sum((1, 2, 3, 4)), torch.zeros(2), atol=1e-2, rtol=0)
    # What is asked for cannot be forbidden, where a plain negative prompt leaves no guidance at all.
    torch.testing.assert_close(opposite, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("term", [Distill(), Distill(guidance=1), Distill(perp_neg=1.0), Interval(stride=0.1)])
def test_costs_are_what_the_network_is_asked(term):
    prior = GaussianViews()
    signal = term.build(situation(prior))
    for i in range(100):
        signal.losses(step(views(), prior, prompt=Prompt("red", "blue"), progress=i / 100, seed=i))
    assert prior.asked / 100 == pytest.approx(term.passes, rel=0.06)


def test_interval_matching_pulls_along_guidance_with_little_scatter():
    prior, seen = GaussianViews(), views((0.4, 0.4, 0.5))
    at = {"guidance": 2.0, "rescale": 0.0, "t_min": 0.5, "t_end": 0.5, "t_max": 0.5}
    many = mean_gradient(Interval(**at), prior, seen, seeds=60)
    towards = torch.tensor([1.0, 0.0, 0.0]) - torch.tensor([0.5, 0.5, 0.5])
    assert (many.mean((0, 1, 2, 3, 4)) * towards).sum() < 0
    noisy = mean_gradient(Distill(**at), prior, seen, seeds=60)

    def scatter(x):
        return (x.std((3, 4)).mean() / x.mean((2, 3, 4)).norm(dim=-1).mean()).item()

    assert scatter(many) < 0.5 * scatter(noisy)


def test_interval_matching_asks_for_nothing_where_guidance_has_nothing_to_say():
    prior, seen = GaussianViews(), views((0.5, 0.5, 0.5))
    nothing = mean_gradient(Interval(guidance=1.0, rescale=0.0, interval=0.01), prior, seen, Prompt(""), seeds=5)
    something = mean_gradient(Interval(guidance=1.0, rescale=0.0, interval=0.01), prior, seen, RED, seeds=5)
    assert nothing.norm() < 0.1 * something.norm()


@pytest.mark.parametrize("term", [Distill(t_max=0.6), Distill(form="noise"), Interval()])
def test_a_tiny_scene_takes_the_priors_colour(term):
    o = begin(tiny_recipe(terms={"distill": term}, steps=40), RED)
    before = redness_of(o)
    for _ in optimize(o):
        pass
    assert redness_of(o) > before + 0.3


def redness_of(o):
    from rl3d.cameras import Orbit

    seen = o.scene.render(Orbit(size=16).cameras())[0].detach()
    straight = seen.rgb.sum((1, 2, 3)) / seen.alpha.sum((1, 2, 3))
    return (straight[0, 0] - straight[0, 1:].mean()).item()


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: Distill(t_min=0.6), "t_min 0.6"),
        (lambda: Interval(interval=0.5), "interval"),
        (lambda: Distill().build(situation()), "needs a prior"),
        (lambda: Variational(t_end=0.1), "t_end 0.1"),
    ],
)
def test_mistakes_are_named(mistake, says):
    with pytest.raises(ValueError, match=says):
        mistake()


# Variational score distillation, on a tiny network.


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    import tiny as small

    monkeypatch.setenv("RL3D_WEIGHTS", str(small.write_weights(tmp_path)))
    from rl3d.priors.embedded import Embedded

    return Embedded(dtype="float32")


MUG = Prompt("a red mug")


def test_a_fresh_adapter_leaves_guidance_alone(tiny):
    prior = tiny.build()
    term = Variational(guidance=1.0, rescale=0.0)
    assert pixel_gradient(term.build(situation(prior)), step(views(), prior, prompt=MUG)).abs().max() < 1e-5
    prior = tiny.build()
    guided = pixel_gradient(Variational(guidance=3.0).build(situation(prior)), step(views(), prior, prompt=MUG))
    assert guided.abs().max() > 1e-3


def test_the_adapter_learns_the_rendering_and_the_prior_stays_what_it_was(tiny):
    prior, seen, level = tiny.build(), views((0.9, 0.1, 0.2)), level_at(0.6)
    noisy = torch.randn(1, 2, 4, 16, 16)
    condition = prior.embed([MUG], seen.cameras)
    with torch.no_grad():
        before = prior.predict(noisy, level, condition)
    signal = Variational(rate=0.01).build(situation(prior))

    def error():
        clean = latents_from_pixels(seen.rgba.movedim(-1, 2))
        found = []
        for seed in range(8):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
            own = signal._actor[0].using("vsd")
            with torch.no_grad():
                guess = own.predict(level.alpha * clean + level.sigma * noise, level, condition)
            found.append((guess - clean).square().mean().item())
        return sum(found) / len(found)

    first = error()
    for i in range(60):
        signal.losses(step(seen, prior, prompt=MUG, seed=i))
    assert error() < 0.8 * first
    with torch.no_grad():
        assert torch.equal(prior.predict(noisy, level, condition), before)


def test_a_run_with_an_adapter_resumes_bit_for_bit(tiny):
    r = tiny_recipe(prior=tiny, terms={"vsd": Variational()}, steps=8)
    whole = begin(r, MUG, seed=2)
    for _ in optimize(whole):
        pass
    part = begin(r, MUG, seed=2)
    for _ in range(3):
        advance(part)
    saved = state(part)
    assert not any("net." in name for name in saved[0]), "a checkpoint holds no frozen prior"
    part = restore(r, *saved)
    for _ in optimize(part):
        pass
    one, other = state(whole)[0], state(part)[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(name.startswith("signals.vsd.learner.exp_avg") and x.abs().max() > 0 for name, x in one.items())


def test_costs_of_guided_predictions():
    assert passes(4) == 8
    assert passes(4, guided=False) == 4
    assert replace(Fake(), std=0.1).std == 0.1
