"""What algorithms make of the prior in equal time: ``python bench/finetune.py draft nft [--minutes 60] [--prompts 200]``.

Each lesson of ``configs/finetune/`` teaches the embedded prior for so many minutes, or until it stops itself, with the encoder
as its reward unless ``--own-rewards``. Then held-out prompts are drawn, several times each, from the base and from the taught
prior, with the same noise, and a line of JSON is written for each lesson and seed. What is there is not done again: a lesson
that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from rl3d.cameras import Orbit
from rl3d.evaluate.metrics import bootstrap_interval, frechet, rank, spread
from rl3d.evaluate.worlds import Question, prompt_set, read_questions
from rl3d.finetune import KEPT, Team, begin, finetune, restore, state
from rl3d.lesson import Lesson, lesson_file, load_lesson
from rl3d.priors.sampling import Streams, sample_views
from rl3d.protocols import Prior
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.rewards.consistency import Refit
from rl3d.run import Run
from rl3d.toybox import grammar, pools
from rl3d.types import Prompt, Views


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
    """Samples of a prompt."""
    seeds: tuple[int, ...] = (0, 1, 2)
    guidance: float = 3.0
    steps: int = 16
    rescale: float = 0.5
    batch: int = 12
    """Prompts that are drawn at a time."""
    consistency: int = 24
    """Prompts of which a sample is lifted, to see whether its views agree."""
    own_rewards: bool = False
    """Let each lesson follow its own rewards, not the encoder alone."""
    out: Path = Path("runs/bench-finetune")


def taught(s: Settings, name: str, seed: int) -> tuple[object, dict]:
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
    before, clock = (saved[1]["seconds"] if saved else 0.0), time.monotonic()
    asked = last = 0.0

    def seconds() -> float:
        return before + time.monotonic() - clock

    def save() -> None:
        tensors, plain = state(t)
        run.save(tensors, plain | {"seconds": seconds()})

    if seconds() < 60 * s.minutes:
        for one in finetune(t):
            run.log({"step": one.step, "seconds": round(seconds(), 2), "told": one.told, "probe": one.probe})
            if (now := seconds()) - last > 30:
                save()
                last = now
            if now >= 60 * s.minutes:
                break
        save()
    group = getattr(lesson.algorithm, "group", 1)
    asked = t.step * lesson.batch * group
    return t, {"steps": t.step, "samples": asked, "seconds": round(seconds(), 1), "stopped": t.stopped}


@torch.no_grad()
def measured(s: Settings, prior: Prior, models: dict[str, ClipReward], questions: list[Question]) -> dict[str, list]:
    """Each held-out prompt's scores, and the judge's embeddings of its samples: ``[each d]`` for each prompt."""
    cameras = Orbit(4, 20.0, 15.0, size=prior.info.size).cameras()
    refit = Refit(steps=40).build()
    found: dict[str, list] = {"reward": [], "judge_r1": [], "diversity": [], "features": [], "consistency": []}
    for start in range(0, len(questions), s.batch):
        some = questions[start : start + s.batch]
        prompts = [Prompt(q.prompt) for q in some for _ in range(s.each)]
        rng = Streams((0, 20), range(start, start + len(some)))
        options = {"steps": s.steps, "guidance": s.guidance, "rescale": s.rescale}
        views = sample_views(prior, prompts, cameras, rng=rng, **options)
        reward = models["encoder"].score(views, prompts).value.view(-1, s.each)
        seen = models["judge"].embed_views(views, background=0.8).unflatten(0, (-1, s.each))
        for i, question in enumerate(some):
            pool = pools.pool(question.spec, np.random.default_rng(zlib.crc32(question.prompt.encode())), size=100, near=20)
            texts = models["judge"].embed_text([grammar.canonical(spec) for spec in pool])
            found["judge_r1"].append(float(np.mean([rank(one, texts) == 0 for one in seen[i]])))
            found["reward"].append(float(reward[i].mean()))
            features = torch.nn.functional.normalize(seen[i].mean(1), dim=-1)
            found["diversity"].append(spread(features))
            found["features"].append(features)
            if start + i < s.consistency:
                one: Views = views.sample(i * s.each)
                found["consistency"].append(float(refit.score(one, prompts[:1]).value[0]))
    return found


def row(name: str, seed: int, base: dict[str, list], now: dict[str, list], price: dict) -> dict:
    """One line: before, after, and the paired interval of the judge's change."""
    gain = torch.tensor(now["judge_r1"]) - torch.tensor(base["judge_r1"])
    told: dict = {"lesson": name, "seed": seed, "prompts": len(gain)}
    for key in ("reward", "judge_r1", "diversity", "consistency"):
        told |= {f"{key}_before": float(np.nanmean(base[key])), f"{key}_after": float(np.nanmean(now[key]))}
    told["judge_r1_gain_95"] = bootstrap_interval(gain)
    told["distance_to_base"] = frechet(torch.cat(base["features"]), torch.cat(now["features"]))
    return told | price


def table(rows: list[dict]) -> str:
    """Rows as text."""
    lines = [
        f"{'lesson':14}{'seed':>5}{'reward':>16}{'judge R@1':>16}{'95 % of gain':>18}{'diversity':>16}{'FD':>8}"
        f"{'consistency':>18}{'samples':>9}{'min':>7}"
    ]
    for r in rows:
        pairs = {key: f"{r[key + '_before']:.3f} {r[key + '_after']:.3f}" for key in ("reward", "diversity", "consistency")}
        judge = f"{r['judge_r1_before']:.1%} {r['judge_r1_after']:.1%}"
        low, high = r["judge_r1_gain_95"]
        lines.append(
            f"{r['lesson']:14}{r['seed']:5}{pairs['reward']:>16}{judge:>16}{f'{low:+.1%} {high:+.1%}':>18}"
            f"{pairs['diversity']:>16}{r['distance_to_base']:8.4f}{pairs['consistency']:>18}{r['samples']:9}"
            f"{r['seconds'] / 60:7.1f}"
        )
    return "\n".join(lines)


def main(s: Settings) -> None:
    if not s.lessons:
        raise SystemExit("say which lessons to compare, for example: draft nft flow_grpo")
    s.out.mkdir(parents=True, exist_ok=True)
    path, key = s.out / "rows.jsonl", {"minutes": s.minutes, "prompts": s.prompts, "each": s.each, "guidance": s.guidance}
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    rows = [r for r in rows if r["settings"] == key]
    questions = read_questions(prompt_set("validation"))[: s.prompts]
    models = {"encoder": Clip().build(), "judge": Clip("judge").build()}
    base = None
    for seed in s.seeds:
        for name in s.lessons:
            stem = Path(name).stem
            if any(r["lesson"] == stem and r["seed"] == seed for r in rows):
                continue
            t, price = taught(s, name, seed)
            if base is None:
                base = measured(s, t.actor.using("reference"), models, questions)
            rows.append(row(stem, seed, base, measured(s, t.actor.using(KEPT), models, questions), price) | {"settings": key})
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(table(rows[-1:]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
