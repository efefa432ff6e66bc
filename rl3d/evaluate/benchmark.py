"""The evaluation: held-out prompts are generated and scored, beside true renders of what they ask for."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl3d.evaluate.metrics import azimuth_errors_deg, chamfer, rank, silhouette_iou
from rl3d.export.mesh import to_mesh
from rl3d.render.gaussians import look_at
from rl3d.rewards.clip import ClipReward
from rl3d.toybox import assemble, grammar, pools
from rl3d.toybox.dataset import spec_from_dict
from rl3d.toybox.kinds import KINDS
from rl3d.toybox.render import render
from rl3d.toybox.things import Spec
from rl3d.types import Cameras, Splats, Views

INSTANCES = 5
"""True objects that an asset is compared with; the closest counts."""
POINTS = 2000
"""Surface samples of each object, for distances."""


@dataclass(frozen=True)
class Question:
    """A held-out prompt, and the exact attributes of what it asks for."""

    prompt: str
    spec: Spec


def read_questions(path: Path) -> list[Question]:
    """Read a prompt set: JSON lines with ``prompt`` and ``spec``."""
    questions = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            questions.append(Question(record["prompt"], spec_from_dict(record["spec"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: {error!r}; each line is {{"prompt": ..., "spec": ...}}, as in rl3d/toybox/prompts'
            ) from None
    if not questions:
        raise ValueError(f"{path} holds no prompts")
    return questions


def prompt_set(name: str) -> Path:
    """The file of the "validation" or the sealed "test" prompts."""
    return Path(str(resources.files("rl3d.toybox") / "prompts" / f"{name}.txt"))


def true_views(spec: Spec, cameras: Cameras, seed: int, count: int) -> tuple[list[Views], list[assemble.Toy]]:
    """Renders of ``count`` true objects; the toybox's instances at evaluation have seeds that no training uses."""
    toys = [assemble.build(spec, np.random.default_rng([seed, i, 0xE7A1])) for i in range(count)]
    return [render(toy, cameras) for toy in toys], toys


@dataclass(frozen=True)
class Examiner:
    """The models that look at assets, and the cameras they look from."""

    judges: dict[str, ClipReward]
    """By name; "judge" is the one that was never a training signal."""
    cameras: Cameras

    @torch.no_grad()
    def examine(self, question: Question, splats: Splats) -> dict[str, Any]:
        """All measures of one asset, and of a true object in its place (under "true_...")."""
        spec, seed = question.spec, zlib.crc32(question.prompt.encode())
        claims = [grammar.canonical(s) for s in pools.pool(spec, np.random.default_rng(seed), size=100, near=20)]
        look = look_at(splats)
        views = look(self.cameras)
        truths, toys = true_views(spec, self.cameras, seed, INSTANCES)
        found: dict[str, Any] = {}
        for name, model in self.judges.items():
            texts = model.embed_text(claims)
            image, truth = model.embed_views(views, background=0.8)[0], model.embed_views(truths[0], background=0.8)[0]
            place = rank(image, texts)
            found |= {
                f"{name}_r1": float(place == 0),
                f"{name}_r5": float(place < 5),
                f"true_{name}_r1": float(rank(truth, texts) == 0),
            }
            found |= {f"{name}_score": float((image @ texts[0]).mean()), f"true_{name}_score": float((truth @ texts[0]).mean())}
            if place:
                similarity = texts @ torch.nn.functional.normalize(image.mean(0), dim=0)
                found[f"{name}_mistook_for"] = claims[int(similarity.argmax())]
        found["iou"] = max(float(silhouette_iou(views, truth)) for truth in truths)
        found["true_iou"] = max(float(silhouette_iou(truths[0], truth)) for truth in truths[1:])
        clouds = [_surface_points(toy.mesh(), seed) for toy in toys]
        try:
            own = _surface_points(to_mesh(look), seed)
            found["chamfer"] = min(chamfer(own, cloud) for cloud in clouds)
        except ValueError:
            found["chamfer"] = None
        found["true_chamfer"] = min(chamfer(clouds[0], cloud) for cloud in clouds[1:])
        if len(spec.items) == 1 and spec.items[0].count == 1 and KINDS[spec.items[0].kind].front:
            found |= self._janus(views, truths)
        return found

    def _janus(self, views: Views, truths: list[Views]) -> dict[str, float]:
        """Mean azimuth error of an object with a front, and of a true one, by the judge's features."""
        model = self.judges["judge"]
        embedded = torch.cat([model.embed_views(truth, background=0.8) for truth in truths])
        azimuths = views.cameras.azimuths_deg[0]
        own = azimuth_errors_deg(model.embed_views(views, background=0.8)[0], embedded[1:], azimuths)
        true = azimuth_errors_deg(embedded[0], embedded[1:], azimuths)
        return {"azimuth_error_deg": float(own.mean()), "true_azimuth_error_deg": float(true.mean())}


def _surface_points(mesh, seed: int) -> torch.Tensor:
    """Points spread evenly over a mesh's surface."""
    import trimesh

    points, _ = trimesh.sample.sample_surface(mesh, POINTS, seed=seed)  # pyright: ignore[reportAssignmentType]
    return torch.from_numpy(np.asarray(points, np.float32))


ROWS = (
    ("judge R@1", "judge_r1", "true_judge_r1", "{:.1%}"),
    ("reward R@1", "reward_r1", "true_reward_r1", "{:.1%}"),
    ("judge score", "judge_score", "true_judge_score", "{:.3f}"),
    ("reward score", "reward_score", "true_reward_score", "{:.3f}"),
    ("silhouette IoU", "iou", "true_iou", "{:.3f}"),
    ("Chamfer distance", "chamfer", "true_chamfer", "{:.4f}"),
    ("azimuth error, deg", "azimuth_error_deg", "true_azimuth_error_deg", "{:.1f}"),
    ("seconds", "seconds", None, "{:.1f}"),
    ("peak memory, GB", "peak_memory_gb", None, "{:.2f}"),
)


def summarize(records: list[dict[str, Any]]) -> dict[str, tuple[float | None, float | None]]:
    """The mean of each measure over assets, and over true objects; None where there is none."""

    def mean(key: str | None) -> float | None:
        values = [r[key] for r in records if key and r.get(key) is not None]
        return sum(values) / len(values) if values else None

    return {title: (mean(own), mean(true)) for title, own, true, _ in ROWS}


def table(records: list[dict[str, Any]]) -> str:
    """The summary as text: assets beside true renders."""
    lines = [f"{'':20}{'assets':>10}{'true':>10}"]
    for (title, (own, true)), (*_, form) in zip(summarize(records).items(), ROWS, strict=True):
        lines.append(
            f"{title:20}{'-' if own is None else form.format(own):>10}{'-' if true is None else form.format(true):>10}"
        )
    return "\n".join(lines)
