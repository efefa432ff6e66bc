"""Which texts are right and wrong of which views, and the loss that tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.things import Spec


def compare(
    toys: Sequence[Spec], claims: Sequence[Spec], language: Language = TOYS
) -> tuple[Bool[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Which claims say exactly what is said of a toy, and which are certainly false of it.

    The others are neither right nor wrong: they leave something out, or name what the toy may have unnamed.
    """

    def wording(spec: Spec) -> str:  # two things next to each other have no order
        first, *others = spec.items
        unordered = spec.relation == "next to"
        return language.canonical(Spec((*sorted([first, *others], key=repr),), "next to") if unordered else spec)

    said, claimed = (np.array([wording(spec) for spec in specs]) for specs in (toys, claims))
    wrong = [[language.contradicts(toy, claim) for claim in claims] for toy in toys]
    return torch.from_numpy(said[:, None] == claimed), torch.tensor(wrong)


def contrast(logits: Float[Tensor, "n m"], right: Bool[Tensor, "n m"], wrong: Bool[Tensor, "n m"]) -> Float[Tensor, ""]:
    """The mean over all right pairs of -log(e^right / (e^right + sum e^wrong)): right answers do not compete with each other.

    Multi-positive InfoNCE (after Khosla et al. 2020, "Supervised Contrastive Learning"); what is neither right nor wrong is
    left out. Rows weigh alike, and those without a right answer nothing.
    """
    against = logits.masked_fill(~wrong, -torch.inf).logsumexp(1, keepdim=True)
    # A row that has no wrong answer has no loss: softplus(-inf) is 0, but its gradient would not be finite.
    loss = F.softplus(against.clamp(min=-1e4) - logits) * right
    count = right.sum(1)
    return (loss.sum(1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)
