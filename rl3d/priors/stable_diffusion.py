"""Large priors from folders in diffusers' layout: Stable Diffusion 1.5, 2.1, XL and 3, and MVDream.

What a folder holds is read from its ``model_index.json``. All become one :class:`StableDiffusionPrior`; they differ in the
network that is called, in what it predicts, and in whether it knows cameras. MVDream (Shi et al. 2023) is Stable Diffusion
whose self-attention sees all views of an object, and which is told each view's camera; the others see one picture at a time,
and read from which side it shows the object in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.cameras import worded
from rl3d.hub import find_model
from rl3d.math import Level
from rl3d.priors.parametrisations import clean_from_flow, clean_from_noise, clean_from_velocity
from rl3d.priors.reading import Kept, Read, encode
from rl3d.priors.sampling import guide
from rl3d.protocols import PriorInfo
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b v c h w"]
KNOWN = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "MVDreamPipeline")


@dataclass(frozen=True)
class StableDiffusion:
    """A prior from a folder: of Stable Diffusion 1.5, 2.1, XL or 3, or of MVDream, in diffusers' layout."""

    folder: str
    """A folder, or a published model by its name (`rl3d weights list`), which is downloaded if it is not here."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network and the text encoders compute in; the autoencoder always takes float32."""
    sides: bool = True
    """Tell priors that know no cameras in words from where the object is seen."""
    suffix: str | None = None
    """Put behind every prompt; None takes ", 3d asset" for MVDream, which was trained with it, and nothing for others."""
    low_memory: bool = False
    """Take less memory and more time: text encoders are loaded for prompts that were never read, and leave at once (what they
    made of them is kept on disk); the autoencoder takes one picture at a time; gradients through the network compute again
    what lies within its blocks.
    """
    background: float = 0.5
    """The gray that views are laid over, since these priors know no alpha."""
    distance: float = 3.2
    fov_y_deg: float = 40.0

    def check(self, prompt: Prompt) -> None:
        """Refuse a folder that holds no prior of a known kind (``ValueError``), without loading it."""
        kind_of(find_model(self.folder))

    def build(self, device: torch.device | str = "cpu") -> StableDiffusionPrior:
        """Load it, frozen."""
        folder = find_model(self.folder)
        kind, dtype = kind_of(folder), getattr(torch, self.dtype)
        load = _mvdream if kind == "MVDreamPipeline" else _pipeline
        try:
            pipe = load(folder, kind, dtype, ("network",) if self.low_memory else ("network", "texts"))
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"cannot load {folder} as {kind}: {type(error).__name__}: {error}; it needs what diffusers' save_pretrained "
                "writes, as safetensors"
            ) from error
        kept = Kept(folder, lambda: load(folder, kind, dtype, ("texts",))) if self.low_memory else None
        return StableDiffusionPrior(pipe, self, kept).requires_grad_(False).eval().to(device)


def kind_of(folder: Path) -> str:
    """The pipeline that a folder names; a ``ValueError`` if it is none of :data:`KNOWN`."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is no folder of a diffusers pipeline: it lacks model_index.json")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind not in KNOWN:
        raise ValueError(f"{folder} holds a {kind}, which is not among the known kinds: {', '.join(KNOWN)}")
    return kind


@dataclass(frozen=True)
class Condition:
    """What the network is told of each view, with and without the prompt."""

    text: Float[Tensor, "b v t d"]
    negative: Float[Tensor, "b v t d"]
    pooled: Float[Tensor, "b v p"] | None
    negative_pooled: Float[Tensor, "b v p"] | None
    cameras: Float[Tensor, "b v 16"] | None


class StableDiffusionPrior(nn.Module):
    """A :class:`~rl3d.protocols.Prior` around the parts of a diffusers pipeline. Its latents are those of the autoencoder."""

    info: PriorInfo

    def __init__(self, pipe: Any, value: StableDiffusion, kept: Kept | None = None):
        """``kept`` reads texts where the pipeline has no text encoders."""
        super().__init__()
        self.value, self._memory, self._pipe = value, kept, [pipe]  # in a list, so that nothing is registered twice
        self.is_flow = hasattr(pipe, "transformer")
        self.net: nn.Module = pipe.transformer if self.is_flow else pipe.unet
        self.vae = pipe.vae.float()
        parts = ("text_encoder", "text_encoder_2", "text_encoder_3")
        self.readers = nn.ModuleDict({name: getattr(pipe, name) for name in parts if getattr(pipe, name, None) is not None})
        self._told: dict[str, Read] = {}
        self.predicts = "flow" if self.is_flow else pipe.scheduler.config.prediction_type
        if self.predicts not in _CLEAN:
            raise ValueError(f"its scheduler says prediction_type {self.predicts!r}; known are {', '.join(_CLEAN)}")
        if not self.is_flow:
            from diffusers import DDIMScheduler

            clean = DDIMScheduler.from_config(pipe.scheduler.config).alphas_cumprod.double().clamp(1e-12, 1 - 1e-12).numpy()
            self._log_snr = np.log(clean / (1 - clean)) / 2
        if value.low_memory:
            self.vae.enable_slicing()
            self.net.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        config: Any = self.net.config
        self.knows_cameras = getattr(config, "class_embed_type", None) == "projection"
        size = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
        self.info = PriorInfo(
            channels=config.in_channels,
            size=size,
            views=4 if self.knows_cameras else 1,
            elevation_deg=(0.0, 30.0) if self.knows_cameras else (-10.0, 60.0),
            distance=value.distance,
            fov_y_deg=value.fov_y_deg,
            alpha=False,
            negative_prompts=True,
        )

    # ---- conditions

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Condition:
        """Read prompts, and the cameras of their views: as matrices, or as words in the prompts."""
        b, v = len(prompts), cameras.views
        suffix = self.value.suffix if self.value.suffix is not None else (", 3d asset" if self.knows_cameras else "")
        azimuths, elevations = (a.expand(b, -1).tolist() for a in (cameras.azimuths_deg, cameras.elevations_deg))
        texts = []
        for i, prompt in enumerate(prompts):
            for j in range(v):
                text = prompt.text + suffix
                say = self.value.sides and not self.knows_cameras
                texts.append(worded(text, azimuths[i][j], elevations[i][j]) if say else text)
        text, pooled = self._read(texts)
        negative, negative_pooled = self._read([prompt.negative for prompt in prompts for _ in range(v)])
        poses = _poses(cameras).expand(b, -1, -1) if self.knows_cameras else None

        def per_view(x: Tensor | None) -> Any:
            return None if x is None else x.unflatten(0, (b, v))

        return Condition(per_view(text), per_view(negative), per_view(pooled), per_view(negative_pooled), poses)

    @torch.no_grad()
    def _read(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Text embeddings, and pooled ones where the network wants them. Read once each: the readers are frozen."""
        new = sorted({text for text in texts if text not in self._told})
        if new:
            if len(self._told) > 1000:  # of a long training
                self._told.clear()
                new = sorted(set(texts))
            found = self._memory.read(new) if self._memory else encode(self._pipe[0], new, self.vae.device)
            self._told |= dict(zip(new, found, strict=True))
        device = self.vae.device
        rows = [self._told[text] for text in texts]
        pooled = None if rows[0][1] is None else torch.stack([row[1] for row in rows]).to(device)  # pyright: ignore
        return torch.stack([row[0] for row in rows]).to(device), pooled

    # ---- latents

    def encode(self, views: Views) -> Latents:
        """Lay views over the background, resize them, and encode them, without noise. Differentiable."""
        pixels = (views.rgb + (1 - views.alpha) * self.value.background).movedim(-1, 2).flatten(0, 1)
        side = self.info.size * self._factor
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
        mean = self.vae.encode(2 * pixels - 1).latent_dist.mean
        config = self.vae.config
        return ((mean - (config.shift_factor or 0.0)) * config.scaling_factor).unflatten(0, views.rgb.shape[:2])

    def decode(self, latents: Latents, cameras: Cameras) -> Views:
        """Decode latents to views, not clamped; they are opaque. Differentiable."""
        config = self.vae.config
        pixels = self.vae.decode(latents.flatten(0, 1) / config.scaling_factor + (config.shift_factor or 0.0)).sample
        rgb = (pixels / 2 + 0.5).unflatten(0, latents.shape[:2]).movedim(2, -1)
        return Views(rgb, torch.ones_like(rgb[..., :1]), None, None, cameras.resized(rgb.shape[-2], rgb.shape[-3]))

    @property
    def _factor(self) -> int:
        """Pixels along a side of a latent."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    # ---- predictions

    def predict(
        self, noisy: Latents, level: Level, condition: Condition, *, guidance: float = 1.0, rescale: float = 0.0
    ) -> Latents:
        """The clean latents, in float32; ``guidance`` other than 1 doubles the work. Differentiable.

        The network sees noisy latents on its own path (variance-preserving, or straight) at the time of the same ratio of
        noise to clean latents, between the trained steps if need be.
        """
        scale = level.alpha + level.sigma if self.is_flow else math.hypot(level.alpha, level.sigma)
        noisy, level = noisy / scale, Level(level.alpha / scale, level.sigma / scale)
        if guidance == 1:
            return self._clean(noisy, level, condition.text, condition.pooled, condition.cameras)

        def both(x: Tensor | None, y: Tensor | None) -> Tensor | None:
            return None if x is None or y is None else torch.cat([x, y])

        text, pooled = both(condition.text, condition.negative), both(condition.pooled, condition.negative_pooled)
        assert text is not None
        two = self._clean(torch.cat([noisy, noisy]), level, text, pooled, both(condition.cameras, condition.cameras))
        return guide(*two.chunk(2), guidance, rescale)  # pyright: ignore[reportCallIssue]

    def _clean(self, noisy: Latents, level: Level, text: Tensor, pooled: Tensor | None, cameras: Tensor | None) -> Latents:
        shape, dtype = noisy.shape[:2], next(self.net.parameters()).dtype
        x, text = noisy.flatten(0, 1).to(dtype), text.flatten(0, 1).to(dtype)
        pooled = None if pooled is None else pooled.flatten(0, 1).to(dtype)
        time = torch.full((len(x),), self.time_of(level), device=x.device)
        net: Any = self.net
        if self.is_flow:
            said = net(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=time, return_dict=False)[0]
        else:
            extra: dict[str, Any] = {}
            if pooled is not None:  # XL is told of sizes, too: Podell et al. 2023, "SDXL", sec. 2.2
                side = self.info.size * self._factor
                sizes = torch.tensor([side, side, 0, 0, side, side], dtype=dtype, device=x.device).expand(len(x), -1)
                extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
            if cameras is not None:
                extra = {"class_labels": cameras.flatten(0, 1).to(dtype)}
                for module in net.modules():
                    if isinstance(processor := getattr(module, "processor", None), AcrossViews):
                        processor.views = shape[1]
            said = net(x, time, encoder_hidden_states=text, return_dict=False, **extra)[0]
        return _CLEAN[self.predicts](noisy, said.unflatten(0, shape), level)

    def time_of(self, level: Level) -> float:
        """The network's time at a level: in steps of its training, between two of them if need be."""
        if self.is_flow:
            return 1000 * level.sigma / (level.alpha + level.sigma)
        log_snr = math.log(max(level.alpha, 1e-6) / max(level.sigma, 1e-6))
        return float(np.interp(-log_snr, -self._log_snr, np.arange(len(self._log_snr))))


_CLEAN: dict[str, Callable[[Latents, Latents, Level], Latents]] = {
    "epsilon": clean_from_noise,
    "v_prediction": clean_from_velocity,
    "sample": lambda noisy, clean, level: clean.float(),
    "flow": clean_from_flow,
}


def _poses(cameras: Cameras) -> Float[Tensor, "b v 16"]:
    """Cameras as MVDream is told them: world from camera with OpenGL's axes, rows first, and the centre on the unit sphere.

    Its world is ours: z up, azimuth 0 at +x.
    """
    pose = torch.linalg.inv(cameras.cam_from_world) * cameras.cam_from_world.new_tensor([1.0, -1.0, -1.0, 1.0])
    centre = F.normalize(pose[..., :3, 3:], dim=-2)
    return torch.cat([torch.cat([pose[..., :3, :3], centre], -1), pose[..., 3:, :]], -2).flatten(-2)


# ---- loading


Half = Literal["network", "texts"]
"""Of a pipeline: the network and the autoencoder, or what reads prompts."""


def _pipeline(folder: Path, kind: str, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load a pipeline of diffusers from disk, or half of it, from safetensors alone: pickles may run anything."""
    import diffusers

    plain = [f for f in (folder / "vae").glob("*.safetensors") if ".fp16." not in f.name]
    index = json.loads((folder / "model_index.json").read_text())
    how: dict[str, Any] = {name: None for name, part in index.items() if part == [None, None]}  # SD 3 without its T5
    how |= {} if plain else {"variant": "fp16"}
    parts = {"texts": ("text_encoder", "tokenizer"), "network": ("unet", "transformer", "vae")}
    how |= {name: None for half, names in parts.items() if half not in halves for name in index if name.startswith(names)}
    if "transformer" in how:  # SD 3 asks its network how wide the words of a missing T5 would be
        with torch.device("meta"):
            how["transformer"] = diffusers.SD3Transformer2DModel.from_config(
                json.loads((folder / "transformer" / "config.json").read_text())
            )
    if kind == "StableDiffusionPipeline":
        how |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = getattr(diffusers, kind)
    return pipe.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **how)


class AcrossViews:
    """Attention of diffusers in which all views of an object see each other: Shi et al. 2023, "MVDream", sec. 3.1."""

    views = 1

    def __init__(self):
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.attend = AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Float[Tensor, "n t d"], **others: Any) -> Float[Tensor, "n t d"]:
        together = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        return self.attend(attn, together).unflatten(1, (self.views, -1)).flatten(0, 1)


def _mvdream(folder: Path, kind: str, dtype: torch.dtype, halves: tuple[Half, ...]) -> Any:
    """Load MVDream's parts, or half of them, as a pipeline of Stable Diffusion."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    parts: dict[str, Any] = dict.fromkeys(("vae", "unet", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    if "network" in halves:
        parts["vae"] = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype)
        parts["unet"] = nn.Module.to(_mvdream_unet(folder), dtype)
    if "texts" in halves:
        parts["text_encoder"] = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype)
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    return StableDiffusionPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)


def _mvdream_unet(folder: Path) -> nn.Module:
    """MVDream's network as a UNet of diffusers.

    Its file names weights as the original implementation does. Its camera embedding is what diffusers calls a projected class
    embedding, and only self-attention differs (:class:`AcrossViews`).
    """
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from safetensors.torch import load_file

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
    weights = {}
    for path in sorted((folder / "unet").glob("*.safetensors")):
        for key, x in load_file(path).items():
            weights["model.diffusion_model." + key.replace("camera_embed.", "label_emb.0.")] = x
    unet.load_state_dict(convert_ldm_unet_checkpoint(weights, unet.config))
    processor = AcrossViews()
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(processor)  # pyright: ignore[reportCallIssue]
    return unet
