"""Command lines as lists of words, before and after they are parsed."""

from __future__ import annotations


def value_of(words: list[str], flag: str, default: str) -> str:
    """The value of a flag on a command line that is not parsed yet."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return default


def without(words: list[str], flags: set[str], positional: set[str]) -> list[str]:
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


def device_here(name: str) -> str:
    """The name of a device, if torch has it on this machine.

    Raises:
        ValueError: if it has not.
    """
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"there is no device {name!r} here ({why}): leave --device out to compute on the CPU") from None
    return name
