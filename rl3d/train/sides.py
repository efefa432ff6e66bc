"""Train the head that tells sides: ``python -m rl3d.train.sides --data DIR``. It takes minutes.

DIR is a data set of :mod:`rl3d.toybox.dataset`. Only toys that have a front count. The encoder stays as it is; when it is
trained anew, so must be the head. What is written is measured on held-out toys first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.files import write_whole
from rl3d.hub import PACKAGE, find_model
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.rewards.sides import ENCODER, HEAD, directions, features, fingerprint
from rl3d.toybox import kinds
from rl3d.toybox.dataset import ToyViews
from rl3d.toybox.things import Spec
from rl3d.train import augment
from rl3d.train.held import held_out


@dataclass(frozen=True)
class Training:
    """What to train, on what."""

    data: Path
    """A data set of the split "train"."""
    out: Path = PACKAGE / "sides"
    """Where the head goes; by default its place in the package."""
    work: Path = Path(".cache/train/sides")
    """Where validation toys are rendered."""
    toys: int = 6000
    """Toys with a front, of which all views are seen."""
    held: int = 300
    """Held-out toys; about a third of them have a front."""
    hidden: int = 64
    steps: int = 3000
    seed: int = 0


def with_front(specs: Sequence[Spec], most: int) -> list[int]:
    """The numbers of the first toys that are a single thing that looks different from front and back."""
    found = [
        i
        for i, spec in enumerate(specs)
        if spec.relation is None and spec.items[0].count == 1 and kinds.KINDS[spec.items[0].kind].front
    ]
    return found[:most]


@torch.no_grad()
def see(clip: ClipReward, data: ToyViews, toys: Sequence[int], rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Features ``[n v d]`` of all views of some toys, half of them augmented if there is a generator, and their azimuths."""
    found, sides = [], np.arange(data.rgba.shape[1])
    for i in toys:
        pixels = torch.from_numpy(np.array(data.rgba[np.full_like(sides, i), sides])).movedim(-1, 1).float() / 255
        share = 0.0 if rng is None else 0.5
        pixels = augment.compose(augment.AUGMENT["encoder"], pixels, rng or torch.Generator(), share=share)
        found.append(features(clip, pixels).float())
    return torch.stack(found), torch.from_numpy(np.array(data.azimuth_deg, np.float32)[list(toys)])


def fit(x: Float[Tensor, "n v d"], azimuths_deg: Float[Tensor, "n v"], hidden: int, steps: int, seed: int) -> nn.Sequential:
    """Fit directions by least squares: where features do not tell, the answer shrinks towards none."""
    x, wanted, rng = x.flatten(0, 1), directions(azimuths_deg).flatten(0, 1), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 2))
    mean, scale = x.mean(0), x.std(0) + 1e-3
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        some = torch.randint(len(x), (512,), generator=rng)
        loss = (head((x[some] - mean) / scale) - wanted[some]).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    first = head[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():  # features as they come, from now on
        first.weight /= scale
        first.bias -= first.weight @ mean
    return head


@torch.no_grad()
def examine(head: nn.Module, x: Float[Tensor, "n v d"], azimuths_deg: Float[Tensor, "n v"]) -> dict[str, float]:
    """How well sides are told, and objects from Janus: views of which each shows what the first one does."""
    told, true = head(x), directions(azimuths_deg)
    error = torch.rad2deg(torch.atan2(told[..., 1], told[..., 0])) - azimuths_deg
    error = ((error + 180) % 360 - 180).abs()
    own, janus = (told * true).sum(-1).mean(1), (told[:, :1] * true).sum(-1).mean(1)
    above = (own[:, None] > janus).float().mean()
    return {
        "score": float(own.mean()),
        "janus": float(janus.mean()),
        "median_error_deg": float(error.median()),
        "within_45_deg": float((error < 45).float().mean()),
        "told_from_janus": float((own > janus).float().mean()),
        "any_told_from_any_janus": float(above),
    }


def main(training: Training) -> None:
    """Train, measure, write."""
    clip, data = Clip().build_signal("cpu"), ToyViews.open(training.data)
    head = fit(
        *see(clip, data, with_front(data.specs, training.toys), torch.Generator().manual_seed(training.seed)),
        training.hidden,
        training.steps,
        training.seed,
    )
    held = held_out(training.work, training.held)
    toys = with_front(held.specs, training.held)
    found = examine(head, *see(clip, held, toys, None))
    print(found)
    write(training, head, len(toys), found)


def write(training: Training, head: nn.Sequential, held: int, found: dict[str, float]) -> None:
    """Write the head in half precision, which encoder it is for, and its card."""
    from safetensors.torch import save

    state = {name: x.detach().half().contiguous() for name, x in head.state_dict().items()}
    write_whole(training.out / HEAD, save(state))
    write_whole(training.out / ENCODER, (fingerprint(find_model("encoder")) + "\n").encode())
    card = f"""---
license: apache-2.0
---
# The head that tells sides

Two layers on the features of the embedded encoder: the direction that a view is seen from (`rl3d.rewards.sides`).

- Data: {training.toys} toys with a front of the split "train", 8 views each, half of them augmented. No text is read.
- Training: {training.steps} steps, seed {training.seed}, by `python -m rl3d.train.sides`; it belongs to the encoder that
  `{ENCODER}` names.
- Quality, on {held} held-out toys with a front, four views each:
  - the direction is wrong by {found["median_error_deg"]:.0f} degrees at the median, by less than 45 in
    {found["within_45_deg"]:.0%};
  - the value is {found["score"]:.2f}, and {found["janus"]:.2f} where all four views show what the first one does (Janus);
  - it is higher for an object than for its own Janus in {found["told_from_janus"]:.0%}, than for any Janus in
    {found["any_told_from_any_janus"]:.0%}.
- Limits: toys alone. Things without a front have about 0.
"""
    write_whole(training.out / "README.md", card.encode())


if __name__ == "__main__":
    main(tyro.cli(Training))
