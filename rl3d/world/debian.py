"""Prepare the objects of Debian's packages: fetched, cleaned, named, measured and divided; and the table of all that was found.

``rl3d world fetch`` does it. ``catalogue.csv`` beside this module is that table as it was when the nouns were written: every
object with its author, licence and checksum, kept or left out and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rl3d.world import sources, things
from rl3d.world.nouns import family, naming
from rl3d.world.sources import Entry
from rl3d.world.surface import UNSEEN, Surface, clean, read, upright
from rl3d.world.things import Thing

CATALOGUE = Path(__file__).parent / "catalogue.csv"

SMALL = 0.75
"""Metres of the longest side below which what is movable may stand on something."""


def prepare(folder: Path, mirror: str = sources.MIRROR) -> Iterator[tuple[int, int]]:
    """Make a folder of all objects; yield how many are done, of how many. Those that are there already are not made again."""
    archives = [
        a for package in sources.fetch(folder / "packages", mirror) for a in sources.unpack(package, folder / "archives")
    ]
    entries = [entry for archive in archives for entry in sources.entries(archive)]
    found: list[Thing] = []
    for i, entry in enumerate(entries):
        found.append(_prepared(folder, entry))
        yield i + 1, len(entries)
    found = things.divided(things.compared(found))
    things.write(folder, found, things.nouns_of(found, naming().nouns))
    (folder / "catalogue.csv").write_text(things.table(found), encoding="utf-8")


def _prepared(folder: Path, entry: Entry) -> Thing:
    names = naming()
    noun = names.look_up(entry.id, entry.name)
    thing = Thing(
        **{key: getattr(entry, key) for key in ("id", "name", "category", "source", "author", "licence", "size")},
        noun=noun or "",
        sha256=entry.sha256(),
        reason=names.reason(entry.id, entry.name) or "",
    )
    if thing.reason:
        return replace(thing, noun="")
    try:
        surface = surface_of(entry)
    except ValueError as error:
        return replace(thing, noun="", reason=str(error))
    if noun is None:
        return replace(thing, reason="nobody has named it: give it a noun in nouns.txt")
    thing = things.measured(thing, surface)
    if "person" in family(noun, names.nouns):
        thing = replace(thing, colour=None)  # a man in a gray suit is not a gray man
    if thing.kept:
        surface.save(things.file_of(folder, thing.id))
    else:
        thing = replace(thing, noun="")
    longest = max(entry.size)
    return replace(
        thing,
        small=thing.kept and entry.movable and longest < SMALL and min(entry.size) > 0.1 * longest,
        flat=thing.kept and entry.top > 0.7 * entry.size[2] and not names.nouns[noun].natural,
        change=thing.kept and not names.nouns[noun].natural,
    )


def surface_of(entry: Entry) -> Surface:
    """Read an entry's mesh, clean, in metres, and as it stands in the world."""
    names = naming()
    least = 0.55 if {f"@{entry.id}", entry.name} & names.open else UNSEEN
    return clean(upright(read(entry.load(), least=least), sources.rotation(entry.turn), entry.size))
