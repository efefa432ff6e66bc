"""``rl3d doctor``."""

from __future__ import annotations

from rl3d.doctor import report


def main(words: list[str]) -> None:
    """Say what works on this machine."""
    raise SystemExit(report())
