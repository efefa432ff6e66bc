"""What the command line does, one function a command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import AvoidSubcommands, Positional, arg

from rl3d.assess import assess
from rl3d.doctor import report
from rl3d.generate import Request, create, find_run, produce, read_prompts
from rl3d.optimize import Diverged
from rl3d.recipe import Recipe, comparison, describe, load_recipe, recipe_file, recipe_files, starting_from
from rl3d.run import Run, circumstances, short_name
from rl3d.start import FromFile


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
    dry_run: bool = False
    """Print the recipe's settings beside its paper's, and its cost, and stop; without --recipe those of all."""


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped. On the CPU it ends in the same bytes as if it had not been."""

    folder: Positional[Path]
    device: str = "cpu"


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


@dataclass(frozen=True)
class Fetch:
    """Download Debian's named meshes, and prepare them: clean, named and measured."""

    out: Path = Path(".cache/world/debian")
    """Where they go, with catalogue.csv: their authors and licences, and what was left out, and why."""
    mirror: str = "http://deb.debian.org/debian"


@dataclass(frozen=True)
class Build:
    """Render a data set of real objects to train on: of your own meshes, or of what `rl3d world fetch` prepared."""

    folder: Positional[Path]
    """.glb, .gltf and .obj files, each with a caption: chair.txt beside chair.glb (a line for each wording), or captions.json
    with {"chair.glb": "a red chair"}. Or a prepared folder."""
    out: Path | None = None
    """The data set's folder. Default: .cache/world/FOLDER-SPLIT."""
    up: Literal["y", "z"] = "y"
    """The axis that is up in the meshes: y, with the front towards +z (glTF), or z, with the front towards -y (Blender)."""
    count: int = 2000
    """Scenes: objects in their variants, or two of them."""
    views: int = 8
    """Views of each, evenly spaced in azimuth."""
    size: int = 64
    """Width and height in pixels."""
    seed: int = 0
    split: Literal["train", "validation", "test", "unseen"] = "train"
    """Combinations of attributes to train on, or held out; or the objects that are never trained on."""
    samples: int = 2
    """Samples along each side of a pixel."""
    workers: int = 2
    """Processes."""


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
    if asked.allow_unknown and recipe.prior is not None:
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    prompts = read_prompts(asked.prompts)
    if not prompts:
        raise ValueError('say what to make, for example: rl3d generate "a red mug"')
    if recipe.prior is not None:
        for prompt in prompts:
            recipe.prior.check(prompt)
    changed = _without(words, {"--recipe", "--out", "--seed", "--device"}, set(asked.prompts))
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
            _show(run, recipe, asked.device, f"[{i + 1}/{len(prompts)}] " if len(prompts) > 1 else "")


def resume(words: list[str]) -> None:
    """Continue a run from its checkpoint."""
    asked = tyro.cli(Resume, args=words, prog="rl3d resume")
    run = Run(asked.folder)
    recipe = recorded_recipe(run)
    with run.lock():
        _show(run, recipe, asked.device)


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
    if "--allow-unknown" in given and recipe.prior is not None:
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    if describe(recipe) != json.loads((run.folder / "recipe.json").read_text()):
        raise ValueError(
            f"{run.folder} was made by another version of rl3d, whose defaults differ (recipe.json): start it anew"
        )
    return recipe


def _show(run: Run, recipe: Recipe, device: str, prefix: str = "") -> None:
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
            for report, _ in produce(run, recipe, device=device):
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


def world(words: list[str]) -> None:
    """Make data sets of real objects."""
    parts = {"fetch": _fetch, "build": _build, "train": _train}
    if not words or words[0] not in parts:
        raise ValueError("say `rl3d world fetch` (Debian's meshes), `rl3d world build FOLDER` or `rl3d world train`")
    parts[words[0]](words[1:])


def _fetch(words: list[str]) -> None:
    from rl3d.world import debian, things

    asked = tyro.cli(Fetch, args=words, prog="rl3d world fetch")
    with _bar() as bar:
        task = bar.add_task("preparing", total=None)
        for done, total in debian.prepare(asked.out, asked.mirror):
            bar.update(task, completed=done, total=total)
    found, nouns = things.read(asked.out)
    kept = sum(thing.kept for thing in found)
    print(f"{asked.out}: {kept} of {len(found)} objects kept, of {len(nouns)} kinds; {asked.out}/catalogue.csv has all of them")
    print(f"next: rl3d world build {asked.out}")


def _build(words: list[str]) -> None:
    from rl3d.toybox.dataset import Order
    from rl3d.world import dataset, folder

    asked = tyro.cli(Build, args=words, prog="rl3d world build")
    out = asked.out or Path(".cache/world") / f"{asked.folder.resolve().name}-{asked.split}"
    if out.resolve() == asked.folder.resolve():
        raise ValueError(f"{out} holds the meshes: choose another --out")
    stock = asked.folder
    with _bar() as bar:
        if not (stock / "things.jsonl").is_file():
            stock = out / "prepared"
            task = bar.add_task("preparing", total=None)
            for done, total in folder.prepare(asked.folder, stock, asked.up):
                bar.update(task, completed=done, total=total)
        order = Order(out, asked.count, asked.views, asked.size, asked.seed, asked.split, asked.samples)
        task = bar.add_task("rendering", total=asked.count)
        for done in dataset.make(order, stock, asked.workers):
            bar.update(task, completed=done)
    language = dataset.open_views(out).language
    print(f"{out}: {asked.count} scenes of {asked.views} views, {len(language.vocabulary())} words")
    print(f"next: rl3d world train {out}")


def _train(words: list[str]) -> None:
    """Run the training script in a process of its own: nothing in the package depends on the scripts."""
    raise SystemExit(subprocess.call([sys.executable, "-m", "rl3d.train.worlds", *words]))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def recipes(words: list[str]) -> None:
    """List the recipes."""
    for path in recipe_files():
        print(f"{path.stem:16} {load_recipe(path).about}")


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
