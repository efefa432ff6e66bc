"""Reference attention: a network looks at a picture, and then at its views with that picture beside them.

As Zero123++ has it in its code (Shi et al. 2023, arXiv 2310.15110): in a first pass over the noised picture every
self-attention keeps what it attends to; in the second one, over the views, these are further keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, cat, nn


@dataclass
class Reference:
    """What the first pass kept, by the names of layers; it goes with the call, so that passes never mix."""

    kept: dict[str, Tensor] = field(default_factory=dict)
    writes: bool = True
    """Whether this pass keeps, rather than looks."""

    def read(self) -> Reference:
        """The same for the second pass."""
        return Reference(self.kept, writes=False)


class ReferenceAttention:
    """Self-attention of diffusers that keeps what it attends to, or attends to what was kept, too."""

    def __init__(self, name: str):
        """``name`` is empty for attention to words, which goes on as ever."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.name, self.attend = name, AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "n t d"],
        encoder_hidden_states: Float[Tensor, "n s e"] | None = None,
        attention_mask: Tensor | None = None,
        reference: Reference | None = None,
    ) -> Float[Tensor, "n t d"]:
        if self.name and reference is not None:
            if reference.writes:
                reference.kept[self.name] = hidden_states
            else:
                encoder_hidden_states = cat([hidden_states, reference.kept[self.name]], 1)  # pyright: ignore[reportAssignmentType]
        return self.attend(attn, hidden_states, encoder_hidden_states, attention_mask)


def look_at_references(unet: nn.Module) -> None:
    """Let a UNet of diffusers take ``cross_attention_kwargs={"reference": ...}``."""
    for name, module in unet.named_modules():
        if name.endswith((".attn1", ".attn2")):
            processor = ReferenceAttention(name if name.endswith(".attn1") else "")
            module.set_processor(processor)  # pyright: ignore[reportCallIssue]
