"""ProlificDreamer: the default, with variational score distillation by an adapter that learns the scene."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.variational import Variational

recipe = replace(
    default,
    about="the default, with variational score distillation by a low-rank adapter (after ProlificDreamer)",
    terms={**default.terms, "distill": Variational()},
    paper=Paper(
        "Wang et al. 2023, ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation "
        "with Variational Score Distillation",
        "https://arxiv.org/abs/2305.16213",
        {
            "terms.distill.form": "noise, w = sigma^2",
            "terms.distill.guidance": "7.5",
            "terms.distill.rate": "1e-4",
            "terms.distill.t_max": "0.98",
            "terms.distill.t_end": "0.5 after 5000 steps",
            "terms.distill.t_min": "0.02",
            "steps": "25 000, and two stages more",
        },
        (
            "One particle, and one stage: splats, neither a radiance field nor a mesh.",
            "The adapter is told cameras as the prior is, with no embedding of its own.",
            "It starts from drawn views and matches them for the first half.",
        ),
    ),
)
