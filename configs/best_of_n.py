"""Best of four seeds: four of the default's scenes side by side, halved twice by the reward."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import BestOf, Paper

recipe = replace(
    default,
    about="four of the default's scenes side by side, the weak ones dropped early by the embedded reward",
    draw=default.draw and replace(default.draw, candidates=3),  # as many sets are begun for all four as the default begins
    search=BestOf(seeds=4, until=0.4),
    paper=Paper(
        "Jamieson & Talwalkar 2016, Non-stochastic Best Arm Identification and Hyperparameter Optimization",
        "https://arxiv.org/abs/1502.07943",
        {"search.until": "1 (the whole budget)"},
        ("Rounds are of equal length, not of equal cost, and the last scene goes on to the end.",),
    ),
)
