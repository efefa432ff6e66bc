"""Held-out toys, and how often a dual encoder knows the right caption of each: what trainings are told by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rl3d.cameras import look_at_origin
from rl3d.files import write_whole
from rl3d.rewards.clip import ClipReward
from rl3d.toybox import dataset
from rl3d.toybox.dataset import ToyViews
from rl3d.train import augment
from rl3d.train.towers import Role
from rl3d.types import Views
from rl3d.world.dataset import open_views

HELD_SEED = 77
"""Seed of the toys of validation; data for training should have another."""


def held_out(folder: Path, count: int, given: Sequence[Path] = ()) -> ToyViews:
    """Open what was given, or else ``count`` toys of combinations that no training sees, from four sides; rendered at need."""
    if given:
        return open_views(*given)
    place = folder / f"held{count}"
    if not (place / "done").exists():
        for _ in dataset.make(dataset.Order(place, count, views=4, seed=HELD_SEED, split="validation"), workers=1):
            pass
        write_whole(place / "done", b"")
    return ToyViews.open(place)


@torch.no_grad()
def validate(reward: ClipReward, held: ToyViews, count: int, role: Role) -> dict[str, float]:
    """How often the right caption is first in the hard pool of each held-out toy, by four views and by one; and the former when
    the pictures are augmented as in training.
    """
    picks = np.linspace(0, len(held.specs) - 1, min(count, len(held.specs))).round().astype(int)
    sides = np.arange(0, held.rgba.shape[1], max(1, held.rgba.shape[1] // 4))[:4]
    specs = [held.specs[i] for i in picks]
    rgba = torch.from_numpy(np.array(held.rgba[picks[:, None], np.tile(sides, (len(picks), 1))])).float() / 255
    count = len(picks)
    cameras = look_at_origin(torch.zeros(1, 4), torch.zeros(1, 4))
    clean = reward.embed_views(Views(rgba[..., :3], rgba[..., 3:], None, None, cameras))
    rng = torch.Generator().manual_seed(HELD_SEED)
    rough_pixels = augment.compose(augment.AUGMENT[role], rgba.flatten(0, 1).movedim(-1, 1), rng)
    rough = reward.model.encode_image(reward.prepare(rough_pixels), normalize=True).unflatten(0, clean.shape[:2])  # pyright: ignore[reportCallIssue]
    hits = {"r1": 0.0, "r1_single": 0.0, "r1_augmented": 0.0, "r1_relations": 0.0}
    related = 0
    for i, spec in enumerate(specs):
        claims = held.language.pool(spec, np.random.default_rng([HELD_SEED, i]), size=100, near=20)
        texts = reward.embed_text([held.language.canonical(claim) for claim in claims])
        assert claims[0] == spec
        first = float((clean[i].mean(0) @ texts.T).argmax() == 0)
        hits["r1"] += first / count
        hits["r1_single"] += float(((clean[i] @ texts.T).argmax(1) == 0).float().mean()) / count
        hits["r1_augmented"] += float((rough[i].mean(0) @ texts.T).argmax() == 0) / count
        if spec.relation:
            related, hits["r1_relations"] = related + 1, hits["r1_relations"] + first
    hits["r1_relations"] /= max(related, 1)
    return {name: round(value, 4) for name, value in hits.items()}
