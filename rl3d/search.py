"""Best of several seeds: scenes that are optimised side by side, the weak ones dropped early.

:func:`begin`, :func:`optimize`, :func:`state` and :func:`restore` are those of :mod:`rl3d.optimize` for any recipe; what they
handle is an :class:`~rl3d.optimize.Optimization`, or a :class:`Contest` where the recipe has a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from threading import Semaphore, Thread
from typing import Any

import torch
from torch import Tensor

from rl3d import optimize as single
from rl3d.math import Level
from rl3d.optimize import Diverged, Optimization, Report
from rl3d.protocols import Prior, Representation, Reward, Shown, Situation, Step
from rl3d.recipe import BestOf, Recipe, refuse_misfit
from rl3d.representations.gaussians import GaussianSplats
from rl3d.rewards.base import SplatScene, together
from rl3d.start import Draw
from rl3d.terms.rewarded import build_reward, compare
from rl3d.types import Cameras, Prompt, Views


@dataclass
class Contest:
    """Scenes in the making, of which one will be left; it looks like the one that leads."""

    recipe: Recipe
    prompt: Prompt
    members: dict[int, Optimization]
    """Those still at work, by number, the leader first."""
    prior: Shared
    reward: Reward
    scores: list[dict[int, float | None]] = field(default_factory=list)
    """What the reward said of each at each cut; None where it could not judge."""

    @property
    def leader(self) -> Optimization:
        return next(iter(self.members.values()))

    def __getattr__(self, name: str) -> Any:
        # Whatever else an optimization has is the leader's.
        if name.startswith("__") or "members" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.leader, name)

    @property
    def scene(self) -> Representation:
        return self.leader.scene

    @property
    def step(self) -> int:
        return self.leader.step

    @property
    def skipped(self) -> int:
        return self.leader.skipped


def begin(recipe: Recipe, prompt: Prompt, *, seed: int = 0, device: str = "cpu") -> Optimization | Contest:
    """Begin one scene, or all those of a search: their views are drawn in one batch."""
    if recipe.search is None:
        return single.begin(recipe, prompt, seed=seed, device=device)
    assert isinstance(recipe.draw, Draw)
    assert recipe.prior is not None
    where, contest = torch.device(device), _empty(recipe, recipe.search, prompt, device)
    refuse_misfit(recipe, prompt, contest.prior.info)
    drawn = recipe.draw.draw_sets(prompt, contest.prior, torch.Generator().manual_seed(seed), where, recipe.search.seeds)
    for number, views in enumerate(drawn):
        rng = torch.Generator().manual_seed(seed)
        contest.members[number] = single.start(recipe, Situation(prompt, contest.prior, views, rng, where))
    return contest


def _empty(recipe: Recipe, search: BestOf, prompt: Prompt, device: str) -> Contest:
    assert recipe.prior is not None
    where = torch.device(device)
    return Contest(recipe, prompt, {}, Shared(recipe.prior.build(where)), build_reward(search.reward, where))


def optimize(o: Optimization | Contest) -> Iterator[Report]:
    """Step until the recipe's steps are done; reports are the leader's."""
    while o.step < o.recipe.steps:
        yield advance(o)


def advance(o: Optimization | Contest) -> Report:
    """Do one step of each scene, and drop the weak ones where it is time."""
    if isinstance(o, Optimization):
        return single.advance(o)
    members = list(o.members.values())
    jobs = [lambda one=one: _attempt(one) for one in members]
    reports = o.prior.in_step(jobs) if len(jobs) > 1 else [_attempt(members[0])]
    lost = {number: r for number, r in zip(o.members, reports, strict=True) if isinstance(r, Diverged)}
    if len(lost) == len(reports):
        raise lost[next(iter(lost))]
    report = next(r for r in reports if isinstance(r, Report))
    for number in lost:
        del o.members[number]
    assert o.recipe.search is not None
    left = o.recipe.search.cuts(o.recipe.steps).get(o.step)
    if left is not None and len(o.members) > left:
        _cut(o, o.recipe.search, left)
    return report


def _attempt(one: Optimization) -> Report | Diverged:
    """One step; a scene that diverges leaves the others alone."""
    try:
        return single.advance(one)
    except Diverged as error:
        return error


@torch.no_grad()
def _cut(o: Contest, search: BestOf, left: int) -> None:
    """Keep the best, the best first; those that could not be judged come last, in their order."""
    cameras = search.rig.cameras(torch.Generator().manual_seed(o.step)).to(o.leader.scene.device)
    shown = []
    for one in o.members.values():
        views, scene = one.scene.render(cameras)[0], one.scene
        shown.append(Shown(views, (SplatScene(scene.splats()),) if isinstance(scene, GaussianSplats) else ()))
    progress = o.step / o.recipe.steps
    at = Step(shown[0].views, o.leader.scene, None, o.prompt, progress, o.leader.rng, o.step)
    score = compare(o.reward, together(shown), at)
    judged = zip(o.members, score.value.tolist(), score.valid.tolist(), strict=True)
    values = {number: round(value, 6) if valid else None for number, value, valid in judged}
    o.scores.append(values)
    best = sorted(values, key=lambda number: (values[number] is None, -(values[number] or 0.0)))[:left]
    o.members = {number: o.members[number] for number in best}


def state(o: Optimization | Contest) -> tuple[dict[str, Tensor], dict]:
    """Everything that a checkpoint must hold."""
    if isinstance(o, Optimization):
        return single.state(o)
    tensors, members = {}, {}
    for number, one in o.members.items():
        own, members[str(number)] = single.state(one)
        tensors |= {f"{number}/{name}": x for name, x in own.items()}
    plain = {"step": o.step, "skipped": o.skipped, "prompt": o.prompt.plain(), "members": members}
    scores = [{str(number): value for number, value in one.items()} for one in o.scores]
    return tensors, plain | {"order": list(members), "scores": scores}


def restore(recipe: Recipe, tensors: dict[str, Tensor], plain: dict, *, device: str = "cpu") -> Optimization | Contest:
    """Continue from :func:`state`, bit for bit on the CPU."""
    if recipe.search is None:
        return single.restore(recipe, tensors, plain, device=device)
    contest = _empty(recipe, recipe.search, Prompt(**plain["prompt"]), device)
    for number in plain["order"]:
        own = {k.removeprefix(f"{number}/"): x for k, x in tensors.items() if k.startswith(f"{number}/")}
        about = plain["members"][number] | {"prompt": plain["prompt"]}
        one = single.restore(recipe, own, about, device=device, prior=contest.prior)
        contest.members[int(number)] = one
    contest.scores = [{int(number): value for number, value in one.items()} for one in plain["scores"]]
    return contest


class Shared:
    """A prior that several scenes ask at once: what they ask alike in a step is answered in one batch.

    Terms need not know. Each scene's step runs in a thread of its own, one thread at a time, until it asks; once all have
    asked or ended, the network answers, and they go on. So what happens does not depend on how threads are scheduled.
    """

    def __init__(self, prior: Prior):
        self.prior, self.info = prior, prior.info
        self.now: _Turn | None = None

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Any:
        return _Asked(list(prompts), cameras)

    def encode(self, views: Views) -> Tensor:
        return self.prior.encode(views)

    def decode(self, latents: Tensor, cameras: Cameras) -> Views:
        return self.prior.decode(latents, cameras)

    def predict(self, noisy: Tensor, level: Level, condition: Any, *, guidance: float = 1.0, rescale: float = 0.0) -> Tensor:
        question = _Question(noisy, level, condition, guidance, rescale)
        # What is differentiated is not shared: its graph belongs to one scene.
        if self.now is None or torch.is_grad_enabled():
            return self._answer([question])[0]
        return self.now.ask(question)

    def in_step(self, jobs: list[Callable[[], Any]]) -> list[Any]:
        """Run jobs that ask this prior, in step; their results, in order. An error in one ends all."""
        turns = [_Turn(job) for job in jobs]
        try:
            for turn in turns:
                self._resume(turn)
            while asking := [turn for turn in turns if turn.question is not None]:
                alike: dict[tuple, list[_Turn]] = {}
                for turn in asking:
                    assert turn.question is not None
                    alike.setdefault(turn.question.kind, []).append(turn)
                for group in alike.values():
                    with torch.no_grad():
                        answers = self._answer([turn.question for turn in group if turn.question is not None])
                    for turn, answer in zip(group, answers, strict=True):
                        turn.answer, turn.question = answer, None
                for turn in asking:
                    self._resume(turn)
        finally:
            self.now = None
            for turn in turns:
                turn.close()
        return [turn.result for turn in turns]

    def _resume(self, turn: _Turn) -> None:
        self.now = turn
        turn.go()
        if turn.error is not None:
            raise turn.error

    def _answer(self, questions: list[_Question]) -> list[Tensor]:
        first, prompts = questions[0], [p for q in questions for p in q.condition.prompts]
        cameras = [_each(q.condition) for q in questions]
        wide = replace(
            cameras[0],
            cam_from_world=torch.cat([c.cam_from_world for c in cameras]),
            intrinsics=torch.cat([c.intrinsics for c in cameras]),
        )
        noisy = torch.cat([q.noisy for q in questions])
        condition = self.prior.embed(prompts, wide)
        found = self.prior.predict(noisy, first.level, condition, guidance=first.guidance, rescale=first.rescale)
        return list(found.split([len(q.noisy) for q in questions]))


def _each(asked: _Asked) -> Cameras:
    """Cameras of each prompt: ``[1 v]`` ones are repeated."""
    cameras, wide = asked.cameras, (len(asked.prompts), -1, -1, -1)
    pose, intrinsics = cameras.cam_from_world.expand(wide), cameras.intrinsics.expand(wide)
    return replace(cameras, cam_from_world=pose, intrinsics=intrinsics)


@dataclass(frozen=True)
class _Asked:
    """A condition that is embedded when it is known who else asks."""

    prompts: list[Prompt]
    cameras: Cameras


@dataclass(frozen=True)
class _Question:
    noisy: Tensor
    level: Level
    condition: _Asked
    guidance: float
    rescale: float

    @property
    def kind(self) -> tuple:
        """What questions of one batch have alike."""
        return self.level, self.guidance, self.rescale, self.noisy.shape[1:]


class _Stop(BaseException):
    """Ends a thread whose contest is over."""


class _Turn:
    """A job in a thread that runs only while it is its turn."""

    def __init__(self, job: Callable[[], Any]):
        self.job = job
        self.question: _Question | None = None
        self.answer: Tensor | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = self.over = False
        self._mine, self._yours = Semaphore(0), Semaphore(0)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self.over:
                self.result = self.job()
        except _Stop:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self._yours.release()

    def go(self) -> None:
        """Let it run until it asks or ends."""
        if self.ended:
            return
        self._mine.release()
        self._yours.acquire()

    def ask(self, question: _Question) -> Tensor:
        """From within: wait for an answer."""
        self.question, self.answer = question, None
        self._yours.release()
        self._mine.acquire()
        if self.answer is None:
            raise _Stop
        return self.answer

    def close(self) -> None:
        """End it, wherever it is."""
        if not self.ended:
            # Without an answer it stops where it asked; one that never ran finds that all is over.
            self.question, self.answer, self.over = None, None, True
            self.go()
        self._thread.join()
