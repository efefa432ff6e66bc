"""The evaluation: held-out prompts are generated and scored, beside true renders of what they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rl3d.evaluate.independent import Panel
from rl3d.evaluate.metrics import azimuth_errors_deg, chamfer, rank, silhouette_iou
from rl3d.evaluate.worlds import Question, ToyWorld, Truth, World, claims, surface_points
from rl3d.export.meshes.meshing import QUICK, to_mesh
from rl3d.render.gaussians import look_at
from rl3d.rewards.clip import ClipReward
from rl3d.types import Cameras, Splats, Views

INSTANCES = 5
"""True objects that an asset is compared with; the closest counts."""


@dataclass(frozen=True)
class Examiner:
    """The models that look at assets, and the cameras they look from."""

    judges: dict[str, ClipReward]
    """By name; "judge" is the one that was never a training signal."""
    cameras: Cameras
    world: World = field(default_factory=ToyWorld)
    pool: int = 100
    """Captions among which a judge must find the right one; a fifth of them are near misses."""
    panel: Panel | None = None
    """Published networks that look, too."""

    def check(self) -> None:
        """Refuse judges (``ValueError``) that cannot read their world's words: they would be blind to what is said."""
        for name, model in self.judges.items():
            refuse_unread(f"the {name}", model.unread(self.world.language.vocabulary()), self.world)

    @torch.no_grad()
    def examine(self, question: Question, splats: Splats) -> dict[str, Any]:
        """All measures of one asset, and of a true object in its place (under "true_...") where the world has one."""
        look = look_at(splats)
        views, seed = look(self.cameras), question.seed
        truths = self.truths(question)
        found = self.ranks(question, views, truths[0].views if truths else None)
        if truths:
            found |= likeness(views, [truth.views for truth in truths])
            clouds = [truth.points for truth in truths]
            try:
                own = surface_points(to_mesh(look, QUICK), seed)
                found["chamfer"] = min(chamfer(own, cloud) for cloud in clouds)
            except ValueError:
                found["chamfer"] = None
            found["true_chamfer"] = min((chamfer(clouds[0], cloud) for cloud in clouds[1:]), default=None)
        if self.world.front(question.spec):
            found |= self._janus(views, [truth.views for truth in truths])
        if self.panel is not None:
            key, seen = (self.world.name, question.prompt), [truth.views for truth in truths]
            found |= self.panel.examine(key, question.spec, self.world.language, views, seen)
        return found

    def truths(self, question: Question) -> list[Truth]:
        """True objects of what is asked for, always the same."""
        return self.world.truths(question, self.cameras, question.seed, INSTANCES)

    def ranks(self, question: Question, views: Views, truth: Views | None = None) -> dict[str, Any]:
        """Which captions the judges choose; and where the world has a word for it that is never taught, how that one does."""
        language, spec = self.world.language, question.spec
        captions, untaught = claims(question, language, self.pool), self.world.untaught(spec)
        found: dict[str, Any] = {"pool": len(captions)}
        for name, model in self.judges.items():
            texts = model.embed_text(captions)
            image = model.embed_views(views, background=0.8)[0]
            place = rank(image, texts)
            found |= {f"{name}_r1": float(place == 0), f"{name}_r5": float(place < 5)}
            found[f"{name}_score"] = float((image @ texts[0]).mean())
            if place:
                similarity = texts @ torch.nn.functional.normalize(image.mean(0), dim=0)
                found[f"{name}_mistook_for"] = captions[int(similarity.argmax())]
            seen = {"": image}
            if truth is not None:
                true = seen["true_"] = model.embed_views(truth, background=0.8)[0]
                found[f"true_{name}_r1"] = float(rank(true, texts) == 0)
                found[f"true_{name}_score"] = float((true @ texts[0]).mean())
            if untaught is not None:
                others = torch.cat([model.embed_text([untaught]), texts[1:]])
                for whose, embedded in seen.items():
                    found[f"{whose}{name}_taught_r1"] = found[f"{whose}{name}_r1"]
                    found[f"{whose}{name}_untaught_r1"] = float(rank(embedded, others) == 0)
        return found

    def _janus(self, views: Views, truths: list[Views]) -> dict[str, float]:
        """Mean azimuth error of an object with a front, and of a true one, by the judge's features."""
        model = self.judges["judge"]
        embedded = torch.cat([model.embed_views(truth, background=0.8) for truth in truths])
        azimuths = views.cameras.azimuths_deg[0]
        own = azimuth_errors_deg(model.embed_views(views, background=0.8)[0], embedded[1:], azimuths)
        true = azimuth_errors_deg(embedded[0], embedded[1:], azimuths)
        return {"azimuth_error_deg": float(own.mean()), "true_azimuth_error_deg": float(true.mean())}


def likeness(views: Views, truths: Sequence[Views]) -> dict[str, float | None]:
    """How well the silhouette fits the closest true object; and one true object the closest of the others, if there are any."""
    true = [float(silhouette_iou(truths[0], truth)) for truth in truths[1:]]
    return {"iou": max(float(silhouette_iou(views, truth)) for truth in truths), "true_iou": max(true, default=None)}


def refuse_unread(who: str, words: Iterable[str], world: World) -> None:
    """Raise ``ValueError`` if a model lacks words of a world."""
    if lacking := sorted(words):
        raise ValueError(
            f"{who} lacks {len(lacking)} words of the world {world.name!r} ({', '.join(lacking[:5])}...), so its figures "
            "would say nothing: train models on this world (`rl3d world train`), and name their folder with RL3D_WEIGHTS=FOLDER"
        )


ROWS = (
    ("judge R@1", "judge_r1", "true_judge_r1", "{:.1%}"),
    ("reward R@1", "reward_r1", "true_reward_r1", "{:.1%}"),
    ("judge score", "judge_score", "true_judge_score", "{:.3f}"),
    ("reward score", "reward_score", "true_reward_score", "{:.3f}"),
    ("silhouette IoU", "iou", "true_iou", "{:.3f}"),
    ("Chamfer distance", "chamfer", "true_chamfer", "{:.4f}"),
    ("azimuth error, deg", "azimuth_error_deg", "true_azimuth_error_deg", "{:.1f}"),
    ("judge R@1, taught word", "judge_taught_r1", "true_judge_taught_r1", "{:.1%}"),
    ("judge R@1, untaught word", "judge_untaught_r1", "true_judge_untaught_r1", "{:.1%}"),
    ("DINOv2 identity of views", "dino_identity", "true_dino_identity", "{:.3f}"),
    ("ConSE top-1", "conse_r1", "true_conse_r1", "{:.1%}"),
    ("ConSE top-5", "conse_r5", "true_conse_r5", "{:.1%}"),
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
    """The summary as text: assets beside true renders. What was measured nowhere is left out."""
    lines = [f"{'':26}{'assets':>10}{'true':>10}"]
    for (title, (own, true)), (*_, form) in zip(summarize(records).items(), ROWS, strict=True):
        if own is None and true is None:
            continue
        lines.append(
            f"{title:26}{'-' if own is None else form.format(own):>10}{'-' if true is None else form.format(true):>10}"
        )
    return "\n".join(lines)
