"""Worlds to ask for things of: held-out prompts, what is false of each, and true objects of what it asks for."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from rl3d.evaluate.metrics import chamfer, f_score
from rl3d.render import mesh
from rl3d.toybox import assemble
from rl3d.toybox.dataset import spec_from_dict
from rl3d.toybox.kinds import KINDS
from rl3d.toybox.language import TOYS, Language
from rl3d.toybox.render import render
from rl3d.toybox.things import Item, Spec
from rl3d.types import Cameras, Views
from rl3d.world import things
from rl3d.world.dataset import assembled, can_be
from rl3d.world.language import RELATIONS, Words
from rl3d.world.nouns import Noun, family
from rl3d.world.render import render_many, triangles
from rl3d.world.shading import Light
from rl3d.world.surface import Surface
from rl3d.world.things import Thing

POINTS = 2000
"""Surface samples of each object, for distances."""

SETS = ("validation", "test")


@dataclass(frozen=True)
class Question:
    """A held-out prompt, and the exact attributes of what it asks for."""

    prompt: str
    spec: Spec
    things: tuple[str, ...] = ()
    """The ids of real objects that were never trained on and are what it asks for, one for each item."""

    @property
    def seed(self) -> int:
        """What is random about how it is examined depends on this alone."""
        return zlib.crc32(self.prompt.encode())


@dataclass(frozen=True)
class Truth:
    """A true object of what is asked for."""

    views: Views
    points: Float[Tensor, "n 3"]
    """Spread over its surface."""


@runtime_checkable
class World(Protocol):
    """Where prompts come from and what is true there."""

    @property
    def name(self) -> str: ...

    @property
    def language(self) -> Language: ...

    def truths(self, question: Question, cameras: Cameras, seed: int, count: int) -> list[Truth]:
        """At most ``count`` true objects of what is asked for, all different, seen by cameras ``[1 v]``."""
        ...

    def front(self, spec: Spec) -> bool:
        """Whether it is known to be one object that looks different from each side."""
        ...

    def untaught(self, spec: Spec) -> str | None:
        """A wording with a noun that no caption of a training has, where there is one."""
        ...


def questions_of(world: World, name: str) -> list[Question]:
    """The held-out prompts of a world: its set "validation", its sealed set "test", or those of a file."""
    path = prompt_set(name, world.name) if name in SETS else Path(name)
    if not path.is_file():
        raise ValueError(f'there is no prompt set {name!r}: name "validation", "test" or a file of JSON lines')
    return read_questions(path)


def prompt_set(name: str, world: str = "toys") -> Path:
    """The file of the "validation" or the sealed "test" prompts of "toys" or "real" objects."""
    package = {"toys": "rl3d.toybox", "real": "rl3d.world"}[world]
    return Path(str(resources.files(package) / "prompts" / f"{name}.txt"))


def read_questions(path: Path) -> list[Question]:
    """Read a prompt set: JSON lines with ``prompt`` and ``spec``, and of real objects perhaps ``things``."""
    questions = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            questions.append(
                Question(record["prompt"], spec_from_dict(record["spec"]), tuple(map(str, record.get("things", ()))))
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}: {error!r}; each line is {{"prompt": ..., "spec": ...}}, as in rl3d/toybox/prompts'
            ) from None
    if not questions:
        raise ValueError(f"{path} holds no prompts")
    return questions


def claims(question: Question, language: Language = TOYS, size: int = 100) -> list[str]:
    """The pool of captions to tell the right one from: that comes first, a fifth are near misses of it; always the same."""
    pool = language.pool(question.spec, np.random.default_rng(question.seed), size=size, near=size // 5)
    return [language.canonical(claim) for claim in pool]


def evenly(questions: Sequence[Question], count: int) -> list[Question]:
    """So many of them, spread evenly from the first to the last; all, if there are no more."""
    return [questions[round(i)] for i in np.linspace(0, len(questions) - 1, min(count, len(questions)))]


@dataclass(frozen=True)
class ToyWorld:
    """The toybox: its objects at evaluation have seeds that no training uses."""

    name: str = "toys"
    language: Language = TOYS

    def truths(self, question: Question, cameras: Cameras, seed: int, count: int) -> list[Truth]:
        toys = [assemble.build(question.spec, np.random.default_rng([seed, i, 0xE7A1])) for i in range(count)]
        return [Truth(render(toy, cameras), surface_points(toy.mesh(), seed)) for toy in toys]

    def front(self, spec: Spec) -> bool:
        return len(spec.items) == 1 and spec.items[0].count == 1 and KINDS[spec.items[0].kind].front

    def untaught(self, spec: Spec) -> str | None:
        return None


@dataclass(frozen=True)
class RealWorld:
    """The real objects of a prepared folder, in plain light. Those that were never trained on are shown first.

    A true object has the noun that is asked for or a narrower one, and can be painted and stretched as it says. Of which of
    them look different from each side nothing is known.
    """

    folder: Path
    name: str = "real"

    @classmethod
    def open(cls, folder: Path) -> RealWorld:
        """Read the folder's lists; a ``ValueError`` says how to make them where they are missing."""
        if not (folder / "things.jsonl").is_file():
            raise ValueError(
                f"the real world's objects are not in {folder}: get them with `rl3d world fetch --out {folder}`, or name the "
                "folder where they are with --objects"
            )
        world = cls(folder)
        _ = world._known
        return world

    @cached_property
    def _known(self) -> tuple[list[Thing], dict[str, Noun]]:
        return things.read(self.folder)

    @property
    def language(self) -> Words:
        return self._words

    @cached_property
    def _words(self) -> Words:
        return Words(self._known[1])

    def truths(self, question: Question, cameras: Cameras, seed: int, count: int) -> list[Truth]:
        surfaces = []
        for i, chosen in enumerate(itertools.islice(self.choices(question), count)):
            surfaces.append(assembled(self.folder, question.spec, chosen, np.random.default_rng([seed, i, 0xE7A1])))
        return [Truth(*pair) for pair in zip(show(surfaces, cameras), seen_points(surfaces, cameras, seed), strict=True)]

    def choices(self, question: Question) -> list[tuple[Thing, ...]]:
        """The objects that can be what is asked for, one for each item: the question's own first, then those that were never
        trained on, then the others.
        """
        known = {thing.id: thing for thing in self._known[0] if thing.kept}
        if lacking := [id for id in question.things if id not in known]:
            raise ValueError(
                f"{self.folder} lacks {', '.join(lacking)}, which the prompt {question.prompt!r} is about: it is not the "
                "folder that the prompts were made for; fetch it anew, or leave `things` out of your prompts"
            )
        if question.spec.relation not in (None, *RELATIONS):
            return []
        own = tuple(known[id] for id in question.things)
        groups = [sorted(self._fitting(item), key=lambda thing: (not thing.held, thing.id)) for item in question.spec.items]
        every = sorted(itertools.product(*groups), key=lambda some: sum(not thing.held for thing in some))
        return [own, *(some for some in every if some != own)] if own else every

    def _fitting(self, item: Item) -> list[Thing]:
        every, nouns = self._known
        return [thing for thing in every if thing.kept and item.kind in family(thing.noun, nouns) and can_be(thing, item)]

    def front(self, spec: Spec) -> bool:
        return False

    def untaught(self, spec: Spec) -> str | None:
        return self.language.in_unseen_words(spec) if spec.relation is None and spec.items[0].count == 1 else None


def show(surfaces: Sequence[Surface], cameras: Cameras) -> list[Views]:
    """Render surfaces from the same cameras ``[1 v]``, in plain light."""
    if not surfaces:
        return []
    shape = (len(surfaces), 1, 1, 1)
    each = Cameras(cameras.cam_from_world.repeat(shape), cameras.intrinsics.repeat(shape), cameras.width, cameras.height)
    rgba = torch.from_numpy(render_many(surfaces, each, [Light()] * len(surfaces))[0]).float() / 255
    return [Views(x[None, ..., :3], x[None, ..., 3:], None, None, cameras) for x in rgba]


def seen_points(surfaces: Sequence[Surface], cameras: Cameras, seed: int) -> list[Float[Tensor, "n 3"]]:
    """Points spread over what the cameras see of each surface: what is inside of a cupboard is no part of its shape."""
    found = []
    for surface in surfaces:
        faces = mesh.rasterize(triangles(surface), cameras, samples=1).face
        seen = surface.faces[np.unique(faces[faces >= 0])]
        found.append(surface_points(trimesh.Trimesh(surface.vertices, seen, process=False), seed))
    return found


def surface_points(shape: Any, seed: int) -> Float[Tensor, "n 3"]:
    """Points spread evenly over a mesh's surface."""
    points, _ = trimesh.sample.sample_surface(shape, POINTS, seed=seed)  # pyright: ignore[reportAssignmentType]
    return torch.from_numpy(np.asarray(points, np.float32))


def surface_errors(shape: Any, truth: Any, *, threshold: float = 0.02, seed: int = 0) -> dict[str, float]:
    """Compare a mesh with the true one: Chamfer distance, and F-score at ``threshold`` (both in world units)."""
    own, true = surface_points(shape, seed), surface_points(truth, seed + 1)
    return {"chamfer": chamfer(own, true), f"f_score_{threshold:g}": f_score(own, true, threshold)}
