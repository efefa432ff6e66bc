"""What the command line does, one function a command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import AvoidSubcommands, Positional, arg

from rl3d.assess import assess
from rl3d.assets import load_asset
from rl3d.doctor import report
from rl3d.files import write_whole
from rl3d.finetune import Team
from rl3d.finetune import produce as finetuning
from rl3d.generate import Request, create, find_run, produce
from rl3d.lesson import Lesson, compared, lesson_file, lesson_files, load_lesson, with_names
from rl3d.optimize import Diverged
from rl3d.preferences import train_reward
from rl3d.priors.embedded import Embedded
from rl3d.recipe import Recipe, comparison, describe, load_recipe, recipe_file, recipe_files, starting_from
from rl3d.record import LogName, check_logs
from rl3d.rewards.clip import Clip
from rl3d.run import Run, circumstances, short_name
from rl3d.scene import read_prompts
from rl3d.scoring import USUAL, reward_of, table
from rl3d.scoring import score as scored
from rl3d.start import FromFile
from rl3d.types import Prompt

LESSON = "finetune"
"""The kind of a run that teaches a prior."""


@dataclass(frozen=True)
class Generate:
    """Make 3D objects from prompts."""

    prompts: Positional[tuple[str, ...]]
    """Prompts; scenes by name or .toml file; .txt files with a prompt on each line."""
    settings: Annotated[AvoidSubcommands[Recipe], arg(name="")]
    recipe: str = "default"
    """A recipe's name (see `rl3d recipes`) or a .py file; every number below is one of its settings."""
    out: Path | None = None
    """The run's folder; for several prompts the folder that holds theirs. Default: runs/."""
    seed: int = 0
    device: str = "cpu"
    """"cpu", or "cuda" where there is a GPU."""
    allow_unknown: bool = False
    """Go on although the prior does not know some words."""
    init: str = ""
    """An asset to improve or edit: a splat .ply, or a .glb, .gltf or .obj mesh. Nothing is drawn or matched then."""
    tensorboard: bool = False
    """Also write what metrics.jsonl holds for TensorBoard, into the run's folder."""
    wandb: bool = False
    """Also log what metrics.jsonl holds to Weights & Biases."""
    dry_run: bool = False
    """Print the recipe's settings beside its paper's, and its cost, and stop; without --recipe those of all."""


@dataclass(frozen=True)
class Finetune:
    """Teach a prior with rewards."""

    recipe: Positional[str]
    """A lesson's name (see `rl3d recipes`) or a .py file; every number below is one of its settings."""
    settings: Annotated[AvoidSubcommands[Lesson], arg(name="")]
    given: tuple[str, ...] = ()
    """Prompts to teach with in place of the lesson's own: prompts, scenes, .txt files, folders of scenes (ending with a /)."""
    out: Path | None = None
    """The lesson's folder. Default: one in runs/ with the lesson's name."""
    seed: int = 0
    device: str = "cpu"
    dry_run: bool = False
    """Print the lesson's settings beside its paper's, and stop."""


@dataclass(frozen=True)
class Resume:
    """Continue a run or a lesson that was stopped. On the CPU it ends in the same bytes as if it had not been."""

    folder: Positional[Path]
    device: str = "cpu"
    tensorboard: bool = False
    wandb: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Generate held-out prompts, score them beside true renders, and print a table."""

    prompts: str = "validation"
    """"validation", "test" (sealed: for the record only), or a file of JSON lines like rl3d/toybox/prompts/validation.txt."""
    recipe: str = "default"
    out: Path | None = None
    """Where the runs go; those done before are not done again. Default: runs/evaluate-PROMPTS-RECIPE."""
    json: Path | None = None
    """Also write the table and every asset's record here."""
    limit: int | None = None
    """Only the first so many prompts."""
    seed: int = 0
    device: str = "cpu"


def generate(words: list[str]) -> None:
    """Make objects from prompts, each in a run's folder of its own."""
    source = recipe_file(_value_of(words, "--recipe", "default"))
    if "--dry-run" in words and not any(word.split("=")[0] == "--recipe" for word in words):
        print("\n\n".join(f"{path.stem}\n{comparison(load_recipe(path))}" for path in recipe_files()))
        return
    plain = _recipe_with(source, _value_of(words, "--init", ""))
    asked = tyro.cli(Generate, args=words, prog="rl3d generate", default=Generate((), plain))
    recipe = asked.settings
    if asked.dry_run:
        print(comparison(recipe))
        return
    if isinstance(recipe.start, FromFile):
        recipe.start.check()
    if asked.allow_unknown and isinstance(recipe.prior, Embedded):
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    prompts = read_prompts(asked.prompts)
    if not prompts:
        raise ValueError('say what to make, for example: rl3d generate "a red mug"')
    if recipe.prior is not None:
        for prompt in prompts:
            recipe.prior.check(prompt)
    logs = _logs(asked)
    elsewhere = [word for word in words if word not in LOG_FLAGS]
    changed = _without(elsewhere, {"--recipe", "--out", "--seed", "--device"}, set(asked.prompts))
    for i, prompt in enumerate(prompts):
        request = Request(prompt, asked.recipe, tuple(changed), asked.seed)
        if asked.out is not None and len(prompts) == 1:
            run = Run(asked.out)
            if run.folder.exists() and not run.folder.is_dir():
                raise ValueError(f"{run.folder} is a file: name a folder")
            if (run.folder / "run.json").is_file() and not request.matches(run.about):
                raise ValueError(f"{run.folder} holds another run ({run.about['prompt']['text']!r}): choose another --out")
        else:
            run = find_run(asked.out or Path("runs"), short_name(prompt.text), request)
        with run.lock():
            if not (run.folder / "run.json").is_file():
                create(run, request, recipe, source)
            _show(run, recipe, asked.device, f"[{i + 1}/{len(prompts)}] " if len(prompts) > 1 else "", logs)


def finetune(words: list[str]) -> None:
    """Teach a prior, in a folder of its own; started by `accelerate launch` it is taught by several processes."""
    if not words or words[0].startswith("-"):
        if words and set(words) <= {"-h", "--help"}:
            print("usage: rl3d finetune LESSON [settings]; rl3d finetune LESSON --help names them. Lessons:")
            _list(lesson_files(), load_lesson)
            return
        raise ValueError("say first which lesson, for example: rl3d finetune draft --steps 50")
    source = lesson_file(words[0])
    asked = _asked_lesson(words, source)
    lesson = with_names(asked.settings, asked.given)
    if asked.dry_run:
        print(compared(lesson))
        return
    lesson.asked(asked.seed, 0)  # a mistake in the prompts is told before anything is made
    changed = _without(words[1:], {"--out", "--seed", "--device"}, set())
    request = {"kind": LESSON, "recipe": words[0], "arguments": changed, "seed": asked.seed}
    run = _lesson_run(asked.out, source.stem, request)
    team = Team(asked.device)
    with run.lock() if team.leads else contextlib.nullcontext():
        if team.leads and not (run.folder / "run.json").is_file():
            written = source.read_bytes()
            write_whole(run.folder / "recipe.py", written)
            run.write_json("recipe.json", describe(lesson))
            digest = hashlib.sha256(written).hexdigest()
            run.write_json("run.json", {**request, "recipe_sha256": digest, "depends_on": circumstances()})
        team.told(None)  # the others wait until there is a folder
        _teach(run, lesson, team)


def _asked_lesson(words: list[str], source: Path) -> Finetune:
    return tyro.cli(Finetune, args=words, prog="rl3d finetune", default=Finetune(words[0], load_lesson(source)))


def _lesson_run(out: Path | None, name: str, request: dict) -> Run:
    """The folder that was asked for, or that already holds the lesson, or the first free name."""

    def matches(run: Run) -> bool:
        return all(run.about.get(key) == value for key, value in request.items())

    if out is not None:
        run = Run(out)
        if run.folder.exists() and not run.folder.is_dir():
            raise ValueError(f"{run.folder} is a file: name a folder")
        if (run.folder / "run.json").is_file() and not matches(run):
            raise ValueError(f"{run.folder} holds another run: choose another --out")
        return run
    for suffix in ["", *(f"-{i}" for i in range(2, 10_000))]:
        run = Run(Path("runs") / f"finetune-{name}{suffix}")
        if not (run.folder / "run.json").is_file() or matches(run):
            return run
    raise ValueError("runs/ holds ten thousand lessons of this name: choose another --out")


def recorded_lesson(run: Run) -> Lesson:
    """The lesson of an existing run: its own copy of the file, with the flags that were given."""
    about, source = run.about, run.folder / "recipe.py"
    if not source.is_file():
        raise ValueError(f"{source} is missing: a lesson cannot be resumed without its recipe")
    asked = _asked_lesson([about["recipe"], *about["arguments"]], source)
    lesson = with_names(asked.settings, asked.given)
    if describe(lesson) != json.loads((run.folder / "recipe.json").read_text()):
        raise ValueError(
            f"{run.folder} was made by another version of rl3d, whose defaults differ (recipe.json): start it anew"
        )
    return lesson


def _teach(run: Run, lesson: Lesson, team: Team) -> None:
    """Do a lesson with a live progress bar; of several processes the first one shows it."""
    console = Console(stderr=True, quiet=not team.leads)
    done = team.told(run.summary is not None)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    if not done:
        with Progress(*columns, TextColumn("{task.fields[now]}"), console=console, transient=True) as bar:
            task = bar.add_task(run.folder.name, total=lesson.steps, now="loading")
            try:
                for taught, _ in finetuning(run, lesson, team=team):
                    seen = {k.removeprefix("reward/"): x for k, x in taught.told.items() if k.startswith("reward/")}
                    now = "  ".join(f"{name} {value:.3g}" for name, value in seen.items())
                    bar.update(task, completed=taught.step, now=now)
            except KeyboardInterrupt:
                console.print(f"saved; continue with: rl3d resume {run.folder}", highlight=False)
                raise
            except Diverged as error:
                raise ValueError(f"{error}. The last good state is in {run.folder}; lower --rate") from None
    if not team.leads:
        return
    summary = run.summary
    assert summary is not None
    before, after = summary["before"], summary["after"]
    told = "  ".join(f"{name} {before[name]} -> {after[name]}" for name in before if name != "step")
    prefix = "done before: " if done else ""
    console.print(f"{prefix}[bold]{run.folder.name}[/bold]  step {summary['step']}  {told}", highlight=False)
    if summary["stopped"]:
        console.print(f"[yellow]  stopped after {summary['steps']} steps: {summary['stopped']}[/yellow]")
    flag = "--prior.lora" if summary["result"] == "lora" else "--prior.folder"
    console.print(f'  rl3d generate "a red mug" {flag} {run.folder / summary["result"]}', highlight=False)


def resume(words: list[str]) -> None:
    """Continue a run from its checkpoint."""
    asked = tyro.cli(Resume, args=words, prog="rl3d resume")
    run = Run(asked.folder)
    if run.about.get("kind") == LESSON:
        team = Team(asked.device)
        with run.lock() if team.leads else contextlib.nullcontext():
            _teach(run, recorded_lesson(run), team)
        return
    recipe = recorded_recipe(run)
    recipe, logs = recorded_recipe(run), _logs(asked)
    with run.lock():
        _show(run, recipe, asked.device, logs=logs)


LOG_FLAGS = ("--tensorboard", "--no-tensorboard", "--wandb", "--no-wandb")
"""Where numbers go besides: no part of what a run is."""


def _logs(asked: Generate | Resume) -> list[LogName]:
    names: list[LogName] = []
    if asked.tensorboard:
        names.append("tensorboard")
    if asked.wandb:
        names.append("wandb")
    check_logs(names)
    return names


def recorded_recipe(run: Run) -> Recipe:
    """The recipe of an existing run: its own copy of the file, with the flags that were given."""
    about = run.about
    source = run.folder / "recipe.py"
    if not source.is_file():
        raise ValueError(f"{source} is missing: a run cannot be resumed without its recipe")
    given = about["arguments"]
    flags = _without([flag for flag in given if flag != "--allow-unknown"], {"--init"}, set())
    plain = _recipe_with(source, _value_of(given, "--init", ""))
    recipe = tyro.cli(AvoidSubcommands[Recipe], args=flags, default=plain, prog="rl3d resume")
    if "--allow-unknown" in given and isinstance(recipe.prior, Embedded):
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    if describe(recipe) != json.loads((run.folder / "recipe.json").read_text()):
        raise ValueError(
            f"{run.folder} was made by another version of rl3d, whose defaults differ (recipe.json): start it anew"
        )
    return recipe


def _show(run: Run, recipe: Recipe, device: str, prefix: str = "", logs: Sequence[LogName] = ()) -> None:
    """Do a run with a live progress bar."""
    console = Console(stderr=True)
    text = run.about["prompt"]["text"]
    if summary := run.summary:
        console.print(f"{prefix}[bold]{text}[/bold]: done before, in {run.folder}", highlight=False)
        _print_summary(console, run, summary)
        return
    if (was := run.about.get("depends_on")) != (now := circumstances()):
        differs = sorted(k for k in now if (was or {}).get(k) != now[k])
        console.print(f"[yellow]this run began under other circumstances ({', '.join(differs)}): its bytes may differ[/yellow]")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(
            f"{prefix}{text[:40]}", total=recipe.steps, now="drawing views from the prior" if recipe.draw else "starting"
        )
        try:
            for report, _ in produce(run, recipe, device=device, logs=logs):
                losses = "  ".join(f"{name} {loss:.3g}" for name, loss in report.losses.items())
                bar.update(task, completed=report.step, now=f"{losses}  size {report.size}")
            bar.update(task, now="exporting")
        except KeyboardInterrupt:
            console.print(f"saved; continue with: rl3d resume {run.folder}", highlight=False)
            raise
        except Diverged as error:
            raise ValueError(f"{error}. The last good state is in {run.folder}; lower the learning rates or weights") from None
    summary = run.summary
    assert summary is not None
    _print_summary(console, run, summary)


def _print_summary(console, run: Run, summary: dict) -> None:
    scores = "  ".join(f"{name} {value:.3f}" if value is not None else f"{name} -" for name, value in summary["scores"].items())
    cost = f"{summary['gaussians']} splats  {summary['seconds']:.0f} s  {summary['peak_memory_gb']} GB"
    console.print(f"[bold]{summary['prompt']}[/bold]  {scores}  {cost}", highlight=False)
    console.print(f"  {run.folder}/preview.png  asset.ply  mesh.glb  turntable.mp4", highlight=False)
    for note in summary["notes"]:
        console.print(f"[yellow]  {note}[/yellow]")


def evaluate(words: list[str]) -> None:
    """Generate and score held-out prompts."""
    asked = tyro.cli(Evaluate, args=words, prog="rl3d evaluate")
    assess(asked.prompts, asked.recipe, asked.out, asked.json, asked.limit, asked.seed, asked.device)


@dataclass(frozen=True)
class ScoreAsset:
    """Score an asset with any rewards, from eight sides that no optimization has seen, and print a table."""

    path: Positional[Path]
    """A run's folder, a PLY of Gaussians, or a .glb, .gltf or .obj mesh."""
    prompt: str = ""
    """What it should be; a run knows."""
    negative: str = ""
    rewards: tuple[str, ...] = USUAL
    """Names, such as encoder, judge, whole, stands, drop, verified (a wrong one lists all); clip:MODEL[:PRETRAINED];
    trained:FOLDER; FILE.py:NAME for one of your own."""
    json: bool = False
    """Print JSON."""
    device: str = "cpu"


def score(words: list[str]) -> None:
    """Score an asset."""
    asked = tyro.cli(ScoreAsset, args=words, prog="rl3d score")
    parts = {name: reward_of(name) for name in asked.rewards}
    if not asked.path.exists():
        raise ValueError(f"there is no asset {asked.path}: check the path")
    asset = load_asset(asked.path)
    prompt = Prompt(asked.prompt.strip(), asked.negative) if asked.prompt.strip() else asset.prompt
    if prompt is None:
        raise ValueError(f'{asked.path} does not say what it should be: add --prompt "a red mug"')
    scores = scored(asset, prompt, parts, asked.device)
    if asked.json:
        # Without bounds there is no number that JSON could hold.
        for told in scores.values():
            told["range"] = [x if math.isfinite(x) else None for x in told["range"]]
        print(json.dumps({"path": str(asked.path), "prompt": vars(prompt), "scores": scores}, indent=2, ensure_ascii=False))
        return
    print(f"{asked.path}: {prompt.text}\n\n{table(scores)}")


@dataclass(frozen=True)
class TrainReward:
    """Fit a reward to recorded preferences; its format is described in rl3d/preferences.py."""

    pairs: Positional[Path]
    """JSON lines, one for each comparison: {"prompt": ..., "a": PATH, "b": PATH, "preferred": "a", "annotator": ...}, of
    assets or pictures; "preferred" is "a", "b" or "tie"."""
    out: Path | None = None
    """Where the reward goes. Default: beside the pairs, named after them."""
    encoder: Clip = field(default_factory=Clip)
    """Whose features are used."""
    joint: bool = True
    """Whether all views are looked at together too, not only each alone."""
    held_out: float = 0.2
    """The share of comparisons that it is tested on."""
    seed: int = 0


def reward(words: list[str]) -> None:
    """Make a reward: ``rl3d reward train``."""
    if not words or words[0] != "train":
        raise ValueError("say what to do: rl3d reward train PAIRS.jsonl (--help: every setting)")
    asked = tyro.cli(TrainReward, args=words[1:], prog="rl3d reward train")
    out = asked.out or asked.pairs.with_name(f"{asked.pairs.stem}-reward")
    fitted = train_reward(asked.pairs, out, encoder=asked.encoder, joint=asked.joint, held_out=asked.held_out, seed=asked.seed)
    low, high = fitted.accuracy_interval
    print(f"{fitted.pairs} comparisons, {fitted.held_out} of them held out by {fitted.held_out_by}")
    print(f"accuracy {fitted.accuracy:.3f} [{low:.3f}, {high:.3f}] held out, {fitted.accuracy_in_training:.3f} in training")
    print(f"log-loss {fitted.log_loss:.3f} (a coin's: 0.693), calibration error {fitted.calibration_error:.3f}")
    for name, right in fitted.by_annotator.items():
        print(f"  {name}: {right:.3f}")
    print(f"{out}: use it as Trained({str(out)!r}) in a recipe, or rl3d score ASSET --rewards trained:{out}")


def recipes(words: list[str]) -> None:
    """List the recipes, and the lessons."""
    print("rl3d generate --recipe NAME")
    _list(recipe_files(), load_recipe)
    print("\nrl3d finetune NAME")
    _list(lesson_files(), load_lesson)


def _list(files: list[Path], load: Callable[[Path], Recipe | Lesson]) -> None:
    for path in files:
        print(f"{path.stem:16} {load(path).about}")


def doctor(words: list[str]) -> None:
    """Say what works on this machine."""
    raise SystemExit(report())


def _recipe_with(source: Path, init: str) -> Recipe:
    """The recipe of a file, or what it is when an asset is there already."""
    recipe = load_recipe(source)
    return starting_from(recipe, init) if init else recipe


def _value_of(words: list[str], flag: str, default: str) -> str:
    """The value of a flag on a command line that is not parsed yet."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return default


def _without(words: list[str], flags: set[str], positional: set[str]) -> list[str]:
    """A command line's words less these flags with their values, and less its positional words."""
    kept, skip = [], False
    for i, word in enumerate(words):
        if skip:
            skip = False
        elif word in flags:
            skip = True
        elif word.split("=", 1)[0] in flags or (word in positional and not (i and words[i - 1].startswith("--"))):
            continue
        else:
            kept.append(word)
    return kept
