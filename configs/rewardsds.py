"""RewardSDS: the default, weighing noises by the reward of what the prior makes of them."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.noise_search import SearchNoise

recipe = replace(
    default,
    about="the default, distilling from the best of four noises away from the worst (after RewardSDS)",
    terms={**default.terms, "distill": SearchNoise(strategy="minmax", noises=4, few=1)},
    paper=Paper(
        "Chachy et al. 2025, RewardSDS: Aligning Score Distillation via Reward-Weighted Sampling",
        "https://arxiv.org/abs/2503.09601",
        {
            "terms.distill.strategy": "minmax",
            "terms.distill.noises": "7",
            "terms.distill.few": "2",
            "terms.distill.judged_after": "15 from t = 1, fewer from below",
            "terms.distill.until": "0.7",
            "terms.distill.form": "x0",
            "terms.distill.guidance": "50",
            "terms.distill.rescale": "0.5",
            "steps": "10 000",
        },
        (
            "A noise is judged by one prediction, which is what it pulls with, too; its code takes up to 15 for each.",
            "The embedded reward judges, not ImageReward.",
            "It starts from drawn views and matches them for the first half.",
        ),
    ),
)
