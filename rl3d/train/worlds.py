"""Train the embedded models on real objects and toys, from nothing to a report: ``python -m rl3d.train.worlds``.

Also ``rl3d world train``. Fetches and prepares Debian's meshes, renders what is to be learned and what is held out, trains the
encoder, the judge and the prior one after the other, and measures each on each held-out set. What is done is not done again,
and a training that was stopped goes on. With folders of ``rl3d world build``, these are learned instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from tyro.conf import Positional, arg

from rl3d.cameras import look_at_origin
from rl3d.files import write_whole
from rl3d.priors.embedded import EmbeddedPrior
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.toybox import dataset as toys
from rl3d.toybox.dataset import Order, ToyViews
from rl3d.train import encoder, prior
from rl3d.train.held import HELD_SEED, validate
from rl3d.types import Views
from rl3d.world import dataset as world
from rl3d.world import debian
from rl3d.world.language import Words

Model = Literal["encoder", "judge", "prior"]


@dataclass(frozen=True)
class Training:
    """What to train, on what, for how long."""

    folders: Positional[tuple[Path, ...]] = ()
    """Data sets of `rl3d world build` to train on; by default Debian's objects and the toybox."""
    out: Path = Path(".cache/world")
    """Everything goes here: meshes, data sets, checkpoints, and the models, in models/."""
    models: tuple[Model, ...] = ("encoder", "judge", "prior")
    scenes: int = 8000
    """Scenes of real objects, and as many toys."""
    held: int = 300
    """Of each held-out set: combinations and objects that are never trained on."""
    size: int = 64
    """Width and height of views, in pixels."""
    minutes: Annotated[float, arg(aliases=["-m"])] = 120.0
    """For each of the dual encoders."""
    prior_minutes: float = 480.0
    steps: int = 0
    """Steps of each instead of minutes, if not 0."""
    target: Literal["shaded", "albedo"] = "shaded"
    """What the prior draws."""
    seed: int = 0
    workers: int = 2
    """Processes that render."""


@dataclass(frozen=True)
class Data:
    """Folders of rendered sets."""

    train: tuple[Path, ...]
    held: dict[str, Path]
    """By what they hold out."""


def prepare(s: Training) -> Data:
    """Fetch and render what is not there yet."""
    if s.folders:
        return Data(s.folders, {})
    stock = s.out / "debian"
    if not (stock / "things.jsonl").is_file():
        for done, total in debian.prepare(stock):
            _say(f"preparing objects {done}/{total}")
    real = {split: s.out / "data" / f"real-{split}" for split in ("train", "validation", "unseen")}
    toy = {split: s.out / "data" / f"toys-{split}" for split in ("train", "validation")}
    for split, folder in real.items():
        order = Order(folder, s.scenes if split == "train" else s.held, size=s.size, seed=s.seed, split=split)
        _render(order, world.make(order, stock, s.workers))
    for split, folder in toy.items():
        order = Order(
            folder, s.scenes if split == "train" else s.held, size=s.size, seed=s.seed, split=split, rich=True, varied=True
        )
        _render(order, toys.make(order, s.workers))
    held = {"real combinations": real["validation"], "real objects": real["unseen"], "toys": toy["validation"]}
    return Data((real["train"], toy["train"]), held)


def _render(order: Order, making: Iterator[int]) -> None:
    """Make a data set, unless the same was made before."""
    mark, wanted = order.folder / "order.json", json.dumps(asdict(order), default=str)
    if mark.is_file() and mark.read_text() == wanted:
        return
    for done in making:
        _say(f"rendering {order.folder.name} {done}/{order.count}")
    write_whole(mark, wanted.encode())


def train(s: Training) -> dict[str, dict]:
    """Do it all; returns the report, which is also written to ``report.json``."""
    data = prepare(s)
    known = world.open_views(*data.train).language
    report: dict[str, dict] = {"words": {"vocabulary": len(known.vocabulary())}}
    if isinstance(known, Words):
        report["words"]["never taught"] = len(known.unseen())
    for model in s.models:
        report[model] = _prior(s, data) if model == "prior" else _dual(s, data, model)
        write_whole(s.out / "report.json", json.dumps(report, indent=1).encode())
        print(json.dumps({model: report[model]}), flush=True)
    return report


def _dual(s: Training, data: Data, role: Literal["encoder", "judge"]) -> dict:
    """Train one dual encoder; its measures by held-out set."""
    training = encoder.Training(
        role,
        data.train[0],
        more=data.train[1:],
        held_data=tuple(data.held.values()) or (data.train[-1],),
        out=s.out / "models" / role,
        work=s.out / "work" / role,
        minutes=s.minutes,
        steps=s.steps,
        held=s.held,
        seed=s.seed + (role == "judge"),
    )
    views = world.open_views(*data.train)
    for record in encoder.train(training, views):
        if record["step"] % 20 == 0:
            print(json.dumps(record), flush=True)
    encoder.export(training, len(views.specs), views.language)
    reward = Clip(str(training.folder)).build()
    found = {}
    for name, folder in data.held.items():
        held = replace(world.open_views(folder), language=views.language)
        found[name] = validate(reward, held, s.held, role)
        if isinstance(held.language, Words) and name != "toys":
            found[name] |= synonyms(reward, held, s.held)
    return found


@torch.no_grad()
def synonyms(reward: ClipReward, held: ToyViews, count: int) -> dict[str, float]:
    """How often the right caption is first in its pool when its noun is a word that was never taught, beside its taught twin;
    from all views, of single things of which there is such a word.
    """
    language = held.language
    assert isinstance(language, Words)
    hits = {"taught": 0, "never taught": 0}
    asked = 0
    for i, spec in enumerate(held.specs[:count]):
        other = language.in_unseen_words(spec)
        if other is None or spec.relation is not None or spec.items[0].count > 1:
            continue
        views = np.arange(held.rgba.shape[1])[None]
        rgba = torch.from_numpy(held.rgba[np.array([[i]]), views]).float() / 255
        cameras = look_at_origin(torch.zeros(views.shape), torch.zeros(views.shape))
        seen = reward.embed_views(Views(rgba[..., :3], rgba[..., 3:], None, None, cameras)).mean(1)[0]
        texts = [language.canonical(claim) for claim in language.pool(spec, np.random.default_rng([HELD_SEED, i]))]
        false = (reward.embed_text(texts[1:]) @ seen).max()
        for name, text in (("taught", texts[0]), ("never taught", other)):
            hits[name] += int(reward.embed_text([text])[0] @ seen > false)
        asked += 1
    return {"synonyms": asked} | {f"r1 {name}": round(n / max(asked, 1), 4) for name, n in hits.items()}


def _prior(s: Training, data: Data) -> dict:
    """Train the prior; its loss by held-out set."""
    settings = prior.Training(
        data.train[0],
        more=data.train[1:],
        held_out=next(iter(data.held.values()), None),
        out=s.out / "models" / "prior",
        work=s.out / "work" / "prior",
        minutes=s.prior_minutes,
        steps=s.steps or None,
        decay=0.2 * (s.steps or s.prior_minutes),
        target=s.target,
        seed=s.seed,
    )
    made = EmbeddedPrior.load(prior.train(settings), dtype=torch.float32)
    language, found = world.open_views(*data.train).language, {}
    for name, folder in data.held.items():
        held = replace(world.open_views(folder), language=language)
        picks = np.arange(min(64, len(held.specs)))
        found[name] = round(prior.held_out_loss(made.net, held, picks, made.tokenizer, settings.micro, s.target), 5)
    return found


def _say(text: str) -> None:
    print(f"\r{text}   ", end="", flush=True)


def main() -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    settings = tyro.cli(Training, description=__doc__)
    try:
        train(settings)
    except ValueError as error:
        print(f"\nrl3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nrl3d: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
