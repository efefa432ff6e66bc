"""Objects that pass programmatic checks: the best of four by them, whose colours and parts then shift to pass more."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.cameras import Orbit
from rl3d.recipe import BestOf, Paper
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Combine, Part
from rl3d.rewards.verify import Verified
from rl3d.terms.subspace import Clusters, Evolve

LOOK = Orbit(views=8, elevation_deg=35.0, size=96)
CHECKED = Combine({"checks": Part(Verified()), "reward": Part(Clip(), weight=0.5)})

recipe = replace(
    default,
    about="the best of four by checks of colours, counts and relations, which then shift colours and parts to pass more",
    terms={**default.terms, "checks": Evolve(CHECKED, Clusters(colour=True), samples=8, rig=LOOK, start=0.5, every=10)},
    ratios={"checks": 0.5},
    draw=default.draw and replace(default.draw, candidates=3),  # as many sets are begun for all four as the default begins
    search=BestOf(seeds=4, reward=CHECKED, rig=LOOK),
    paper=Paper(
        "Ghosh et al. 2023, GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment",
        "https://arxiv.org/abs/2310.11513",
        {"terms.checks.reward.parts.checks.reward": "a detector of objects and colours"},
        ("GenEval measures and does not optimise.", "Prompts of which not all can be read are judged by the reward alone."),
    ),
)
