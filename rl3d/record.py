"""The record of a run: what each step did, what guards say on the way; also for TensorBoard and Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch

from rl3d.optimize import Report
from rl3d.protocols import Representation, Reward, RewardPart, Scene, Shown
from rl3d.recipe import Recipe
from rl3d.representations.gaussians import GaussianSplats
from rl3d.representations.mesh import TexturedMesh
from rl3d.rewards.base import SplatScene
from rl3d.rewards.guards import alarm
from rl3d.terms.rewarded import build_reward
from rl3d.types import Prompt, Views

T = TypeVar("T")


def line(report: Report, seconds: float) -> dict[str, Any]:
    """What one step did, as a line of ``metrics.jsonl``."""

    def rounded(part: Mapping[str, float]) -> dict[str, float]:
        return {name: round(x, 6) for name, x in part.items()}

    return {
        "step": report.step,
        "seconds": round(seconds, 3),
        "losses": rounded(report.losses),
        "weights": rounded(report.weights),
        "gradient_norms": rounded(report.norms),
        "cosines": {name: rounded(others) for name, others in report.cosines.items()},
        "rewards": {term: {name: x._asdict() for name, x in heard.items()} for term, heard in report.rewards.items()},
        **({"taught": rounded(report.taught)} if report.taught else {}),
        "size": report.size,
        "skipped": report.skipped,
    }


def numbers(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a line by their paths ("losses/distill"); lists as the mean of what they hold, None left out."""
    found = {}
    for name, value in record.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= numbers(value, f"{path}/")
        elif isinstance(value, list):
            held = [x for x in value if x is not None]
            found |= {path: sum(held) / len(held)} if held else {}
        elif value is not None:
            found[path] = float(value)
    return found


@dataclass(frozen=True)
class Alert:
    """A run's reward rose while its guards fell."""

    step: int
    """When it was noticed."""
    since: int
    """The step at which the first of the guards that fell was at its best, on average."""
    term: str
    """Whose reward rose."""
    gain: float
    """By how much it has risen since."""
    fallen: dict[str, float]
    """By how much each fallen guard is below its best."""
    then: Literal["warn", "stop", "roll back"]
    """What was done."""

    def __str__(self) -> str:
        drops = ", ".join(f"{name} by {drop:.3g}" for name, drop in self.fallen.items())
        done = {
            "warn": "look at the previews before you trust it",
            "stop": f"the run stopped at step {self.step}",
            "roll back": f"the run went back to step {self.since}",
        }
        rose = f"the reward of {self.term!r} rose by {self.gain:.3g} since step {self.since} while guards fell ({drops})"
        return f"{rose}, noticed at step {self.step}: {done[self.then]}"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def optimised(recipe: Recipe) -> dict[str, RewardPart]:
    """The rewards that shape a recipe's scene, by term."""
    return {name: term.reward for name, term in recipe.terms.items() if getattr(term, "reward", None) is not None}  # pyright: ignore


class Watcher:
    """Looks at a scene now and then, from the same sides each time, through the eyes of its rewards and its guards."""

    def __init__(self, recipe: Recipe, prompt: Prompt, device: torch.device | str = "cpu"):
        self.watch, self.prompt = recipe.watch, prompt
        self.cameras = recipe.watch.rig.cameras(torch.Generator().manual_seed(0)).to(device)
        self.rewards: dict[str, Reward] = {}
        self.guards: dict[str, Reward] = {}
        if not recipe.watch.every:
            return
        built: list[tuple[RewardPart, Reward]] = []

        def live(part: RewardPart, build: Any) -> Reward:
            # Equal values are one judge, which is loaded once.
            known = [reward for other, reward in built if other == part]
            if not known:
                built.append((part, build(part)))
            return known[0] if known else built[-1][1]

        for name, part in optimised(recipe).items():
            self.rewards[name] = live(part, lambda part: build_reward(part, torch.device(device)))
        for name, part in recipe.guards.items():
            self.guards[name] = live(part, lambda part: part.build(device))

    @torch.no_grad()
    def look(self, scene: Representation) -> dict[str, dict[str, float | None]]:
        """What each says of the scene as it is; None where it could not judge. No random number is drawn."""
        views = scene.render(self.cameras)[0].detach()
        return {part: values for part, values in self._of(scene, views).items() if values}

    def _of(self, scene: Representation, views: Any) -> dict[str, dict[str, float | None]]:
        found = scene_of(scene)
        shown = Shown(views, () if found is None else (found,))
        return self._each(lambda reward: value_of(reward, shown, self.prompt))

    @torch.no_grad()
    def per_view(self, views: Views) -> dict[str, dict[str, list[float | None] | None]]:
        """What each says of each of ``[1 v]`` views; None where it judges no single ones, or needs more than these hold."""
        return self._each(lambda reward: _per_view(reward, views, self.prompt))

    def _each(self, ask: Callable[[Reward], T]) -> dict[str, dict[str, T]]:
        """What all rewards and guards answer; a judge that stands in several places is asked once."""
        heard: dict[int, T] = {}
        for reward in (*self.rewards.values(), *self.guards.values()):
            if id(reward) not in heard:
                heard[id(reward)] = ask(reward)
        parts = {"watched": self.rewards, "guards": self.guards}
        return {part: {name: heard[id(reward)] for name, reward in some.items()} for part, some in parts.items()}


def scene_of(scene: Representation) -> Scene | None:
    """What rewards of shape look at; None of a field, whose Gaussians take seconds."""
    if isinstance(scene, TexturedMesh):
        return scene
    return SplatScene(scene.splats()) if isinstance(scene, GaussianSplats) else None


def value_of(reward: Reward, shown: Shown, prompt: Prompt) -> float | None:
    """What a reward says of one sample, rounded; None where it cannot judge, also for lack of a scene."""
    if reward.info.needs & {"splats", "mesh"} and not shown.scenes:
        return None
    score = reward.score(shown, [prompt])
    value = float(score.value[0].detach())
    return round(value, 6) if bool(score.valid[0]) and math.isfinite(value) else None


def _per_view(reward: Reward, views: Views, prompt: Prompt) -> list[float | None] | None:
    needs, bare = reward.info.needs, views.depth is None or views.normals is None
    if needs & {"splats", "mesh"} or ("depth" in needs and bare):
        return None
    found = reward.score(Shown(views), [prompt]).per_view
    return None if found is None else [round(x, 6) if math.isfinite(x) else None for x in found[0].tolist()]


def first_alert(recipe: Recipe, looks: Sequence[Mapping[str, Any]]) -> Alert | None:
    """The first time that a reward rose while its guards fell, in the lines that hold looks, in order; None if all is well.

    Guards that are themselves what is climbed do not count, nor does what was before a term's start. See
    :func:`rl3d.rewards.guards.alarm` for what is a rise and a fall.
    """
    watch, parts = recipe.watch, optimised(recipe)
    guards = [name for name, guard in recipe.guards.items() if not any(guard == part for part in parts.values())]

    def history(some: Sequence[Mapping[str, Any]], part: str, name: str) -> list[float]:
        values = [look.get(part, {}).get(name) for look in some]
        return [math.nan if value is None else value for value in values]

    for end in range(2 * watch.window, len(looks) + 1):
        for term in parts:
            begun = getattr(recipe.terms[term], "start", 0.0) * recipe.steps
            some = [look for look in looks[:end] if look["step"] > begun]
            fallen = {name: history(some, "guards", name) for name in guards}
            reward = history(some, "watched", term)
            found = alarm(reward, fallen, window=watch.window, certainty=watch.certainty, least=watch.least)
            if found is not None:
                since = some[found.since]["step"]
                return Alert(some[-1]["step"], since, term, round(found.gain, 6), _rounded(found.guards), watch.then)
    return None


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(x, 6) for name, x in values.items()}


@runtime_checkable
class Log(Protocol):
    """Somewhere else that a run's numbers go."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Take a line of ``metrics.jsonl``."""
        ...

    def close(self) -> None: ...


LogName = Literal["tensorboard", "wandb"]


def check_logs(names: Sequence[LogName]) -> None:
    """Refuse, before anything is made, what is not installed (``ValueError``)."""
    for name in names:
        try:
            if name == "tensorboard":
                import torch.utils.tensorboard  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
            else:
                import wandb  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        except ImportError as error:
            package = "rl3d[record]" if name == "tensorboard" else "wandb"
            title = "TensorBoard" if name == "tensorboard" else "Weights & Biases"
            raise ValueError(
                f"{title} is not installed ({error}): pip install '{package}', or leave out --{name}; "
                "metrics.jsonl holds the same numbers"
            ) from error


def open_log(name: LogName, folder: Path, recipe: Any, step: int) -> Log:
    """Open a log for a run that has done ``step`` steps; what it holds of later ones is superseded."""
    check_logs([name])
    return _TensorBoard(folder, step) if name == "tensorboard" else _Wandb(folder, recipe)


class _TensorBoard:
    """Event files in the run's folder: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage]

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in numbers(record).items():
            if name != "step":
                self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """One run of Weights & Biases for each folder, by a name that is kept in it; its own settings say where data go."""

    def __init__(self, folder: Path, recipe: Any):
        import wandb  # pyright: ignore[reportMissingImports]

        name = folder / "wandb.id"
        if not name.is_file():
            name.write_text(wandb.util.generate_id())
        where = {"project": "rl3d", "name": folder.name, "dir": str(folder)}
        self.run = wandb.init(id=name.read_text(), resume="allow", config=recipe, **where)

    def write(self, record: Mapping[str, Any]) -> None:
        # Steps that it has already are left out by wandb itself, with a warning: they were the same.
        self.run.log(numbers(record), step=record["step"])

    def close(self) -> None:
        self.run.finish()
