"""Recipes: how something is made, as one value. ``configs/*.py`` hold one each."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rl3d.cameras import RandomOrbit, Rig
from rl3d.priors.embedded import Embedded
from rl3d.protocols import Term
from rl3d.representations.gaussians import Gaussians
from rl3d.representations.nerf import Nerf
from rl3d.rewards.clip import Clip
from rl3d.start import Draw, Hull, Start


@dataclass(frozen=True)
class Recipe:
    """How a scene is optimised. Every number in it is a flag of ``rl3d generate``."""

    terms: dict[str, Term]
    """The signals, by name."""
    about: str = ""
    """One line for people: what it does, the paper it follows, its departures."""
    prior: Embedded | None = field(default_factory=Embedded)
    draw: Draw | None = field(default_factory=Draw)
    """Views to draw from the prior before the first step."""
    start: Start = field(default_factory=Hull)
    scene: Gaussians | Nerf = field(default_factory=Gaussians)
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
    guards: dict[str, Clip] = field(default_factory=lambda: {"reward": Clip(), "judge": Clip("judge")})
    """Rewards that are reported of the result, and never optimised here."""

    def __post_init__(self):
        for name in (*self.weights, *self.ratios):
            if name not in self.terms:
                raise ValueError(f"there is no term {name!r} to weigh: the recipe has {', '.join(self.terms)}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


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


def load_recipe(path: Path) -> Recipe:
    """Run a recipe's file and take its ``recipe``."""
    spec = importlib.util.spec_from_file_location(f"rl3d_recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path} holds no `recipe = Recipe(...)`; it has {type(recipe).__name__}")
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
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
