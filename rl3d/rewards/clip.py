"""Dual encoders: how well views match a prompt, as the cosine of two embeddings (Radford et al. 2021, "Learning Transferable
Visual Models From Natural Language Supervision"). Any model that open_clip loads will do; two small ones are embedded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rl3d.cameras import worded
from rl3d.hub import MODELS, find_model
from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judged, look
from rl3d.rewards.resize import Fit, fit, normalise, opaque
from rl3d.types import Cameras, Prompt, Score, Views

Background = float | Tensor | torch.Generator
"""What views are laid over: a grey level, colours that broadcast to ``[b v h w 3]``, or a generator of random ones."""

GRAY = 0.8
"""The background of scores where none is given."""


@dataclass(frozen=True)
class Clip:
    """Which dual encoder.

    ``Clip()`` is the embedded reward; ``Clip("judge")`` is the embedded judge, which is only ever reported.
    ``Clip("path/to/folder")`` is a folder in open_clip's format. ``Clip("ViT-B-32", "openai")`` or
    ``Clip("hf-hub:owner/name")`` is whatever open_clip knows, downloaded once.
    """

    model: str = "encoder"
    pretrained: str = ""
    """The tag or the file of the weights, where ``model`` is one of open_clip's own architectures."""
    negative: float = 0.5
    """How much likeness to a prompt's negative counts against a view, where the prompt has one."""
    sides: bool = False
    """Whether each view is compared with the prompt as worded for its side: "..., front view" (:func:`rl3d.cameras.worded`)."""

    def build_signal(self, device: torch.device | str = "cpu") -> ClipReward:
        """Load it to be optimised, or to choose by.

        Raises:
            ValueError: if it is the judge: what is optimised once can never again be a second opinion.
        """
        if self.model == "judge":
            raise ValueError("the judge is only ever reported, never optimised nor chosen by: use the encoder, Clip()")
        return self.build(device)

    def build(self, device: torch.device | str = "cpu") -> ClipReward:
        """Load it.

        Raises:
            ValueError: if its files are missing or broken, with what to do.
        """
        remote = bool(self.pretrained) or self.model.startswith("hf-hub:")
        name = self.model if remote else f"local-dir:{_folder(self.model)}"
        import open_clip

        try:
            model = open_clip.create_model(name, self.pretrained or None, device=device, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # open_clip, safetensors, transformers and the hub each raise their own
            if remote:
                fix = "check the name against open_clip.list_pretrained(), the network, and the free disk space"
            elif self.model in MODELS:
                fix = f"reinstall rl3d, or train it anew with `python -m rl3d.train.encoder --role {self.model}`"
            else:
                fix = "it needs open_clip_config.json, open_clip_model.safetensors and a tokenizer that belong together"
            raise ValueError(f"cannot load {name}: {type(error).__name__}: {error}; {fix}") from error
        embedded = self.model in MODELS and not remote
        info = RewardInfo(
            name=f"clip:{self.model}",
            differentiable="pixels",
            range=(-1.0, 1.0),
            weights="embedded" if embedded else f"{self.model} {self.pretrained}".strip(),
            licence="Apache-2.0" if embedded else "see the model's own page",
            source="https://arxiv.org/abs/2103.00020",
            background=True,
        )
        return ClipReward(model, tokenizer, info, negative=self.negative, sides=self.sides).to(device)


def _folder(name: str) -> Path:
    try:
        return find_model(name)
    except ValueError as error:
        if name in MODELS:
            raise
        raise ValueError(f"{error}; open_clip's own models need `pretrained` too: Clip('ViT-B-32', 'openai')") from error


class ClipReward(nn.Module):
    """The cosine similarity of views and prompts, averaged over views. Differentiable in the pixels; its weights are frozen.

    With a negative prompt and its weight n, a view's value is (positive - n negative) / (1 + n), which stays in [-1, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer,
        info: RewardInfo,
        *,
        negative: float = 0.5,
        sides: bool = False,
        resize: Fit | None = None,
    ):
        """Wrap an open_clip model and its tokenizer; ``resize`` is the model's own way if not given."""
        super().__init__()
        from open_clip import get_model_preprocess_cfg

        look = get_model_preprocess_cfg(model)
        size = look["size"]
        self.info, self.model, self.tokenizer = info, model.requires_grad_(False), tokenizer
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.smooth = look["interpolation"]
        self.negative, self.sides, self.resize = negative, sides, resize or look["resize_mode"]
        self.register_buffer("mean", torch.tensor(look["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(look["std"]), persistent=False)
        self._known: dict[str, Tensor] = {}
        self.eval()

    def train(self, mode: bool = True) -> ClipReward:
        """Switch modes, and forget the embeddings of texts: the weights may change."""
        self._known.clear()
        return super().train(mode)

    def score(self, shown: Shown | Views, prompts: list[Prompt], background: Background = GRAY) -> Score:
        """Judge ``b`` samples: ``per_view`` are cosines, ``value`` is their mean over views. Not valid where not finite."""
        views = look(self.info, shown, prompts).views
        seen = self.embed_views(views, background)
        per_view = (seen * self._texts([p.text for p in prompts], views.cameras)).sum(-1)
        if self.negative and any(p.negative for p in prompts):
            unwanted = (seen * self._texts([p.negative for p in prompts], views.cameras)).sum(-1)
            has = torch.tensor([bool(p.negative) for p in prompts], device=per_view.device)[:, None]
            per_view = torch.where(has, (per_view - self.negative * unwanted) / (1 + self.negative), per_view)
        return judged(per_view)

    def _texts(self, texts: list[str], cameras: Cameras) -> Float[Tensor, "b #v d"]:
        """The embedding of each sample's text for each of its views."""
        if not self.sides:
            return self.embed_text(texts)[:, None]
        azimuths, elevations = cameras.azimuths_deg.tolist(), cameras.elevations_deg.tolist()
        said = [
            worded(t, a, e)
            for t, row, up in zip(texts, azimuths, elevations, strict=True)
            for a, e in zip(row, up, strict=True)
        ]
        return self.embed_text(said).unflatten(0, (len(texts), -1))

    def rank(self, views: Views, texts: list[str], background: Background = GRAY) -> Int[Tensor, "b n"]:
        """Order texts for each sample, the best first, by the mean embedding of its views."""
        whole = F.normalize(self.embed_views(views, background).mean(1), dim=-1)
        return (whole @ self.embed_text(texts).T).argsort(-1, descending=True)

    def unread(self, words: Iterable[str]) -> list[str]:
        """The words that its tokenizer takes for the unknown word; none if it splits words until it knows their parts."""
        unknown = getattr(getattr(self.tokenizer, "tokenizer", None), "unk_token_id", None)
        listed = list(words)
        if unknown is None or not listed:
            return []
        return [word for word, row in zip(listed, self.tokenizer(listed), strict=True) if (row == unknown).any()]

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Embed texts, with length 1. Words that the tokenizer does not know count as one unknown word."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > 10_000:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        for start in range(0, len(new), 512):
            some = new[start : start + 512]
            tokens = self.tokenizer(some).to(self.mean.device)
            self._known |= zip(some, self.model.encode_text(tokens, normalize=True).float(), strict=True)  # pyright: ignore[reportCallIssue]
        return torch.stack([self._known[text] for text in texts]).to(self.mean.device)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def embed_views(self, views: Views, background: Background = GRAY) -> Float[Tensor, "b v d"]:
        """Embed each view over a background, with length 1."""
        pixels = self.laid(views, background)
        found = self.model.encode_image(self.prepare(opaque(pixels)), normalize=True)  # pyright: ignore[reportCallIssue]
        return found.float().unflatten(0, pixels.shape[:2])

    def laid(self, views: Views, background: Background = GRAY) -> Float[Tensor, "b v h w 3"]:
        """Lay each view over a background; a generator draws a colour for each."""
        if isinstance(background, torch.Generator):
            colours = torch.rand(*views.rgb.shape[:2], 1, 1, 3, generator=background, device=background.device)
            background = colours.to(views.rgb)
        return views.over(background)

    def prepare(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Resize with antialiasing and normalise opaque sRGB in [0, 1], as the model was trained to see it."""
        return normalise(fit(pixels, self.size, self.resize, self.smooth), self.mean, self.std)  # pyright: ignore[reportArgumentType]
