"""Zero123++, on a tiny random model: six views of what a picture shows, beside its own code's steps written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_checks import check_ten_steps
from PIL import Image
from tiny_families import write_zero123plus
from tiny_pipelines import write_sd

from rl3d.cameras import Orbit, Poses, RandomOrbit
from rl3d.math import Level, level_at
from rl3d.priors.lora import Lora
from rl3d.priors.pictures import read_picture
from rl3d.priors.pretrained import Pretrained
from rl3d.priors.zero123plus import Zero123Plus, apart, joined, noise_beside
from rl3d.recipe import load_recipe, recipe_file
from rl3d.search import begin
from rl3d.start import Ball, Draw
from rl3d.terms.distillation import Distill, Interval
from rl3d.tutor import Teach
from rl3d.types import Prompt, Views


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("zero123plus")
    write_zero123plus(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    pixels[..., 3] = 255 * (pixels[..., 3] > 40)
    Image.fromarray(pixels, "RGBA").save(folder / "mug.png")
    Image.new("RGB", (32, 32), (200, 30, 40)).save(folder / "red.jpg")
    return folder


@pytest.fixture(scope="module")
def prior(folder):
    """Nothing may change it."""
    return value(folder).build()


def value(folder, **changes):
    return Zero123Plus(str(folder), pixels=16, **changes)


def mug(folder, name="mug.png"):
    return Prompt("", image=str(folder / name))


CAMERAS = Poses().cameras()
NOISE = torch.randn(2, 6, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def original(folder, image, grids, noises, guidance=4.0):
    """The steps of the original pipeline at its scheduler's own levels: clean latents of each, for grids of noisy ones.

    Reference attention is written out with hooks on what makes keys and values.
    """
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    eye = CLIPVisionModelWithProjection.from_pretrained(folder / "vision_encoder").eval()
    reader = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")(
        "", padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    scheduler = EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing")
    scheduler.set_timesteps(len(grids))
    for_vae, for_eye = (
        CLIPImageProcessor.from_pretrained(folder / f"feature_extractor_{name}")(images=image, return_tensors="pt").pixel_values
        for name in ("vae", "clip")
    )
    empty = reader(ids)[0]
    ramp = torch.tensor([i / 15 for i in range(16)])[:, None]
    words = torch.cat([empty, empty + eye(for_eye).image_embeds[:, None] * ramp])
    pictures = torch.cat([vae.encode(x).latent_dist.mean for x in (torch.zeros_like(for_vae), for_vae)])
    kept, looking = {}, []

    def beside(name):
        def hook(module, args):
            if looking:
                return (torch.cat([args[0], kept[name]], 1),)
            kept[name] = args[0]
            return None

        return hook

    for name, module in unet.named_modules():
        if name.endswith((".attn1.to_k", ".attn1.to_v")):
            module.register_forward_pre_hook(beside(name))
    found = []
    for t, grid, noise in zip(scheduler.timesteps, grids, noises, strict=True):
        # Their schedule has noise of standard deviation s on clean latents, and scales for the network.
        both = scheduler.add_noise(pictures, noise.expand_as(pictures), t[None])
        looking.clear()
        unet(scheduler.scale_model_input(both, t), t, encoder_hidden_states=words)
        looking.append(True)
        x = scheduler.scale_model_input(torch.cat([grid, grid]), t)
        none, some = unet(x, t, encoder_hidden_states=words).sample.chunk(2)
        found.append(scheduler.step(none + guidance * (some - none), t, grid).pred_original_sample)
    sigmas = [float(s) for s in scheduler.sigmas[:-1]]
    return found, sigmas


@torch.no_grad()
def test_the_original_pipeline_is_followed_step_by_step(folder, prior):
    sigmas = original(
        folder, read_picture(folder / "mug.png"), [torch.zeros(1, 4, 24, 16)] * 4, [torch.zeros(1, 4, 16, 16)] * 4
    )[1]
    rng = torch.Generator().manual_seed(2)
    grids = [s * torch.randn(1, 4, 24, 16, generator=rng) for s in sigmas]
    noises = [noise_beside(apart(x), torch.Size((4, 16, 16))) for x in grids]
    theirs, _ = original(folder, read_picture(folder / "mug.png"), grids, noises)
    condition = prior.embed([mug(folder)], CAMERAS)
    for x, clean, s in zip(grids, theirs, sigmas, strict=True):
        ours = prior.predict(apart(x), Level(1.0, s), condition, guidance=4.0)
        torch.testing.assert_close(joined(ours) / s, clean / s, rtol=1e-3, atol=1e-3)


def test_views_lie_in_three_rows_of_two():
    views = torch.arange(6.0).view(1, 6, 1, 1, 1).expand(1, 6, 1, 2, 2)
    picture = joined(views)
    assert picture[0, 0, ::2, ::2].tolist() == [[0, 1], [2, 3], [4, 5]]
    torch.testing.assert_close(apart(joined(NOISE)), NOISE)


def test_levels_of_any_scale_and_a_gradient_to_the_pixels(folder, prior):
    condition, level = prior.embed([mug(folder)] * 2, CAMERAS), level_at(0.6)
    clean = prior.predict(NOISE, level, condition)
    longer = prior.predict(3 * NOISE, Level(3 * level.alpha, 3 * level.sigma), condition)
    torch.testing.assert_close(longer, clean, rtol=1e-4, atol=1e-4)
    rgb = torch.rand(1, 6, 24, 24, 3, requires_grad=True)
    latents = prior.encode(Views(rgb, torch.ones(1, 6, 24, 24, 1), None, None, CAMERAS))
    assert latents.shape == (1, 6, 4, 8, 8)
    latents.sum().backward()
    assert (rgb.grad.abs().sum((2, 3, 4)) > 0).all()


@torch.no_grad()
def test_latents_are_scaled_as_in_the_original(prior):
    rgb = torch.rand(1, 6, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    latents = prior.encode(Views(rgb, torch.ones(1, 6, 16, 16, 1), None, None, CAMERAS))
    grid = joined(rgb.movedim(-1, 2))
    mean = prior.vae.encode((2 * grid - 1) * 0.5 / 0.8).latent_dist.mean * prior.vae.config.scaling_factor
    torch.testing.assert_close(joined(latents), (mean - 0.22) * 0.75, rtol=1e-4, atol=1e-5)
    shown = prior.vae.decode((joined(latents) / 0.75 + 0.22) / prior.vae.config.scaling_factor).sample / 0.5 * 0.8
    views = prior.decode(latents, CAMERAS)
    torch.testing.assert_close(joined(views.rgb.movedim(-1, 2)), shown / 2 + 0.5, rtol=1e-4, atol=1e-5)
    empty = Views(torch.zeros(1, 6, 16, 16, 3), torch.zeros(1, 6, 16, 16, 1), None, None, CAMERAS)
    gray = Views(torch.full((1, 6, 16, 16, 3), 127 / 255), torch.ones(1, 6, 16, 16, 1), None, None, CAMERAS)
    torch.testing.assert_close(prior.encode(empty), prior.encode(gray))


def test_the_reference_noise_follows_from_the_state_and_from_nothing_else(folder, prior):
    condition, level = prior.embed([mug(folder)] * 2, CAMERAS), level_at(0.6)
    both = prior.predict(NOISE, level, condition)
    torch.manual_seed(99)
    assert torch.equal(prior.predict(NOISE, level, condition), both), "nothing comes from the global generator"
    alone = prior.predict(NOISE[1:], level, prior.embed([mug(folder)], CAMERAS))
    torch.testing.assert_close(alone, both[1:], rtol=1e-4, atol=1e-4)
    one, other = noise_beside(NOISE, torch.Size((4, 32, 32)))
    assert abs(float((one * other).mean())) < 0.05
    assert abs(float(one.mean())) < 0.05
    assert float(one.std()) == pytest.approx(1, abs=0.05)


def test_pictures_matter_and_samples_do_not_mix(folder, prior):
    prompts, level = [mug(folder), mug(folder, "red.jpg")], level_at(0.5)
    x = NOISE[:1].expand(2, -1, -1, -1, -1).contiguous()
    shown = prior.predict(x, level, prior.embed(prompts, CAMERAS))
    assert not torch.allclose(*shown, atol=1e-3)
    swapped = prior.predict(x, level, prior.embed(prompts[::-1], CAMERAS))
    torch.testing.assert_close(swapped, shown.flip(0), rtol=1e-4, atol=1e-4)
    nothing = prior.predict(x, level, prior.embed([Prompt(""), mug(folder)], CAMERAS), guidance=3.0)
    alone = prior.predict(x[:1], level, prior.embed([Prompt("")], CAMERAS))
    torch.testing.assert_close(nothing[:1], alone, rtol=1e-3, atol=1e-3)


def test_low_memory_has_the_same_predictions_and_gradients(folder, prior):
    small, level = value(folder, low_memory=True).build(), level_at(0.6)
    gradients = []
    for one in (prior, small):
        x = NOISE.clone().requires_grad_()
        first = one.predict(x, level, one.embed([mug(folder)] * 2, CAMERAS))
        one.predict(NOISE, level, one.embed([mug(folder, "red.jpg")] * 2, CAMERAS))  # another pass in between changes nothing
        first.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_it_takes_adapters(folder):
    prior = value(folder).build()
    actor = Lora(rank=2).build(prior, rng=torch.Generator().manual_seed(0))
    condition = prior.embed([mug(folder)] * 2, CAMERAS)
    policy, reference = (actor.using(name).predict(NOISE, level_at(0.5), condition) for name in ("policy", "reference"))
    torch.testing.assert_close(policy, reference)
    policy.sum().backward()
    assert any(p.grad.abs().sum() > 0 for p in actor.weights("policy").values())


def recipe_for(folder, **changes):
    recipe = load_recipe(recipe_file("image_to_3d"))
    small = {"prior": value(folder), "steps": 10, "rig": Poses(size=16), "draw": Draw(steps=3, guidance=2.0)}
    small["start"] = replace(recipe.start, resolution=16, limit=60)
    return replace(recipe, **(small | changes))


DISTILS = {"terms": {"distill": Distill(guidance=3.0), "interval": Interval(guidance=3.0)}, "draw": None, "start": Ball(50)}


@pytest.mark.parametrize("changes", [{}, DISTILS], ids=["lifts", "distils"])
def test_a_recipe_runs_ten_steps_and_resumes(folder, changes):
    recipe = recipe_for(folder, **changes)
    o = begin(recipe, mug(folder))
    if not changes:
        assert o.drawn.cameras.azimuths_deg[0, 1].item() == pytest.approx(90, abs=1e-3)
        assert o.drawn.cameras.elevations_deg[0, 1].item() == pytest.approx(-10, abs=1e-3)
    check_ten_steps(recipe, o)


def test_what_does_not_fit_is_refused_by_name_before_anything_is_drawn(folder, tmp_path):
    with pytest.raises(ValueError, match="goes by a picture"):
        value(folder).check(Prompt("a mug"))
    with pytest.raises(ValueError, match="no negative prompt"):
        value(folder).check(replace(mug(folder), negative="blurry"))
    with pytest.raises(ValueError, match="there is no picture"):
        value(folder).check(Prompt("", image="nowhere.png"))
    value(folder).check(mug(folder))
    with pytest.raises(ValueError, match="goes by a picture"):
        begin(recipe_for(folder), Prompt("a mug"))
    with pytest.raises(ValueError, match="no negative prompt"):
        begin(recipe_for(folder), replace(mug(folder), negative="blurry"))
    with pytest.raises(ValueError, match=r"30/20, 90/-10.*distill, interval.*RandomOrbit"):
        begin(recipe_for(folder, **DISTILS, rig=RandomOrbit(size=16)), mug(folder))
    with pytest.raises(ValueError, match="`teach` asks a prior about any sides"):
        begin(recipe_for(folder, teach=Teach()), mug(folder))
    write_sd(tmp_path)
    with pytest.raises(ValueError, match="reads no picture"):
        begin(recipe_for(folder, prior=Pretrained(str(tmp_path)), draw=None, start=Ball(50), terms={}), mug(folder))
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        Zero123Plus(str(tmp_path)).build()
    with pytest.raises(ValueError, match="multiple of 4 pixels, got 18"):
        Zero123Plus(str(folder), pixels=18).build()


def test_cameras_elsewhere_are_refused(folder, prior):
    for cameras in (Orbit(6).cameras(), Orbit(4).cameras(), Poses(elevations_deg=(30.0, -20.0) * 3).cameras()):
        with pytest.raises(ValueError, match="30/20, 90/-10"):
            prior.embed([mug(folder)], cameras)
    turned = Poses(azimuths_deg=(30.0, 90.0, 150.0, -150.0, -90.0, -30.0)).cameras()
    prior.embed([mug(folder)], turned)
    value(folder, elevations_deg=(30.0, -20.0)).build().embed([mug(folder)], Poses(elevations_deg=(30.0, -20.0) * 3).cameras())


def test_folders_that_lack_something_are_refused(folder, tmp_path):
    import shutil

    part = tmp_path / "part"
    shutil.copytree(folder, part)
    shutil.rmtree(part / "vision_encoder")
    with pytest.raises(ValueError, match=r"cannot load .* as Zero123PlusPipeline"):
        value(part).build()


def test_a_ramp_weighs_the_picture_for_each_word(folder, prior):
    told = prior.embed([mug(folder)], CAMERAS)
    difference = (told.wanted.words - told.unwanted.words)[0]
    ramp = torch.tensor([i / 15 for i in range(16)])
    torch.testing.assert_close(difference, ramp[:, None] * difference[-1], rtol=1e-3, atol=1e-4)
    assert F.mse_loss(difference[-1], torch.zeros(32)) > 1e-4
