"""LoRA in diffusers' format: one safetensors file whose metadata say rank and scale, which ``load_lora_adapter`` reads too."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rl3d.files import write_whole
from rl3d.priors.lora import LoraPrior

WEIGHTS = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file in a folder."""
PREFIX = "transformer"
"""What its keys begin with: the network's place in a pipeline."""
METADATA = "lora_adapter_metadata"


def save_lora(actor: LoraPrior, name: str, folder: Path | str) -> Path:
    """Write the adapter of this name; returns the file.

    Keys are ``transformer.LAYER.lora_A.weight`` and ``lora_B``, with peft's configuration as the metadata.
    """
    weights, layers = actor.weights(name), actor.layers()
    tensors: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        for half in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}.{layer}.{half}.weight"] = weights[f"{i}.{half}"].detach().cpu().contiguous()
    config = {f"{PREFIX}.{key}": value for key, value in actor.config(name).items()}
    # One entry alone: safetensors writes several in no fixed order, and equal weights should be equal bytes.
    metadata = {METADATA: json.dumps(config, indent=2, sort_keys=True)}
    path = Path(folder) / WEIGHTS
    write_whole(path, safetensors.torch.save(tensors, metadata=metadata))
    return path


def lora_file(name: Path | str) -> Path:
    """The file of a LoRA, by itself or by its folder.

    Raises:
        ValueError: if there is none.
    """
    path = Path(name)
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no LoRA {path}: name the file, or a folder with {WEIGHTS} (such as lora/ of a lesson)")
    return path


@torch.no_grad()
def merge_lora(net: nn.Module, name: Path | str) -> None:
    """Add a LoRA to a network's weights: W + alpha / rank B A, computed in float32.

    Raises:
        ValueError: if the file is damaged, or is of another network.
    """
    path = lora_file(name)
    try:
        with safetensors.safe_open(path, "pt") as file:  # pyright: ignore
            config = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): save the LoRA anew") from None
    config = {key.removeprefix(f"{PREFIX}."): value for key, value in config.items()}
    special = [key for key in ("alpha_pattern", "use_rslora", "use_dora") if config.get(key)]
    if special:
        raise ValueError(
            f"{path} uses {', '.join(special)}, which cannot be merged here: save it with one alpha for all layers"
        )
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in found.items():
        layer, dot, half = key.removeprefix(f"{PREFIX}.").removesuffix(".weight").rpartition(".")
        if not dot or half not in ("lora_A", "lora_B"):
            raise ValueError(f"{path} holds {key!r}, which is no LoRA weight in diffusers' format: convert it first")
        pairs.setdefault(layer, {})[half] = tensor.float()
    modules = dict(net.named_modules())
    for layer, pair in pairs.items():
        module = modules.get(layer)
        if not isinstance(module, nn.Linear) or len(pair) != 2:
            raise ValueError(f"{path} adapts {layer!r}, which this prior has not as a linear layer: it is of another prior")
        down, up = pair["lora_A"], pair["lora_B"]
        if (up.shape[0], down.shape[1]) != tuple(module.weight.shape):
            got, want = [up.shape[0], down.shape[1]], list(module.weight.shape)
            raise ValueError(f"{path}: {layer!r} is {got} and the prior's is {want}: it is of another prior")
        scale = float(config.get("lora_alpha", len(down))) / len(down)
        module.weight += (scale * up @ down).to(module.weight)
