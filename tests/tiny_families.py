"""More tiny random pipelines in the formats of the hub: those that read T5, and Zero123++."""

import json

import torch
from tiny_pipelines import LETTERS, WIDTH, autoencoder, reader, tokenizer, unet


def t5_tokenizer():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def t5(width=WIDTH):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=48,
        d_model=width,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config).eval()


def pixart_network(**more):
    from diffusers import PixArtTransformer2DModel

    net = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=6,
        cross_attention_dim=48,
        caption_channels=WIDTH,
        patch_size=2,
        **more,
    )
    for p in net.parameters():  # some begin at zero, and would hide what they are told
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net


def linear_schedule():
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")


def write_pixart(folder, **more):
    """Sigma, or Alpha where it is told of sizes."""
    from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline

    kind = PixArtAlphaPipeline if more else PixArtSigmaPipeline
    parts = {"transformer": pixart_network(**more), "scheduler": linear_schedule(), "vae": autoencoder()}
    kind(tokenizer=t5_tokenizer(), text_encoder=t5(), **parts).save_pretrained(folder)


def write_alpha(folder):
    write_pixart(folder, use_additional_conditions=True)


def pixel_schedule():
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )


def write_if(folder):
    from diffusers import IFPipeline, UNet2DConditionModel

    net = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=64,
        encoder_hid_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        class_embed_type=None,
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        time_embedding_type="positional",
    )
    rest = {"safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False}
    IFPipeline(tokenizer=t5_tokenizer(), text_encoder=t5(), unet=net, scheduler=pixel_schedule(), **rest).save_pretrained(
        folder
    )


def write_flux(folder, guidance=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    net = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance, shift=3.0 if guidance else 1.0),
        vae=autoencoder(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=reader(CLIPTextModel),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=net,
    ).save_pretrained(folder)


def write_schnell(folder):
    write_flux(folder, guidance=False)


def write_zero123plus(folder):
    """Part by part: diffusers has no such pipeline, and its index has one entry more."""
    from diffusers import EulerAncestralDiscreteScheduler
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    eye = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
            projection_dim=WIDTH,
        )
    )
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", prediction_type="v_prediction", steps_offset=1
    )
    makers = {
        "clip": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        "vae": CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=0.5, image_std=0.8
        ),
    }
    parts = {
        "vae": autoencoder(),
        "text_encoder": reader(CLIPTextModel),
        "tokenizer": tokenizer(),
        "unet": unet(cross_attention_dim=WIDTH),
        "scheduler": scheduler,
        "vision_encoder": eye,
        **{f"feature_extractor_{name}": maker for name, maker in makers.items()},
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    modules = {
        name: ["transformers" if "CLIP" in type(part).__name__ else "diffusers", type(part).__name__]
        for name, part in parts.items()
    }
    index = {"_class_name": "Zero123PlusPipeline", **modules, "ramping_coefficients": [i / 15 for i in range(16)]}
    (folder / "model_index.json").write_text(json.dumps(index))


WRITERS = {"pixart": write_pixart, "alpha": write_alpha, "if": write_if, "flux": write_flux, "schnell": write_schnell}
