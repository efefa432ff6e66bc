"""Models of people's preferences among pictures of one prompt, each with its own preprocessing, from files as published."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.hub import find_model
from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judged, look
from rl3d.rewards.clip import GRAY, Background, ClipReward
from rl3d.rewards.resize import OPENAI_MEAN, OPENAI_STD, fit, normalise, opaque
from rl3d.rewards.weights import linear_stack, read_weights
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Hps:
    """Human Preference Score v2 or v2.1 (Wu et al. 2023): a ViT-H-14 dual encoder, fine-tuned.

    Its value is a cosine, whose level depends on the prompt: compare within one. Pictures that are not square are padded.
    """

    file: str
    """"hps-2.1" or "hps-2.0", which are downloaded; or a file: ``HPS_v2.1_compressed.pt``, or the same as safetensors."""
    architecture: str = "ViT-H-14"
    """open_clip's name of it, or ``local-dir:`` and a folder with a config."""

    def build(self, device: torch.device | str = "cpu") -> ClipReward:
        """Load it; the reward is a dual encoder like others.

        Raises:
            ValueError: if the file is missing, broken, or of another architecture.
        """
        import open_clip

        weights = read_weights(self.file)
        model = open_clip.create_model(self.architecture, load_weights=False, device=device)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{self.file} does not fit {self.architecture}: {error}") from error
        info = RewardInfo(
            name=f"hps:{Path(self.file).stem}",
            differentiable="pixels",
            range=(-1.0, 1.0),
            weights=self.file,
            licence="Apache-2.0",
            source="https://arxiv.org/abs/2306.09341",
            background=True,
        )
        tokenizer = open_clip.get_tokenizer(self.architecture)
        return ClipReward(model, tokenizer, info, negative=0.0, resize="longest").to(device)


@dataclass(frozen=True)
class PickScore:
    """PickScore v1 (Kirstain et al. 2023): a CLIP-H in transformers' format, fine-tuned on choices of users."""

    folder: str
    """"pickscore", which is downloaded; or a folder with ``config.json`` and weights."""
    processor: str = ""
    """The folder of tokenizer and preprocessing (published with laion/CLIP-ViT-H-14-laion2B-s32B-b79K); the same if empty."""

    def build(self, device: torch.device | str = "cpu") -> PickScoreReward:
        """Load it.

        Raises:
            ValueError: if files are missing or broken.
        """
        from transformers import AutoTokenizer, CLIPModel

        folder = _folder(self.folder)
        other = _folder(self.processor) if self.processor else folder
        try:
            model = CLIPModel.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(other, local_files_only=True)
            about = json.loads((other / "preprocessor_config.json").read_text())
        except Exception as error:  # transformers, safetensors and tokenizers each raise their own
            fix = "it needs config.json, model.safetensors, a tokenizer and preprocessor_config.json"
            raise ValueError(f"cannot load PickScore from {self.folder}: {type(error).__name__}: {error}; {fix}") from error
        return PickScoreReward(model, tokenizer, about, self.folder).to(device)


class PickScoreReward(nn.Module):
    """exp(scale) cos(view, prompt), mean over views: about 17 to 26 for the published weights. Differentiable in the pixels."""

    def __init__(self, model: nn.Module, tokenizer, about: dict, weights: str):
        """Wrap a transformers ``CLIPModel``; ``about`` is its ``preprocessor_config.json``."""
        super().__init__()
        self.model, self.tokenizer = model.requires_grad_(False), tokenizer
        crop = about["crop_size"]
        self.size = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        self.register_buffer("mean", torch.tensor(about["image_mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(about["image_std"]), persistent=False)
        self.scale = math.exp(float(self.model.logit_scale))  # pyright: ignore[reportArgumentType]
        self.info = RewardInfo(
            name="pickscore",
            differentiable="pixels",
            range=(-self.scale, self.scale),
            weights=weights,
            licence="code MIT; the weights' card states none",
            source="https://arxiv.org/abs/2305.01569",
            background=True,
        )
        self.eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        views = look(self.info, shown, prompts).views
        pixels = opaque(views.over(_level(background)))
        pixels = normalise(fit(pixels, self.size, "shortest"), self.mean, self.std)  # pyright: ignore[reportArgumentType]
        texts = [prompt.text for prompt in prompts]
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        device = self.mean.device
        image = _features(self.model.get_image_features(pixel_values=pixels))  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            text = _features(
                self.model.get_text_features(  # pyright: ignore[reportCallIssue]
                    input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
                )
            )
        image, text = (nn.functional.normalize(x.float(), dim=-1) for x in (image, text))
        return judged(self.scale * (image.unflatten(0, views.rgb.shape[:2]) * text[:, None]).sum(-1))

    @property
    def _longest(self) -> int:
        return self.model.config.text_config.max_position_embeddings  # pyright: ignore[reportReturnType]


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else find_model(name)


def _features(found) -> Tensor:
    """The projected features, which transformers 5 wraps in an object."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _level(background: Background) -> float | Tensor:
    if isinstance(background, torch.Generator):
        return torch.rand(3, generator=background, device=background.device)
    return background


@dataclass(frozen=True)
class ImageReward:
    """ImageReward v1.0 (Xu et al. 2023, sec. 2): BLIP, whose text tower looks at the picture, and a head."""

    file: str
    """"imagereward", which is downloaded; or a file, as safetensors. Its architecture is read off its shapes."""
    tokenizer: str
    """A folder with the tokenizer of bert-base-uncased."""

    def build(self, device: torch.device | str = "cpu") -> ImageRewardReward:
        """Load it.

        Raises:
            ValueError: if files are missing or broken.
        """
        from transformers import AutoTokenizer

        weights = read_weights(self.file)
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer, local_files_only=True)
        except Exception as error:  # tokenizers and transformers each raise their own
            raise ValueError(
                f"cannot load a tokenizer from {self.tokenizer}: {error}; name bert-base-uncased's folder"
            ) from error
        return ImageRewardReward(weights, tokenizer, self.file).to(device)


HEAD_WIDTH = 64
"""Of every attention head of BLIP's towers, of all sizes."""

RENAMED = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj.", "embeddings.patch_embedding."),
    ("blocks.", "encoder.layers."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
)
"""BLIP's own names of the picture tower's weights, and transformers'."""


class ImageRewardReward(nn.Module):
    """(head(BLIP(view, prompt)) - 0.167) / 1.033, mean over views: about -2 to 2. Differentiable in the pixels.

    Texts are cut at 35 tokens, as in training.
    """

    CENTER, SCALE, LONGEST = 0.16717362830052426, 1.0333394966054072, 35

    def __init__(self, weights: dict[str, Tensor], tokenizer, name: str):
        """Make the towers that the weights are of, and load them.

        Raises:
            ValueError: if they are not ImageReward's.
        """
        from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): x for k, x in weights.items() if k.startswith(prefix)}

        sight, words = under("blip.visual_encoder."), under("blip.text_encoder.")
        try:
            places, width = sight["pos_embed"].shape[1:]
            patch = sight["patch_embed.proj.weight"].shape[-1]
            vocabulary, hidden = words["embeddings.word_embeddings.weight"].shape
            side = math.isqrt(places - 1) * patch
            vision = BlipVisionConfig(
                hidden_size=width,
                intermediate_size=sight["blocks.0.mlp.fc1.weight"].shape[0],
                num_hidden_layers=1 + max(int(k.split(".")[1]) for k in sight if k.startswith("blocks.")),
                num_attention_heads=width // HEAD_WIDTH,
                image_size=side,
                patch_size=patch,
                layer_norm_eps=1e-6,
            )
            text = BlipTextConfig(
                vocab_size=vocabulary,
                hidden_size=hidden,
                encoder_hidden_size=width,
                intermediate_size=words["encoder.layer.0.intermediate.dense.weight"].shape[0],
                num_hidden_layers=1 + max(int(k.split(".")[2]) for k in words if k.startswith("encoder.layer.")),
                num_attention_heads=hidden // HEAD_WIDTH,
                max_position_embeddings=words["embeddings.position_embeddings.weight"].shape[0],
                layer_norm_eps=1e-12,
            )
            self.sight, self.words = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
            self.sight.load_state_dict({_renamed(k): x for k, x in sight.items()})
            words.pop("embeddings.position_ids", None)  # older transformers stored this constant
            self.words.load_state_dict(words)
            self.head = linear_stack(under("mlp.layers."))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{name} does not hold ImageReward's weights: {type(error).__name__}: {error}") from error
        self.tokenizer, self.size = tokenizer, (side, side)
        self.register_buffer("mean", torch.tensor(OPENAI_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_STD), persistent=False)
        self.info = RewardInfo(
            name="imagereward",
            differentiable="pixels",
            range=(-torch.inf, torch.inf),
            weights=name,
            licence="Apache-2.0",
            source="https://arxiv.org/abs/2304.05977",
            background=True,
        )
        self.requires_grad_(False).eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        views = look(self.info, shown, prompts).views
        pixels = opaque(views.over(_level(background)))
        seen = self.sight(normalise(fit(pixels, self.size, "shortest"), self.mean, self.std)).last_hidden_state  # pyright: ignore[reportArgumentType]
        return judged(self._judge(seen, prompts).unflatten(0, views.rgb.shape[:2]))

    def _judge(self, seen: Float[Tensor, "n t d"], prompts: list[Prompt]) -> Float[Tensor, "n"]:
        tokens = self.tokenizer(
            [prompt.text for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.LONGEST,
            return_tensors="pt",
        )
        views = len(seen) // len(prompts)
        ids, mask = (tokens[k].repeat_interleave(views, 0).to(seen.device) for k in ("input_ids", "attention_mask"))
        # Every word looks at every word and at the whole picture; the first stands for the pair.
        found = self.words(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        raw = self.head(found.last_hidden_state[:, 0])[:, 0]
        return (raw - self.CENTER) / self.SCALE


def _renamed(name: str) -> str:
    """The name in transformers of a weight of BLIP's picture tower."""
    if name in ("norm.weight", "norm.bias"):
        return f"post_layer{name}"
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name
