"""Large priors, on tiny random models in the formats of the hub."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_pipelines import WRITERS, mv_network, mv_weights, scheduler, write_sd

from rl3d.cameras import Orbit, look_at_origin
from rl3d.math import Level, flow_level_at, level_at
from rl3d.priors.lora import Lora
from rl3d.priors.sampling import sample_views
from rl3d.priors.stable_diffusion import StableDiffusion
from rl3d.protocols import Situation
from rl3d.recipe import load_recipe, recipe_file
from rl3d.search import begin, optimize, restore, state
from rl3d.start import Ball, Hull
from rl3d.types import Prompt, Views

PROMPTS = [Prompt("a red mug"), Prompt("a blue chair", "blurry")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, write in WRITERS.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp(name)
        write(found[name])
    return found


def noise(b=2, v=4):
    return torch.randn(b, v, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", WRITERS)
def test_predicts_clean_latents_at_levels_of_any_scale(folders, name):
    prior = StableDiffusion(str(folders[name])).build()
    condition = prior.embed(PROMPTS, Orbit(4).cameras())
    level = level_at(0.6)
    clean = prior.predict(noise(), level, condition)
    assert clean.shape == (2, 4, 4, 8, 8)
    assert clean.dtype == torch.float32
    assert clean.isfinite().all()
    longer = prior.predict(3 * noise(), Level(3 * level.alpha, 3 * level.sigma), condition)
    torch.testing.assert_close(longer, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WRITERS)
def test_guidance_goes_from_the_negative_prompt_through_the_prompt(folders, name):
    prior = StableDiffusion(str(folders[name]), sides=False).build()
    cameras, level = Orbit(4).cameras(), level_at(0.6)
    clean = prior.predict(noise(), level, prior.embed(PROMPTS, cameras))
    guided = prior.predict(noise(), level, prior.embed(PROMPTS, cameras), guidance=3.0)
    suffix = ", 3d asset" if name == "mvdream" else ""
    unwanted = StableDiffusion(str(folders[name]), sides=False, suffix="").build()
    against = unwanted.predict(noise(), level, unwanted.embed([Prompt(p.negative) for p in PROMPTS], cameras))
    wanted = unwanted.predict(noise(), level, unwanted.embed([Prompt(p.text + suffix) for p in PROMPTS], cameras))
    torch.testing.assert_close(wanted, clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(guided, against + 3 * (clean - against), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_and_latents_are_each_others_inverse_in_scale_and_gradients_reach_pixels(folders, name):
    prior = StableDiffusion(str(folders[name])).build()
    cameras = Orbit(4).cameras()
    rgb = torch.rand(1, 4, 24, 24, 3, requires_grad=True)
    latents = prior.encode(Views(rgb, torch.ones(1, 4, 24, 24, 1), None, None, cameras))
    assert latents.shape == (1, 4, 4, 8, 8)
    latents.sum().backward()
    assert rgb.grad is not None
    assert rgb.grad.isfinite().all()
    assert (rgb.grad.abs().sum((1, 2, 3, 4)) > 0).all()
    config, small = prior.vae.config, F.interpolate(rgb.detach()[0].movedim(-1, 1), (16, 16), mode="bilinear", antialias=True)
    mean = prior.vae.encode(2 * small - 1).latent_dist.mean
    torch.testing.assert_close(latents[0] / config.scaling_factor + (config.shift_factor or 0), mean, rtol=1e-4, atol=1e-4)
    views = prior.decode(latents.detach(), cameras)
    torch.testing.assert_close(views.rgb[0].movedim(-1, 1), prior.vae.decode(mean).sample / 2 + 0.5, rtol=1e-3, atol=1e-3)
    assert views.alpha.min() == 1


def test_views_are_laid_over_the_background(folders):
    prior = StableDiffusion(str(folders["sd"]), background=0.3).build()
    cameras = Orbit(1).cameras()
    empty = Views(torch.zeros(1, 1, 16, 16, 3), torch.zeros(1, 1, 16, 16, 1), None, None, cameras)
    gray = Views(torch.full((1, 1, 16, 16, 3), 0.3), torch.ones(1, 1, 16, 16, 1), None, None, cameras)
    torch.testing.assert_close(prior.encode(empty), prior.encode(gray))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_predictions_are_those_of_the_scheduler(tmp_path, prediction):
    """At a trained step, the clean latents are what diffusers' own scheduler makes of the network's answer."""
    torch.manual_seed(0)
    write_sd(tmp_path, prediction)
    prior = StableDiffusion(str(tmp_path), sides=False).build()
    ddim, step = scheduler(prediction), 400
    kept = float(ddim.alphas_cumprod[step])
    condition, x = prior.embed([Prompt("a red mug")], Orbit(1).cameras()), noise(1, 1)
    clean = prior.predict(x, Level(math.sqrt(kept), math.sqrt(1 - kept)), condition)
    said = prior.net(x[:, 0], step, encoder_hidden_states=condition.text[:, 0]).sample
    ddim.set_timesteps(1000)
    torch.testing.assert_close(clean[:, 0], ddim.step(said, step, x[:, 0]).pred_original_sample, rtol=1e-3, atol=1e-3)


def test_a_flow_takes_straight_levels(folders):
    prior = StableDiffusion(str(folders["sd3"])).build()
    condition, x, level = prior.embed(PROMPTS, Orbit(4).cameras()), noise(), flow_level_at(0.3)
    flow = (x - prior.predict(x, level, condition)) / level.sigma
    near = flow_level_at(0.3)
    assert prior.time_of(near) == pytest.approx(300)
    said = prior.net(
        x.flatten(0, 1),
        encoder_hidden_states=condition.text.flatten(0, 1),
        pooled_projections=condition.pooled.flatten(0, 1),
        timestep=torch.full((8,), 300.0),
    ).sample
    torch.testing.assert_close(flow.flatten(0, 1), said, rtol=1e-4, atol=1e-4)


def test_mvdream_is_its_original_network(folders):
    prior = StableDiffusion(str(folders["mvdream"])).build()
    cameras, x, level = Orbit(4, 15.0).cameras(), noise(2, 4), level_at(0.5)
    condition = prior.embed(PROMPTS, cameras)
    clean = prior.predict(x, level, condition)
    # Cameras on the unit sphere: those of the original, whose azimuth 90 looks at the front along -x.
    pose = condition.cameras[0].unflatten(-1, (4, 4))
    a, e = torch.deg2rad(cameras.azimuths_deg[0]), math.radians(15.0)
    torch.testing.assert_close(
        pose[:, :3, 3], torch.stack([a.cos() * math.cos(e), a.sin() * math.cos(e), a * 0 + math.sin(e)], 1)
    )
    torch.testing.assert_close(pose[:, :3, 2], pose[:, :3, 3])  # OpenGL's z points backwards, away from the object
    torch.testing.assert_close(pose[:, 2, 0], torch.zeros(4), atol=1e-6, rtol=0)  # x is level
    assert (pose[:, 2, 1] > 0.9).all()  # y is up
    time = torch.tensor(prior.time_of(level))
    text, poses = condition.text.flatten(0, 1), condition.cameras.flatten(0, 1)
    said = mv_network(mv_weights(), x.flatten(0, 1), time, text, poses, 4)
    expected = (x - level.sigma * said.unflatten(0, (2, 4))) / level.alpha
    torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-3)


def test_views_of_mvdream_see_each_other_and_those_of_other_objects_do_not(folders):
    prior = StableDiffusion(str(folders["mvdream"])).build()
    condition, x = prior.embed(PROMPTS, Orbit(4).cameras()), noise()
    before = prior.predict(x, level_at(0.5), condition)
    x[0, 3] += 1
    change = (prior.predict(x, level_at(0.5), condition) - before).abs().amax((2, 3, 4))
    assert (change[0] > 1e-4).all()
    assert change[1].max() == 0


def test_priors_without_cameras_read_sides_in_words(folders):
    prior = StableDiffusion(str(folders["sd"])).build()
    cameras = look_at_origin(torch.tensor([[0.0, 180.0]]), torch.tensor([[10.0, 10.0]]))
    told = prior.embed([Prompt("a mug")], cameras).text[0]
    plain = StableDiffusion(str(folders["sd"]), sides=False).build()
    for row, text in zip(told, ("a mug, front view", "a mug, back view"), strict=True):
        torch.testing.assert_close(row, plain.embed([Prompt(text)], Orbit(1).cameras()).text[0, 0])


def test_it_samples_and_takes_adapters(folders):
    prior = StableDiffusion(str(folders["mvdream"])).build()
    cameras, rng = Orbit(4).cameras(), torch.Generator().manual_seed(0)
    views = sample_views(prior, [Prompt("a red mug")], cameras, steps=3, guidance=2.0, rng=rng)
    assert views.rgb.shape == (1, 4, 16, 16, 3)
    actor = Lora(rank=2).build(prior, rng=rng)
    condition = prior.embed([Prompt("a red mug")], cameras)
    policy, reference = (actor.using(name).predict(noise(1), level_at(0.5), condition) for name in ("policy", "reference"))
    torch.testing.assert_close(policy, reference)
    policy.sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in actor.weights("policy").values())


@pytest.mark.parametrize("name", WRITERS)
def test_steps_between_trained_ones_are_continuous(folders, name):
    prior = StableDiffusion(str(folders[name])).build()
    times = [prior.time_of(level_at(t)) for t in torch.linspace(0.05, 0.95, 50).tolist()]
    assert all(a < b for a, b in itertools.pairwise(times))


def test_the_recipe_of_mvdream_runs_and_resumes(folders):
    recipe = load_recipe(recipe_file("mvdream_large"))
    small = {"prior": StableDiffusion(str(folders["mvdream"])), "start": Ball(50), "steps": 3, "guards": {}}
    recipe = replace(recipe, rig=replace(recipe.rig, size=16), **small)
    o = begin(recipe, Prompt("an astronaut"))
    next(optimize(o))
    tensors, plain = state(o)
    again = restore(recipe, {key: x.clone() for key, x in tensors.items()}, plain)
    for one, other in zip(optimize(o), optimize(again), strict=True):
        assert one.losses == other.losses
        assert not one.skipped


def test_no_hull_is_carved_from_opaque_views(folders):
    prior = StableDiffusion(str(folders["mvdream"])).build()
    drawn = prior.decode(noise(1), Orbit(4).cameras())
    with pytest.raises(ValueError, match="opaque"):
        Hull().build(Situation(PROMPTS[0], prior, drawn, torch.Generator(), torch.device("cpu")))


def test_folders_that_hold_no_known_prior_are_refused(tmp_path, folders):
    with pytest.raises(ValueError, match="missing"):
        StableDiffusion(str(tmp_path / "nowhere")).check(PROMPTS[0])
    with pytest.raises(ValueError, match=r"model_index\.json"):
        StableDiffusion(str(folders["sd"] / "unet")).check(PROMPTS[0])
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="FluxPipeline"):
        StableDiffusion(str(tmp_path)).check(PROMPTS[0])
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="cannot load"):
        StableDiffusion(str(tmp_path)).build()


@pytest.mark.parametrize("name", WRITERS)
def test_low_memory_is_the_same_prior(folders, name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    value = StableDiffusion(str(folders[name]))
    plain, small = value.build(), replace(value, low_memory=True).build()
    assert not small.readers, "no text encoder stays"
    cameras, level = Orbit(4).cameras(), level_at(0.6)
    told, same = plain.embed(PROMPTS, cameras), small.embed(PROMPTS, cameras)
    torch.testing.assert_close(same.text, told.text)
    noisy, x = noise().requires_grad_(), noise().requires_grad_()
    torch.testing.assert_close(small.predict(noisy, level, same), plain.predict(x, level, told))
    for prior, leaf, condition in ((plain, x, told), (small, noisy, same)):
        prior.predict(leaf, level, condition).square().sum().backward()
    torch.testing.assert_close(noisy.grad, x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.decode(noise(), cameras).rgb, plain.decode(noise(), cameras).rgb, rtol=1e-4, atol=1e-5)


def test_prompts_are_read_once_and_again_when_what_is_kept_is_damaged(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    value = StableDiffusion(str(folders["sd"]), low_memory=True, sides=False)
    cameras = Orbit(2).cameras()
    first = value.build().embed(PROMPTS, cameras).text
    kept = sorted((tmp_path / "rl3d" / "prompts").iterdir())
    assert len(kept) == 4, "two prompts, nothing, and a negative one"
    monkeypatch.setattr("rl3d.priors.reading.encode", lambda *_: pytest.fail("an encoder was asked again"))
    torch.testing.assert_close(value.build().embed(PROMPTS, cameras).text, first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in kept:
        path.write_bytes(path.read_bytes()[:20])
    torch.testing.assert_close(value.build().embed(PROMPTS, cameras).text, first)
