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
            "weights.consistency": "a multiplier in [0, 5] that rises while a constraint is missed, over 1 + itself",
            "weights.views": "1, over 1 + that multiplier",
            "rewards.views": "PickScore, of each view",
            "rewards.consistency": "HyperScore, of all views",
            "rig.views": "6",
            "algorithm.sampling.steps": "8, of a latent consistency model",
            "algorithm.sampling.guidance": "7",
            "algorithm.group": "pairs",
            "algorithm.clip": "1e-4",
            "algorithm.clip_advantage": "10",
            "adapt.rank": "16",
            "rate": "5e-5",
        },
        (
            "The prior is the embedded one with 8 steps of ancestral sampling, where the paper refines a few-step model of "
            "single images with a multi-view adapter.",
            "Groups of six plain samples stand in for the paper's pairs of a plain sample and one whose first step zigzags "
            "(denoised, inverted and denoised again): no sample is drawn by a better sampler than the one that learns.",
            "A clipped policy gradient with the group's advantage stands in for the paper's regression of a pair's difference "
            "of log-ratios on its difference of advantages; so there is no self-refinement by the zigzag.",
            "The two advantages are normalised within each group and summed, where the paper's are of the batch and weighed to "
            "a sum of 1.",
            "The weight of consistency is fixed at 1, where the paper's is the Lagrange multiplier of a constraint: "
            "consistency is to be no less than its running mean.",
            "The embedded encoder stands in for the reward of single views, and the colours of a quick fit of splats for that "
            "of all views.",
            "Half of the steps are learned from.",
        ),
    ),
)
