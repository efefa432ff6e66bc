"""Pipelines of diffusers from folders on disk, or half of them: networks and text encoders need not be in memory together."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rl3d.priors.family import Half

NETWORKS = ("unet", "transformer")
TEXTS = ("text_encoder", "tokenizer")


def index_of(folder: Path) -> dict[str, Any]:
    """What a folder's ``model_index.json`` says; a ``ValueError`` if there is none."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no folder of a diffusers pipeline: it lacks model_index.json")
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}; get the folder's files again") from None
    return found


def variant_of(folder: Path) -> dict[str, str]:
    """How diffusers is told which of several precisions to read: the plain files where there are any, else float16."""
    files = [path.name for name in NETWORKS for path in (folder / name).glob("*.safetensors")]
    return {} if not files or any(".fp16" not in name for name in files) else {"variant": "fp16"}


def load_pipeline(folder: Path, dtype: torch.dtype, halves: tuple[Half, ...], *, without: tuple[str, ...] = ()) -> Any:
    """Load a pipeline, or half of it, from safetensors alone: pickles may run anything.

    ``without`` names parts that are not wanted, such as filters of what was drawn.
    """
    import diffusers

    index = index_of(folder)
    how: dict[str, Any] = {name: None for name, part in index.items() if part == [None, None]} | variant_of(folder)
    how |= dict.fromkeys(name for name in without if name in index)
    if "safety_checker" in without:
        how["requires_safety_checker"] = False
    names = {"texts": TEXTS, "network": (*NETWORKS, "vae")}
    how |= {name: None for half, some in names.items() if half not in halves for name in index if name.startswith(some)}
    if "transformer" in how:
        # Pipelines of several text encoders ask it how wide the words are; without weights it costs nothing.
        kind = getattr(diffusers, index["transformer"][1])
        with torch.device("meta"):
            how["transformer"] = kind.from_config(json.loads((folder / "transformer" / "config.json").read_text()))
    pipe = getattr(diffusers, index["_class_name"])
    return pipe.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **how)


def blank_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """A folder's pipeline on the "meta" device: everything has its shape, and no weight is read or kept."""
    import diffusers

    index = index_of(folder)
    parts = {name: blank_part(folder / name, said, dtype) for name, said in index.items() if isinstance(said, list)}
    kind = getattr(diffusers, index["_class_name"])
    more = {"requires_safety_checker": False} if parts.get("safety_checker", 0) is None else {}
    return kind(**parts, **more, **{name: said for name, said in index.items() if name in FLAGS})


FLAGS = ("force_zeros_for_empty_prompt",)
"""Of indices: what pipelines are told beside their parts, and act by."""


def blank_part(folder: Path, said: Sequence[str | None], dtype: torch.dtype) -> Any:
    """A part of a pipeline, which is a ``[library, class]``: networks on "meta", others whole; filters are left out."""
    library, name = said
    if library not in ("diffusers", "transformers") or name is None:
        return None
    kind = getattr(importlib.import_module(library), name)
    if not issubclass(kind, torch.nn.Module):
        return kind.from_pretrained(folder)
    with torch.device("meta"):
        if library == "diffusers":
            net = kind.from_config(kind.load_config(folder))
        else:
            net = kind(kind.config_class.from_pretrained(folder))
    if name == "T5EncoderModel":
        # It looks at its mask for values, which are not there; but what it says has a known shape.
        config: Any = net.config
        net.forward = lambda ids, **_: (torch.empty(*ids.shape, config.d_model, device="meta"),)
    return torch.nn.Module.to(net, dtype).eval()
