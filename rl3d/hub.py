"""Finds the weights of models."""

from __future__ import annotations

import os
from pathlib import Path

MODELS = ("prior", "encoder", "judge", "sides")
"""The embedded models, in the package's ``weights/``."""


PACKAGE = Path(__file__).parent / "weights"


def find_model(name: str) -> Path:
    """The folder of a model: an embedded one by its name, or any folder by its path.

    The environment variable ``RL3D_WEIGHTS`` names a folder to look in first.

    Raises:
        ValueError: if it is nowhere, with where was looked.
    """
    places = [PACKAGE / name] if name in MODELS else [Path(name)]
    if name in MODELS and (other := os.environ.get("RL3D_WEIGHTS")):
        places.insert(0, Path(other) / name)
    for place in places:
        if place.is_dir() and any(place.rglob("*.safetensors")):
            return place
    looked = ", ".join(map(str, places))
    fix = (
        "reinstall rl3d, or train it anew with rl3d.train"
        if name in MODELS
        else f"name a folder, or one of {', '.join(MODELS)}"
    )
    raise ValueError(f"the weights of {name!r} are missing (looked in {looked}): {fix}")
