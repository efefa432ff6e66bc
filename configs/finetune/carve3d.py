"""Carve3D: views that a reconstruction agrees with, by the policy gradient with a KL."""

from rl3d.algorithms.dpok import Dpok
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper
from rl3d.rewards.consistency import Refit

recipe = Lesson(
    about="views that agree on one object, by policy gradient with a KL (after Carve3D)",
    algorithm=Dpok(
        Sampling(steps=10, stepper=Ddim(1.0)), alpha=20.0, beta=0.01, group=6, clip=1e-3, clip_advantage=5.0, fraction=0.5
    ),
    rewards={"consistency": Refit(steps=30)},
    batch=4,
    unit=2,
    steps=100,
    rate=5e-4,
    paper=Paper(
        "Xie et al. 2023, Carve3D: Improving Multi-view Reconstruction Consistency for Diffusion Models with RL Finetuning",
        "https://arxiv.org/abs/2312.13980",
        {
            "algorithm.sampling.steps": "100",
            "algorithm.sampling.guidance": "5",
            "algorithm.clip": "1e-4",
            "algorithm.clip_advantage": "5",
            "algorithm.fraction": "1",
            "adapt.rank": "4",
            "batch": "768 samples of 30 prompts",
            "updates": "1",
            "rate": "3e-4",
        },
        (
            "A quick fit of splats takes the place of the reconstruction model, and colours that of LPIPS.",
            "The KL is exact at each step and part of the loss; its code takes an estimate, normalised, off the advantage.",
        ),
    ),
)
