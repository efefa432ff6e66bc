"""``rl3d evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from rl3d.assess import assess


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


def main(words: list[str]) -> None:
    """Generate and score held-out prompts."""
    asked = tyro.cli(Evaluate, args=words, prog="rl3d evaluate")
    assess(asked.prompts, asked.recipe, asked.out, asked.json, asked.limit, asked.seed, asked.device)
