"""``rl3d score``: any asset, any rewards, one table."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from rl3d.assets import Asset
from rl3d.cameras import evaluation_cameras
from rl3d.protocols import RewardPart, Shown
from rl3d.rewards.base import Judge, from_callable
from rl3d.rewards.clip import Clip
from rl3d.rewards.consistency import Normals
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.rewards.physics import Drop, Stands
from rl3d.rewards.shape import Closed, Decided, Pieces, Printable, Symmetric, Thick, Undercut, Whole
from rl3d.rewards.sides import Sides
from rl3d.rewards.trained import Trained
from rl3d.rewards.verify import Verified
from rl3d.types import Prompt

PLAIN: dict[str, RewardPart] = {
    "encoder": Clip(),
    "judge": Clip("judge"),
    "sharpness": Sharpness(),
    "colours": ColourEntropy(),
    "area": Area(),
    "normals": Normals(),
    "sides": Sides(),
    "whole": Whole(),
    "decided": Decided(),
    "stands": Stands(),
    "drop": Drop(),
    "thick": Thick(),
    "symmetric": Symmetric(),
    "closed": Closed(),
    "pieces": Pieces(),
    "printable": Printable(),
    "undercut": Undercut(),
    "verified": Verified(),
}
"""Words of the command line for rewards that need nothing more said."""

USUAL = ("encoder", "judge", "sharpness", "colours", "area", "whole")
"""What is asked where nothing is named."""


def reward_of(name: str) -> RewardPart:
    """A reward from a word of the command line.

    One of :data:`PLAIN`; "clip:MODEL" or "clip:MODEL:PRETRAINED"; "trained:FOLDER"; or "FILE.py:NAME", a reward or a function
    in a file of the user's, whose code is run.

    Raises:
        ValueError: if it is none of these.
    """
    if name in PLAIN:
        return PLAIN[name]
    head, colon, rest = name.partition(":")
    if colon and rest and head == "clip":
        model, _, pretrained = rest.partition(":") if not rest.startswith("hf-hub:") else (rest, "", "")
        return Clip(model, pretrained)
    if colon and rest and head == "trained":
        return Trained(rest)
    if colon and rest and head.endswith(".py"):
        return _from_file(Path(head), rest)
    raise ValueError(
        f"there is no reward {name!r}: name one of {', '.join(PLAIN)}, or clip:MODEL[:PRETRAINED], trained:FOLDER, FILE.py:NAME"
    )


def _from_file(path: Path, name: str) -> RewardPart:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"rl3d_reward_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = getattr(module, name, None)
    if isinstance(found, RewardPart):
        return found
    if not callable(found):
        raise ValueError(f"{path} holds no reward and no function {name!r}; it has {type(found).__name__}")
    return from_callable(cast(Judge, found))


def score(asset: Asset, prompt: Prompt, rewards: Mapping[str, RewardPart], device: str = "cpu") -> dict[str, dict[str, Any]]:
    """What each reward says of an asset from eight sides that no optimization has seen.

    ``value`` is None where it could not judge, and ``why`` then says so where that is known. ``per_view`` is there for rewards
    that judge views one by one.
    """
    shown = asset.show(evaluation_cameras())
    return {name: _one(shown, prompt, part, device) for name, part in rewards.items()}


@torch.no_grad()
def _one(shown: Shown, prompt: Prompt, part: RewardPart, device: str) -> dict[str, Any]:
    reward = part.build(device)
    info = reward.info
    told = {"value": None, "per_view": None, "range": list(info.range), "licence": info.licence, "source": info.source}
    try:
        found = reward.score(shown, [prompt])
    except ValueError as error:
        # One that does not apply, such as a check of words that it cannot read, leaves the others be.
        return {**told, "why": str(error)}
    if not bool(found.valid[0]):
        return {**told, "why": "it could not judge this"}
    views = None if found.per_view is None else [round(x, 6) for x in found.per_view[0].tolist()]
    return {**told, "value": round(float(found.value[0]), 6), "per_view": views}


def table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores as text, one reward a line."""
    rows: list[Sequence[str]] = [("reward", "value", "worst view", "best view", "range")]
    for name, told in scores.items():
        low, high = (f"{x:g}" for x in told["range"])
        views = told["per_view"] or []
        ends = (f"{min(views):.4f}", f"{max(views):.4f}") if views else ("", "")
        rows.append((name, "-" if told["value"] is None else f"{told['value']:.4f}", *ends, f"{low} .. {high}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{name}: {told['why']}" for name, told in scores.items() if "why" in told)])
