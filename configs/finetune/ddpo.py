"""DDPO: sampling as a decision process, and the clipped policy gradient."""

from rl3d.algorithms.ddpo import Ddpo
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper

recipe = Lesson(
    about="sampling as a decision process, with the clipped policy gradient (DDPO-IS)",
    algorithm=Ddpo(Sampling(steps=10, stepper=Ddim(1.0)), group=4, clip=1e-3, fraction=0.5),
    batch=8,
    unit=4,
    updates=2,
    steps=200,
    rate=1e-3,
    paper=Paper(
        "Black et al. 2023, Training Diffusion Models with Reinforcement Learning",
        "https://arxiv.org/abs/2305.13301",
        {
            "algorithm.sampling.steps": "50",
            "algorithm.sampling.guidance": "5",
            "algorithm.clip": "1e-4",
            "algorithm.fraction": "1",
            "updates": "4 (2 or 4 in its code)",
            "rate": "1e-5 (3e-4 for LoRA)",
        },
        (
            "No guidance, in sampling or in the policy.",
            "Half of the steps are learned from; each prompt comes once, so that rewards are compared with those of the unit.",
        ),
    ),
)
