"""Reads published weight files, without ever running what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``.pt``, ``.pth`` or ``.bin`` file that holds nothing but tensors.

    A state under the key "state_dict" or "model" is taken out; "module." in front of all names is dropped.

    Raises:
        ValueError: if the file is missing or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no weight file {path}: download it from the model's own page, and name it")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile, torch and safetensors each raise their own
        fix = "it must hold tensors alone; convert it to safetensors on a machine that may run it"
        raise ValueError(f"cannot read {path}: {type(error).__name__}: {error}; {fix}") from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(x, Tensor) for x in found.values()):
        raise ValueError(f"{path} holds no weights: a mapping from names to tensors is expected, got {type(found).__name__}")
    prefix = "module." if found and all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): x.float() if x.is_floating_point() else x for name, x in found.items()}


def linear_stack(weights: Mapping[str, Tensor], *, relu: bool = False, ends: int = 1) -> nn.Sequential:
    """Linear layers from ``weight`` and ``bias``, or from ``<number>.weight`` and ``<number>.bias``, by number.

    The last ends in ``ends`` numbers. Numbers that are missing were dropout or activations. ``relu`` puts one after every
    layer but the last.

    Raises:
        ValueError: if the layers do not fit together.
    """
    names = sorted({name.rpartition(".")[0] for name in weights}, key=lambda n: int(n.rpartition(".")[2] or 0))
    layers: list[nn.Module] = []
    width = None
    for name in names:
        dot = f"{name}." if name else ""
        weight, bias = weights.get(f"{dot}weight"), weights.get(f"{dot}bias")
        if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] != (width or weight.shape[1]):
            raise ValueError(f"not a stack of linear layers: { ({k: list(v.shape) for k, v in weights.items()}) }")
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [nn.ReLU()] * (relu and bool(layers)) + [layer]
        width = weight.shape[0]
    if width != ends:
        raise ValueError(f"this head should end in {ends} number(s), not in {width}: {list(weights)}")
    return nn.Sequential(*layers)
