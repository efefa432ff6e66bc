"""How early a sample shows what it will be: ``python bench/early.py [--prompts 48] [--each 16]``.

Draws many samples of each validation prompt, and asks the encoder what it thinks of their clean predictions on the way. Were
the best of several chosen after so many steps, what would become of it? That is compared with choosing among finished ones, by
the encoder's own score, and by judge and encoder, who rank the right caption in the prompt's hard pool. All groups of a
prompt's samples count. Rows go to a file of JSON lines as they come; a second call does what is missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from rl3d.cameras import Orbit
from rl3d.evaluate.metrics import rank
from rl3d.evaluate.worlds import Question, claims, prompt_set, read_questions
from rl3d.files import append_record, read_records
from rl3d.priors.embedded import Embedded
from rl3d.priors.sampling import Streams, asked, draw_noise, for_each, levels, shown, walk
from rl3d.protocols import Prior
from rl3d.rewards.clip import Clip, ClipReward
from rl3d.types import Prompt


@dataclass(frozen=True)
class Settings:
    """What to draw and how."""

    prompts: int = 48
    each: int = 16
    """Samples of a prompt."""
    groups: tuple[int, ...] = (2, 4, 8, 16)
    """Of how many to choose the best."""
    steps: int = 16
    looks: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 16)
    """Steps after which the encoder is asked."""
    guidance: float = 3.0
    rescale: float = 0.5
    guided: float = 0.5
    views: int = 4
    elevation_deg: float = 20.0
    lora: str = ""
    rows: Path = Path("bench/results/early.jsonl")

    @property
    def drawn(self) -> dict[str, Any]:
        """All that a row depends on, beside the prompt and the models."""
        kept = ("each", "steps", "looks", "guidance", "rescale", "guided", "views", "elevation_deg", "lora")
        return json.loads(json.dumps({key: value for key, value in asdict(self).items() if key in kept}, default=str))


@torch.no_grad()
def followed(s: Settings, number: int, question: Question, prior: Prior, models: dict[str, ClipReward]) -> dict[str, Any]:
    """Draw one prompt's samples, with what was thought of them."""
    prompts = [Prompt(question.prompt)] * s.each
    size, channels = prior.info.size, prior.info.channels
    cameras = for_each(prompts, Orbit(s.views, s.elevation_deg, 15.0, size=size).cameras())
    rng = Streams((0, 33), range(number * s.each, (number + 1) * s.each))
    noise = draw_noise((s.each, s.views, channels, size, size), rng, torch.device("cpu"))
    predict, liked = asked(prior, prompts, cameras, s.guidance, s.rescale, s.guided), {}
    for i, (_, clean) in enumerate(walk(predict, noise, levels(s.steps)), 1):
        if i in s.looks:
            liked[str(i)] = numbers(models["encoder"].score(shown(prior, clean, cameras), prompts).value)
    views = shown(prior, clean, cameras)  # of the last step, which is the sample
    captions, hits = claims(question), {}
    for name, model in models.items():
        texts = model.embed_text(captions)
        hits[name] = [int(rank(one, texts) == 0) for one in model.embed_views(views, background=0.8)]
    return {
        "prompt": question.prompt,
        **s.drawn,
        "liked": liked,
        "hits": hits,
        "judge": numbers(models["judge"].score(views, prompts).value),
    }


def numbers(x: torch.Tensor) -> list[float]:
    return [round(float(value), 4) for value in x]


def chosen(row: dict[str, Any], group: int, look: str) -> list[int]:
    """The sample that the encoder liked best at a look, of each group."""
    liked = row["liked"][look]
    return [max(range(g, g + group), key=liked.__getitem__) for g in range(0, len(liked) - group + 1, group)]


def table(rows: list[dict[str, Any]], groups: tuple[int, ...]) -> str:
    """A line for each number of samples and each look."""
    lines = [f"{'chosen':24}{'judge R@1':>11}{'encoder R@1':>13}{'judge':>9}{'encoder':>9}"]
    last = list(rows[0]["liked"])[-1]
    for group in groups:
        for look in rows[0]["liked"]:
            picks = [(row, i) for row in rows for i in chosen(row, group, look)]
            judge, encoder = (np.mean([row["hits"][who][i] for row, i in picks]) for who in ("judge", "encoder"))
            scores = np.mean([(row["judge"][i], row["liked"][last][i]) for row, i in picks], 0)
            lines.append(
                f"{f'best of {group} after {look}':24}{judge:11.1%}{encoder:13.1%}" + "".join(f"{x:9.4f}" for x in scores)
            )
    return "\n".join(lines)


def main(s: Settings) -> None:
    prior = Embedded(lora=s.lora).build()
    models = {"encoder": Clip().build(), "judge": Clip("judge").build()}
    rows = {row["prompt"]: row for row in read_records(s.rows) if row.items() >= s.drawn.items()}
    questions = read_questions(prompt_set("validation"))[: s.prompts]
    for number, question in enumerate(questions):
        if question.prompt not in rows:
            rows[question.prompt] = followed(s, number, question, prior, models)
            append_record(s.rows, rows[question.prompt])
    print(f"{len(questions)} prompts, {s.each} samples of each")
    print(table([rows[question.prompt] for question in questions], s.groups))


if __name__ == "__main__":
    main(tyro.cli(Settings))
