"""Finds the weights of models: in the package, by their paths, in the hub's cache, on the hub and its mirrors.

Downloads go where the Hugging Face hub's own tools put them (``HF_HOME``), and obey their settings: ``HF_HUB_OFFLINE=1`` never
asks the network, ``HF_ENDPOINT`` names a mirror of the whole hub. Files that arrived whole are
not asked for again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

from rl3d.cards import CARDS, Card
from rl3d.files import write_whole

MODELS = ("prior", "encoder", "judge", "sides")
"""The embedded models, in the package's ``weights/``."""


PACKAGE = Path(__file__).parent / "weights"


def find_model(name: str) -> Path:
    """The folder of a model: an embedded one or a published one (:data:`rl3d.cards.CARDS`) by its name, or any by its path.

    A published one that is not there yet is downloaded. The environment variable ``RL3D_WEIGHTS`` names a folder to look in
    first, for any of them.

    Raises:
        ValueError: if it is nowhere, with where was looked and what to do.
    """
    places = [Path(name)]
    if other := os.environ.get("RL3D_WEIGHTS"):
        places.insert(0, Path(other) / name)
    if name in MODELS:
        places[-1] = PACKAGE / name
    for place in places:
        if place.is_dir() and any(place.rglob("*.safetensors")):
            return place
    if name in CARDS:
        return fetch(name)
    looked = ", ".join(map(str, places))
    fix = (
        "reinstall rl3d, or train it anew with rl3d.train"
        if name in MODELS
        else f"name a folder, or one of {', '.join((*MODELS, *CARDS))}"
    )
    raise ValueError(f"the weights of {name!r} are missing (looked in {looked}): {fix}")


def find_file(name: str) -> Path:
    """A weight file: by its path, or by the name of a published model that is a single file, downloaded if it is not there.

    Raises:
        ValueError: if it is nowhere.
    """
    if Path(name).is_file():
        return Path(name)
    if name in CARDS:
        (file,) = CARDS[name].files
        return fetch(name) / file
    single = [known for known, card in CARDS.items() if len(card.files) == 1]
    raise ValueError(f"there is no weight file {name}: name a file, or one of {', '.join(single)}")


def fetch(name: str) -> Path:
    """The folder that holds a published model, after a download if need be: from the first of its sources that has it.

    Raises:
        ValueError: if none has it, with what each said; or if a file is not the one that its card describes.
    """
    card = CARDS[name]
    if (here := cached(name)) is not None:
        return here
    print(f"rl3d: downloading {name}, about {card.gigabytes:g} GB ({card.licence})", file=sys.stderr)
    failures = []
    for source in card.sources:
        try:
            folder = _download(source, card)
            break
        except Exception as error:  # the hub's library, its network library and the system each raise their own
            failures.append(f"{source}: {_reason(error, card)}")
    else:
        where = f"or get its files elsewhere and name their folder; its page is {card.page}"
        raise ValueError(f"cannot download {name} ({'; '.join(failures)}): try again when the network is there, {where}")
    if wrong := problems(name):
        raise ValueError(f"{name} arrived damaged: {'; '.join(wrong)}; delete what is named and run `rl3d weights get {name}`")
    return folder


def cached(name: str) -> Path | None:
    """The folder that holds a published model already, whole; None if there is none. Asks no network."""
    card = CARDS[name]
    for source in card.sources:
        if source.startswith("https://"):
            if (_own(name) / card.files[0]).is_file():
                return _own(name)
            continue
        from huggingface_hub import snapshot_download

        repository, _, commit = source.partition("@")
        try:
            folder = Path(
                snapshot_download(repository, revision=commit, allow_patterns=list(card.files), local_files_only=True)
            )
        except Exception:  # "not there" and "not whole" have many names in the hub's library
            continue
        # Some versions of that library hand out what an interrupted download left.
        if not any((folder.parent.parent / "blobs").glob("*.incomplete")) and not _lacking(card, folder):
            return folder
    return None


def problems(name: str) -> list[str]:
    """What is wrong with the files of a published model that is here, a line for each; none if all are as they should be.

    The hub's cache names each file by the hash of what is in it, which is compared; so are the hashes of the card.
    """
    card, folder = CARDS[name], cached(name)
    if folder is None:
        return [f"{name} is not here"]
    wrong = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        file, blob = path.relative_to(folder).as_posix(), path.resolve().name
        expected = card.sha256.get(file) or (blob if len(blob) == 64 else None)
        if expected is not None and (found := sha256(path)) != expected:
            wrong.append(f"{path} has the sha256 {found}, not {expected}")
        elif expected is None and len(blob) == 40 and _git_hash(path) != blob:
            wrong.append(f"{path} is not what was downloaded once")
    return wrong


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_hash(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lacking(card: Card, folder: Path) -> list[str]:
    """Patterns without wildcards, and of weights, that no file fits."""
    there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    needed = [p for p in card.files if "*" not in p or p.endswith(".safetensors")]
    return [pattern for pattern in needed if not any(fnmatch(file, pattern) for file in there)]


def _download(source: str, card: Card) -> Path:
    if source.startswith("https://"):
        folder = _own(next(name for name, other in CARDS.items() if other is card))
        with urllib.request.urlopen(source, timeout=30) as answer:
            data = answer.read()
        expected = card.sha256[card.files[0]]
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise ValueError(f"what came has the sha256 {found}, not {expected}")
        write_whole(folder / card.files[0], data)
        return folder
    from huggingface_hub import snapshot_download

    repository, _, commit = source.partition("@")
    folder = Path(snapshot_download(repository, revision=commit, allow_patterns=list(card.files)))
    if lacking := _lacking(card, folder):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    return folder


def _own(name: str) -> Path:
    """Where single files from elsewhere are kept, beside the hub's own cache."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "rl3d" / name


def _reason(error: Exception, card: Card) -> str:
    """What went wrong, in a line, with what helps."""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return f"it is gated: accept its licence on {card.page}, make a token there, and run `hf auth login`"
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError"):
        return "it is not there any more"
    if isinstance(error, OSError) and error.errno == 28:
        free = shutil.disk_usage(Path.home()).free / 1e9
        return f"the disk is full ({free:.1f} GB free; set HF_HOME to a folder on a larger one)"
    return f"{kind}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
