"""Reads published weight files, without ever running what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rl3d.cards import CARDS
from rl3d.files import write_whole
from rl3d.hub import find_file, sha256

PUBLISHED = frozenset(digest for card in CARDS.values() for digest in card.sha256.values())
"""Hashes of published weight files."""


def read_weights(name: Path | str) -> dict[str, Tensor]:
    """The tensors of a weight file: a path, or the name of a published model (:func:`rl3d.hub.find_file`).

    ``.safetensors`` can hold nothing but tensors. ``.pt``, ``.pth`` and ``.bin`` may hold anything, and are read only if their
    hash is that of a published file, and even then as tensors alone.

    Raises:
        ValueError: if the file is missing, broken, of a kind that is not read, or holds anything else.
    """
    path = find_file(str(name))
    if path.suffix != ".safetensors" and sha256(path) not in PUBLISHED:
        fix = f"`rl3d weights convert {path} {path.stem}.safetensors` makes safetensors of it, in a process of its own"
        raise ValueError(f"{path} is no published file that rl3d knows by its hash, and its kind may run anything: {fix}")
    return _named(path, trust=False)


def convert(path: Path, out: Path, *, trust: bool = False) -> None:
    """Write the tensors of a ``.pt``, ``.pth`` or ``.bin`` file as safetensors, whole or not at all.

    ``trust`` runs what the file says, where it holds more than tensors.

    Raises:
        ValueError: if the file is missing, broken, or holds anything else.
    """
    from safetensors.torch import save

    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if out.suffix != ".safetensors":
        raise ValueError(f"name the result with the ending .safetensors, got {out}")
    # Tensors that share memory are no matter here, and safetensors refuses them.
    write_whole(out, save({name: x.clone().contiguous() for name, x in _named(path, trust=trust).items()}))


def _named(path: Path, *, trust: bool) -> dict[str, Tensor]:
    """Tensors by their names; a state under "state_dict" or "model" is taken out, "module." before all names is dropped."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:  # pickle, zipfile, torch and safetensors each raise their own
        fix = "it must hold tensors alone; if you trust whom it is from: rl3d weights convert --trust"
        raise ValueError(f"cannot read {path}: {type(error).__name__}: {str(error).splitlines()[0]}; {fix}") from error
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
