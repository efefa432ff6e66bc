"""Tiny random models in published formats."""

import itertools
import json

import pytest
import torch
from safetensors.torch import save_file
from stub import serving
from torch import nn

from rl3d.hub import sha256
from rl3d.rewards import weights
from rl3d.rewards.trained import ABOUT, HEAD, Head
from rl3d.train import towers


def published(path):
    """Count a file among those whose hash is known, as the tiny models' would be if they were published."""
    weights.PUBLISHED |= {sha256(path)}
    return path


WORDS = ("a", "blue", "on", "red", "mug", "cube", "front", "side", "back", "overhead", "view", "blurry")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A dual encoder in open_clip's format, without batch statistics, so that finite differences are exact enough."""
    folder = tmp_path_factory.mktemp("clip")
    config = towers.config("encoder", WORDS)
    config["model_cfg"]["vision_cfg"] = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    config["model_cfg"]["embed_dim"] = 8
    towers.write_blank(folder, config, WORDS)
    towers.write_weights(folder, towers.blank(folder, seed=0), "# A tiny model\n")
    return folder


@pytest.fixture(scope="session")
def linear_head(tmp_path_factory):
    """LAION's first head: one layer."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("head") / "sa_0_4_tiny_linear.pth"
    torch.save(nn.Linear(8, 1).state_dict(), path)
    return published(path)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory, clip_folder):
    """A reward as `rl3d reward train` writes it, of random weights."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(6)
    save_file(Head(8).state_dict(), folder / HEAD)
    about = {"encoder": str(clip_folder), "pretrained": "", "width": 8, "hidden": 32, "joint": True}
    (folder / ABOUT).write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="session")
def deep_head(tmp_path_factory):
    """LAION's second head: five layers with dropout between the first ones, as named in its file."""
    path = tmp_path_factory.mktemp("head") / "tiny-linearMSE.pth"
    torch.save({f"layers.{k}": v for k, v in stack(8).state_dict().items()}, path)
    return published(path)


def stack(width: int) -> nn.Sequential:
    torch.manual_seed(2)
    drops = (nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.1))
    sizes = (width, 32, 16, 8, 4)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    mixed = [x for pair in zip(layers, drops, strict=False) for x in pair]
    return nn.Sequential(*mixed, layers[3], nn.Linear(4, 1))


HPS_CONFIG = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
}


@pytest.fixture(scope="session")
def hps_files(tmp_path_factory):
    """A checkpoint as HPS's: a training state whose "state_dict" is an open_clip model's; and its architecture."""
    import open_clip

    folder = tmp_path_factory.mktemp("hps")
    (folder / "open_clip_config.json").write_text(json.dumps(HPS_CONFIG))
    torch.manual_seed(3)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save({"epoch": 0, "state_dict": {k: v.half() for k, v in model.state_dict().items()}}, folder / "HPS_tiny.pt")
    return published(folder / "HPS_tiny.pt"), f"local-dir:{folder}"


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A word-piece tokenizer as bert-base-uncased's, of few words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    numbers = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=77, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pickscore_folder(tmp_path_factory, bert_folder):
    """A CLIP in transformers' format, with its tokenizer and preprocessing."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("pickscore")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 5 + len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2}
    vision = {**small, "image_size": 16, "patch_size": 8}
    torch.manual_seed(4)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    for file in bert_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    look = {"crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 16}, "resample": 3}
    look |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(look))
    return folder


@pytest.fixture(scope="session")
def imagereward_file(tmp_path_factory):
    """A checkpoint as ImageReward's, by the names that BLIP's own code gives its weights."""
    path = tmp_path_factory.mktemp("imagereward") / "ImageReward.pt"
    torch.manual_seed(5)
    width, hidden, vocabulary = 64, 64, 5 + len(WORDS)
    made: dict[str, torch.Tensor] = {}

    def linear(name: str, out: int, into: int):
        made[f"{name}.weight"], made[f"{name}.bias"] = torch.randn(out, into) / into**0.5, 0.1 * torch.randn(out)

    def norm(name: str, size: int):
        made[f"{name}.weight"], made[f"{name}.bias"] = 1 + 0.1 * torch.randn(size), 0.1 * torch.randn(size)

    sight, words = "blip.visual_encoder", "blip.text_encoder"
    made[f"{sight}.cls_token"], made[f"{sight}.pos_embed"] = torch.randn(1, 1, width), torch.randn(1, 5, width)
    made[f"{sight}.patch_embed.proj.weight"] = torch.randn(width, 3, 8, 8) / 14
    made[f"{sight}.patch_embed.proj.bias"] = torch.randn(width)
    for i in range(2):
        block = f"{sight}.blocks.{i}"
        norm(f"{block}.norm1", width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", 96, width)
        linear(f"{block}.mlp.fc2", width, 96)
    norm(f"{sight}.norm", width)
    made[f"{words}.embeddings.position_ids"] = torch.arange(40)[None]
    made[f"{words}.embeddings.word_embeddings.weight"] = torch.randn(vocabulary, hidden)
    made[f"{words}.embeddings.position_embeddings.weight"] = torch.randn(40, hidden)
    norm(f"{words}.embeddings.LayerNorm", hidden)
    for i in range(2):
        layer = f"{words}.encoder.layer.{i}"
        for attention, into in (("attention", hidden), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", hidden, hidden)
            linear(f"{layer}.{attention}.self.key", hidden, into)
            linear(f"{layer}.{attention}.self.value", hidden, into)
            linear(f"{layer}.{attention}.output.dense", hidden, hidden)
            norm(f"{layer}.{attention}.output.LayerNorm", hidden)
        linear(f"{layer}.intermediate.dense", 80, hidden)
        linear(f"{layer}.output.dense", hidden, 80)
        norm(f"{layer}.output.LayerNorm", hidden)
    # Projections of BLIP's pre-training, which the reward does not use.
    linear("blip.vision_proj", 8, width)
    linear("blip.text_proj", 8, hidden)
    made |= {f"mlp.layers.{k}": v for k, v in stack(hidden).state_dict().items()}
    torch.save(made, path)
    return published(path)


@pytest.fixture(scope="session")
def service():
    """The address of a service that likes red."""
    with serving() as (_, url):
        yield url
