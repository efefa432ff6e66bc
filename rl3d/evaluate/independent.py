"""Judges that are not ours, for the record: published networks that never saw our data, and that no training may follow.

What they say stands beside what they say of true renders from the same cameras, since they were made for photographs:

- **identity**: the mean cosine of DINOv2's features between views of one object (Oquab et al. 2023);
- **distances** of many objects to true ones in these features: a kernel distance, which few samples do not bias, and where
  there are enough views a Frechet distance; and how far objects are spread;
- **class**: the place of the noun that was asked for among all nouns of its world, by ConSE (Norouzi et al. 2014, "Zero-Shot
  Learning by Convex Combination of Semantic Embeddings"). Blind to colours, numbers and relations.

Their files come from :mod:`rl3d.evaluate.published`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rl3d.evaluate.metrics import frechet, identity, kernel_distance, spread
from rl3d.rewards.clip import GRAY
from rl3d.rewards.resize import fit, normalise, opaque
from rl3d.rewards.weights import read_weights
from rl3d.toybox.language import Language
from rl3d.toybox.things import Item, Spec
from rl3d.types import Views

TOP = 10
"""Classes that ConSE mixes, as in the paper's ConSE(10)."""

SAID = "a photo of a {}"


class Network(nn.Module):
    """A published image network of timm's, from a folder with ``config.json`` and ``model.safetensors``. Frozen.

    Raises:
        ValueError: if files are missing, or do not fit each other.
    """

    def __init__(self, folder: Path):
        super().__init__()
        import timm

        config = json.loads(_read(folder / "config.json"))
        weights = read_weights(folder / "model.safetensors")
        self.names: tuple[str, ...] = tuple(config.get("names", ()))
        self.size: int = config["size"]
        # Without names of classes it ends in features.
        self.net = timm.create_model(config["architecture"], num_classes=len(self.names), **config["options"])
        try:
            self.net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{folder} does not fit {config['architecture']}: {error}; {_how(folder.parent)}") from None
        self.register_buffer("mean", torch.tensor(config["mean"]))
        self.register_buffer("std", torch.tensor(config["std"]))
        self.requires_grad_(False).eval()

    def forward(self, views: Views) -> Float[Tensor, "b v d"]:
        """Its answers to each view: features of unit length, or probabilities of classes."""
        return self.look(opaque(views.over(GRAY))).unflatten(0, views.rgb.shape[:2])

    @torch.no_grad()
    def look(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Its answers to opaque sRGB pictures in [0, 1]."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        answers = [self._answer(some, self.mean, self.std) for some in pixels.clamp(0, 1).split(64)]
        return torch.cat(answers)

    def _answer(self, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        found = self.net(normalise(fit(pixels, (self.size, self.size)), mean, std)).float()
        return found.softmax(-1) if self.names else F.normalize(found, dim=-1)


class Sentences(nn.Module):
    """A sentence encoder in transformers' layout: the mean over a sentence's tokens (Reimers and Gurevych 2019). Frozen."""

    def __init__(self, folder: Path):
        super().__init__()
        _read(folder / "config.json")
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.net = AutoModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the sentence encoder in {folder}: {error}; {_how(folder.parent)}") from error
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embed texts, with length 1."""
        found = []
        for start in range(0, len(texts), 256):
            tokens = self.tokenizer(list(texts[start : start + 256]), padding=True, truncation=True, return_tensors="pt")
            tokens = tokens.to(self.net.device)
            mask = tokens["attention_mask"][..., None]
            states = self.net(**tokens).last_hidden_state
            found.append((states * mask).sum(1) / mask.sum(1))
        return F.normalize(torch.cat(found).float(), dim=-1)


def conse(
    probabilities: Float[Tensor, "k"], classes: Float[Tensor, "k d"], texts: Float[Tensor, "n d"], top: int = TOP
) -> Float[Tensor, "n"]:
    """Cosines of texts with the mean of the ``top`` most likely classes' embeddings, weighed by probability."""
    chosen = probabilities.topk(min(top, len(probabilities)))
    mixed = F.normalize(chosen.values @ classes[chosen.indices], dim=0)
    return F.normalize(texts, dim=-1) @ mixed


@dataclass(frozen=True)
class Impression:
    """DINOv2's features of an asset, and of two true objects of the same prompt where there are so many."""

    own: Float[Tensor, "v d"]
    true: tuple[Float[Tensor, "v d"], ...]


class Panel:
    """The published networks, and what they saw so far."""

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu"):
        """Load the networks from the folder that :mod:`rl3d.evaluate.published` wrote.

        Raises:
            ValueError: if they are not there, with how to fetch them.
        """
        folder = Path(folder)
        self.features = Network(folder / "dinov2").to(device)
        self.classes = Network(folder / "classes").to(device)
        self.sentences = Sentences(folder / "sentences").to(device)
        self.named = self.sentences([SAID.format(name) for name in self.classes.names])
        self.seen: dict[tuple[str, str], Impression] = {}
        """By world and prompt."""
        self._texts: dict[str, Tensor] = {}

    def examine(
        self, key: tuple[str, str], spec: Spec, language: Language, views: Views, truths: Sequence[Views]
    ) -> dict[str, float]:
        """Measure an asset's views ``[1 v]``, and the first true object's (under "true_..."); remember the features of both.

        The class is asked for where one kind of thing is; a noun that is not certainly false counts as right, too.
        """
        objects = [views, *truths[:2]]
        features = [self.features(some)[0] for some in objects]
        self.seen[key] = Impression(features[0], tuple(features[1:]))
        found = {f"{whose}dino_identity": identity(x) for whose, x in zip(("", "true_"), features, strict=False)}
        if len(spec.items) == 1:
            for whose, some in zip(("", "true_"), objects, strict=False):
                place = self.place(some, spec.items[0].kind, language)
                found |= {f"{whose}conse_r1": float(place == 0), f"{whose}conse_r5": float(place < 5)}
        return found

    def place(self, views: Views, kind: str, language: Language) -> int:
        """How many nouns that are certainly false of a kind fit views ``[1 v]`` at least as well as its own; 0 is right."""
        truth = Spec((Item(kind),))
        others = [x for x in language.answers()["kind"] if x is not None and language.contradicts(truth, Spec((Item(x),)))]
        fits = conse(self.classes(views)[0].mean(0), self.named, self._embedded([kind, *others]))
        return int((fits[1:] >= fits[0]).sum())

    def _embedded(self, nouns: Sequence[str]) -> Float[Tensor, "n d"]:
        if new := [noun for noun in nouns if noun not in self._texts]:
            self._texts |= zip(new, self.sentences([SAID.format(noun) for noun in new]), strict=True)
        return torch.stack([self._texts[noun] for noun in nouns])

    def compare(self, keys: Iterable[tuple[str, str]]) -> dict[str, dict[str, float]]:
        """Measures of many of the objects that were examined, together (:func:`compare`)."""
        return compare([self.seen[key] for key in keys])


def compare(impressions: Sequence[Impression]) -> dict[str, dict[str, float]]:
    """Measures of many objects together, by title: of "assets" against a true object of each prompt, and of another "true" one
    against the same. What too few objects would make meaningless is left out.
    """
    found: dict[str, dict[str, float]] = {}

    def put(title: str, whose: str, value: float) -> None:
        found.setdefault(title, {})[whose] = value

    groups = {
        "assets": [(x.own, x.true[0]) for x in impressions if x.true],
        "true": [(x.true[1], x.true[0]) for x in impressions if len(x.true) > 1],
    }
    for whose, pairs in groups.items():
        put("objects beside true ones", whose, len(pairs))
        if len(pairs) < 3:
            continue
        own, true = (torch.stack(some) for some in zip(*pairs, strict=True))
        distance, error = kernel_distance(own, true)
        put("DINOv2 kernel distance", whose, distance)
        put("its standard error", whose, error)
        put("DINOv2 spread of objects", whose, spread(own.mean(1)))
        # Covariances of d dimensions that were measured on fewer than some 2 d views are mostly noise.
        if own[..., 0].numel() >= 2 * own.shape[-1]:
            put("DINOv2 Frechet distance", whose, frechet(own.flatten(0, 1), true.flatten(0, 1)))
    return found


def table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """What :func:`compare` found as text: assets beside true renders."""
    lines = []
    for title, of in measures.items():
        form = "{:.0f}" if title.startswith("objects") else "{:.4f}"
        lines.append(f"{title:26}" + "".join(f"{form.format(of[w]) if w in of else '-':>10}" for w in ("assets", "true")))
    return "\n".join(lines)


def _read(path: Path) -> str:
    if not path.is_file():
        raise ValueError(
            f"there are no published networks in {path.parent.parent}: it lacks {path.name}; {_how(path.parent.parent)}"
        )
    return path.read_text()


def _how(folder: Path) -> str:
    return f"fetch them with `python -m rl3d.evaluate.published {folder}`, or name their folder with --networks"
