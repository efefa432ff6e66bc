"""Rewards of one's own training: heads on a dual encoder's frozen features, fitted to preferences (:mod:`rl3d.preferences`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judged, look
from rl3d.rewards.clip import GRAY, Background, Clip, ClipReward
from rl3d.rewards.weights import read_weights
from rl3d.types import Prompt, Score, Views

HEAD, ABOUT = "head.safetensors", "reward.json"


class Head(nn.Module):
    """A number for views and their prompt, from embeddings of length 1.

    Each view's input are its embedding and the product with the text's, number by number, so that a linear layer can already
    tell how well they match. Every view has a value of its own, and their mean counts; ``joint`` adds one of all views
    together, pooled by gateless attention (Ilse et al. 2018, "Attention-based Deep Multiple Instance Learning"), which
    sees what no single view shows.
    """

    def __init__(self, width: int, hidden: int = 32, *, joint: bool = True):
        super().__init__()
        inputs = 2 * width
        self.alone = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.look = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1)) if joint else None
        self.joined = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, 1)) if joint else None

    def forward(self, seen: Float[Tensor, "b v d"], text: Float[Tensor, "b d"]) -> Float[Tensor, "b v"]:
        """The value of each view; the joint one is in all alike, so that the mean over views is the value of the sample."""
        # Numbers of about 1 each, whatever the width.
        size = seen.shape[-1]
        x = torch.cat([size**0.5 * seen, size * seen * text[:, None]], -1)
        value = self.alone(x)[..., 0]
        if self.look is not None and self.joined is not None:
            attention = self.look(x).softmax(1)
            value = value + self.joined((attention * x).sum(1))
        return value


@dataclass(frozen=True)
class Trained:
    """A head that ``rl3d reward train`` made, by its folder."""

    folder: str

    def build(self, device: torch.device | str = "cpu") -> TrainedReward:
        """Load the head and the encoder that it was trained on.

        Raises:
            ValueError: if files are missing, broken or do not fit each other.
        """
        about = read_about(Path(self.folder))
        clip = Clip(about["encoder"], about["pretrained"]).build_signal(device)
        head = Head(about["width"], about["hidden"], joint=about["joint"])
        width = clip.embed_text(["a"]).shape[1]
        if width != about["width"]:
            raise ValueError(f"{self.folder} is for features of {about['width']} numbers, {clip.info.name} has {width}")
        try:
            head.load_state_dict(read_weights(Path(self.folder) / HEAD))
        except RuntimeError as error:
            raise ValueError(f"{self.folder}/{HEAD} does not fit {ABOUT}: {error}; train it anew") from error
        return TrainedReward(clip, head, self.folder).to(device)


def read_about(folder: Path) -> dict[str, Any]:
    """What a trained reward says of itself.

    Raises:
        ValueError: if the folder holds none.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text())
        return {key: about[key] for key in ("encoder", "pretrained", "width", "hidden", "joint")} | about
    except FileNotFoundError:
        raise ValueError(f"there is no trained reward in {folder}: make one with `rl3d reward train PAIRS.jsonl`") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): train it anew") from error


class TrainedReward(nn.Module):
    """A head's number, in logits of preference: sigmoid(r_a - r_b) is the chance that a is preferred. Differentiable in the
    pixels; its weights are frozen. It is climbed easily beyond what it was trained on: guard it.
    """

    def __init__(self, clip: ClipReward, head: Head, name: str):
        super().__init__()
        self.clip, self.head = clip, head.requires_grad_(False)
        self.info = RewardInfo(
            name=f"trained:{name}",
            differentiable="pixels",
            range=(-torch.inf, torch.inf),
            weights=f"{name} on {clip.info.weights}",
            licence=f"the head's: its maker's; encoder: {clip.info.licence}",
            source="Bradley & Terry 1952, https://doi.org/10.2307/2334029",
            background=True,
        )
        self.eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        seen = self.clip.embed_views(look(self.info, shown, prompts).views, background)
        text = self.clip.embed_text([prompt.text for prompt in prompts])
        kind = next(self.head.parameters()).dtype
        return judged(self.head(seen.to(kind), text.to(kind)))
