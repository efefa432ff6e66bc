"""Aesthetic heads on CLIP features: how much people like a picture, whatever it shows.

LAION's heads (Schuhmann et al. 2022, "LAION-5B"): one linear layer (``sa_0_4_vit_l_14_linear.pth``), or five without
anything between them (``sac+logos+ava1-l14-linearMSE.pth``), on embeddings of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judged, look
from rl3d.rewards.clip import GRAY, Background, Clip, ClipReward
from rl3d.rewards.weights import linear_stack, read_weights
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Aesthetic:
    """A head from a file, and the encoder whose features it was trained on."""

    head: str
    """"aesthetic", which is downloaded; or a file, as safetensors."""
    clip: Clip = field(default_factory=lambda: Clip("ViT-L-14", "openai"))
    relu: bool = False
    """Whether the head was trained with rectifiers between its layers; the published ones were not."""

    def build(self, device: torch.device | str = "cpu") -> AestheticReward:
        """Load both.

        Raises:
            ValueError: if files are missing or broken, or do not fit each other.
        """
        weights = {name.removeprefix("layers."): x for name, x in read_weights(self.head).items()}
        head, clip = linear_stack(weights, relu=self.relu), self.clip.build(device)
        width = clip.embed_text(["a"]).shape[1]
        if head[0].in_features != width:
            raise ValueError(f"{self.head} is for features of {head[0].in_features} numbers, {clip.info.name} has {width}")
        info = RewardInfo(
            name=f"aesthetic:{self.head}",
            differentiable="pixels",
            range=(-torch.inf, torch.inf),
            weights=f"{self.head} on {clip.info.weights}",
            licence=f"LAION's heads are Apache-2.0; encoder: {clip.info.licence}",
            source="https://github.com/christophschuhmann/improved-aesthetic-predictor; https://arxiv.org/abs/2210.08402",
            background=True,
        )
        return AestheticReward(clip, head, info).to(device)


class AestheticReward(nn.Module):
    """The mean over views of a head's number, about 1 to 10 for LAION's. Differentiable in the pixels; blind to prompts.

    A linear head is climbed easily and far beyond what it was trained on: guard it.
    """

    def __init__(self, clip: ClipReward, head: nn.Sequential, info: RewardInfo):
        super().__init__()
        self.info, self.clip, self.head = info, clip, head.requires_grad_(False)
        self.eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        seen = self.clip.embed_views(look(self.info, shown, prompts).views, background)
        return judged(self.head(seen.to(next(self.head.parameters()).dtype))[..., 0])
