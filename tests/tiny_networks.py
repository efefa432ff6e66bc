"""Tiny random networks in the form of the published ones that judge for the record, and a vision transformer as ONNX."""

import json
import struct
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

EYES = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 28, "dynamic_img_size": True}
NAMES = ("mug", "key", "boat", "tree", "dog")
SPOKEN = ("a", "photo", "of", "mug", "cup", "key", "boat", "tree", "dog", "chair")


def drawn(model):
    """The model, all of whose weights matter."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=generator)
    return model.eval()


def eyes():
    """A vision transformer of DINOv2's architecture."""
    return drawn(timm.create_model("vit_small_patch14_dinov2", num_classes=0, **EYES))


def write_networks(folder: Path) -> Path:
    """All three networks."""
    look = {"size": 28, "mean": [0.5] * 3, "std": [0.25] * 3}
    write(folder / "dinov2", eyes(), {"architecture": "vit_small_patch14_dinov2", "options": EYES} | look)
    classes = drawn(timm.create_model("test_efficientnet", num_classes=len(NAMES)))
    write(folder / "classes", classes, {"architecture": "test_efficientnet", "options": {}, "names": NAMES} | look)
    write_sentences(folder / "sentences")
    return folder


def write(folder: Path, model, config) -> None:
    folder.mkdir(parents=True)
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def write_sentences(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(("[PAD]", "[UNK]", *SPOKEN))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    drawn(BertModel(config)).save_pretrained(folder)


# ---- a writer of protocol buffers, as far as ONNX needs it


def field(number: int, value) -> bytes:
    """One field: a number, text, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def tensor(name: str, x: torch.Tensor, *, packed: bool = False) -> bytes:
    sizes = field(1, b"".join(map(varint, x.shape))) if packed else b"".join(field(1, n) for n in x.shape)
    numbers = struct.pack(f"<{x.numel()}f", *x.flatten().tolist())
    return sizes + field(2, 1) + field(8, name) + field(4 if packed else 9, numbers)


def node(kind: str, inputs, output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)


def onnx_bytes(weights: dict[str, torch.Tensor]) -> bytes:
    """A vision transformer as PyTorch exports it: matrices without names, transposed, and positions in two parts."""
    tensors, nodes = [], [node("Conv", ["input", "model.patch_embed.proj.weight"], "patches")]
    for name, x in weights.items():
        if name == "pos_embed":
            tensors += [tensor("onnx::Concat_9", x[:, :1]), tensor("onnx::Reshape_8", x[:, 1:], packed=True)]
            nodes += [node("Concat", ["expanded", "patches"], "all"), node("Concat", ["onnx::Concat_9", "resized"], "places")]
        elif x.ndim == 2:
            number, product = f"onnx::MatMul_{len(tensors)}", f"/{name}/product"
            tensors.append(tensor(number, x.T))
            nodes.append(node("MatMul", ["before", number], product))
            nodes.append(node("Add", ["model." + name.replace("weight", "bias"), product], f"/{name}/sum"))
        else:
            tensors.append(tensor(f"model.{name}", x))
    nodes.append(node("MatMul", ["queries", "keys"], "attention"))
    whole = b"".join(field(1, x) for x in nodes) + field(2, "graph") + b"".join(field(5, x) for x in tensors)
    return field(1, 7) + field(2, "a test") + field(7, whole)
