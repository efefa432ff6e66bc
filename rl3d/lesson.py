"""Lessons: how a prior is taught, as one value. ``configs/finetune/*.py`` hold one each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from rl3d.algorithms.common import Algorithm
from rl3d.cameras import RandomOrbit
from rl3d.evaluate.worlds import prompt_set, read_questions
from rl3d.priors.embedded import Embedded
from rl3d.priors.lora import Full, Lora
from rl3d.priors.sampling import seed_from
from rl3d.protocols import RewardPart
from rl3d.recipe import Paper, beside, load_value, recipe_file
from rl3d.rewards.clip import Clip
from rl3d.rewards.guards import Area, Sharpness
from rl3d.scene import read_prompts
from rl3d.toybox import grammar
from rl3d.types import Prompt


@runtime_checkable
class Source(Protocol):
    """A value that says what a prior is taught with."""

    def draw(self, seed: int, step: int, count: int) -> list[Prompt]:
        """The prompts of a step, all different; the same for the same numbers, whoever asks."""
        ...


@dataclass(frozen=True)
class Toys:
    """Captions of random toys, of the train split only: what is held out stays unseen."""

    rich: bool = False
    """More of what is hard: second colours, counts, relations."""

    def draw(self, seed: int, step: int, count: int) -> list[Prompt]:
        rng = np.random.default_rng([seed % 2**63, step])
        shares = grammar.RICH if self.rich else grammar.SHARES
        found: dict[str, None] = {}
        while len(found) < count:
            found[grammar.caption(grammar.sample(rng, "train", shares), rng)] = None
        return [Prompt(text) for text in found]


@dataclass(frozen=True)
class Listed:
    """Given prompts, as ``rl3d generate`` takes them: prompts, scenes, .txt files, folders of scenes (with a / at the end).

    They are gone through in a random order, which is another one each time.
    """

    names: tuple[str, ...]

    def draw(self, seed: int, step: int, count: int) -> list[Prompt]:
        """Raise ``ValueError`` where there are too few, or where some are held out to evaluate with."""
        prompts = list(dict.fromkeys(read_prompts(self.names)))
        if len(prompts) < count:
            raise ValueError(f"a step takes {count} different prompts and there are {len(prompts)}: add some, or lower --batch")
        if held := [p.text for p in prompts if p.text in _held_out()]:
            raise ValueError(
                f"{held[0]!r} is held out to evaluate with ({len(held)} prompts in all): leave out what is measured by"
            )
        # Steps of one pass never share a prompt; what is left of a pass that does not divide is left out of it.
        each_pass = len(prompts) // count
        order = np.random.default_rng([seed % 2**63, step // each_pass]).permutation(len(prompts))
        first = step % each_pass * count
        return [prompts[i] for i in order[first : first + count]]


@cache
def _held_out() -> frozenset[str]:
    """What evaluation asks: never to be taught with."""
    return frozenset(q.prompt for name in ("validation", "test") for q in read_questions(prompt_set(name)))


@dataclass(frozen=True)
class Probe:
    """How it is watched: the same prompts, with the same noise, each time. They are drawn like those that teach."""

    every: int = 20
    """Steps."""
    prompts: int = 12
    steps: int = 12
    guidance: float = 3.0
    rescale: float = 0.5
    guards: dict[str, RewardPart] = field(
        default_factory=lambda: {"judge": Clip("judge"), "sharpness": Sharpness(), "area": Area()}
    )
    """What is logged and never optimised."""
    watched: tuple[str, ...] = ("judge", "sharpness")
    """The guards whose fall while the reward rises stops the lesson."""
    patience: int | None = 8
    """Probes without a new best of the reward before it stops; None never does."""
    window: int = 3
    """Probes in an average, where it is asked whether a guard has fallen."""
    pictures_s: float = 60.0
    """Seconds between pictures of samples."""

    def __post_init__(self):
        if self.every < 1 or self.prompts < 1 or self.steps < 1 or self.window < 1:
            raise ValueError("a probe needs at least 1 step between, 1 prompt, 1 sampling step and a window of 1")
        if strange := set(self.watched) - set(self.guards):
            raise ValueError(f"there is no guard {', '.join(sorted(strange))} to watch: there are {', '.join(self.guards)}")


@dataclass(frozen=True)
class Lesson:
    """How a prior is taught with rewards. Every number in it is a flag of ``rl3d finetune``."""

    algorithm: Algorithm
    about: str = ""
    """One line for people."""
    rewards: dict[str, RewardPart] = field(default_factory=lambda: {"encoder": Clip()})
    weights: dict[str, float] = field(default_factory=dict)
    """Of rewards; 1 for those not named."""
    prior: Embedded = field(default_factory=lambda: Embedded(dtype="float32"))
    """In float32: ratios of policies drown in the rounding of anything less."""
    adapt: Lora | Full = field(default_factory=Lora)
    """What learns."""
    prompts: Source = field(default_factory=Toys)
    rig: RandomOrbit = field(default_factory=RandomOrbit)
    """The cameras of each prompt."""
    batch: int = 8
    """Prompts in a step; each is repeated as often as the algorithm's group is large."""
    unit: int = 4
    """Prompts that are worked on at a time; gradients of a step's units are averaged, and units are shared by processes."""
    updates: int = 1
    """Of the weights for what one step has collected."""
    steps: int = 200
    rate: float = 1e-4
    """AdamW's."""
    warmup: int = 5
    """Updates over which the rate rises."""
    decay: float = 0.0
    """Of weights."""
    clip: float = 1.0
    """The largest norm of a gradient."""
    ema: float = 0.9
    """The part of itself that the running mean of the weights keeps in an update. That mean is what is kept in the end."""
    mixed: Literal["no", "bf16", "fastest"] = "no"
    """Precision of the computation; with bf16 ratios of policies are rough, and clips of 1e-4 mean nothing. "fastest" is bf16
    where a probe at the start finds it faster."""
    probe: Probe = field(default_factory=Probe)
    patience: int = 10
    """Steps in a row that may be skipped for values that are not finite."""
    paper: Paper | None = None

    def __post_init__(self):
        if min(self.batch, self.unit, self.updates, self.steps) < 1:
            raise ValueError("a lesson needs at least 1 step, 1 update, and 1 prompt in its batch and in its unit")
        if self.batch % self.unit:
            raise ValueError(f"a batch of {self.batch} prompts cannot be cut into units of {self.unit}: take a divisor")
        if not self.rewards:
            raise ValueError("a lesson needs at least one reward")
        if strange := set(self.weights) - set(self.rewards):
            raise ValueError(f"there is no reward {', '.join(sorted(strange))} to weigh: there are {', '.join(self.rewards)}")
        if self.rate <= 0 or self.clip <= 0 or not 0 <= self.ema < 1:
            raise ValueError("the rate and the clip must be positive, and ema in [0, 1)")

    @property
    def units(self) -> int:
        """In a step."""
        return self.batch // self.unit

    def asked(self, seed: int, step: int) -> list[Prompt]:
        """The prompts of a step."""
        return self.prompts.draw(seed, step, self.batch)

    def probed(self, seed: int) -> list[Prompt]:
        """The prompts that it is watched with: those of a step that never comes."""
        count = self.probe.prompts
        if isinstance(self.prompts, Listed):
            count = min(count, len(dict.fromkeys(read_prompts(self.prompts.names))))
        return self.prompts.draw(seed_from(seed, 1), 2**31, count)


def lesson_file(name: str) -> Path:
    """Find a lesson by its name in ``configs/finetune/``, or by a path to a Python file."""
    path = Path(name) if name.endswith(".py") else _folder() / f"{name}.py"
    if not path.is_file():
        known = ", ".join(p.stem for p in lesson_files())
        raise ValueError(
            f"there is no lesson {name!r}: name one of {known}, or a path to a .py file that holds `recipe = Lesson(...)`"
        )
    return path


def lesson_files() -> list[Path]:
    """The lessons in ``configs/finetune/``, by name."""
    return sorted(_folder().glob("[!_]*.py"))


def _folder() -> Path:
    return recipe_file("default").parent / "finetune"


def load_lesson(path: Path) -> Lesson:
    """Run a lesson's file and take its ``recipe``."""
    return load_value(path, Lesson)


def compared(lesson: Lesson) -> str:
    """A lesson's settings beside its paper's, and its departures, as text."""
    return "\n".join([lesson.about, *beside(lesson, lesson.paper)])


def with_names(lesson: Lesson, names: Sequence[str]) -> Lesson:
    """The lesson with given prompts in place of its own."""
    return dataclasses.replace(lesson, prompts=Listed(tuple(names))) if names else lesson


def generator(*numbers: int) -> torch.Generator:
    """A generator that depends on these numbers alone."""
    return torch.Generator().manual_seed(seed_from(*numbers))
