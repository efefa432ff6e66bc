"""DreamDPO: the default, distilling from the better of two noises away from the worse."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.preference import Prefer

recipe = replace(
    default,
    about="the default, distilling from the preferred of two noises, away from the other (after DreamDPO)",
    terms={**default.terms, "distill": Prefer(gap=0.01, start=0.3)},
    paper=Paper(
        "Zhou et al. 2025, DreamDPO: Aligning Text-to-3D Generation with Human Preferences via Direct Preference Optimization",
        "https://arxiv.org/abs/2502.04370",
        {
            "terms.distill.gap": "0.01 (with HPSv2; 0 in the code)",
            "terms.distill.per": "view",
            "terms.distill.form": "noise",
            "terms.distill.guidance": "7.5",
            "terms.distill.loser_guidance": "1",
            "terms.distill.start": "0",
            "steps": "10 000",
        },
        (
            "Below the gap the winner's own noise is taken off, which the paper's code leaves out.",
            "The embedded reward judges, not HPSv2.",
            "It starts from drawn views and matches them for the first half.",
        ),
    ),
)
