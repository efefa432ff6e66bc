"""The architectures of the embedded dual encoders, and how a model becomes a folder in open_clip's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.files import write_whole

Role = Literal["encoder", "judge"]

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"
EMBEDDING = "text.token_embedding.weight"
"""Where a model keeps what it learned of each word."""
CONTEXT = 24
"""Tokens of a text: its words and an end; what is longer is cut."""

IMAGE = {
    "encoder": {"image_size": 64, "timm_model_name": "resnet10t", "timm_pool": "avg"},
    "judge": {"image_size": 64, "timm_model_name": "regnetx_002", "timm_pool": "avg"},
}
TEXT = {
    "encoder": {"width": 128, "heads": 4, "layers": 3},
    "judge": {"width": 96, "heads": 3, "layers": 3},
}
EMBED = {"encoder": 256, "judge": 192}


def config(role: Role, words: Sequence[str]) -> dict[str, Any]:
    """Make an open_clip config.

    The encoder looks with a residual network of few, dense layers; the judge with a RegNet, of more layers in narrow groups.
    """
    text = {"context_length": CONTEXT, "vocab_size": len(words) + 3, "hf_tokenizer_name": ".", **TEXT[role]}
    ends = {"pool_type": "eos", "pad_id": 0, "eos_id": 2}
    model = {"embed_dim": EMBED[role], "custom_text": True, "vision_cfg": IMAGE[role], "text_cfg": {**text, **ends}}
    look = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": look}


def write_blank(folder: Path, config: dict[str, Any], words: Sequence[str]) -> None:
    """Write the config and the tokenizer of a model without weights.

    The tokenizer knows ``words`` alone; it lowers case, drops punctuation, and takes every other word for one unknown word.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    numbers = {word: i for i, word in enumerate((PAD, UNKNOWN, END, *words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    clean = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " ")]
    tokenizer.normalizer = normalizers.Sequence(clean)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, numbers[END])])
    specials = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, **specials}
    for name, text in (
        ("open_clip_config.json", json.dumps(config, indent=2)),
        ("tokenizer.json", tokenizer.to_str()),
        ("tokenizer_config.json", json.dumps(about, indent=2)),
    ):
        write_whole(folder / name, text.encode())


def blank(folder: Path, seed: int) -> nn.Module:
    """Make the model that a folder's config describes, with random weights."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False)


def embed_tokens(model: nn.Module, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
    """What ``model.encode_text`` gives, not normalised, without the time spent on padding."""
    text: Any = model.text
    length = int((tokens != text.pad_id).sum(1).max())
    tokens = tokens[:, :length]
    x = text.token_embedding(tokens) + text.positional_embedding[:length]
    x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
    ends = (tokens == text.eos_id).int().argmax(1)
    return x[torch.arange(len(x)), ends] @ text.text_projection


def write_weights(folder: Path, model: nn.Module, card: str) -> None:
    """Write the weights in half precision and the model card beside the config and the tokenizer."""
    from safetensors.torch import save

    def slim(x: Tensor) -> Tensor:
        return (x.half() if x.is_floating_point() else x).contiguous()

    state = {name: slim(x.detach()) for name, x in model.state_dict().items()}
    write_whole(folder / "open_clip_model.safetensors", save(state, {"format": "pt"}))
    write_whole(folder / "README.md", card.encode())


def read_words(folder: Path) -> tuple[str, ...]:
    """The words that a folder's tokenizer knows, in the order of their numbers."""
    try:
        numbers = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} has no tokenizer as a training writes it ({error!r}): name an exported model") from error
    return tuple(sorted(numbers.keys() - {PAD, UNKNOWN, END}, key=numbers.__getitem__))


def read_weights(folder: Path, model: nn.Module, words: Sequence[str], *, text: bool = True) -> None:
    """Take over the weights that :func:`write_weights` wrote for a model of this architecture, with or without its text tower.

    ``words`` are the model's own. What it learned of a word stays with the word; a new one starts as the unknown word, which
    means nothing: so every text is read at first as it was before.
    """
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / "open_clip_model.safetensors")
        own = {name: x for name, x in model.state_dict().items() if name.startswith("text.") and not text}
        if text:
            rows = {word: i for i, word in enumerate((PAD, UNKNOWN, END, *read_words(folder)))}
            weights[EMBEDDING] = weights[EMBEDDING][[rows.get(word, rows[UNKNOWN]) for word in (PAD, UNKNOWN, END, *words)]]
        model.load_state_dict(weights | own)
    except (OSError, RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"cannot start from {folder}: {error}; it must hold a model of this architecture") from error
