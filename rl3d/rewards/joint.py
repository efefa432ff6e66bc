"""Views judged together: as one embedding, not one by one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F

from rl3d.protocols import Shown
from rl3d.rewards.base import look
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Joint:
    """How well all views together match the prompt: the cosine of their summed embeddings with the text's, in [-1, 1].

    With ``agreement`` the length of the mean embedding is added, by that weight: it is 1 where all views embed alike, and falls
    where one shows another object. Differentiable in the pixels.
    """

    encoder: Clip = field(default_factory=Clip)
    agreement: float = 0.5

    def build(self, device: torch.device | str = "cpu") -> JointReward:
        return JointReward(self, self.encoder.build(device))


class JointReward(torch.nn.Module):
    """A live :class:`Joint`. A sample is not valid where it is not finite."""

    def __init__(self, value: Joint, encoder: ClipReward):
        super().__init__()
        self.value, self.encoder = value, encoder
        self.info = replace(encoder.info, name=f"joint:{encoder.info.name}", range=(-1.0, 1.0 + value.agreement))
        self.eval()

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views
        mean = self.encoder.embed_views(views).mean(1)
        text = self.encoder.embed_text([p.text for p in prompts])
        value = (F.normalize(mean, dim=-1) * text).sum(-1) + self.value.agreement * mean.norm(dim=-1)
        return Score(value, None, value.detach().isfinite())
