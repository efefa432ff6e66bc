"""Tiny random models, written to disk in the formats of the hub."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

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

LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789,"]
WIDTH = 32


def tokenizer():
    from transformers import CLIPTokenizer

    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=16)


def reader(kind, width=WIDTH):
    from transformers import CLIPTextConfig

    ends = {"bos_token_id": 74, "eos_token_id": 75, "pad_token_id": 75}
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=76,
            max_position_embeddings=16,
            projection_dim=width,
            **ends,
        )
    )


def autoencoder(**more):
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, **blocks, **more)


def unet(**more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        **more,
    )


def scheduler(prediction):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def write_sd(folder, prediction="epsilon"):
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=reader(CLIPTextModel),
        tokenizer=tokenizer(),
        unet=unet(cross_attention_dim=WIDTH),
        scheduler=scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def write_xl(folder):
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=reader(CLIPTextModel),
        text_encoder_2=reader(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
        ),
        scheduler=scheduler("epsilon"),
    ).save_pretrained(folder)


def write_sd3(folder):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    StableDiffusion3Pipeline(
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=reader(CLIPTextModelWithProjection),
        text_encoder_2=reader(CLIPTextModelWithProjection),
        text_encoder_3=None,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=None,
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    ).save_pretrained(folder)


# ---- MVDream: its own network's weights by its own names, and what they mean, written out


MV = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": WIDTH,
    "camera_dim": 16,
}


def mv_weights():
    """Random weights of the network that MV describes: two levels, attention on the lower one."""
    rng = torch.Generator().manual_seed(5)
    found = {}

    def linear(name, of, to, bias=True):
        found[f"{name}.weight"] = torch.randn(to, of, generator=rng) / math.sqrt(of)
        if bias:
            found[f"{name}.bias"] = 0.1 * torch.randn(to, generator=rng)

    def conv(name, of, to, side=3):
        found[f"{name}.weight"] = torch.randn(to, of, side, side, generator=rng) / math.sqrt(of * side**2)
        found[f"{name}.bias"] = 0.1 * torch.randn(to, generator=rng)

    def norm(name, width):
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=rng)
        found[f"{name}.bias"] = 0.1 * torch.randn(width, generator=rng)

    def residual(name, of, to):
        norm(f"{name}.in_layers.0", of)
        conv(f"{name}.in_layers.2", of, to)
        linear(f"{name}.emb_layers.1", 128, to)
        norm(f"{name}.out_layers.0", to)
        conv(f"{name}.out_layers.3", to, to)
        if of != to:
            conv(f"{name}.skip_connection", of, to, 1)

    def transformer(name, width):
        norm(f"{name}.norm", width)
        linear(f"{name}.proj_in", width, width)
        block = f"{name}.transformer_blocks.0"
        for attention, of in (("attn1", width), ("attn2", WIDTH)):
            linear(f"{block}.{attention}.to_q", width, width, bias=False)
            linear(f"{block}.{attention}.to_k", of, width, bias=False)
            linear(f"{block}.{attention}.to_v", of, width, bias=False)
            linear(f"{block}.{attention}.to_out.0", width, width)
        linear(f"{block}.ff.net.0.proj", width, 8 * width)
        linear(f"{block}.ff.net.2", 4 * width, width)
        for i in (1, 2, 3):
            norm(f"{block}.norm{i}", width)
        linear(f"{name}.proj_out", width, width)

    for name, of in (("time_embed", 32), ("camera_embed", 16)):
        linear(f"{name}.0", of, 128)
        linear(f"{name}.2", 128, 128)
    conv("input_blocks.0.0", 4, 32)
    residual("input_blocks.1.0", 32, 32)
    conv("input_blocks.2.0.op", 32, 32)
    residual("input_blocks.3.0", 32, 64)
    transformer("input_blocks.3.1", 64)
    residual("middle_block.0", 64, 64)
    transformer("middle_block.1", 64)
    residual("middle_block.2", 64, 64)
    residual("output_blocks.0.0", 128, 64)
    transformer("output_blocks.0.1", 64)
    residual("output_blocks.1.0", 96, 64)
    transformer("output_blocks.1.1", 64)
    conv("output_blocks.1.2.conv", 64, 64)
    residual("output_blocks.2.0", 96, 32)
    residual("output_blocks.3.0", 64, 32)
    norm("out.0", 32)
    conv("out.2", 32, 4)
    return found


def mv_network(w, x, time, text, poses, views):
    """The network of MVDream in plain functions: its noise prediction for [b v] views in a row."""

    def linear(name, h):
        return F.linear(h, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def conv(name, h, **how):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **how)

    def group(name, h, eps=1e-5):
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def layer(name, h):
        return F.layer_norm(h, h.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def residual(name, h):
        y = conv(f"{name}.in_layers.2", F.silu(group(f"{name}.in_layers.0", h)), padding=1)
        y = y + linear(f"{name}.emb_layers.1", F.silu(emb))[..., None, None]
        y = conv(f"{name}.out_layers.3", F.silu(group(f"{name}.out_layers.0", y)), padding=1)
        return y + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in w else h)

    def attention(name, h, context):
        q, k, v = linear(f"{name}.to_q", h), linear(f"{name}.to_k", context), linear(f"{name}.to_v", context)
        q, k, v = (z.unflatten(-1, (-1, 16)).transpose(1, 2) for z in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / 4).softmax(-1)
        return linear(f"{name}.to_out.0", (weights @ v).transpose(1, 2).flatten(2))

    def transformer(name, h):
        side = h.shape[-1]
        y = linear(f"{name}.proj_in", group(f"{name}.norm", h, 1e-6).flatten(2).transpose(1, 2))
        block = f"{name}.transformer_blocks.0"
        joint = layer(f"{block}.norm1", y).unflatten(0, (-1, views)).flatten(1, 2)
        y = y + attention(f"{block}.attn1", joint, joint).unflatten(1, (views, -1)).flatten(0, 1)
        y = y + attention(f"{block}.attn2", layer(f"{block}.norm2", y), text)
        up, gate = linear(f"{block}.ff.net.0.proj", layer(f"{block}.norm3", y)).chunk(2, -1)
        y = y + linear(f"{block}.ff.net.2", up * F.gelu(gate))
        return h + linear(f"{name}.proj_out", y).transpose(1, 2).unflatten(2, (side, side))

    angles = time * torch.exp(-math.log(10000) * torch.arange(16) / 16)
    waves = torch.cat([angles.cos(), angles.sin()]).expand(len(x), -1)
    emb = sum(
        linear(f"{name}.2", F.silu(linear(f"{name}.0", z))) for name, z in (("time_embed", waves), ("camera_embed", poses))
    )
    kept = [h := conv("input_blocks.0.0", x, padding=1)]
    kept.append(h := residual("input_blocks.1.0", h))
    kept.append(h := conv("input_blocks.2.0.op", h, stride=2, padding=1))
    kept.append(h := transformer("input_blocks.3.1", residual("input_blocks.3.0", h)))
    h = residual("middle_block.2", transformer("middle_block.1", residual("middle_block.0", h)))
    for i in range(4):
        h = residual(f"output_blocks.{i}.0", torch.cat([h, kept.pop()], 1))
        if f"output_blocks.{i}.1.norm.weight" in w:
            h = transformer(f"output_blocks.{i}.1", h)
        if i == 1:
            h = conv("output_blocks.1.2.conv", F.interpolate(h, scale_factor=2, mode="nearest"), padding=1)
    return conv("out.2", F.silu(group("out.0", h)), padding=1)


def write_mvdream(folder):
    from transformers import CLIPTextModel

    for part, name in ((autoencoder(), "vae"), (reader(CLIPTextModel), "text_encoder"), (tokenizer(), "tokenizer")):
        part.save_pretrained(folder / name)
    scheduler("epsilon").save_pretrained(folder / "scheduler")
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text(json.dumps(MV))
    save_file(mv_weights(), folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MVDreamPipeline"}))


WRITERS = {"sd": write_sd, "xl": write_xl, "sd3": write_sd3, "mvdream": write_mvdream}
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
