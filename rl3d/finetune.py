"""The loop that teaches a prior: ask prompts, collect samples, judge, step, yield; its state, and its folder.

Every draw depends on the seed, the step and the number of the prompt alone (:class:`~rl3d.priors.sampling.Streams`), so that
neither the number of processes nor a stop in between changes what is learned.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl3d.algorithms.common import Algorithm, Panel, Rollouts
from rl3d.algorithms.d3po import PairedRollouts
from rl3d.algorithms.spo import Choices
from rl3d.cameras import Orbit
from rl3d.estimators import PromptStatistics
from rl3d.export.pictures import png_bytes, sheet, to_uint8
from rl3d.files import write_whole
from rl3d.lesson import Lesson, generator
from rl3d.optimize import Diverged
from rl3d.priors.embedded import fastest_dtype
from rl3d.priors.lora import FullPrior, LoraPrior, adapter_state, blend, load_adapter_state
from rl3d.priors.lora_files import WEIGHTS, save_lora
from rl3d.priors.sampling import Streams, sample_views
from rl3d.protocols import Reward
from rl3d.rewards.guards import alarm
from rl3d.run import Run
from rl3d.team import Team
from rl3d.tutor import build_panel
from rl3d.types import Cameras, Prompt, Score, Views

CHECKPOINT_EVERY = 10
"""Steps between checkpoints."""
LEARNS, KEPT = "policy", "ema"


@dataclass(frozen=True)
class Taught:
    """What one step did."""

    step: int
    """Steps done, counting this one."""
    told: dict[str, float]
    """What the algorithm says, over the whole batch; the rewards of what was drawn are among it."""
    norm: float
    """Of the gradient, before it was clipped; of the last update."""
    skipped: bool
    """Whether an update was left out because something was not finite."""
    idle: bool
    """Whether there was nothing to learn: no pairs, groups without spread."""
    probe: dict[str, float | None] | None
    """What was seen where it was time to look."""
    stopped: str
    """Why the lesson ends here; empty where it goes on."""


@dataclass
class Teaching:
    """A prior that is being taught: everything that changes from step to step."""

    lesson: Lesson
    seed: int
    team: Team
    actor: LoraPrior | FullPrior
    panel: Panel
    state: torch.nn.Module
    optimizer: torch.optim.Optimizer
    guards: dict[str, Reward]
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    probes: list[dict[str, float | None]] = field(default_factory=list)
    """What was seen so far, with the step."""
    stopped: str = ""


def begin(lesson: Lesson, *, seed: int = 0, device: str = "cpu", team: Team | None = None) -> Teaching:
    """Load the prior, give it weights that learn, and build every part."""
    team = team or Team(device)
    algorithm: Algorithm = lesson.algorithm
    if lesson.units % team.size:
        raise ValueError(
            f"{lesson.units} units in a step cannot be shared by {team.size} processes: change --batch or --unit, so that "
            "batch / unit is a multiple of the processes"
        )
    panel = build_panel(lesson.rewards, lesson.weights, team.device)
    algorithm.check(panel)
    prior = lesson.prior.build(team.device)
    names = tuple(dict.fromkeys((*algorithm.adapters(), KEPT)))
    actor = lesson.adapt.build(prior, names, generator(seed, -1))
    actor.to(team.device)
    state = algorithm.state(actor, generator(seed, -2)).to(team.device)
    learning = [*actor.weights(LEARNS).values(), *state.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=lesson.rate, betas=(0.9, 0.99), weight_decay=lesson.decay)
    guards = {name: part.build(team.device) for name, part in lesson.probe.guards.items()} if team.leads else {}
    return Teaching(lesson, seed, team, actor, panel, state, optimizer, guards)


def finetune(t: Teaching) -> Iterator[Taught]:
    """Step until the lesson's steps are done, or it stops itself.

    Raises:
        Diverged: when more than ``lesson.patience`` steps in a row had to be skipped.
    """
    while t.step < t.lesson.steps and not t.stopped:
        yield advance(t)


def advance(t: Teaching) -> Taught:
    """Collect a batch, and learn from it."""
    lesson, team = t.lesson, t.team
    if t.step == 0 and not t.probes:
        t.probes.append(look(t))
    prompts, units = lesson.asked(t.seed, t.step), range(team.number, lesson.units, team.size)
    collected = {unit: _collect(t, unit, prompts) for unit in units}
    told: list[tuple[int, dict[str, float]]] = []
    norm, good, idle = 0.0, True, True
    for update in range(lesson.updates):
        t.optimizer.zero_grad(set_to_none=True)
        said, finite = {}, True
        for unit, (batch, rng) in collected.items():
            said[unit], fine = _backward(t, batch, rng)
            finite &= fine
        norm, some, sound = _shared_gradient(t, finite)
        idle, good = idle and not some, good and sound
        if update == 0:
            told = team.gather(list(said.items()))
        if some and sound:
            done = t.step * lesson.updates + update
            for group in t.optimizer.param_groups:
                group["lr"] = lesson.rate * min(1.0, (done + 1) / max(1, lesson.warmup))
            t.optimizer.step()
            blend(t.actor, LEARNS, KEPT, keep=lesson.ema)
    if good:
        _follow(t, collected)
    t.step += 1
    t.skipped, t.skipped_in_a_row = t.skipped + (not good), 0 if good else t.skipped_in_a_row + 1
    if t.skipped_in_a_row > lesson.patience:
        raise Diverged(f"{t.skipped_in_a_row} steps in a row had values that are not finite: stopped at step {t.step}")
    probe = None
    if t.step % lesson.probe.every == 0 or t.step == lesson.steps:
        probe = look(t)
        t.probes.append(probe)
        t.stopped = enough(lesson, t.probes)
    return Taught(t.step, _means(told), norm, not good, idle, probe, t.stopped)


def _collect(t: Teaching, unit: int, prompts: list[Prompt]) -> tuple[Any, Streams]:
    """What one unit of a step's prompts has to teach, and the randomness that goes with it."""
    lesson = t.lesson
    slots = range(unit * lesson.unit, (unit + 1) * lesson.unit)
    rigs = [lesson.rig.cameras(generator(t.seed, t.step, slot)) for slot in slots]
    cameras = Cameras(
        torch.cat([c.cam_from_world for c in rigs]), torch.cat([c.intrinsics for c in rigs]), rigs[0].width, rigs[0].height
    ).to(t.team.device)
    rng = Streams((t.seed, t.step), list(slots))
    with _precision(t):
        return lesson.algorithm.collect(t.actor, t.panel, [prompts[i] for i in slots], cameras, rng, t.state), rng


def _precision(t: Teaching) -> contextlib.AbstractContextManager:
    kind, mixed = t.team.device.type, t.lesson.mixed
    faster = mixed == "fastest" and fastest_dtype(kind) == torch.bfloat16
    return torch.autocast(kind, torch.bfloat16, enabled=mixed == "bf16" or faster)


def _backward(t: Teaching, batch: Any, rng: torch.Generator) -> tuple[dict[str, float], bool]:
    """Add one unit's gradient to the weights', piece by piece; what it says, and whether its loss was finite."""
    told: list[tuple[int, dict[str, float]]] = []
    finite = True
    for piece, share in pieces(batch):
        with _precision(t):
            loss, said = t.lesson.algorithm.loss(t.actor, t.panel, piece, rng, t.state)
        told.append((len(told), said))
        finite &= bool(loss.detach().isfinite())
        if loss.requires_grad:
            (share / t.lesson.units * loss).backward()
    return _means(told), finite


def pieces(batch: Any) -> Iterator[tuple[Any, float]]:
    """A batch in parts that fit the memory, with their shares of the loss; none where there is nothing to learn.

    A loss that is a mean over a trajectory's steps is taken step by step: their graphs never stand side by side.
    """
    if not len(batch) or (isinstance(batch, Choices) and not batch.differ.any()):
        return
    if isinstance(batch, (Rollouts, PairedRollouts)):
        for step in batch.steps:
            yield dataclasses.replace(batch, steps=(step,)), 1 / len(batch.steps)
    else:
        yield batch, 1.0


def _shared_gradient(t: Teaching, finite: bool) -> tuple[float, bool, bool]:
    """Sum gradients over processes and clip them; their norm, whether there were any, and whether all was finite."""
    weights = [p for group in t.optimizer.param_groups for p in group["params"]]
    some = t.team.sum(torch.tensor(float(any(p.grad is not None for p in weights)), device=t.team.device))
    broken = t.team.sum(torch.tensor(float(not finite), device=t.team.device))
    if not some:
        return 0.0, False, not broken
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights])
    flat = t.team.sum(flat)
    norm = float(flat.norm())
    if broken or not math.isfinite(norm):
        return norm, True, False
    flat = flat * min(1.0, t.lesson.clip / max(norm, 1e-12))
    for p, g in zip(weights, flat.split([p.numel() for p in weights]), strict=True):
        p.grad = g.view_as(p).clone()
    return norm, True, True


def _follow(t: Teaching, collected: Mapping[int, tuple[Any, Any]]) -> None:
    """Let what follows the policy follow, once a step."""
    batches = [batch for batch, _ in collected.values()]
    if isinstance(t.state, PromptStatistics):
        # The only memory of samples: all processes must remember those of all, in one order.
        mine = [(unit, _cpu(batch.scores), batch.trajectory.prompts) for unit, (batch, _) in collected.items()]
        for _, scores, prompts in sorted(t.team.gather(mine), key=lambda one: one[0]):
            t.state.remember(scores, prompts)
    else:
        t.lesson.algorithm.after(t.actor, batches[0], t.state)


def _cpu(scores: Mapping[str, Score]) -> dict[str, Score]:
    return {name: Score(s.value.cpu(), None, s.valid.cpu()) for name, s in scores.items()}


def _means(told: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """The mean of each value over those who told it, in the order of their numbers; the largest of those named so."""
    found: dict[str, list[float]] = {}
    for _, values in sorted(told, key=lambda one: one[0]):
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: max(xs) if name.endswith("_max") else sum(xs) / len(xs) for name, xs in found.items()}


@torch.no_grad()
def samples(t: Teaching, count: int | None = None) -> tuple[Views, list[Prompt]]:
    """What the kept weights draw for the prompts that it is watched with; the same noise each time."""
    probe, prior = t.lesson.probe, t.actor.using(KEPT)
    prompts = t.lesson.probed(t.seed)[:count]
    rig = t.lesson.rig
    middle = (rig.elevation_min_deg + rig.elevation_max_deg) / 2
    cameras = Orbit(rig.views, middle, 0.0, rig.distance, rig.fov_y_deg, rig.size).cameras().to(t.team.device)
    rng = Streams((t.seed, -3), range(len(prompts)))
    with _precision(t):
        drawn = sample_views(
            prior, prompts, cameras, steps=probe.steps, guidance=probe.guidance, rescale=probe.rescale, rng=rng
        )
    return drawn, prompts


@torch.no_grad()
def look(t: Teaching) -> dict[str, float | None]:
    """Judge samples of the kept weights by the rewards and by the guards; the first process looks for all."""
    found: dict[str, float | None] = {}
    if t.team.leads:
        views, prompts = samples(t)
        scores = {name: reward.score(views, prompts) for name, reward in t.panel.rewards.items()}
        total = t.panel.sum(scores)
        judged = {f"reward/{name}": s for name, s in scores.items()} | {"reward": total}
        judged |= {f"guard/{name}": guard.score(views, prompts) for name, guard in t.guards.items()}
        found = {name: round(float(s.value[s.valid].mean()), 6) if s.valid.any() else None for name, s in judged.items()}
        found["step"] = float(t.step)
    return t.team.told(found)


def enough(lesson: Lesson, probes: list[dict[str, float | None]]) -> str:
    """Why a lesson should stop now, or nothing."""
    reward = [_number(p["reward"]) for p in probes]
    guards = {name: [_number(p[f"guard/{name}"]) for p in probes] for name in lesson.probe.watched}
    if found := alarm(reward, guards, window=lesson.probe.window):
        fallen = ", ".join(f"{name} by {drop:.3g}" for name, drop in found.guards.items())
        since = probes[found.since]["step"]
        return f"the reward rises while guards fall ({fallen}) since step {since:.0f}"
    best = max(range(len(reward)), key=lambda i: (-math.inf if math.isnan(reward[i]) else reward[i], -i))
    if lesson.probe.patience is not None and len(reward) - 1 - best >= lesson.probe.patience:
        return f"the reward has not risen since step {probes[best]['step']:.0f}"
    return ""


def _number(x: float | None) -> float:
    return math.nan if x is None else x


def best_step(lesson: Lesson, probes: list[dict[str, float | None]]) -> int:
    """The step of the probe whose weights to keep: the last before guards fell, else that of the highest reward."""
    reward = [_number(p["reward"]) for p in probes]
    guards = {name: [_number(p[f"guard/{name}"]) for p in probes] for name in lesson.probe.watched}
    found = alarm(reward, guards, window=lesson.probe.window)
    among = range(found.since + 1 if found else len(reward))
    best = max(among, key=lambda i: (-math.inf if math.isnan(reward[i]) else reward[i], -i))
    return int(_number(probes[best]["step"]))


def state(t: Teaching) -> tuple[dict[str, Tensor], dict]:
    """Everything that a checkpoint must hold, as tensors by name and plain JSON; no generator, since draws depend on steps."""
    tensors = {f"actor.{key}": x for key, x in adapter_state(t.actor).items()}
    tensors |= {f"state.{key}": x for key, x in t.state.state_dict().items()}
    for i, p in enumerate(p for group in t.optimizer.param_groups for p in group["params"]):
        tensors |= {f"optimizer.{i}.{key}": x for key, x in t.optimizer.state.get(p, {}).items()}
    plain = {name: getattr(t, name) for name in ("step", "seed", "skipped", "skipped_in_a_row", "probes", "stopped")}
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, json.loads(json.dumps(plain))


def restore(
    lesson: Lesson, tensors: dict[str, Tensor], plain: dict, *, device: str = "cpu", team: Team | None = None
) -> Teaching:
    """Continue from :func:`state`, bit for bit on the CPU."""
    t = begin(lesson, seed=plain["seed"], device=device, team=team)

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    load_adapter_state(t.actor, under("actor."))
    t.state.load_state_dict(under("state."))
    for i, p in enumerate(p for group in t.optimizer.param_groups for p in group["params"]):
        if found := under(f"optimizer.{i}."):
            t.optimizer.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in found.items()}
    for name in ("step", "skipped", "skipped_in_a_row", "probes", "stopped"):
        setattr(t, name, plain[name])
    return t


def produce(run: Run, lesson: Lesson, *, device: str = "cpu", team: Team | None = None) -> Iterator[tuple[Taught, Teaching]]:
    """Do a lesson, or what is left of it; yields after every step. When it ends the folder is complete.

    Leaving early saves a checkpoint first. Of several processes, the first one writes.
    """
    team = team or Team(device)
    about, clock, saved = run.about, time.monotonic(), run.load()
    before = saved[1]["seconds"] if saved else 0.0
    if saved:
        t = restore(lesson, *saved, device=device, team=team)
        if team.leads:
            run.cut_metrics(t.step)
    else:
        if team.leads:
            (run.folder / "metrics.jsonl").unlink(missing_ok=True)
        t = begin(lesson, seed=about["seed"], device=device, team=team)

    def seconds() -> float:
        return before + time.monotonic() - clock

    def save() -> None:
        if team.leads:
            tensors, plain = state(t)
            run.save(tensors, plain | {"seconds": seconds()})

    pictured, last = -math.inf, t.step
    if t.step == 0 and not t.probes:
        t.probes.append(look(t))
        _keep(run, t)
    if not saved:
        save()
    try:
        for taught in finetune(t):
            if team.leads:
                record = {**dataclasses.asdict(taught), "seconds": round(seconds(), 3)}
                record["told"] = {name: round(value, 8) for name, value in taught.told.items()}
                run.log(record)
            if taught.probe is not None:
                _keep(run, t)
            # Pictures have their own randomness, so a clock may call for them.
            if team.leads and (seconds() - pictured >= lesson.probe.pictures_s or t.step == lesson.steps):
                picture(run, t)
                pictured = seconds()
            if t.step % CHECKPOINT_EVERY == 0 or t.step == lesson.steps or taught.stopped:
                save()
                last = t.step
            yield taught, t
    except (KeyboardInterrupt, GeneratorExit):
        if t.step != last:
            save()
        raise
    if team.leads:
        finish(run, t, seconds())


def picture(run: Run, t: Teaching, count: int = 6) -> None:
    """Write what the kept weights draw: a row for each prompt."""
    views, _ = samples(t, count)
    pictures = to_uint8(views).reshape(-1, *views.rgb.shape[2:4], 3)
    write_whole(run.folder / "previews" / f"step_{t.step:05d}.png", png_bytes(sheet(pictures, views.cameras.views)))


def _keep(run: Run, t: Teaching) -> None:
    """Save the weights of a probe: one of them is taken in the end."""
    if t.team.leads and isinstance(t.actor, LoraPrior):
        save_lora(t.actor, KEPT, run.folder / "probed" / f"step_{t.step:05d}")


def finish(run: Run, t: Teaching, seconds: float) -> None:
    """Write what a user takes away: the weights in diffusers' format, a picture, and the summary, last of all."""
    notes, step = [], t.step
    if isinstance(t.actor, LoraPrior):
        step = best_step(t.lesson, t.probes)
        chosen = run.folder / "probed" / f"step_{step:05d}" / WEIGHTS
        write_whole(run.folder / "lora" / WEIGHTS, chosen.read_bytes())
        shutil.rmtree(run.folder / "probed", ignore_errors=True)
        result = "lora"
    else:
        save_whole(t.actor, run.folder / "prior")
        result = "prior"
        notes.append("whole weights are those of the last step")
    picture(run, t)
    first, there = t.probes[0], next(p for p in t.probes if p["step"] == step)
    run.write_json(
        "summary.json",
        {
            "result": result,
            "step": step,
            "steps": t.step,
            "stopped": t.stopped,
            "before": first,
            "after": there,
            "skipped_steps": t.skipped,
            "seconds": round(seconds, 2),
            "notes": notes,
        },
    )


@torch.no_grad()
def save_whole(actor: FullPrior, folder: Path) -> None:
    """Write the prior with the kept weights as a folder of its own form."""
    held = dict(actor.prior.named_parameters())
    before = {}
    for key, p in actor.weights(KEPT).items():
        target = held[key.removeprefix("prior.")]
        before[key] = target.clone()
        target.copy_(p)
    try:
        actor.prior.save(folder)
    finally:
        for key, p in before.items():
            held[key.removeprefix("prior.")].copy_(p)
