"""``rl3d weights``: the published models that rl3d knows."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from rl3d.cards import CARDS
from rl3d.hub import cached, fetch, problems
from rl3d.rewards.weights import convert

USAGE = """rl3d weights list                   the models, where they come from, and which are here
rl3d weights get NAME ...           download what is not here yet
rl3d weights check [NAME ...]       compare the files that are here with their hashes
rl3d weights convert FILE.pt OUT    a published .pt, .pth or .bin as .safetensors
"""


@dataclass(frozen=True)
class Named:
    """Models by their names."""

    names: Positional[tuple[str, ...]]


@dataclass(frozen=True)
class Convert:
    """Read tensors in a process of their own, and write them as safetensors."""

    file: Positional[Path]
    out: Positional[Path]
    trust: bool = False
    """Run what the file says, where it holds more than tensors: only if you would let its makers use this machine."""


def main(words: list[str]) -> None:
    """Run one of the four."""
    what, rest = (words[0], words[1:]) if words else ("list", [])
    if what == "list" and not rest:
        _list()
    elif what in ("get", "check"):
        names = tyro.cli(Named, args=rest, prog=f"rl3d weights {what}").names
        if unknown := [name for name in names if name not in CARDS]:
            raise ValueError(f"there is no model {unknown[0]!r}: known are {', '.join(CARDS)}")
        if what == "get" and not names:
            raise ValueError(f"say which: {', '.join(CARDS)}")
        _get(names) if what == "get" else _check(names or tuple(name for name in CARDS if cached(name) is not None))
    elif what == "convert":
        _convert(tyro.cli(Convert, args=rest, prog="rl3d weights convert"))
    else:
        raise ValueError(f"there is no `rl3d weights {' '.join(words)}`:\n{USAGE}")


def _list() -> None:
    for name, card in CARDS.items():
        here = "here" if cached(name) is not None else f"{card.gigabytes:g} GB"
        print(f"{name:16} {here:>8}  {card.about}")
        print(f"{'':27}{card.licence}{' (gated)' if card.gated else ''}; {', '.join(s.split('@')[0] for s in card.sources)}")


def _get(names: tuple[str, ...]) -> None:
    for name in names:
        print(f"{name}: {fetch(name)}")


def _check(names: tuple[str, ...]) -> None:
    if not names:
        print("no published model is here; `rl3d weights list` names them")
    found = {name: problems(name) for name in names}
    for name, wrong in found.items():
        print(f"{name}: {'as it should be' if not wrong else '; '.join(wrong)}")
    if any(found.values()):
        raise SystemExit(1)


def _convert(asked: Convert) -> None:
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    worker = context.Process(target=_converted, args=(asked, tell))
    worker.start()
    tell.close()
    try:
        said = told.recv()
    except EOFError:
        said = "the process that read it died"
    worker.join()
    if said is not None:
        raise ValueError(said)
    print(f"{asked.out} holds the tensors of {asked.file}")


def _converted(asked: Convert, tell) -> None:
    try:
        convert(asked.file, asked.out, trust=asked.trust)
        tell.send(None)
    except ValueError as error:
        tell.send(str(error))
