"""``rl3d reward train``: from recorded preferences (:mod:`rl3d.choices`) to a reward."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from rl3d.assets import PICTURES, load_asset, load_pictures
from rl3d.cameras import evaluation_cameras
from rl3d.choices import Pair, read_pairs
from rl3d.export.pictures import png_bytes
from rl3d.files import write_whole
from rl3d.math import wilson
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.rewards.trained import ABOUT, HEAD, Head

DECAYS = (0.01, 0.1, 1.0)
"""Weight decays among which cross-validation on the training pairs chooses."""


@dataclass(frozen=True)
class Features:
    """What a head is fitted to: embeddings of assets and prompts, and comparisons by their numbers."""

    views: list[Float[Tensor, "_ d"]]
    """Of each asset."""
    texts: Float[Tensor, "p d"]
    compared: list[tuple[int, int, int]]
    """Prompt, a and b of each comparison."""
    preferred: Float[Tensor, "n"]


@torch.no_grad()
def embed(pairs: Sequence[Pair], clip: ClipReward) -> Features:
    """Embed each asset and each prompt once."""
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    assets = list(dict.fromkeys(side for pair in pairs for side in (pair.a, pair.b)))
    views = []
    for paths in assets:
        pictures = paths[0].lower().endswith(PICTURES)
        seen = load_pictures(paths) if pictures else load_asset(paths[0]).look(evaluation_cameras())
        views.append(clip.embed_views(seen)[0])
    compared = [(prompts.index(pair.prompt), assets.index(pair.a), assets.index(pair.b)) for pair in pairs]
    return Features(views, clip.embed_text(prompts), compared, torch.tensor([pair.preferred for pair in pairs]))


def logits(head: Head, features: Features, rows: Sequence[int]) -> Float[Tensor, "n"]:
    """r_a - r_b of some comparisons; each asset is judged once for each prompt that it was shown for."""
    asked = list(dict.fromkeys((p, side) for i in rows for p, *sides in [features.compared[i]] for side in sides))
    by_views: dict[int, list[int]] = defaultdict(list)
    for i, (_, asset) in enumerate(asked):
        by_views[len(features.views[asset])].append(i)
    # Assets that were seen from equally many sides go together.
    order, values = [], []
    for group in by_views.values():
        seen = torch.stack([features.views[asked[i][1]] for i in group])
        order += group
        values.append(head(seen, features.texts[[asked[i][0] for i in group]]).mean(1))
    value = torch.cat(values)[torch.tensor(order).argsort()]
    place = {one: i for i, one in enumerate(asked)}
    left, right = ([place[features.compared[i][0], features.compared[i][k]] for i in rows] for k in (1, 2))
    return value[left] - value[right]


def fit(features: Features, rows: Sequence[int], *, joint: bool, decay: float, seed: int, steps: int = 200) -> Head:
    """Fit a head to some comparisons: minus the log-likelihood of Bradley & Terry (1952); a tie is half a win for each side."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head(features.texts.shape[1], joint=joint)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    wanted = features.preferred[list(rows)]
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(logits(head, features, rows), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.requires_grad_(False).eval()


def split(features: Features, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Comparisons for training and those held out: of whole prompts where there are ten or more, else at random."""
    prompts = [p for p, _, _ in features.compared]
    groups = prompts if len(set(prompts)) >= 10 else list(range(len(prompts)))
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    out = {names[i] for i in order[: max(1, round(share * len(names)))]}
    rows = range(len(groups))
    return [i for i in rows if groups[i] not in out], [i for i in rows if groups[i] in out]


def choose_decay(features: Features, rows: Sequence[int], *, joint: bool, seed: int, folds: int = 3) -> float:
    """The weight decay of the best likelihood in cross-validation on the training comparisons."""
    order = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()]
    losses = dict.fromkeys(DECAYS, 0.0)
    for k in range(folds):
        left, out = [r for i, r in enumerate(order) if i % folds != k], order[k::folds]
        for decay in DECAYS:
            head = fit(features, left, joint=joint, decay=decay, seed=seed)
            told = F.binary_cross_entropy_with_logits(logits(head, features, out), features.preferred[out], reduction="sum")
            losses[decay] += float(told)
    return min(losses, key=losses.__getitem__)


@dataclass(frozen=True)
class Bin:
    """Comparisons that the head was about equally sure of."""

    said: float
    """Its mean probability of the side it favours."""
    true: float
    """How often that side was preferred."""
    count: int


def calibration(logit: Float[Tensor, "n"], preferred: Float[Tensor, "n"], bins: int = 5) -> list[Bin]:
    """Compare what a head says with what came, in bins of equally many comparisons (DeGroot & Fienberg 1983)."""
    sure = logit.abs().sigmoid()
    right = torch.where(logit >= 0, preferred, 1 - preferred)
    order = sure.argsort(stable=True)
    return [Bin(float(sure[i].mean()), float(right[i].mean()), len(i)) for i in order.tensor_split(bins) if len(i)]


@dataclass(frozen=True)
class Fitted:
    """How well a head predicts comparisons that it was not fitted to."""

    pairs: int
    held_out: int
    held_out_by: str
    """"prompt" or "comparison"."""
    accuracy: float
    """Of held-out comparisons without ties: how often the preferred side has the higher reward."""
    accuracy_interval: tuple[float, float]
    """Of 95 % (Wilson 1927)."""
    accuracy_in_training: float
    log_loss: float
    """In nats, held out; log 2 = 0.693 is a coin's."""
    calibration_error: float
    """The mean over comparisons of |said - true| of their bin."""
    decay: float
    by_annotator: dict[str, float]
    """Accuracy on each one's held-out comparisons."""
    bins: tuple[Bin, ...]


def accuracy(logit: Float[Tensor, "n"], preferred: Float[Tensor, "n"]) -> float:
    """How often the preferred side has the higher reward, without ties; nan where there are ties alone."""
    told = preferred != 0.5
    return float(((logit > 0) == (preferred > 0.5))[told].float().mean())


def train_reward(
    path: Path, out: Path, *, encoder: Clip | None = None, joint: bool = True, held_out: float = 0.2, seed: int = 0
) -> Fitted:
    """Fit a head to a file of preferences and write it as a reward: ``Trained(out)``, with a report and a calibration plot.

    Raises:
        ValueError: if the file is wrong, or holds too few comparisons to hold any out.
    """
    encoder = encoder or Clip()
    clip = encoder.build_signal()
    if not 0 < held_out < 1:
        raise ValueError(f"the share that is held out must be above 0 and below 1, got {held_out}")
    pairs = read_pairs(path)
    if len(pairs) < 10:
        raise ValueError(f"{path} holds {len(pairs)} comparisons: at least 10 are needed, and some hundreds to learn much")
    features = embed(pairs, clip)
    known, unknown = split(features, held_out, seed)
    if len(known) < 3:
        raise ValueError(f"{len(known)} comparisons are left for training: lower the share that is held out ({held_out})")
    decay = choose_decay(features, known, joint=joint, seed=seed)
    head = fit(features, known, joint=joint, decay=decay, seed=seed)
    fitted = examine(head, features, pairs, known, unknown, decay)
    width = features.texts.shape[1]
    about = {"encoder": encoder.model, "pretrained": encoder.pretrained, "width": width, "hidden": 32, "joint": joint}
    write_whole(out / HEAD, save(head.state_dict()))
    write_whole(out / "calibration.png", png_bytes(plot(fitted)))
    # Last, since a reward is there once this is.
    report = about | {"preferences": path.name, "seed": seed, "report": asdict(fitted)}
    write_whole(out / ABOUT, (json.dumps(report, indent=2) + "\n").encode())
    return fitted


def examine(
    head: Head, features: Features, pairs: Sequence[Pair], known: list[int], unknown: list[int], decay: float
) -> Fitted:
    """Measure a head on what was held out."""
    with torch.no_grad():
        learned, told = logits(head, features, known), logits(head, features, unknown)
    wanted = features.preferred[unknown]
    right = accuracy(told, wanted)
    by = defaultdict(list)
    for place, i in enumerate(unknown):
        by[pairs[i].annotator].append(place)
    bins = calibration(told, wanted)
    return Fitted(
        pairs=len(pairs),
        held_out=len(unknown),
        held_out_by="prompt" if len(features.texts) >= 10 else "comparison",
        accuracy=right,
        accuracy_interval=wilson(right, int((wanted != 0.5).sum())),
        accuracy_in_training=accuracy(learned, features.preferred[known]),
        log_loss=float(F.binary_cross_entropy_with_logits(told, wanted)),
        calibration_error=sum(b.count * abs(b.said - b.true) for b in bins) / len(unknown),
        decay=decay,
        by_annotator={name: accuracy(told[some], wanted[some]) for name, some in sorted(by.items()) if name},
        bins=tuple(bins),
    )


def plot(fitted: Fitted, size: int = 420, margin: int = 56) -> Any:
    """A reliability diagram as pixels ``[h w 3]``: what the head said against what came, with 95 % intervals."""
    import numpy as np

    picture = Image.new("RGB", (size + 2 * margin, size + 2 * margin), "white")
    draw, ink, line = ImageDraw.Draw(picture), (40, 40, 40), (200, 200, 200)

    def at(x: float, y: float) -> tuple[float, float]:
        """Probabilities of the favoured side from 0.5, and shares from 0, as places in the picture."""
        return margin + (x - 0.5) / 0.5 * size, margin + (1 - y) * size

    for i in range(6):
        x, y = 0.5 + i / 10, i / 5
        draw.line([at(x, 0), at(x, 1)], fill=line)
        draw.line([at(0.5, y), at(1, y)], fill=line)
        draw.text((at(x, 0)[0] - 8, at(x, 0)[1] + 6), f"{x:.1f}", fill=ink)
        draw.text((margin - 26, at(0.5, y)[1] - 6), f"{y:.1f}", fill=ink)
    draw.line([at(0.5, 0.5), at(1, 1)], fill=(150, 150, 150), width=2)
    places = [at(b.said, b.true) for b in fitted.bins]
    draw.line(places, fill=(30, 90, 200), width=2)
    for b, (x, y) in zip(fitted.bins, places, strict=True):
        low, high = wilson(b.true, b.count)
        draw.line([at(b.said, low), at(b.said, high)], fill=(30, 90, 200), width=1)
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=(30, 90, 200))
    draw.text((margin, 10), f"{fitted.held_out} held-out comparisons (by {fitted.held_out_by})", fill=ink)
    said = f"accuracy {fitted.accuracy:.3f}   log-loss {fitted.log_loss:.3f}   calibration error {fitted.calibration_error:.3f}"
    draw.text((margin, 26), said, fill=ink)
    draw.text((margin + size / 2 - 110, size + margin + 26), "said: probability of the favoured side", fill=ink)
    draw.text((margin + 6, margin + 4), "came: share in which it was preferred (bars: 95 %)", fill=ink)
    return np.asarray(picture)
