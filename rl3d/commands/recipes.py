"""``rl3d recipes``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rl3d.lesson import Lesson, lesson_files, load_lesson
from rl3d.recipe import Recipe, load_recipe, recipe_files


def main(words: list[str]) -> None:
    """List the recipes, and the lessons."""
    print("rl3d generate --recipe NAME")
    listed(recipe_files(), load_recipe)
    print("\nrl3d finetune NAME")
    listed(lesson_files(), load_lesson)


def listed(files: list[Path], load: Callable[[Path], Recipe | Lesson]) -> None:
    """Print a line for each."""
    for path in files:
        print(f"{path.stem:16} {load(path).about}")
