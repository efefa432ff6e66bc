"""Train an embedded dual encoder: ``python -m rl3d.train.encoder --role encoder --data DIR --minutes 12``.

DIR is a data set of :mod:`rl3d.toybox.dataset`. Training goes on where its last checkpoint stood; the end, and every
checkpoint, writes the model in open_clip's format. ``--evaluate`` measures what was written, and nothing else.

What is learned: each picture is closer to its own caption than to those of other toys and to near misses of its own (colours
swapped, parts swapped, relations reversed, counts changed by one), and the other way around.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from rl3d.files import append_record, read_records, write_whole
from rl3d.priors.embedded import fastest_dtype
from rl3d.protocols import RewardInfo
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.toybox.dataset import ToyViews
from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.things import Spec
from rl3d.train import augment, towers
from rl3d.train.common import Muon, about, keep_memory, load_state, save_state
from rl3d.train.contrast import compare, contrast
from rl3d.train.facets import Facets
from rl3d.train.held import held_out, validate
from rl3d.train.towers import Role
from rl3d.world.dataset import open_views


@dataclass(frozen=True)
class Training:
    """What to train, on what, for how long."""

    role: Role
    data: Path | None = None
    """A data set of the split "train", of :mod:`rl3d.toybox.dataset` or ``rl3d world build``; not needed to evaluate toys."""
    more: tuple[Path, ...] = ()
    """More of them, to train on all: worlds may be mixed."""
    held_data: tuple[Path, ...] = ()
    """Data sets to validate on, whose combinations or objects no training saw; by default toys, which are rendered for it."""
    out: Path | None = None
    """Where the model goes; by default its place in the package."""
    init: Path | None = None
    """A model of the same architecture to start a new training from; it sees the hardest pictures at once. Its words stay, and
    new ones of the data start as the unknown word."""
    new_text: bool = False
    """Take over from ``init`` only what looks at pictures, and start reading anew; the contrast then joins in slowly."""
    work: Path | None = None
    """Checkpoint, log and validation set; by default ``.cache/train/ROLE``."""
    minutes: float = 12.0
    """Time to train, earlier sessions of the same work folder included."""
    steps: int = 0
    """Steps to train instead, if not 0: then the result does not depend on the clock."""
    toys: int = 128
    """Toys of a batch."""
    views: int = 1
    """Views of each."""
    misses: int = 1
    """Near misses of each caption, as further negatives."""
    dyed: float = 0.2
    """Share of toys that are shown in other colours, of which no text then speaks: so a kind is not told by its usual paint."""
    melted: float = 0.1
    """Share of toys whose shape is lost, and which are asked for colours alone: so a paint is not told by its usual kinds."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    held: int = 300
    """Toys of the validation set."""
    save_seconds: float = 150.0
    """Between checkpoints, each with a short validation."""
    evaluate: bool = False

    @property
    def folder(self) -> Path:
        return self.out or Path(__file__).parent.parent / "weights" / self.role

    @property
    def warm(self) -> bool:
        """Whether both towers start as they were trained, and so learn from all at once."""
        return self.init is not None and not self.new_text

    @property
    def cache(self) -> Path:
        return self.work or Path(".cache/train") / self.role


# ---- a step


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    pixels: Float[Tensor, "n 4 h w"]
    """Premultiplied; the views of a toy follow each other."""
    toys: tuple[Spec, ...]
    """What the views show; of dyed toys nothing is said of colours."""
    claims: tuple[Spec, ...]
    """What the texts say: first the toys' own specs, then near misses."""
    texts: tuple[str, ...]
    dyed: Bool[Tensor, "n"]
    """Which views are to be shown in other colours."""
    melted: Bool[Tensor, "n"]
    """Which views are to lose their shape."""


def draw(data: ToyViews, training: Training, step: int) -> Batch:
    """Draw the batch of a step; it depends on the seed and the step alone, so that a resumed training sees the same."""
    rng = np.random.default_rng([training.seed, step])
    picks = np.sort(rng.choice(len(data.specs), min(training.toys, len(data.specs)), replace=False))
    views = np.stack([rng.choice(data.rgba.shape[1], training.views, replace=False) for _ in picks])
    pixels = torch.from_numpy(data.rgba[picks[:, None], views]).flatten(0, 1).movedim(-1, 1).float() / 255
    lot = rng.random(len(picks))
    dyed, melted = lot < training.dyed, lot > 1 - training.melted
    toys = tuple(augment.unpainted(data.specs[i]) if dye else data.specs[i] for i, dye in zip(picks, dyed, strict=True))
    claims = list(toys)
    for toy, dye in zip(toys, dyed, strict=True):
        misses = data.language.some_misses(toy, rng, training.misses, "train")
        claims += map(augment.unpainted, misses) if dye else misses
    texts = [data.language.caption(claim, rng) for claim in claims]
    marks = (torch.from_numpy(mark).repeat_interleave(training.views) for mark in (dyed, melted))
    return Batch(pixels, toys, tuple(claims), tuple(_with_noise(text, rng) for text in texts), *marks)


def _with_noise(text: str, rng: np.random.Generator) -> str:
    """Put an unknown word into a few texts, so that it comes to mean nothing."""
    words = text.split()
    if rng.random() < 0.05:
        words.insert(int(rng.integers(len(words) + 1)), towers.UNKNOWN)
    return " ".join(words)


def loss_of(
    reward: ClipReward,
    facets: nn.Module,
    batch: Batch,
    role: Role,
    rng: torch.Generator,
    progress: float = 1.0,
    language: Language = TOYS,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of a batch: contrast in both directions, and facets of both modalities; and its parts, for the log.

    Facets lead, on clean pictures: contrast and augmentations join over the first third of a training. From the first step
    they would hide what is to be found: after 20,000 views of one thing over gray, 68 % of kinds are told right; over random
    backgrounds, 17 %.
    """
    model: Any = reward.model
    late = min(1.0, 3 * progress)
    pixels = batch.pixels.clone()
    for mark, change in ((batch.dyed, augment.dye), (batch.melted, augment.melt)):
        if mark.any():
            pixels[mark] = change(pixels[mark], rng)
    pixels = augment.compose(augment.AUGMENT[role], pixels, rng, share=0.6 * late)
    dtype = fastest_dtype()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        images = model.encode_image(reward.prepare(pixels).to(memory_format=torch.channels_last))
    texts = towers.embed_tokens(model, reward.tokenizer(list(batch.texts)))  # small: casting would cost more than it saves
    images, texts = (F.normalize(x.float(), dim=-1) for x in (images, texts))
    logits = model.logit_scale.clamp(max=math.log(100)).exp() * images @ texts.T
    views, own = len(images) // len(batch.toys), len(batch.toys)
    right, wrong = (x.repeat_interleave(views, 0) for x in compare(batch.toys, batch.claims, language))
    right, wrong = (x & ~batch.melted[:, None] for x in (right, wrong))
    assert isinstance(facets, Facets)
    answers = facets.right(batch.toys, seen=True).repeat_interleave(views, 0)
    answers[batch.melted] = facets.of_colours(answers[batch.melted])
    seen, told = facets(images, answers), facets(texts, facets.right(batch.claims, seen=False))
    agree = contrast(logits, right, wrong) + contrast(logits[:, :own].T, right[:, :own].T, wrong[:, :own].T)
    parts = {"seen": float(seen.detach()), "told": float(told.detach()), "contrast": float(agree.detach())}
    return 0.5 * late * agree + seen + told, parts | {"kind": facets.hits(images, answers)}


# ---- the loop


def train(training: Training, data: ToyViews) -> Iterator[dict[str, Any]]:
    """Train to the end; yield a record for each step, written to the log as it goes. State is saved at every checkpoint."""
    keep_memory()
    work, words = training.cache, data.language.vocabulary()
    if training.init is not None:
        words = tuple(sorted({*words, *towers.read_words(training.init)}))
    towers.write_blank(work / "model", towers.config(training.role, words), words)
    model = towers.blank(work / "model", training.seed)
    if training.init is not None:
        towers.read_weights(training.init, model, words, text=not training.new_text)
    reward = wrap(model, work / "model").train()
    model.visual.to(memory_format=torch.channels_last)
    model.requires_grad_(True)
    both = _with_facets(model, training.seed, data.language)
    optimizers = _optimizers(both, training)
    step, seconds = _load(work, both, optimizers)
    if training.init is not None and not step:
        acquaint(reward, both["facets"], data, training)
    log, started, saved = work / "log.jsonl", time.monotonic() - seconds, time.monotonic()
    while (progress := step / training.steps if training.steps else seconds / (60 * training.minutes)) < 1:
        rate = training.learning_rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * progress))
        batch, rng = draw(data, training, step), torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        loss, parts = loss_of(
            reward, both["facets"], batch, training.role, rng, 1.0 if training.warm else progress, data.language
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, seconds = step + 1, time.monotonic() - started
        record = {"step": step, "seconds": round(seconds, 1), "loss": round(float(loss.detach()), 5)}
        record |= {name: round(value, 4) for name, value in parts.items()}
        if due(saved, training):
            reward.eval()
            record |= validate(
                reward, held_out(work, training.held, training.held_data), min(100, training.held), training.role
            )
            reward.train()
            seconds = time.monotonic() - started
            _save(work, both, optimizers, step, seconds)
            saved = time.monotonic()
        append_record(log, record)
        yield record
    _save(work, both, optimizers, step, seconds)


def acquaint(reward: ClipReward, facets: nn.Module, data: ToyViews, training: Training, batches: int = 24) -> None:
    """Let new facets learn to read a trained model before it learns from them.

    Facets are thrown away after a training. Fresh ones, whose loss is far off, would tear down what the model knows.
    """
    assert isinstance(facets, Facets)
    model: Any = reward.eval().model
    seen, told = [], []
    with torch.no_grad():
        for step in range(batches):
            batch = draw(data, replace(training, dyed=0.0, melted=0.0), 2**32 + step)  # other toys than the first steps'
            right = facets.right(batch.toys, seen=True).repeat_interleave(training.views, 0)
            pixels = augment.compose((), batch.pixels, torch.Generator(), share=0.0)
            seen.append((model.encode_image(reward.prepare(pixels)), right))
            if not training.new_text:
                tokens = reward.tokenizer(list(batch.texts))
                told.append((towers.embed_tokens(model, tokens), facets.right(batch.claims, seen=False)))
    groups = [[torch.cat(x) for x in zip(*pairs, strict=True)] for pairs in (seen, told) if pairs]
    optimizer = torch.optim.AdamW(facets.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        torch.stack([facets(F.normalize(x.float(), dim=-1), right) for x, right in groups]).sum().backward()
        optimizer.step()
    reward.train()


def due(saved: float, training: Training) -> bool:
    """Whether it is time for a checkpoint."""
    return time.monotonic() - saved > training.save_seconds


def wrap(model: nn.Module, folder: Path) -> ClipReward:
    """Make a reward of a model that is being trained, with the tokenizer of a folder."""
    import open_clip

    info = RewardInfo("clip:training", "pixels", (-1.0, 1.0), "", "", "")
    return ClipReward(model, open_clip.get_tokenizer(f"local-dir:{folder}"), info)


def _with_facets(model: nn.Module, seed: int, language: Language = TOYS) -> nn.ModuleDict:
    """All that is trained: the model, and what is thrown away later."""
    width: int = model.text.text_projection.shape[1]  # pyright: ignore
    return nn.ModuleDict({"model": model, "facets": Facets(width, seed, language)})


def _optimizers(model: nn.Module, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions, AdamW for the rest, of which gains, biases, embeddings and the temperature do not decay.

    From scratch, at equal seconds (150 on one core), Muon on convolutions named 62 % of kinds where AdamW alone named 46 %.
    """

    def inner(p: nn.Parameter) -> bool:  # not the first few channels, nor narrow groups
        return p.ndim == 4 and len(p) >= 32 and p[0].numel() >= 64

    named = dict(model.named_parameters())
    free = {name for name, p in named.items() if p.ndim < 2 or "embedding" in name}
    groups = [
        {
            "params": [p for name, p in named.items() if name not in free and not inner(p)],
            "weight_decay": training.weight_decay,
        },
        {"params": [p for name, p in named.items() if name in free], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), eps=1e-6)
    convolutions = [p for p in named.values() if inner(p)]
    return [Muon(convolutions, training.learning_rate, weight_decay=training.weight_decay, dtype=fastest_dtype()), adamw]


def _save(work: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], step: int, seconds: float) -> None:
    states = [optimizer.state_dict() for optimizer in optimizers]
    save_state(work / "state.pt", {"model": model.state_dict(), "optimizers": states, "step": step, "seconds": seconds})


def _load(work: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> tuple[int, float]:
    """Restore the last checkpoint, if there is one, and cut the log back to it."""
    log = work / "log.jsonl"
    if (state := load_state(work / "state.pt")) is None:
        log.unlink(missing_ok=True)
        return 0, 0.0
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{work} holds a training of another architecture or vocabulary: choose another --work") from error
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    kept = [record for record in read_records(log) if record["step"] <= state["step"]]
    write_whole(log, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return state["step"], state["seconds"]


# ---- the command line


def card(
    training: Training, language: Language, toys: int, size: int, step: int, seconds: float, found: dict[str, float]
) -> str:
    """The model card."""
    tower = {"encoder": "timm's resnet10t", "judge": "timm's regnetx_002"}[training.role]
    use = {
        "encoder": "the reward: may be optimised, and used to choose between samples",
        "judge": "a second opinion: it is only reported, and never a training signal nor used to tune anything",
    }[training.role]
    start = "" if training.init is None else "\n  It went on from earlier weights, whose steps are not counted here."
    return f"""---
license: apache-2.0
library_name: open_clip
---
# The embedded {training.role}

A small dual encoder ({tower} and a text transformer, {size / 1e6:.2f} M parameters) of rl3d's world of captioned objects.
It is {use}.

- Data: {toys} sets of views of the split "train", rendered at 64 x 64, with new captions and near misses at every step:
  {about(language)}
- Training: {step} steps of {training.toys} toys x {training.views} views in {seconds / 60:.0f} minutes on CPU, by
  `python -m rl3d.train.encoder --role {training.role} --seed {training.seed}`.{start}
- Quality, on {training.held} held-out toys (combinations never trained on), each with a pool of 100 captions of which 20 are
  near misses; the right caption is first
  - from four views in {found["r1"]:.1%}; in {found["r1_relations"]:.1%} of toys with a relation;
  - from four augmented views in {found["r1_augmented"]:.1%};
  - from one view in {found["r1_single"]:.1%}.
- Limits: it knows that world's words and kinds and nothing else; unknown words count as one that means nothing. Photographs
  are not its world. Cosines of different prompts are not comparable.
"""


def main(training: Training) -> None:
    """Train, evaluate and write the model; or only evaluate it."""
    if not training.evaluate:
        if training.data is None:
            raise SystemExit("--data is missing: make it with `python -m rl3d.toybox.dataset --out DIR --count N`")
        if training.new_text and training.init is None:
            raise SystemExit("--new-text keeps the tower of --init that looks at pictures: name a folder with --init")
        data = open_views(training.data, *training.more)
        record: dict[str, Any] = {}
        for record in train(training, data):
            if record["step"] % 20 == 0 or "r1" in record:
                print(json.dumps(record), flush=True)
        export(training, len(data.specs), data.language)
    reward = Clip(str(training.folder)).build()
    print(
        json.dumps(validate(reward, held_out(training.cache, training.held, training.held_data), training.held, training.role)),
        flush=True,
    )


def export(training: Training, toys: int, language: Language = TOYS) -> None:
    """Write the checkpoint's model where it will be loaded from, with its card."""
    words = towers.read_words(training.cache / "model")
    model = towers.blank(training.cache / "model", 0)
    both = _with_facets(model, training.seed, language)
    step, seconds = _load(training.cache, both, _optimizers(both, training))
    reward = wrap(model, training.cache / "model")
    found = validate(reward, held_out(training.cache, training.held, training.held_data), training.held, training.role)
    size = sum(p.numel() for p in model.parameters())
    towers.write_blank(training.folder, towers.config(training.role, words), words)
    towers.write_weights(training.folder, model, card(training, language, toys, size, step, seconds, found))


if __name__ == "__main__":
    main(tyro.cli(Training))
