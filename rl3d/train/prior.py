"""Train the embedded prior: ``python -m rl3d.train.prior --data DIR --minutes M``.

A training is a folder (``--work``) with ``state.pt``, ``log.jsonl`` and pictures of samples; starting it again continues it bit
for bit, since each step's batch and noise depend on the seed and the step's number alone. ``--decay D`` lets the learning rate
fall over the last D of all minutes, and keeps the state from before the fall in ``constant.pt``: copy it over ``state.pt``
and raise ``--minutes`` to go on later. ``--init DIR`` starts from exported weights instead.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.cameras import Orbit
from rl3d.priors.embedded import WEIGHTS, EmbeddedPrior, fastest_dtype
from rl3d.priors.multiview import MultiviewTransformer, TextEncoder, repatched, reworded
from rl3d.priors.sampling import sample_views
from rl3d.priors.words import Tokenizer
from rl3d.toybox.dataset import HIGHEST_DEG, LOWEST_DEG, ToyViews
from rl3d.toybox.language import TOYS, Language
from rl3d.train.common import (
    Muon,
    about,
    average,
    collect,
    keep_memory,
    learning_rate_factor,
    load_state,
    log,
    refresh,
    replica,
    save_state,
)
from rl3d.train.facets import Facets
from rl3d.train.sets import Batch, draw_batch
from rl3d.types import Prompt
from rl3d.world.dataset import open_views


@dataclass(frozen=True)
class Training:
    """How to train a prior."""

    data: Path
    """A folder of ``python -m rl3d.toybox.dataset`` or ``rl3d world build``."""
    more: tuple[Path, ...] = ()
    """More of them, to train on all: worlds may be mixed."""
    target: Literal["shaded", "albedo"] = "shaded"
    """What to draw: views as they look in light, or their albedo, so that nothing that is made of them carries shading."""
    held_out: Path | None = None
    """Another one, whose loss is logged; without it, the last 64 toys of ``data`` are kept for this."""
    out: Path = WEIGHTS
    """Where the averaged weights are exported."""
    work: Path = Path(".cache/train/prior")
    init: Path | None = None
    """Exported weights to start a new training from; ``patch`` may differ from theirs, and ``width``, ``depth`` and ``heads``
    are theirs. Their words stay, and words of the data that they lack are added."""
    minutes: float = 60.0
    """Of training in total, over all starts."""
    steps: int | None = None
    """Steps in total; then ``decay`` counts steps, not minutes, and minutes do not matter."""
    decay: float = 0.0
    """Last minutes (or steps) over which the learning rate falls to 0."""
    batch: int = 32
    """Sets of views in a step."""
    micro: int = 16
    """Sets that go through the network at a time."""
    patch: int = 8
    """Pixels along a side of a patch; with 16 a set costs a quarter, and what words mean is learned as well."""
    text_steps: int = 300
    """Steps in which a new text encoder, or an old one's new words, learn to tell the attributes of captions, before the first
    view."""
    width: int = 256
    depth: int = 8
    heads: int = 4
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    ema: float = 0.998
    dropout: float = 0.1
    """Share of sets whose caption is dropped, for classifier-free guidance."""
    dyed: float = 0.0
    """Share of sets that are painted anew, so that shapes are learned without their usual colours. Of colours nothing is said
    then but the unknown word, which stands first, so that what is not dyed keeps its own."""
    shift: float = 1.0
    """Factor on sigma / alpha of the noise times that are trained; more pixels need more noise to hide the same shapes
    (Hoogeboom et al. 2023, "Simple Diffusion", sec. 3.1: 2 for twice the side). Held-out losses do not use it."""
    seed: int = 0
    threads: int = 0
    """Of torch; 0 takes all cores."""
    log_steps: int = 20
    save_minutes: float = 4.0
    evaluate_minutes: float = 10.0
    """Between held-out losses with a picture of samples."""
    pictures: int = 16
    """Held-out prompts in that picture; a multiple of 4, or fewer."""


def loss_of(net: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """The mean squared error of clean views, weighted by min(1 / sigma^2, 25): that of the velocity, capped near no noise."""
    angle = (torch.pi / 2 * batch.time)[:, None, None, None, None]
    sigma = angle.sin()
    noisy = angle.cos() * batch.clean + sigma * batch.noise
    clean = net(noisy, batch.time, batch.tokens, batch.azimuth, batch.elevation)
    return ((clean - batch.clean).square() * sigma.pow(-2).clamp_max(25)).mean()


def optimizers_of(net: nn.Module, settings: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for all else."""

    def inner(name: str, p: nn.Parameter) -> bool:
        return p.ndim == 2 and ("blocks." in name or "text.layers" in name) and "modulation" not in name

    muon = [p for name, p in net.named_parameters() if inner(name, p)]
    rest = [p for name, p in net.named_parameters() if not inner(name, p)]
    adamw = torch.optim.AdamW(rest, settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay, foreach=True)
    return [Muon(muon, settings.lr, weight_decay=settings.weight_decay, dtype=fastest_dtype()), adamw]


def train(settings: Training) -> Path:
    """Train until the time or the steps are used up, and export; returns the folder of the exported prior."""
    s = settings
    if s.threads:
        torch.set_num_threads(s.threads)
    keep_memory()
    data = open_views(s.data, *s.more)
    held, held_indices = (open_views(s.held_out), np.arange(64)) if s.held_out else (data, np.arange(len(data.specs))[-64:])
    if s.target == "albedo" and (data.albedo is None or held.albedo is None):
        raise ValueError("--target albedo needs data sets with albedo.npy, as `rl3d world build` makes them")
    held_indices = held_indices[: len(held.specs)]
    usable = len(data.specs) if s.held_out else max(len(data.specs) - 64, 1)
    net, tokenizer = _fresh(s, data.language)
    mean = copy.deepcopy(net).requires_grad_(False)
    optimizers = optimizers_of(net, s)
    step, elapsed = 0, 0.0
    if state := load_state(s.work / "state.pt"):
        _restore(state, net, mean, optimizers)
        step, elapsed = state["step"], state["elapsed"]
    s.work.mkdir(parents=True, exist_ok=True)
    dtype = fastest_dtype()
    fast = replica(net, dtype)
    clock = saved = evaluated = logged = time.monotonic()
    begun, logged_step, losses = elapsed, step, []
    total = 60 * s.minutes if s.steps is None else float(s.steps)
    log(s.work / "log.jsonl", {"start": step, "parameters": sum(p.numel() for p in net.parameters()), "dtype": str(dtype)})

    def used() -> float:
        return elapsed if s.steps is None else float(step)

    def save(name: str = "state.pt") -> None:
        optim = [optimizer.state_dict() for optimizer in optimizers]
        state = {"net": net.state_dict(), "mean": mean.state_dict(), "optimizers": optim, "step": step, "elapsed": elapsed}
        save_state(s.work / name, state)

    def evaluate() -> float:
        drawn = replica(mean, dtype)
        assert isinstance(drawn, MultiviewTransformer)
        loss = held_out_loss(drawn, held, held_indices, tokenizer, s.micro, s.target)
        log(s.work / "log.jsonl", {"step": step, "minutes": elapsed / 60, "held_out_loss": loss})
        draw_samples(EmbeddedPrior(drawn, tokenizer), s.work / f"samples_{step:06d}.png", s.pictures, data.language)
        return loss

    decay = s.decay * (60 if s.steps is None else 1)
    falling = used() > total - decay
    while used() < total:
        factor = learning_rate_factor(step, used(), warmup=s.warmup, total=total, decay=decay)
        if not falling and used() > total - decay:
            falling = True
            save("constant.pt")
        rng = np.random.default_rng([s.seed, step])
        toys = _epoch(usable, s, step)
        options: dict[str, Any] = {"dropout": s.dropout, "dyed": s.dyed, "shift": s.shift, "target": s.target}
        batch = draw_batch(data, toys, tokenizer, rng, views=net.config["views"], **options)
        loss = 0.0
        refresh(fast, net)
        for chunk in batch.chunks(s.micro):
            part = loss_of(fast, chunk) * (len(chunk.time) / s.batch)
            part.backward()
            collect(fast, net)
            loss += part.item()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0).item()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = s.lr * factor
            if math.isfinite(norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        average(mean, net, min(s.ema, step / (step + 9)))
        losses.append(loss)
        now = time.monotonic()
        elapsed = begun + now - clock
        if step % s.log_steps == 0:
            pace = (now - logged) / (step - logged_step) / s.batch
            log(
                s.work / "log.jsonl",
                {
                    "step": step,
                    "minutes": elapsed / 60,
                    "loss": float(np.mean(losses)),
                    "gradient": norm,
                    "lr": s.lr * factor,
                    "ms_per_set": 1e3 * pace,
                },
            )
            logged, logged_step, losses = now, step, []
        if now - saved > 60 * s.save_minutes:
            save()
            saved = now
        if now - evaluated > 60 * s.evaluate_minutes:
            evaluate()
            evaluated = logged = time.monotonic()
            logged_step, losses = step, []
    save()
    loss = evaluate()
    EmbeddedPrior(mean, tokenizer).save(s.out)
    (s.out / "README.md").write_text(card(net, s, data.language, toys=usable, step=step, minutes=elapsed / 60, loss=loss))
    return s.out


def _fresh(s: Training, language: Language) -> tuple[MultiviewTransformer, Tokenizer]:
    """A network and its tokenizer: new, or from exported weights, with whatever words of the language these lack."""
    unread = s.text_steps > 0 and not (s.work / "state.pt").exists()
    if s.init is not None:
        prior = EmbeddedPrior.load(s.init, dtype=torch.float32)
        net = prior.net if prior.net.config["patch"] == s.patch else repatched(prior.net, s.patch)
        known = prior.tokenizer
        if new := sorted(set(language.vocabulary()) - set(known.words)):
            known = replace(known, words=(*known.words, *new))
            net = reworded(net, len(known), torch.Generator().manual_seed(s.seed))
            if unread:
                learn_to_read(net.text, known, s.text_steps, s.seed, language=language, new=len(new))
        return net.train(), known
    tokenizer = Tokenizer(language.vocabulary())
    torch.manual_seed(s.seed)
    net = MultiviewTransformer(
        words=len(tokenizer),
        patch=s.patch,
        width=s.width,
        depth=s.depth,
        heads=s.heads,
        elevation_min_deg=LOWEST_DEG,
        elevation_max_deg=HIGHEST_DEG,
    )
    if unread:
        learn_to_read(net.text, tokenizer, s.text_steps, s.seed, language=language)
    return net, tokenizer


def learn_to_read(
    text: TextEncoder,
    tokenizer: Tokenizer,
    steps: int,
    seed: int,
    batch: int = 128,
    language: Language = TOYS,
    new: int | None = None,
) -> float:
    """Teach a text encoder to tell kinds, paints, forms, counts and relations of captions; returns the last loss.

    From views alone it would take long to tell words apart: their signal is faint while views are mostly noise.
    Where only the last ``new`` words are new, only these are taught, and all else that it knows stays as it was.
    """
    facets = Facets(text.positions.shape[1], seed, language)
    words = text.words.weight
    old = None if new is None else words[: len(words) - new].detach().clone()
    taught = list(text.parameters()) if old is None else [words]
    parameters = [*taught, *facets.parameters()]
    optimizer, rng = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.98)), np.random.default_rng([seed, 1 << 30])
    loss = torch.zeros(())
    for step in range(steps):
        specs = [language.sample(rng) for _ in range(batch)]
        read = text(tokenizer([language.caption(spec, rng) for spec in specs])).mean(1)
        loss = facets(nn.functional.normalize(read, dim=-1), facets.right(specs, seen=False))
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        text.zero_grad()
        optimizer.zero_grad()
        loss.backward()
        if old is not None and words.grad is not None:
            words.grad[: len(old)] = 0
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if old is not None:
            with torch.no_grad():
                words[: len(old)] = old  # without the decay of weights
    text.zero_grad()
    return loss.item()


def _restore(state: dict, net: nn.Module, mean: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    net.load_state_dict(state["net"])
    mean.load_state_dict(state["mean"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)


def _epoch(count: int, s: Training, step: int) -> Int[np.ndarray, "b"]:
    """The toys of a step: every toy once an epoch, in a new order each time."""
    at = np.arange(step * s.batch, (step + 1) * s.batch)
    orders = {
        epoch: np.random.default_rng([s.seed, 1 << 31, int(epoch)]).permutation(count) for epoch in np.unique(at // count)
    }
    return np.array([orders[i // count][i % count] for i in at])


@torch.no_grad()
def held_out_loss(
    net: nn.Module,
    data: ToyViews,
    indices: np.ndarray,
    tokenizer: Tokenizer,
    micro: int,
    target: Literal["shaded", "albedo"] = "shaded",
) -> float:
    """The loss on some toys, always with the same views, captions and noise."""
    batch = draw_batch(data, indices, tokenizer, np.random.default_rng(7), target=target)
    return sum(loss_of(net, chunk).item() * len(chunk.time) for chunk in batch.chunks(micro)) / len(indices)


def draw_samples(prior: EmbeddedPrior, path: Path, count: int = 16, language: Language = TOYS) -> None:
    """Draw four views of each of some fixed held-out prompts, and write them as one picture with the prompts beside it."""
    from PIL import Image

    columns = min(4, count)
    rows = count // columns
    rng = np.random.default_rng(11)
    prompts = [language.canonical(language.sample(rng, "validation")) for _ in range(rows * columns)]
    cameras = Orbit(4, 20.0, 30.0).cameras()
    generator = torch.Generator().manual_seed(0)
    views = sample_views(prior, [Prompt(text) for text in prompts], cameras, rng=generator)
    image = views.over(1.0).unflatten(0, (rows, columns)).permute(0, 3, 1, 2, 4, 5).flatten(3, 4).flatten(2, 3).flatten(0, 1)
    Image.fromarray((image * 255).round().clamp(0, 255).to(torch.uint8).numpy()).save(path)
    path.with_suffix(".txt").write_text("\n".join(prompts) + "\n")


def card(
    net: MultiviewTransformer, s: Training, language: Language, *, toys: int, step: int, minutes: float, loss: float
) -> str:
    """Write the model card of a trained prior."""
    size = sum(p.numel() for p in net.parameters()) / 1e6
    known = net.config
    start = "" if s.init is None else " It started from the weights of an earlier training, whose steps are not counted here."
    words, target = len(language.vocabulary()), "" if s.target == "shaded" else " They show albedo, without light."
    return f"""---
license: apache-2.0
library_name: diffusers
---

# The embedded prior of rl3d

A text- and camera-conditioned diffusion model of several views of one object, jointly: {size:.1f} million parameters, float16.
It makes premultiplied RGBA of {known["size"]} x {known["size"]} pixels, {known["views"]} views at a time as trained; other
numbers work too.

- **Files**: `transformer` (a diffusers `ModelMixin`, `rl3d.priors.multiview.MultiviewTransformer`), `tokenizer` (a list of
  {words} words), `scheduler` (a diffusers `DDIMScheduler` of the same cosine schedule).
- **Data**: {toys:,} sets of views, 4 of 8 each, with a fresh caption each time: {about(language)}{target}
- **Training**: {step:,} steps of {s.batch} sets ({step * s.batch:,} sets) in {minutes:.0f} minutes on a CPU, seed {s.seed}, by
  `python -m rl3d.train.prior`; the weights are running means.{start}
- **Quality**: its velocity loss is {loss:.4f} on sets that were not trained on.
- **Limits**: it knows the words, objects and colours of that world and no others, and cameras at distance {known["distance"]:g}
  with a vertical field of view of {known["fov_y_deg"]:g} degrees, at elevations from {known["elevation_min_deg"]:g} to
  {known["elevation_max_deg"]:g} degrees. Azimuth 0 is an object's front.
"""


def main() -> None:
    """Run the command line."""
    import tyro

    train(tyro.cli(Training, description=__doc__))


if __name__ == "__main__":
    main()
