"""Group-relative score distillation: each noise pulls by its advantage among all, as in GRPO; and the default's own pull."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.noise_search import SearchNoise

recipe = replace(
    default,
    about="the default, each of four noises pulling by its advantage in the group (GRPO's weights in RewardSDS's place)",
    terms={**default.terms, "distill": SearchNoise(strategy="group", noises=4)},
    paper=Paper(
        "Shao et al. 2024, DeepSeekMath (sec. 4.1.2: advantages in a group), carried to noises as in RewardSDS",
        "https://arxiv.org/abs/2402.03300",
        {"terms.distill.noises": "64 (samples of a group)", "terms.distill.strategy": "advantage / deviation"},
        ("No paper has this form for noises: it is ours.", "No ratios and no clip: every noise is drawn anew."),
    ),
)
