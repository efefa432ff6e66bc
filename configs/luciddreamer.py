"""LucidDreamer: the default, with interval score matching."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.distillation import Interval
from rl3d.terms.match import Match

recipe = replace(
    default,
    about="the default, with interval score matching along inverted paths; drawn views hold it (after LucidDreamer)",
    terms={**default.terms, "match": Match(), "distill": Interval(guidance=1.5, rescale=0.0)},
    weights={"distill": 0.2},
    paper=Paper(
        "Liang et al. 2023, LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching",
        "https://arxiv.org/abs/2311.11284",
        {
            "terms.distill.form": "x0 (w = sigma / alpha)",
            "terms.distill.guidance": "7.5",
            "terms.distill.interval": "0.1 falling to 0.08, 0.05 or 0.025 by the object",
            "terms.distill.stride": "0.2",
            "terms.distill.t_max": "0.98",
            "terms.distill.t_end": "0.5 after 1500 steps",
            "terms.distill.t_min": "0.02",
            "steps": "5000",
        },
        (
            "It starts from drawn views and their hull, not from Point-E.",
            "Drawn views are matched to the end, and intervals weigh a fifth: alone they drift on the embedded prior.",
        ),
    ),
)
