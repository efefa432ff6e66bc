"""What real objects are called: a list of nouns, with other words for each, what it also is, and what it might be taken for.

The list (``nouns.txt``) was written while looking at every object: catalogues call a sock a socket and a shelf a box.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Noun:
    """A kind of object."""

    name: str
    synonyms: tuple[str, ...] = ()
    """Other words that captions use."""
    unseen: tuple[str, ...] = ()
    """Other words that no caption uses: for tests of wordings that were never trained on."""
    broader: tuple[str, ...] = ()
    """What it also is: an office chair is a chair."""
    unsure: tuple[str, ...] = ()
    """Kinds for which it might be taken; none of these is certainly false of it."""
    natural: bool = False
    """Whether it looks wrong in another colour or shape: food, plants, animals, people."""
    group: str = ""
    """Its section of the list: others of it are near misses."""
    colours: tuple[str, ...] = ()
    """In which of its objects come by themselves."""
    phrase: bool = False
    """Whether the name is a whole caption, to be said as it is."""

    @property
    def plural(self) -> str:
        """Its name for several; empty if there is none."""
        if self.phrase or self.group == "food":
            return ""
        last = self.name.split()[-1]
        if len(self.name.split()) > 3 or (last.endswith("s") and not last.endswith("ss")):
            return ""
        ends = {
            "deer": "deer",
            "toilet paper": "rolls of toilet paper",
            "man": "men",
            "child": "children",
            "shelf": "shelves",
            "knife": "knives",
        }
        for single, many in ends.items():
            if self.name.endswith(single):
                return self.name.removesuffix(single) + many
        if last.endswith(("ss", "x", "ch", "sh")):
            return self.name + "es"
        if last.endswith("y") and last[-2] not in "aeiou":
            return self.name[:-1] + "ies"
        return self.name + "s"


@dataclass(frozen=True)
class Naming:
    """How catalogues' names become nouns."""

    nouns: dict[str, Noun]
    called: dict[str, str]
    """Noun by catalogue name, or by "@" and an id."""
    rejected: dict[str, str]
    """Why what is called so is left out."""
    open: frozenset[str]
    """Those whose panes are taken away, since they hide what is shown."""

    def look_up(self, id: str, name: str) -> str | None:
        """The noun of an object; None if the list has none."""
        return self.called.get(f"@{id}") or self.called.get(name)

    def reason(self, id: str, name: str) -> str | None:
        """Why an object is left out, if it is."""
        return self.rejected.get(f"@{id}") or (None if f"@{id}" in self.called else self.rejected.get(name))


@cache
def naming() -> Naming:
    """Read the list. A noun that leads to one that is not in the list, or a name with two nouns, is a ``ValueError``."""
    nouns: dict[str, Noun] = {}
    called: dict[str, str] = {}
    rejected: dict[str, str] = {}
    panes: set[str] = set()
    section = ""
    for line in files("rl3d.world").joinpath("nouns.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# -- "):
            section = line[5:]
        if not line.strip() or line.startswith("#"):
            continue
        head, names, *rest = (field.strip() for field in f" {line} ".split(" : "))
        listed = _listed(names)
        if section == "rejected":
            rejected |= dict.fromkeys(listed, head)
            continue
        if section == "panes that hide":
            panes |= set(listed)
            continue
        words, links = _words_and_links(rest)
        nouns[head] = Noun(
            head,
            tuple(word for word in words if not word.startswith("~")),
            tuple(word[1:] for word in words if word.startswith("~")),
            tuple(link[1:].strip() for link in links if link.startswith("<")),
            tuple(link.removeprefix("?").strip() for link in links if not link.startswith("<")),
            "natural" in section,
            section.removesuffix(", natural"),
        )
        for name in listed:
            if name in called:
                raise ValueError(f"nouns.txt: {name!r} is both {called[name]!r} and {head!r}; keep one")
            called[name] = head
    for noun in nouns.values():
        for other in noun.broader:
            if other not in nouns:
                raise ValueError(f"nouns.txt: {noun.name!r} leads to {other!r}, which is not in the list")
    return Naming(nouns, called, rejected, frozenset(panes))


def _listed(field: str) -> list[str]:
    return [name.strip().replace(";", ",") for name in field.split(", ") if name.strip() not in ("", "-")]


def _words_and_links(fields: list[str]) -> tuple[list[str], list[str]]:
    """Split what follows the names: other words, then links, which start with < or ?."""
    words: list[str] = []
    links: list[str] = []
    for field in fields:
        if field.startswith(("<", "?")):
            links += _listed(field)
        else:
            words += _listed(field)
    return words, links


def family(noun: str, nouns: dict[str, Noun]) -> set[str]:
    """A noun with all that it also is."""
    found, open = {noun}, [noun]
    while open:
        known = nouns.get(open.pop())
        for other in known.broader if known else ():
            if other not in found:
                found.add(other)
                open.append(other)
    return found


def may_be(one: str, other: str, nouns: dict[str, Noun]) -> bool:
    """Whether something that is called ``one`` might be called ``other``: one is a kind of the other, they share a word, or the
    list says that either is taken for the other.
    """
    families = family(one, nouns), family(other, nouns)
    if one in families[1] or other in families[0]:
        return True
    if _words(families[0], nouns) & _words({other}, nouns) or _words(families[1], nouns) & _words({one}, nouns):
        return True
    return any(b in _unsure(a, nouns) or a in _unsure(b, nouns) for a in families[0] for b in families[1])


def _words(names: Iterable[str], nouns: dict[str, Noun]) -> set[str]:
    return {word for name in names for word in (name, *_get(name, nouns).synonyms, *_get(name, nouns).unseen)}


def _unsure(name: str, nouns: dict[str, Noun]) -> tuple[str, ...]:
    return _get(name, nouns).unsure


def _get(name: str, nouns: dict[str, Noun]) -> Noun:
    return nouns.get(name) or Noun(name)
