"""Recipes: how something is made, as one value. ``configs/*.py`` hold one each."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from rl3d.cameras import Orbit, Poses, RandomOrbit, Rig
from rl3d.cards import CARDS
from rl3d.hub import cached
from rl3d.priors.embedded import Embedded
from rl3d.priors.need import need_here
from rl3d.priors.pictures import refuse_image
from rl3d.priors.pretrained import Pretrained
from rl3d.priors.zero123plus import Zero123Plus
from rl3d.protocols import PriorInfo, RewardPart, Term
from rl3d.representations.densify import Prune
from rl3d.representations.gaussians import Gaussians
from rl3d.representations.mesh import Mesh
from rl3d.representations.nerf import Nerf
from rl3d.rewards.clip import Clip
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.start import Ball, Draw, FromFile, FromMesh, Hull, Renders, Start
from rl3d.start import beside as made_of
from rl3d.terms.match import Match
from rl3d.tutor import Teach
from rl3d.types import Prompt

T = TypeVar("T")


@dataclass(frozen=True)
class Paper:
    """What a recipe follows, and where it does not."""

    title: str
    url: str
    settings: dict[str, str] = field(default_factory=dict)
    """What the paper or its code has, by the setting's place in the recipe ("terms.distill.guidance")."""
    departures: tuple[str, ...] = ()
    """What else differs, a sentence each."""


@dataclass(frozen=True)
class BestOf:
    """Several scenes side by side, from different drawn views; the weak ones are dropped early: successive halving.

    Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", with the reward as the
    measure, at even distances until one is left at ``until``. All see the same random numbers, so that what is compared is
    the scenes and not their luck, and their predictions share a batch.
    """

    seeds: int = 4
    until: float = 0.4
    """Progress in (0, 1) at which one scene is left."""
    reward: RewardPart = field(default_factory=Clip)
    """Any reward of views, or of scenes made of Gaussians; never the judge."""
    rig: Rig = field(default_factory=lambda: Orbit(views=8, elevation_deg=15.0))
    """What it is shown."""

    def __post_init__(self):
        if self.seeds < 2 or not 0 < self.until < 1:
            raise ValueError(f"a search needs at least 2 seeds and 0 < until < 1; got {self.seeds} and {self.until}")

    def cuts(self, steps: int) -> dict[int, int]:
        """How many scenes are left after which step."""
        rounds = math.ceil(math.log2(self.seeds))
        left = self.seeds
        found = {}
        for i in range(rounds):
            left = math.ceil(left / 2)
            found[max(i + 1, round(self.until * steps * (i + 1) / rounds))] = left
        return found

    def scenes_a_step(self, steps: int) -> float:
        """How many scenes are at work in a step, on average over the run."""
        alive, total, cuts = self.seeds, 0, self.cuts(steps)
        for step in range(1, steps + 1):
            total += alive
            alive = cuts.get(step, alive)
        return total / steps


@dataclass(frozen=True)
class Watch:
    """How a run looks at itself on the way: what its rewards and guards say from the same sides every so many steps.

    It is reported when a reward rises while guards fall: both in averages over ``window`` looks, by ``certainty`` standard
    errors, and the guard by at least the fraction ``least`` of its best (:func:`rl3d.rewards.guards.alarm`). "stop" then ends
    the run there; "roll back" ends it with the scene as it was when the guards were at their best.
    """

    every: int = 10
    """Steps between looks; 0 never looks."""
    window: int = 3
    certainty: float = 3.0
    least: float = 0.05
    then: Literal["warn", "stop", "roll back"] = "warn"
    rig: Rig = field(default_factory=lambda: Orbit(views=4, elevation_deg=15.0, start_deg=45.0))
    """From where; a random rig stands where it first stood."""

    def __post_init__(self):
        if self.every < 0 or self.window < 1 or self.certainty < 0 or self.least < 0:
            got = f"every {self.every}, window {self.window}, certainty {self.certainty}, least {self.least}"
            raise ValueError(f"a watch needs every of 0 or more, a window of 1 or more, and no negative threshold; got {got}")

    def due(self, step: int) -> bool:
        """Whether the scene is looked at after so many steps."""
        return bool(self.every) and step % self.every == 0


@dataclass(frozen=True)
class Recipe:
    """How a scene is optimised. Every number in it is a flag of ``rl3d generate``."""

    terms: dict[str, Term]
    """The signals, by name."""
    about: str = ""
    """One line for people: what it does, the paper it follows, its departures."""
    prior: Embedded | Pretrained | Zero123Plus | None = field(default_factory=Embedded)
    draw: Draw | Renders | None = field(default_factory=Draw)
    """Views to draw from the prior before the first step, or to render of an object."""
    start: Start = field(default_factory=Hull)
    scene: Gaussians | Nerf | Mesh = field(default_factory=Gaussians)
    rig: Rig = field(default_factory=RandomOrbit)
    """The cameras of a step, which terms share unless they bring their own."""
    steps: int = 250
    weights: dict[str, float] = field(default_factory=dict)
    """Factors on terms; 1 for those not named."""
    ratios: dict[str, float] = field(default_factory=dict)
    """For terms named here, the norm of their gradient as a fraction of all others' together: on the pixels for pixel terms;
    for scene terms on each of the scene's parameters, as a fraction of what comes from the pixels.
    """
    cooldown: float = 0.1
    """Learning rates fall exponentially to this fraction."""
    patience: int = 20
    """Steps in a row that may be skipped for values that are not finite, before the run stops."""
    search: BestOf | None = None
    """Whether several scenes are begun and the best kept."""
    teach: Teach | None = None
    """Whether the prior is taught while it guides."""
    paper: Paper | None = None
    guards: dict[str, RewardPart] = field(
        default_factory=lambda: {
            "reward": Clip(),
            "judge": Clip("judge"),
            "sharpness": Sharpness(),
            "colours": ColourEntropy(),
            "area": Area(),
        }
    )
    """Rewards that are logged on the way and reported of the result, and never optimised here."""
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self):
        for name in (*self.weights, *self.ratios):
            if name not in self.terms:
                raise ValueError(f"there is no term {name!r} to weigh: the recipe has {', '.join(self.terms)}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.search is not None and self.teach is not None:
            raise ValueError("several scenes share one prior, and `teach` is for one: leave out `search` or `teach`")
        if self.teach is not None and isinstance(self.prior, Embedded) and self.prior.lora:
            raise ValueError("the LoRA that `teach` leaves would lack what --prior.lora added: save the two as one prior first")
        others = (Ball, FromFile, Hull) if isinstance(self.scene, Mesh) else FromMesh
        if isinstance(self.start, others):
            raise ValueError(
                "a scene that is a Mesh starts from a mesh, and no other does: set `start` to FromMesh(path) and `scene` "
                f"to Mesh(); got {type(self.start).__name__} and {type(self.scene).__name__}"
            )
        if self.search is not None and isinstance(self.scene, Mesh):
            raise ValueError("a search compares scenes from different drawn views, and a mesh is one: leave out `search`")
        if self.search is not None and not isinstance(self.draw, Draw):
            raise ValueError("scenes of a search differ by their drawn views: set the recipe's `draw`, or leave out `search`")


def refuse_misfit(recipe: Recipe, prompt: Prompt, prior: PriorInfo) -> None:
    """Refuse a prompt that a prior cannot go by, or terms that would ask it what it does not know, before anything is drawn.

    Raises:
        ValueError: with what to change.
    """
    name = getattr(recipe.prior, "folder", type(recipe.prior).__name__)
    if prior.image != bool(prompt.image):
        if prior.image:
            raise ValueError(f"the prior {name} goes by a picture: give one with --image FILE")
        refuse_image(prompt, name)
    if prompt.negative and not prior.negative_prompts:
        raise ValueError(f"the prior {name} takes no negative prompt, got {prompt.negative!r}: leave it out")
    if not prior.poses:
        return
    known = ", ".join(f"{azimuth:g}/{elevation:g}" for azimuth, elevation in prior.poses)
    if recipe.teach is not None:
        raise ValueError(
            f"`teach` asks a prior about any sides, and {name} knows those of azimuth/elevation {known}: leave it out"
        )
    asking = [term for term, value in recipe.terms.items() if hasattr(value, "passes")]
    if asking and not isinstance(recipe.rig, Poses):
        raise ValueError(
            f"the prior {name} knows views of azimuth/elevation {known} alone, and {', '.join(asking)} would ask about those "
            f"of {type(recipe.rig).__name__}: set the recipe's rig to rl3d.cameras.Poses"
        )


def thriftier(recipe: Recipe) -> Recipe | None:
    """The recipe with what makes the same of it in less memory and more time; None if it does that already, or has no such."""
    if getattr(recipe.prior, "low_memory", True):
        return None
    return dataclasses.replace(recipe, prior=dataclasses.replace(recipe.prior, low_memory=True))  # pyright: ignore


def shortage(recipe: Recipe, free_gb: float) -> str | None:
    """What to say if a recipe's prior needs more memory than is free; None if it does not, or if that is not known."""
    cameras = recipe.rig.cameras(torch.Generator())
    need = need_here(recipe.prior, cameras)
    if need is None or need.total <= free_gb:
        return None
    said = f"{need.total:.1f} GB of memory are needed and {free_gb:.1f} are free"
    smaller = thriftier(recipe)
    less = None if smaller is None else need_here(smaller.prior, cameras)
    return said if less is None else f"{said}: --prior.low-memory needs {less.total:.1f}"


KEEP = 0.6
"""The highest noise time at which an asset that there is already can be told from another."""


def starting_from(recipe: Recipe, path: str) -> Recipe:
    """The recipe as one that improves or edits an asset: nothing is drawn or matched, noise leaves what is there, and small
    islands stay. A recipe of a mesh goes on to match renders of what the mesh was made of.

    Raises:
        ValueError: if nothing would be left of the recipe, or its scene cannot start from Gaussians.
    """
    if isinstance(recipe.scene, Nerf):
        raise ValueError("a radiance field starts as fog, and cannot start from an asset: take a recipe of Gaussians")
    if isinstance(recipe.scene, Mesh):
        return _refining(recipe, path)
    if recipe.search is not None:
        raise ValueError("a search compares scenes from different drawn views, and an asset is one: take another recipe")
    terms = {name: _gentle(term) for name, term in recipe.terms.items() if not isinstance(term, Match)}
    if not any(hasattr(term, "passes") for term in terms.values()):
        raise ValueError("this recipe only matches drawn views, which an asset is not: take one that distils, such as default")
    weights, ratios = ({k: v for k, v in some.items() if k in terms} for some in (recipe.weights, recipe.ratios))
    scene = recipe.scene
    if isinstance(scene.strategy, Prune):
        scene = dataclasses.replace(scene, strategy=dataclasses.replace(scene.strategy, islands=0.0))
    changes: dict[str, Any] = {"terms": terms, "weights": weights, "ratios": ratios}
    return dataclasses.replace(recipe, start=FromFile(path), draw=None, scene=scene, **changes)


def _refining(recipe: Recipe, path: str) -> Recipe:
    """A recipe of a mesh, for the one at this path."""
    start = recipe.start if isinstance(recipe.start, FromMesh) else FromMesh()
    draw = recipe.draw
    if isinstance(draw, Renders) and not draw.path:
        draw = dataclasses.replace(draw, path=made_of(path))
    terms = {name: _gentle(term) for name, term in recipe.terms.items()}
    return dataclasses.replace(recipe, start=dataclasses.replace(start, path=path), draw=draw, terms=terms)


def _gentle(term: Any) -> Term:
    """A term whose noise times stay below what would make another object of it."""
    if not hasattr(term, "t_max") or term.t_max <= KEEP:
        return term
    return dataclasses.replace(term, t_max=max(term.t_min, KEEP), t_end=min(term.t_end, max(term.t_min, KEEP)))


@dataclass(frozen=True)
class Cost:
    """How often a recipe asks the prior's network, in passes over one set of views; a guided prediction takes two."""

    draw: float
    """Before the first step."""
    step: float
    """In a step, on average."""
    total: float


def cost(recipe: Recipe) -> Cost:
    """Compute a recipe's cost before it is run."""
    scenes = 1.0 if recipe.search is None else recipe.search.scenes_a_step(recipe.steps)
    seeds = 1 if recipe.search is None else recipe.search.seeds
    draw = 0.0 if recipe.draw is None else seeds * recipe.draw.passes
    step = scenes * sum(getattr(term, "passes", 0.0) for term in recipe.terms.values())
    step += 0.0 if recipe.teach is None else recipe.teach.passes * (1 - recipe.teach.start)
    return Cost(draw, step, draw + step * recipe.steps)


def comparison(recipe: Recipe) -> str:
    """A recipe's settings beside its paper's, its departures, and its cost, as text."""
    lines = [recipe.about, *beside(recipe, recipe.paper)]
    price = cost(recipe)
    each = f"{price.draw:.0f} to draw and {price.step:.1f} in each of {recipe.steps} steps"
    lines += ["", f"cost: {price.total:.0f} passes of the prior's network: {each}"]
    lines += [_card(name) for name in published(recipe)]
    if isinstance(recipe.prior, Pretrained):
        need = need_here(recipe.prior, recipe.rig.cameras(torch.Generator()))
        lines += [f"memory: {need or 'computed once the weights are here'}"]
    return "\n".join(lines)


def published(value: object) -> list[str]:
    """The names of published models (:data:`rl3d.cards.CARDS`) that a value's parts name, each once."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, f.name) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    else:
        return [value] if isinstance(value, str) and value in CARDS else []
    return list(dict.fromkeys(name for part in parts for name in published(part)))


def _card(name: str) -> str:
    card, here = CARDS[name], cached(name)
    where = f"in {here}" if here else f"to download from {card.sources[0]}"
    return f"weights: {name}, {where}: about {card.gigabytes:g} GB; {card.licence}{' (gated)' if card.gated else ''}"


def beside(value: object, paper: Paper | None) -> list[str]:
    """Lines of text: settings beside a paper's, and what departs from it; none without a paper."""
    if paper is None:
        return []
    rows = [("setting", "here", "there")]
    rows += [(place, str(setting(value, place)), there) for place, there in paper.settings.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["", f"{paper.title}  {paper.url}"]
    lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "departures:", *(f"- {text}" for text in paper.departures)] if paper.departures else lines


def setting(value: object, place: str) -> object:
    """What stands at a place like "terms.distill.guidance".

    Raises:
        ValueError: if there is nothing.
    """
    for name in place.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif dataclasses.is_dataclass(value) and hasattr(value, name):
            value = getattr(value, name)
        else:
            raise ValueError(f"there is no setting {place!r}: {type(value).__name__} has no {name!r}")
    return value if not dataclasses.is_dataclass(value) else type(value).__name__


def recipe_file(name: str) -> Path:
    """Find a recipe by its name in ``configs/``, or by a path to a Python file."""
    here = Path(importlib.util.find_spec("rl3d.configs").origin).parent  # pyright: ignore
    path = Path(name) if name.endswith(".py") else here / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in here.glob("*.py") if not p.stem.startswith("_")))
        raise ValueError(
            f"there is no recipe {name!r}: name one of {known}, or a path to a .py file that holds `recipe = Recipe(...)`"
        )
    return path


def recipe_files() -> list[Path]:
    """The recipes in ``configs/``, by name."""
    return sorted(recipe_file("default").parent.glob("[!_]*.py"))


def load_recipe(path: Path) -> Recipe:
    """Run a recipe's file and take its ``recipe``."""
    return load_value(path, Recipe)


def load_value(path: Path, kind: type[T]) -> T:
    """Run a file and take its ``recipe``, which must be of this class.

    Raises:
        ValueError: if it is not.
    """
    spec = importlib.util.spec_from_file_location(f"rl3d_recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, kind):
        raise ValueError(f"{path} holds no `recipe = {kind.__name__}(...)`; it has {type(recipe).__name__}")
    return recipe


def describe(value: object) -> object:
    """A value as plain JSON, with the class of each part under "is"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [describe(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(v) for v in value)
    if callable(value):
        # A function's address would tell one run from the next; its code is in the recipe's file.
        return f"function {getattr(value, '__qualname__', type(value).__name__)}"
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
