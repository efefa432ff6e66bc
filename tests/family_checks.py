"""What is asked of every family of published models, by its tiny random one in the format of the hub."""

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rl3d.cameras import Orbit
from rl3d.math import Level, level_at
from rl3d.memory import peak_bytes
from rl3d.priors.lora import Lora
from rl3d.priors.need import need_of
from rl3d.priors.pretrained import Pretrained, PretrainedPrior
from rl3d.priors.sampling import sample_views
from rl3d.recipe import load_recipe, recipe_file
from rl3d.search import begin, optimize, restore, state
from rl3d.start import Ball
from rl3d.types import Prompt, Views

PROMPTS = [Prompt("a red mug"), Prompt("a blue chair", "blurry")]


@dataclass(frozen=True)
class Made:
    """One that was written, and is loaded as it is by default; nothing may change it."""

    name: str
    folder: Path
    prior: PretrainedPrior

    def value(self, **changes):
        return Pretrained(str(self.folder), pixels=16, **changes)


def make(name, write, folder):
    torch.manual_seed(0)
    write(folder)
    return Made(name, folder, Pretrained(str(folder), pixels=16).build())


def noise(prior, b=2, v=4):
    info = prior.info
    return torch.randn(b, v, info.channels, info.size, info.size, generator=torch.Generator().manual_seed(1))


def asked_of_diffusers(pipe, name, steps=4):
    """Noisy latents, levels and the clean latents that a pipeline of diffusers made of them, step by step, at guidance 3."""
    from diffusers import DDIMScheduler

    flow, seen = "Flow" in type(pipe.scheduler).__name__, []
    if not flow and name != "if":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    step = pipe.scheduler.step

    def noted(said, t, x, return_dict=False, **others):
        done, shown = step(said, t, x, return_dict=True, **others), x
        if flow:
            level = Level(1 - float(t) / 1000, float(t) / 1000)
            clean = x - level.sigma * said
            if x.ndim == 3:  # FLUX, in tokens
                shown, clean = (pipe._unpack_latents(y, 16, 16, pipe.vae_scale_factor) for y in (x, clean))
        else:
            kept = float(pipe.scheduler.alphas_cumprod[int(t)])
            level, clean = Level(math.sqrt(kept), math.sqrt(1 - kept)), done.pred_original_sample
        seen.append((shown, level, clean))
        return (done.prev_sample,)

    pipe.scheduler.step = noted
    pipe.set_progress_bar_config(disable=True)
    how = {"guidance_scale": 3.0, "output_type": "pt" if name == "if" else "latent"}
    if name in ("flux", "schnell"):
        how |= {"guidance_scale": 3.5, "true_cfg_scale": 3.0, "height": 16, "width": 16}
        how["max_sequence_length"] = 512 if name == "flux" else 256
    if name in ("pixart", "alpha", "if"):
        how["clean_caption"] = False
    if name in ("pixart", "alpha"):
        how["use_resolution_binning"] = False
    rng = torch.Generator().manual_seed(4)
    pipe(PROMPTS[1].text, negative_prompt=PROMPTS[1].negative, num_inference_steps=steps, generator=rng, **how)
    return seen


def check_ten_steps(recipe, o):
    """A run of ten steps that was stopped after seven ends with the same losses as one that was not."""
    for _ in range(7):
        next(optimize(o))
    tensors, plain = state(o)
    again = restore(recipe, {key: x.clone() for key, x in tensors.items()}, plain)
    done = list(zip(optimize(o), optimize(again), strict=True))
    assert [one.step for one, _ in done] == [8, 9, 10]
    for one, other in done:
        assert one.losses == other.losses
        assert not one.skipped


class Checks:
    writers = ()  # names, and what writes each: of the class that inherits these

    def test_predicts_clean_latents_at_levels_of_any_scale(self, made):
        prior = made.prior
        condition, x, level = prior.embed(PROMPTS, Orbit(4).cameras()), noise(prior), level_at(0.6)
        clean = prior.predict(x, level, condition)
        assert clean.shape == x.shape
        assert clean.dtype == torch.float32
        assert clean.isfinite().all()
        longer = prior.predict(3 * x, Level(3 * level.alpha, 3 * level.sigma), condition)
        torch.testing.assert_close(longer, clean, rtol=1e-4, atol=1e-4)

    def test_guidance_goes_from_the_negative_prompt_through_the_prompt(self, made):
        prior = made.value(sides=False).build()
        prior.threshold = None  # where predictions are kept in range, see test_deepfloyd.py
        cameras, level, x = Orbit(4).cameras(), level_at(0.6), noise(prior)
        clean = prior.predict(x, level, prior.embed(PROMPTS, cameras))
        guided = prior.predict(x, level, prior.embed(PROMPTS, cameras), guidance=3.0)
        suffix = ", 3d asset" if made.name == "mvdream" else ""
        prior.value = replace(prior.value, suffix="")
        against = prior.predict(x, level, prior.embed([Prompt(p.negative) for p in PROMPTS], cameras))
        wanted = prior.predict(x, level, prior.embed([Prompt(p.text + suffix) for p in PROMPTS], cameras))
        assert not torch.allclose(against, clean, atol=1e-4)
        torch.testing.assert_close(wanted, clean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(guided, against + 3 * (clean - against), rtol=1e-3, atol=1e-3)

    def test_pixels_and_latents_are_each_others_inverse_in_scale_and_gradients_reach_pixels(self, made):
        prior = made.prior
        cameras = Orbit(4).cameras()
        rgb = torch.rand(1, 4, 24, 24, 3, requires_grad=True)
        latents = prior.encode(Views(rgb, torch.ones(1, 4, 24, 24, 1), None, None, cameras))
        assert latents.shape == noise(prior, 1).shape
        latents.sum().backward()
        assert rgb.grad is not None
        assert rgb.grad.isfinite().all()
        assert (rgb.grad.abs().sum((1, 2, 3, 4)) > 0).all()
        small = F.interpolate(rgb.detach()[0].movedim(-1, 1), (16, 16), mode="bilinear", antialias=True)
        views = prior.decode(latents.detach(), cameras)
        assert views.alpha.min() == 1
        if prior.vae is None:
            torch.testing.assert_close(latents[0], 2 * small - 1)
            torch.testing.assert_close(views.rgb[0].movedim(-1, 1), small)
            return
        config = prior.vae.config
        mean = prior.vae.encode(2 * small - 1).latent_dist.mean
        torch.testing.assert_close(latents[0] / config.scaling_factor + (config.shift_factor or 0), mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(views.rgb[0].movedim(-1, 1), prior.vae.decode(mean).sample / 2 + 0.5, rtol=1e-3, atol=1e-3)

    def test_it_samples_and_takes_adapters(self, made):
        prior = made.value().build()
        cameras, rng = Orbit(4).cameras(), torch.Generator().manual_seed(0)
        views = sample_views(prior, [Prompt("a red mug")], cameras, steps=3, guidance=2.0, rng=rng)
        assert views.rgb.shape == (1, 4, 16, 16, 3)
        actor = Lora(rank=2).build(prior, rng=rng)
        condition, level = prior.embed([Prompt("a red mug")], cameras), level_at(0.5)
        policy, reference = (actor.using(one).predict(noise(prior, 1), level, condition) for one in ("policy", "reference"))
        torch.testing.assert_close(policy, reference)
        policy.sum().backward()
        assert any(p.grad.abs().sum() > 0 for p in actor.weights("policy").values())

    def test_steps_between_trained_ones_are_continuous(self, made):
        times = [made.prior.time_of(level_at(t)) for t in torch.linspace(0.05, 0.95, 50).tolist()]
        assert all(a < b for a, b in itertools.pairwise(times))

    def test_a_recipe_runs_ten_steps_and_resumes(self, made):
        recipe = load_recipe(recipe_file("mvdream_large"))
        small = {"prior": made.value(), "start": Ball(50), "steps": 10, "guards": {}}
        recipe = replace(recipe, rig=replace(recipe.rig, size=16), **small)
        check_ten_steps(recipe, begin(recipe, Prompt("an astronaut")))

    def test_low_memory_is_the_same_prior(self, made, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        plain, small = made.prior, made.value(low_memory=True).build()
        assert not small.readers, "no text encoder stays"
        cameras, level = Orbit(4).cameras(), level_at(0.6)
        told, same = plain.embed(PROMPTS, cameras), small.embed(PROMPTS, cameras)
        for one, other in ((same.wanted, told.wanted), (same.unwanted, told.unwanted)):
            for field in ("text", "pooled", "mask"):
                torch.testing.assert_close(getattr(one, field), getattr(other, field))
        noisy, x = noise(plain).requires_grad_(), noise(plain).requires_grad_()
        torch.testing.assert_close(small.predict(noisy, level, same), plain.predict(x, level, told))
        for prior, leaf, condition in ((plain, x, told), (small, noisy, same)):
            prior.predict(leaf, level, condition).square().sum().backward()
        torch.testing.assert_close(noisy.grad, x.grad, rtol=1e-4, atol=1e-5)
        views = (prior.decode(noise(plain), cameras).rgb for prior in (small, plain))
        torch.testing.assert_close(*views, rtol=1e-4, atol=1e-5)

    def test_what_it_is_said_to_need_is_what_it_takes(self, made):
        prior, cameras = made.prior, Orbit(4, size=24).cameras()
        need = need_of(made.value(), made.folder, cameras)
        taken = sum(x.numel() * x.element_size() for x in (*prior.parameters(), *prior.buffers()))
        assert 1e9 * (need.weights + need.encoders) == pytest.approx(taken, rel=1e-3)
        condition = prior.embed([Prompt("a red mug")], cameras)

        def distil():
            rgb = torch.rand(1, 4, 24, 24, 3, requires_grad=True)
            latents = prior.encode(Views(rgb, torch.ones(1, 4, 24, 24, 1), None, None, cameras))
            with torch.no_grad():
                clean = prior.predict(latents.detach(), level_at(0.6), condition, guidance=3.0)
            (latents * clean).sum().backward()

        assert 1e9 * need.step == pytest.approx(peak_bytes(distil), rel=0.05)
        thrifty = need_of(made.value(low_memory=True), made.folder, cameras)
        assert thrifty.total == pytest.approx(max(need.encoders, need.weights + thrifty.step))
        half = need_of(made.value(dtype="float16"), made.folder, cameras)
        assert half.encoders == pytest.approx(need.encoders / 2, rel=0.01)
        assert half.step < need.step or prior.vae is not None


class ChecksBesideDiffusers(Checks):
    """Of families whose pipeline diffusers has."""

    def test_diffusers_own_pipeline_is_followed_step_by_step(self, made):
        from diffusers import DiffusionPipeline

        missing = {"text_encoder_3": None, "tokenizer_3": None} if made.name == "sd3" else {}
        pipe = DiffusionPipeline.from_pretrained(made.folder, local_files_only=True, **missing)
        if made.name == "alpha":  # its pipeline tells sizes of the published size alone, 128
            sizes = {"resolution": torch.full((2, 2), 16.0), "aspect_ratio": torch.ones(2, 1)}
            forward = pipe.transformer.forward
            pipe.transformer.forward = lambda *x, added_cond_kwargs, **more: forward(*x, added_cond_kwargs=sizes, **more)
        prior = made.value(sides=False).build()
        condition = prior.embed(PROMPTS[1:], Orbit(1).cameras())
        seen = asked_of_diffusers(pipe, made.name)
        assert len(seen) == 4
        for x, level, clean in seen:
            ours = prior.predict(x[:, None], level, condition, guidance=3.0)[:, 0]
            # Divided by alpha: what is large there is uncertain in the same measure.
            torch.testing.assert_close(level.alpha * ours, level.alpha * clean, rtol=1e-3, atol=1e-3)
