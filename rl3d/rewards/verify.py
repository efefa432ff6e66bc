"""Programmatic checks, in the manner of GenEval (Ghosh et al. 2023): colours, counts and relations, read from the
geometry and the renders of an object.

What can be read without recognising kinds is checked, and nothing else: whether it is a mug or a bowl, tall or short, is not.
Of the toybox's own objects at most 2 % that can be read are denied what is true of them (the slow test in
``tests/rewards/test_verify.py`` holds it to that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from rl3d.geometry.points import pieces
from rl3d.geometry.reproject import unproject
from rl3d.protocols import RewardInfo, Scene, Shown
from rl3d.rewards.base import Unmeasurable, closed_form, judge_each, look, mesh_of
from rl3d.toybox import grammar, kinds
from rl3d.toybox.paints import PAINTS, Material
from rl3d.toybox.things import Item, Spec
from rl3d.types import Prompt, Score, Views

NAMES = tuple(PAINTS)

MIXED = frozenset(
    (
        *("house", "rocket", "drum", "cake", "boat", "lighthouse", "windmill", "train", "robot", "airplane", "turtle"),
        *("lamp", "fish", "axe", "umbrella", "candle", "bed", "bottle", "snowman", "clock", "carrot", "teapot"),
    )
)
"""Kinds that their own colour may cover by about a half only: of what colour they are takes knowing their parts."""


@dataclass(frozen=True)
class Verified:
    """The share of checks that an object passes, in [0, 1]; 1 is what was asked for, as far as it can be read. A black box.

    - Each colour asked for covers its thing more than any other colour with a name does, but for those that people mix up.
    - An accent's colour is to be seen on it.
    - There are as many things as asked for, apart from each other.
    - "On", "inside" and "next to": by what stands beside what, higher, and surrounded by it.

    Colours are read from renders in the toybox's light, each against what every paint of the palette looks like on a surface
    that faces this way. A prompt of which not all can be checked (:func:`readable`) is not valid. Show it eight views or more,
    from above too, of about 96 pixels.
    """

    claims: dict[str, Spec] = field(default_factory=dict)
    """What prompts ask for, by their texts; others are parsed (:func:`parse`)."""
    reach: float = 0.03
    """World units that are no gap between two things."""

    @property
    def info(self) -> RewardInfo:
        return closed_form("verified", "no", (0.0, 1.0), "https://arxiv.org/abs/2310.11513", "views", "depth", "mesh")

    def build(self, device: torch.device | str = "cpu") -> Verified:
        return self

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        seen = look(self.info, shown, prompts)

        def one(i: int) -> float | None:
            spec = self.claims.get(prompts[i].text) or parse(prompts[i].text)
            sample = seen.views.sample(i)
            if spec is None or not readable(spec) or not all(x.isfinite().all() for x in sample.tensors()):
                return None
            try:
                checks = check(read(sample, seen.scenes[i], reach=self.reach), spec)
            except Unmeasurable:
                return None
            return sum(checks.values()) / len(checks)

        return judge_each(len(prompts), one, seen.views.rgb)


def readable(spec: Spec) -> bool:
    """Whether all of a spec's colours, counts and relations can be read without recognising kinds."""
    plain = all(item.paint is None or item.kind not in MIXED for item in spec.items)
    plain &= all(item.accent is None or _accent_readable(item) for item in spec.items)
    if spec.relation is None:
        return plain
    # Two things are told apart by their colours alone.
    one, other = spec.items
    if one.paint is None or other.paint is None or not plain or _near(one.paint, other.paint):
        return False
    if spec.relation == "next to":
        return True
    # What else there is to see of either must not be taken for what is asked; and what is inside is seen by half only.
    plain = spec.relation == "on" or one.kind in grammar.SOLIDS
    return plain and not any(_near(item.paint or "", p) for item in spec.items for p in _rest(spec))


def _rest(spec: Spec) -> list[str]:
    """The paints that other parts than the main ones may have."""
    slots = [(slot, paints) for item in spec.items for slot, paints in kinds.KINDS[item.kind].slots.items()]
    return [p for slot, paints in slots if slot != "main" for p in paints]


def _near(one: str, other: str) -> bool:
    """Whether one paint may be taken for the other in some light."""
    a, b = (np.array(PAINTS[name].colour) for name in (one, other))
    return one == other or grammar.alike(one, other) or float(np.linalg.norm(a - b)) < 0.25


def _accent_readable(item: Item) -> bool:
    """Whether no other part of such a thing may have the accent's colour, so that seeing it says something."""
    assert item.accent is not None
    kind, (part, paint) = kinds.KINDS[item.kind], item.accent
    natural = [p for slot, paints in kind.slots.items() if slot not in ("main", kind.accents[part]) for p in paints]
    natural += kind.slots["main"] if item.paint is None else [item.paint]
    return not any(p == paint or grammar.alike(p, paint) for p in natural)


@dataclass(frozen=True)
class Evidence:
    """What an object shows: its surface as points, each with its paint and the thing that it belongs to."""

    points: Float[ndarray, "n 3"]
    paint: Int[ndarray, "n"]
    """Index into the palette."""
    thing: Int[ndarray, "n"]
    seen: Float[ndarray, "n"]
    """How many pixels show it."""
    reach: float
    """World units that are no gap."""

    def shares(self, thing: int | None = None) -> dict[str, float]:
        """How much of what is seen, of one thing or of all, has each paint."""
        weight = self.seen if thing is None else self.seen * (self.thing == thing)
        counts = np.bincount(self.paint, weights=weight, minlength=len(NAMES))
        return dict(zip(NAMES, (counts / max(counts.sum(), 1e-9)).tolist(), strict=True))


NEIGHBOURS = 12
"""Samples of a surface that lie within reach of each, on average: so many that it hangs together."""


def read(views: Views, scene: Scene, *, reach: float = 0.03) -> Evidence:
    """Look at ``[1 v]`` views with depth and normals, and at the mesh.

    Raises:
        Unmeasurable: if there is nothing to see.
    """
    import trimesh
    from scipy.spatial import cKDTree

    mesh = mesh_of(scene)
    assert views.depth is not None
    assert views.normals is not None
    inner = views.alpha[0, ..., 0] > 0.99
    if not inner.any():
        raise Unmeasurable("no pixel is covered")
    where = unproject(views.depth[0], views.cameras)[inner].double().cpu().numpy()
    labels = nearest_paint(views.rgb[0][inner].double().cpu().numpy(), views.normals[0][inner].double().cpu().numpy())
    count = int(np.clip(NEIGHBOURS * mesh.area / (np.pi * reach**2), 2_000, 120_000))
    points, faces, *_ = trimesh.sample.sample_surface(mesh, count, seed=0)
    points = np.asarray(points)
    # A part of the mesh in one colour has it all over, so that what is hidden is known too.
    part = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))[np.asarray(faces)]
    near = cKDTree(points).query(where)[1]
    seen = np.bincount(near, minlength=len(points)).astype(float)
    paint = labels[cKDTree(where).query(points)[1]]
    votes = np.zeros((part.max() + 1, len(NAMES)))
    np.add.at(votes, (part[near], labels), 1)
    pure = votes.max(1) > 0.6 * votes.sum(1).clip(1)
    paint = np.where(pure[part], votes.argmax(1)[part], paint)
    return Evidence(points, paint, _things(points, reach), seen, reach)


def _things(points: Float[ndarray, "n 3"], reach: float, least: float = 0.02) -> Int[ndarray, "n"]:
    """Which thing each point belongs to: what hangs together, and what overlaps seen from above; crumbs join the nearest."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    piece = pieces(points, reach)
    sizes = np.bincount(piece)
    large = sizes[piece] >= least * len(points)
    if large.any() and not large.all():
        piece[~large] = piece[large][cKDTree(points[large]).query(points[~large])[1]]
    names = np.unique(piece)
    boxes = np.array([[points[piece == k, :2].min(0), points[piece == k, :2].max(0)] for k in names])
    low, high = np.maximum(boxes[:, None, 0], boxes[None, :, 0]), np.minimum(boxes[:, None, 1], boxes[None, :, 1])
    shared, own = np.prod(np.clip(high - low, 0, None), -1), np.prod(boxes[:, 1] - boxes[:, 0], -1)
    overlap = shared > 0.4 * np.minimum(own[:, None], own[None])
    _, thing = connected_components(overlap, directed=False)
    return thing[np.searchsorted(names, piece)]


def check(evidence: Evidence, spec: Spec) -> dict[str, float]:
    """Each check that a spec asks for, 1 if passed and 0 if not."""
    things = int(evidence.thing.max()) + 1
    if spec.relation is None:
        (item,) = spec.items
        found = {"count": float(things == item.count)}
        for k in range(things):
            found |= {f"{name} {k + 1}": value for name, value in _colours(evidence.shares(k), item).items()}
        return found
    expected = 2 if spec.relation == "next to" else 1
    found = {"apart": float(things == expected)}
    if spec.relation == "next to":
        ways = [spec.items, spec.items[::-1]] if things == 2 else []
        marks = [min(min(_colours(evidence.shares(k), item).values()) for k, item in enumerate(way)) for way in ways]
        return found | {"colours": max(marks, default=0.0)}
    one, other = spec.items
    upper, lower = (evidence.paint == NAMES.index(item.paint or "") for item in (one, other))
    shares, asked = evidence.shares(), [item.paint or "" for item in spec.items]
    known = [*asked, *_rest(spec)]
    rivals = [shares[p] for p in grammar.PAINTS if not any(p == q or grammar.alike(p, q) for q in known)]
    visible = [shares[p] > max(0.03, *rivals) for p in asked]
    found["colours"] = float(all(visible))
    return found | {
        spec.relation: float(all(visible) and _relation(evidence.points, upper, lower, evidence.reach) == spec.relation)
    }


def _colours(shares: dict[str, float], item: Item) -> dict[str, float]:
    """Whether a thing shows an item's colours."""
    found = {}
    if item.paint is not None:
        rivals = [p for p in grammar.PAINTS if p != item.paint and not grammar.alike(p, item.paint)]
        found["colour"] = float(shares[item.paint] > max(0.05, *(shares[p] for p in rivals)))
    if item.accent is not None:
        found["accent"] = float(shares[item.accent[1]] > 0.01)
    return found or {"any colour": 1.0}


def _relation(points: Float[ndarray, "n 3"], upper: ndarray, lower: ndarray, reach: float) -> str | None:
    """How what is of one colour stands to what is of another: "on", "inside", or neither."""
    if upper.sum() < 20 or lower.sum() < 20:
        return None
    a, b = points[upper], points[lower]
    # The largest piece of its colour: the other thing may have small parts of it.
    piece = pieces(a, reach)
    a = a[piece == np.bincount(piece).argmax()]
    if np.median(a[:, 2]) <= np.median(b[:, 2]):
        return None
    bottom, top = np.quantile(a[:, 2], [0.01, 0.99])
    middle = a[:, :2].mean(0)

    def around(x: ndarray) -> tuple[ndarray, ndarray]:
        away = x[:, :2] - middle
        return ((np.arctan2(away[:, 1], away[:, 0]) / np.pi + 1) * 4).astype(int) % 8, np.hypot(*away.T)

    (sector, far), (own, extent) = around(b), around(a)
    walls = 0
    for k in range(8):
        # Beyond the upper thing, where the lower one rises clearly above its bottom, is a wall.
        beyond = (sector == k) & (far > 0.9 * extent[own == k].max(initial=0.0))
        walls += bool((b[beyond, 2] > bottom + 0.12 * (top - bottom)).any())
    return "inside" if walls >= 7 else "on"


KEY, SKY, FLOOR, WRAP = (0.84, 0.79, 0.71), (0.41, 0.43, 0.47), (0.25, 0.23, 0.22), 0.25
"""The toybox's light (:mod:`rl3d.toybox.shading`)."""


@cache
def _looks() -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """What paints can look like before they are lit: the paint's index, linear colour, white added, share of the sheen."""
    rows = []
    for i, paint in enumerate(PAINTS.values()):
        first, second = (np.array(c) ** 2 for c in (paint.colour, paint.second or paint.colour))
        if paint.material == Material.METAL:
            for window, horizon in [(w, 0.0) for w in (0, 0.25, 0.5, 0.75, 1)] + [(0.0, h) for h in (0.25, 0.5, 0.75, 1)]:
                rows.append((i, first * (0.62 + 0.58 * window - 0.42 * horizon), 0.12 * window, 0.45))
        elif paint.material == Material.WOOD:
            rows += [(i, first + t * (second - first), 0.0, 0.025) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)]
        elif paint.material == Material.STONE:
            rows += [(i, first + t * (second - first), 0.0, 0.0) for t in (-0.4, -0.2, 0, 0.18, 0.5, 0.75, 1)]
        else:
            rows.append((i, first, 0.0, 0.05))
    index, colour, white, gloss = zip(*rows, strict=True)
    return np.array(index), np.stack(colour), np.array(white), np.array(gloss)


def nearest_paint(rgb: Float[ndarray, "n 3"], normals: Float[ndarray, "n 3"]) -> Int[ndarray, "n"]:
    """The paint of the palette that looks most like each colour on a surface with this normal in the toybox's light."""
    direction = np.array((0.55, 0.45, 0.70))
    facing = normals @ (direction / np.linalg.norm(direction))
    key, sky = np.clip((facing + WRAP) / (1 + WRAP), 0, None)[:, None], 0.5 + 0.5 * normals[:, 2:]
    light = np.array(KEY) * key + np.array(FLOOR) + sky * (np.array(SKY) - np.array(FLOOR))
    sheen = np.clip(facing, 0, None)[:, None] ** 16
    index, colour, white, gloss = _looks()
    best, found = np.full(len(rgb), np.inf), np.zeros(len(rgb), int)
    for k in range(len(index)):
        shown = np.sqrt(np.clip(colour[k] * light + white[k] + gloss[k] * sheen, 0, 1))
        distance = np.abs(shown - rgb).sum(1)
        better = distance < best
        best, found = np.where(better, distance, best), np.where(better, index[k], found)
    return found


def parse(text: str) -> Spec | None:
    """The spec that a caption of the toybox words, or None if it is none: :func:`rl3d.toybox.grammar.caption`, turned round."""
    words = " " + " ".join(grammar.words(text)) + " "
    for relation, ways in grammar.RELATING.items():
        for way in sorted(ways, key=len, reverse=True):
            # "In" also paints ("a drum in pink in a bucket"), so every place is tried.
            for place in re.finditer(rf"(?= {way} )", words):
                one, other = _parse_item(words[: place.start()]), _parse_item(words[place.start() + len(way) + 2 :])
                if one is not None and other is not None:
                    return Spec((one, other), relation)
    item = _parse_item(words)
    return None if item is None else Spec((item,))


@cache
def _nouns() -> tuple[tuple[str, str, bool], ...]:
    """Every noun, the longest first: its words, the kind, and whether it is a plural."""
    found = {}
    for kind in kinds.KINDS.values():
        for name in (*kind.synonyms, kind.name):
            found.setdefault((" ".join(grammar.words(name)), False), kind.name)
        found[" ".join(grammar.words(grammar.plural(kind))), True] = kind.name
        found[" ".join(grammar.words(kind.name)), False] = kind.name
    return tuple((noun, kind, many) for (noun, many), kind in sorted(found.items(), key=lambda x: -len(x[0][0])))


def _parse_item(text: str) -> Item | None:
    text = f" {text.strip()} "
    for plain, ways in grammar.WAYS.items():
        for way in ways:
            text = text.replace(f" {way} ", f" {plain} ")
    accent = None
    if match := re.search(r" (?:with|that has|whose) (.*)", text):
        said, text = match[1].replace(" is ", " ").replace(" are ", " ").split(), f"{text[: match.start()]} "
        colours, parts = [w for w in said if w in grammar.PAINTS], [w for w in said if w not in (*grammar.PAINTS, "a", "an")]
        if len(colours) != 1 or not parts:
            return None
        accent = (" ".join(parts), colours[0])
    named = next((entry for entry in _nouns() if f" {entry[0]} " in text), None)
    if named is None:
        return None
    noun, name, many = named
    text = text.replace(f" {noun} ", " ", 1)
    for paint, stuff in grammar._STUFF.items():
        text = re.sub(rf" made (?:out )?of (?:{stuff}|{paint}) ", f" {paint} ", text)
    rest = [w for w in text.split() if w not in ("a", "an", "the", "one", "toy", "that", "is", "are", "in", "group", "of")]
    numbers = {way: n for n, ways in grammar.NUMBERS.items() for way in ways}
    paints = [w for w in rest if w in grammar.PAINTS]
    forms = [w for w in rest if w in ("tall", "short", "wide", "narrow", *grammar.SIZES)]
    counts = [numbers[w] for w in rest if w in numbers]
    if len(paints) + len(forms) + len(counts) != len(rest) or max(map(len, (paints, forms, counts))) > 1:
        return None
    if many != bool(counts) and grammar.plural(kinds.KINDS[name]) != name:
        return None
    return Item(name, *paints or (None,), *forms or (None,), accent=accent, count=counts[0] if counts else 1)
