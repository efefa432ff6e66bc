"""The command line: ``rl3d generate``, ``resume``, ``evaluate``, ``doctor``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import AvoidSubcommands, Positional, arg

if TYPE_CHECKING:
    from rl3d.recipe import Recipe
    from rl3d.run import Run

USAGE = """rl3d makes 3D objects from text, and teaches them with rewards.

  rl3d generate "a red mug"          make an object      (rl3d generate --help: every setting)
  rl3d generate prompts.txt          one for each line
  rl3d resume runs/a-red-mug         continue a run that was stopped
  rl3d evaluate                      generate and score held-out prompts
  rl3d recipes                       list the recipes
  rl3d doctor                        say what works on this machine
"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command. A user's mistake ends in one line on stderr and exit code 2, Ctrl-C in 130, never in a traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    command = {"generate": generate, "resume": resume, "evaluate": evaluate, "recipes": recipes, "doctor": doctor}.get(words[0])
    if command is None:
        print(f"rl3d: there is no command {words[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
        raise SystemExit(2)
    try:
        command(words[1:])
    except KeyboardInterrupt:
        print("\nrl3d: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except ValueError as error:
        print(f"rl3d: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"rl3d: {error.strerror or error}{where}: what was saved before is whole", file=sys.stderr)
        raise SystemExit(1) from None


def generate(words: list[str]) -> None:
    """Make objects from prompts, each in a run's folder of its own."""
    from rl3d.recipe import load_recipe, recipe_file

    name = _value_of(words, "--recipe", "default")
    source = recipe_file(name)

    @dataclass(frozen=True)
    class Generate:
        """Make 3D objects from prompts."""

        prompts: Positional[tuple[str, ...]]
        """Prompts; scenes by name or .toml file; .txt files with a prompt on each line."""
        recipe: str = "default"
        """A recipe's name (see `rl3d recipes`) or a .py file."""
        out: Path | None = None
        """The run's folder; for several prompts the folder that holds theirs. Default: runs/."""
        seed: int = 0
        device: str = "cpu"
        """"cpu", or "cuda" where there is a GPU."""
        allow_unknown: bool = False
        """Go on although the prior does not know some words."""
        settings: Annotated[AvoidSubcommands[Recipe], arg(name="")] = field(default_factory=lambda: load_recipe(source))

    asked = tyro.cli(Generate, args=words, prog="rl3d generate")
    recipe = asked.settings
    if asked.allow_unknown and recipe.prior is not None:
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))

    from rl3d.generate import Request, create, find_run, read_prompts
    from rl3d.run import Run, short_name

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

    @dataclass(frozen=True)
    class Resume:
        """Continue a run that was stopped. On the CPU it ends in the same bytes as if it had not been."""

        folder: Positional[Path]
        device: str = "cpu"

    asked = tyro.cli(Resume, args=words, prog="rl3d resume")
    from rl3d.run import Run

    run = Run(asked.folder)
    recipe = recorded_recipe(run)
    with run.lock():
        _show(run, recipe, asked.device)


def recorded_recipe(run: Run) -> Recipe:
    """The recipe of an existing run: its own copy of the file, with the flags that were given."""
    from rl3d.recipe import Recipe, load_recipe

    about = run.about
    source = run.folder / "recipe.py"
    if not source.is_file():
        raise ValueError(f"{source} is missing: a run cannot be resumed without its recipe")
    flags = [flag for flag in about["arguments"] if flag != "--allow-unknown"]
    recipe = tyro.cli(AvoidSubcommands[Recipe], args=flags, default=load_recipe(source), prog="rl3d resume")
    if len(flags) != len(about["arguments"]) and recipe.prior is not None:
        recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
    return recipe


def _show(run: Run, recipe: Recipe, device: str, prefix: str = "") -> None:
    """Do a run with a live progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rl3d.generate import produce
    from rl3d.optimize import Diverged
    from rl3d.run import circumstances

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
                bar.update(task, completed=report.step, now=f"{losses}  {report.gaussians} splats")
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
    console.print(
        f"[bold]{summary['prompt']}[/bold]  {scores}  {summary['gaussians']} splats  "
        f"{summary['seconds']:.0f} s  {summary['peak_memory_gb']} GB\n  {run.folder}/preview.png  asset.ply  mesh.glb  turntable.mp4",
        highlight=False,
    )
    for note in summary["notes"]:
        console.print(f"[yellow]  {note}[/yellow]")


def evaluate(words: list[str]) -> None:
    """Generate and score held-out prompts."""

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

    asked = tyro.cli(Evaluate, args=words, prog="rl3d evaluate")
    from rl3d.assess import assess

    assess(asked.prompts, asked.recipe, asked.out, asked.json, asked.limit, asked.seed, asked.device)


def recipes(words: list[str]) -> None:
    """List the recipes."""
    from rl3d.recipe import load_recipe, recipe_file

    here = recipe_file("default").parent
    for path in sorted(here.glob("[!_]*.py")):
        print(f"{path.stem:12} {load_recipe(path).about}")


def doctor(words: list[str]) -> None:
    """Say what works on this machine."""
    from rl3d.doctor import report

    raise SystemExit(report())


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


if __name__ == "__main__":
    main()
