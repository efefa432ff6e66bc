"""What algorithms make of the prior in equal time: ``python bench/finetune.py draft nft [--minutes 60] [--prompts 200]``.

Each lesson of ``configs/finetune/`` teaches the embedded prior for so many minutes, or until it stops itself, with the encoder
as its reward unless ``--own-rewards``. Then held-out prompts are drawn, several times each, from the base and from the taught
prior, with the same noise. A lesson must beat what the base can do for the same price at inference, so both are measured plain,
with the guidance that the encoder likes best on other prompts, and with the encoder choosing among the samples.

A line of JSON is written for each lesson and seed, and a figure for each of what lessons were watched by. What is there is not
done again: a lesson that was cut off goes on from its checkpoint, and the base is measured once for each set of weights.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import safetensors.torch
import torch
import tyro
from torch import Tensor, nn

from rl3d.cameras import Orbit
from rl3d.evaluate.metrics import bootstrap_interval, frechet, rank, spread
from rl3d.evaluate.worlds import Question, claims, prompt_set, read_questions
from rl3d.files import append_record, read_records, write_whole
from rl3d.finetune import KEPT, Teaching, begin, finetune, look, restore, state
from rl3d.lesson import Lesson, Toys, lesson_file, load_lesson
from rl3d.priors.sampling import Streams, sample_views
from rl3d.protocols import REFERENCE, Prior
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.rewards.consistency import Refit
from rl3d.run import Run
from rl3d.team import Team
from rl3d.types import Prompt, Views

WAYS = {"plain": "one sample", "tuned": "one, best guidance", "best": "the best of all"}
"""Of drawing, each at one price for base and taught: what the encoder chooses costs as many samples as there are."""


@dataclass(frozen=True)
class Settings:
    """What to compare and how."""

    lessons: tyro.conf.Positional[tuple[str, ...]]
    """Names, or files."""
    minutes: float = 60.0
    """Of teaching, for each lesson and seed."""
    prompts: int = 200
    """Held-out ones, of the validation set."""
    each: int = 2
    """Samples of a prompt, among which the encoder chooses."""
    seeds: tuple[int, ...] = (0, 1, 2)
    guidance: float = 3.0
    guidances: tuple[float, ...] = (2.0, 3.0, 5.0)
    """Among which it is tuned."""
    tune: int = 24
    """Prompts to tune it by, of the train split."""
    steps: int = 16
    rescale: float = 0.5
    guided: float = 0.5
    """The part of the steps that guidance is for: all of them leave speckle, and a lesson would be praised for its removal."""
    batch: int = 12
    """Prompts that are drawn at a time."""
    consistency: int = 24
    """Prompts of which a sample is lifted, to see whether its views agree."""
    own_rewards: bool = False
    """Let each lesson follow its own rewards, not the encoder alone."""
    out: Path = Path("runs/bench-finetune")

    @property
    def drawn(self) -> dict[str, Any]:
        """All that a measurement depends on, beside the weights."""
        kept = ("prompts", "each", "guidance", "guidances", "tune", "steps", "rescale", "guided", "batch", "consistency")
        return json.loads(json.dumps({key: value for key, value in asdict(self).items() if key in kept}))


def taught(s: Settings, name: str, seed: int) -> tuple[Teaching, dict[str, Any]]:
    """Teach, or go on teaching, until the time is up; the trained state and what it took."""
    lesson: Lesson = load_lesson(lesson_file(name))
    if not s.own_rewards:
        lesson = replace(lesson, rewards={"encoder": Clip()}, weights={})
    # Time ends it, not the number of steps; probes cost time too, and so belong to the price.
    lesson = replace(lesson, steps=10**6)
    run, team = Run(s.out / f"{Path(name).stem}-{seed}"), Team()
    run.folder.mkdir(parents=True, exist_ok=True)
    saved = run.load()
    t = restore(lesson, *saved, team=team) if saved else begin(lesson, seed=seed, team=team)
    run.cut_metrics(t.step if saved else -1)
    before, clock = (saved[1]["seconds"] if saved else 0.0), time.monotonic()
    last = 0.0

    def seconds() -> float:
        return before + time.monotonic() - clock

    def save() -> None:
        tensors, plain = state(t)
        run.save(tensors, plain | {"seconds": seconds()})

    if not t.probes:
        t.probes.append(look(t))
        run.log({"step": 0, "seconds": round(seconds(), 2), "told": {}, "probe": t.probes[0]})
    if seconds() < 60 * s.minutes:
        for one in finetune(t):
            run.log({"step": one.step, "seconds": round(seconds(), 2), "told": one.told, "probe": one.probe})
            if (now := seconds()) - last > 30:
                save()
                last = now
            if now >= 60 * s.minutes:
                break
        save()
    samples = t.step * lesson.batch * getattr(lesson.algorithm, "group", 1)
    return t, {"steps": t.step, "samples": samples, "seconds": round(seconds(), 1), "stopped": t.stopped}


def draw(s: Settings, prior: Prior, prompts: Sequence[Prompt], guidance: float, start: int, key: int = 20) -> Views:
    """Samples of each prompt in a row; their noise depends on ``key`` and on the prompts' numbers, from ``start`` on, alone."""
    cameras = Orbit(4, 20.0, 15.0, size=prior.info.size).cameras()
    rng = Streams((0, key), range(start, start + len(prompts)))
    many = [prompt for prompt in prompts for _ in range(s.each)]
    return sample_views(prior, many, cameras, steps=s.steps, guidance=guidance, rescale=s.rescale, guided=s.guided, rng=rng)


@torch.no_grad()
def tuned(s: Settings, prior: Prior, encoder: ClipReward) -> float:
    """The guidance whose samples the encoder likes best, on prompts of the train split."""
    prompts, liked = Toys().draw(2**40, 0, s.tune), {}
    for guidance in s.guidances:
        found = []
        for i in range(0, len(prompts), s.batch):
            some = prompts[i : i + s.batch]
            views = draw(s, prior, some, guidance, i, key=21)
            found.append(encoder.score(views, [prompt for prompt in some for _ in range(s.each)]).value)
        liked[guidance] = float(torch.cat(found).mean())
    return max(liked, key=lambda guidance: liked[guidance])


@torch.no_grad()
def asked(
    s: Settings, prior: Prior, models: Mapping[str, ClipReward], questions: Sequence[Question], guidance: float, lifted: int = 0
) -> dict[str, Tensor]:
    """What is thought of each held-out prompt's samples, ``[n each]``; the judge's features; and how far the first are of one
    object.
    """
    found: dict[str, list[Tensor]] = {"reward": [], "hit": [], "features": [], "consistency": []}
    refit = Refit(steps=40).build()
    for start in range(0, len(questions), s.batch):
        some = questions[start : start + s.batch]
        prompts = [Prompt(q.prompt) for q in some]
        views = draw(s, prior, prompts, guidance, start)
        many = [prompt for prompt in prompts for _ in range(s.each)]
        found["reward"].append(models["encoder"].score(views, many).value.view(-1, s.each))
        seen = models["judge"].embed_views(views, background=0.8).unflatten(0, (-1, s.each))
        found["features"].append(nn.functional.normalize(seen.mean(2), dim=-1))
        for i, question in enumerate(some):
            texts = models["judge"].embed_text(claims(question))
            found["hit"].append(torch.tensor([[float(rank(one, texts) == 0) for one in seen[i]]]))
            if start + i < lifted:
                found["consistency"].append(refit.score(views.sample(i * s.each), prompts[i : i + 1]).value)
    return {name: torch.cat(parts) for name, parts in found.items() if parts}


def measured(s: Settings, prior: Prior, models: Mapping[str, ClipReward], questions: Sequence[Question]) -> dict[str, Tensor]:
    """Of each held-out prompt: the judge's R@1 in each way of drawing, and what else is compared."""
    plain, guidance = asked(s, prior, models, questions, s.guidance, s.consistency), tuned(s, prior, models["encoder"])
    best = plain if guidance == s.guidance else asked(s, prior, models, questions, guidance)
    return {
        "judge_r1.plain": plain["hit"].mean(1),
        "judge_r1.tuned": best["hit"].mean(1),
        "judge_r1.best": chosen(plain["hit"], plain["reward"]),
        "reward": plain["reward"].mean(1),
        "diversity": torch.tensor([spread(features) for features in plain["features"]]),
        "features": plain["features"].flatten(0, 1),
        "guidance": torch.tensor([guidance]),
    } | ({"consistency": plain["consistency"]} if "consistency" in plain else {})


def chosen(value: Tensor, by: Tensor) -> Tensor:
    """Of each row, the value of the sample that is best by another measure."""
    return value.gather(1, by.argmax(1, keepdim=True))[:, 0]


def checksum(*modules: nn.Module, settings: Mapping[str, Any]) -> str:
    """A name for weights and settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for module in modules:
        for name, x in sorted(module.state_dict().items()):
            digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
            digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def kept(path: Path, measure) -> dict[str, Tensor]:
    """What was measured before, or else is now, and kept."""
    if not path.is_file():
        write_whole(path, safetensors.torch.save({name: x.contiguous() for name, x in measure().items()}))
    return safetensors.torch.load_file(path)


def compared(base: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Any]:
    """Means before and after, and each prompt's gain in each way of drawing."""
    told: dict[str, Any] = {}
    for key in ("reward", "diversity", "consistency", "guidance", *(f"judge_r1.{way}" for way in WAYS)):
        if key in base:
            told |= {f"{key}_before": float(base[key].nanmean()), f"{key}_after": float(now[key].nanmean())}
    told["gains"] = {way: (now[f"judge_r1.{way}"] - base[f"judge_r1.{way}"]).tolist() for way in WAYS}
    return told | {"distance_to_base": frechet(base["features"], now["features"])}


def interval(rows: Sequence[Mapping[str, Any]], way: str) -> tuple[float, float]:
    """95 % of the mean gain over prompts, each with the mean of its seeds: one prompt's seeds are no independent evidence."""
    return bootstrap_interval(torch.tensor([r["gains"][way] for r in rows]).mean(0))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each lesson, over its seeds."""
    by: dict[str, list[Mapping[str, Any]]] = {}
    for r in rows:
        by.setdefault(r["lesson"], []).append(r)
    ways = "".join(f"{f'judge R@1, {what}':>36}" for what in WAYS.values())
    end = f"{'diversity':>12}{'FD':>8}{'consistency':>14}{'samples':>9}{'min':>7}"
    lines = [f"{'lesson':14}{'seeds':>6}{'reward':>14}{ways}{end}"]
    for name, some in by.items():
        mean = {key: float(np.mean([r[key] for r in some])) for key, value in some[0].items() if isinstance(value, float | int)}

        def pair(key: str, form: str, mean=mean) -> str:
            before, after = mean.get(f"{key}_before"), mean.get(f"{key}_after")
            return "-" if before is None or after is None else f"{before:{form}} {after:{form}}"

        cells = [f"{name:14}{len(some):6}{pair('reward', '.3f'):>14}"]
        for way in WAYS:
            low, high = interval(some, way)
            cells.append(f"{pair(f'judge_r1.{way}', '.1%') + f' [{low:+.1%} {high:+.1%}]':>36}")
        cells.append(f"{pair('diversity', '.2f'):>12}{mean['distance_to_base']:8.4f}{pair('consistency', '.3f'):>14}")
        lines.append("".join(cells) + f"{mean['samples']:9.0f}{mean['seconds'] / 60:7.1f}")
    return "\n".join(lines)


def curves(s: Settings, stems: Sequence[str]) -> list[Path]:
    """Draw what each lesson's probes said against minutes, a line for each seed: one figure for each of what was watched."""
    written = []
    colours = plt.get_cmap("tab10" if len(stems) <= 10 else "tab20")
    for key, label in (("reward", "reward, of prompts of the train split"), ("guard/judge", "judge's score, same samples")):
        figure, axis = plt.subplots(figsize=(8, 5))
        for i, stem in enumerate(stems):
            for j, seed in enumerate(s.seeds):
                probes = [r for r in Run(s.out / f"{stem}-{seed}").metrics() if (r.get("probe") or {}).get(key) is not None]
                across, up = [r["seconds"] / 60 for r in probes], [r["probe"][key] for r in probes]
                look_of = {"color": colours(i), "alpha": 0.5 if j else 1.0, "label": None if j else stem, "markersize": 3}
                axis.plot(across, up, "o-", **look_of)
        axis.set(xlabel="minutes", ylabel=label)
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.tight_layout()
        written.append(s.out / f"curves_{key.rpartition('/')[2]}.png")
        figure.savefig(written[-1], dpi=120)
        plt.close(figure)
    return written


def main(s: Settings) -> None:
    if not s.lessons:
        raise SystemExit("say which lessons to compare, for example: draft nft flow_grpo")
    s.out.mkdir(parents=True, exist_ok=True)
    questions = read_questions(prompt_set("validation"))[: s.prompts]
    models = {"encoder": Clip().build(), "judge": Clip("judge").build()}
    path, stems = s.out / "rows.jsonl", [Path(name).stem for name in s.lessons]
    rows = read_records(path)
    found = []
    for seed in s.seeds:
        for name, stem in zip(s.lessons, stems, strict=True):
            prior = load_lesson(lesson_file(name)).prior.build()
            mark = checksum(prior, *models.values(), settings=s.drawn)
            same = {"lesson": stem, "seed": seed, "base": mark, "minutes": s.minutes, "own_rewards": s.own_rewards}
            done = next((r for r in rows if r.items() >= same.items()), None)
            if done is None:
                t, price = taught(s, name, seed)
                at = s.out / f"base-{mark}.safetensors"
                base = kept(at, lambda t=t: measured(s, t.actor.using(REFERENCE), models, questions))
                done = same | price | compared(base, measured(s, t.actor.using(KEPT), models, questions))
                rows.append(done)
                append_record(path, done)
                print(table([done]), flush=True)
            found.append(done)
    print(table(found))
    print(*curves(s, stems), sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
