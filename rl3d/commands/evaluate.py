"""``rl3d evaluate``."""

from __future__ import annotations

import tyro

from rl3d.assess import Assessment, assess


def main(words: list[str]) -> None:
    """Generate and score held-out prompts."""
    assess(tyro.cli(Assessment, args=words, prog="rl3d evaluate"))
