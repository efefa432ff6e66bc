"""MVDream (Shi et al. 2023): Stable Diffusion that is told of cameras, and whose self-attention sees all views of an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.priors.family import Family, Frame, Half, Told
from rl3d.priors.loading import blank_part
from rl3d.priors.stable_diffusion import read
from rl3d.types import Cameras


def poses_of(cameras: Cameras) -> Float[Tensor, "b v 16"]:
    """Cameras as MVDream is told them: world from camera with OpenGL's axes, rows first, and the centre on the unit sphere.

    Its world is ours: z up, azimuth 0 at +x.
    """
    pose = torch.linalg.inv(cameras.cam_from_world) * cameras.cam_from_world.new_tensor([1.0, -1.0, -1.0, 1.0])
    centre = F.normalize(pose[..., :3, 3:], dim=-2)
    return torch.cat([torch.cat([pose[..., :3, :3], centre], -1), pose[..., 3:, :]], -2).flatten(-2)


class AcrossViews:
    """Attention of diffusers in which all views of an object see each other: Shi et al. 2023, "MVDream", sec. 3.1."""

    views = 1

    def __init__(self):
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.attend = AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Float[Tensor, "n t d"], **others: Any) -> Float[Tensor, "n t d"]:
        together = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        return self.attend(attn, together).unflatten(1, (self.views, -1)).flatten(0, 1)


def ask(net: Any, noisy: Tensor, time: Tensor, told: Told, frame: Frame) -> Tensor:
    """Ask it about the views of objects, which stand in a row."""
    for module in net.modules():
        if isinstance(processor := getattr(module, "processor", None), AcrossViews):
            processor.views = frame.views
    return net(noisy, time, encoder_hidden_states=told.text, class_labels=told.cameras, return_dict=False)[0]


def load(folder: Path, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load MVDream's parts, or half of them, as a pipeline of Stable Diffusion."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    parts: dict[str, Any] = dict.fromkeys(("vae", "unet", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    if "network" in halves:
        parts["vae"] = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype)
        parts["unet"] = nn.Module.to(_unet(folder), dtype)
    if "texts" in halves:
        parts["text_encoder"] = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype)
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    return StableDiffusionPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)


def blank(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline on the "meta" device."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts: dict[str, Any] = dict.fromkeys(("safety_checker", "feature_extractor"))
    kinds = {"vae": ("diffusers", "AutoencoderKL")}
    kinds |= {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer")}
    parts |= {name: blank_part(folder / name, kind, dtype) for name, kind in kinds.items()}
    with torch.device("meta"):
        parts["unet"] = nn.Module.to(_unet_of(folder), dtype)
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    return StableDiffusionPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)


def _unet(folder: Path) -> nn.Module:
    """MVDream's network with its weights, which its file names as the original implementation does."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from safetensors.torch import load_file

    unet: Any = _unet_of(folder)
    weights = {}
    for path in sorted((folder / "unet").glob("*.safetensors")):
        for key, x in load_file(path).items():
            weights["model.diffusion_model." + key.replace("camera_embed.", "label_emb.0.")] = x
    unet.load_state_dict(convert_ldm_unet_checkpoint(weights, unet.config))
    return unet


def _unet_of(folder: Path) -> nn.Module:
    """MVDream's network as a UNet of diffusers, without its weights.

    Its camera embedding is what diffusers calls a projected class embedding, and only self-attention differs
    (:class:`AcrossViews`).
    """
    from diffusers import UNet2DConditionModel

    said = json.loads((folder / "unet" / "config.json").read_text())
    widths = [said["model_channels"] * factor for factor in said["channel_mult"]]
    attends = [2**i in said["attention_resolutions"] for i in range(len(widths))]
    unet = UNet2DConditionModel(
        sample_size=said["image_size"],
        in_channels=said["in_channels"],
        out_channels=said["out_channels"],
        block_out_channels=tuple(widths),
        layers_per_block=said["num_res_blocks"],
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        attention_head_dim=tuple(width // said["num_head_channels"] for width in widths),
        transformer_layers_per_block=said.get("transformer_depth", 1),
        cross_attention_dim=said["context_dim"],
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=said["camera_dim"],
    )
    processor = AcrossViews()
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(processor)  # pyright: ignore[reportCallIssue]
    return unet


FAMILY = Family(load, read, ask, cameras=True, suffix=", 3d asset", blank=blank)
