"""Tiny random pipelines, written to disk in the formats of the hub; and the network of MVDream as its code has it."""

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

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
