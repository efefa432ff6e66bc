"""After MVC-ZigAL: quality of each view and consistency of all as two advantages, in one policy gradient."""

from rl3d.algorithms.grpo import Grpo
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper
from rl3d.rewards.clip import Clip
from rl3d.rewards.consistency import Refit

recipe = Lesson(
    about="each view's quality and all views' consistency, as two advantages that are summed (after MVC-ZigAL)",
    algorithm=Grpo(Sampling(steps=8, stepper=Ddim(1.0)), group=6, clip=1e-3, clip_advantage=10.0, fraction=0.5),
    rewards={"views": Clip(), "consistency": Refit(steps=30)},
    weights={"views": 1.0, "consistency": 1.0},
    batch=4,
    unit=2,
    steps=100,
    rate=5e-4,
    paper=Paper(
        "Zhang et al. 2025, Refining Few-Step Text-to-Multiview Diffusion via Reinforcement Learning",
        "https://arxiv.org/abs/2505.20107",
        {
            "weights.consistency": "a multiplier that rises while a constraint is missed",
            "algorithm.sampling.steps": "8",
            "algorithm.clip": "1e-4",
            "algorithm.clip_advantage": "10",
            "algorithm.sampling.guidance": "7",
            "adapt.rank": "16",
            "rate": "5e-5",
        },
        (
            "Advantages are of groups, not regressed on pairs of a plain sample and one refined by its zigzag sampling.",
            "The weight of consistency is fixed, where the paper has a Lagrange multiplier.",
        ),
    ),
)
