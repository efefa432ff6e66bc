"""Online Diffusion-DPO: the best of a prompt's samples against the worst."""

from rl3d.algorithms.dpo import DiffusionDpo
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper

recipe = Lesson(
    about="the best of a prompt's samples made likelier than the worst (Diffusion-DPO, online)",
    algorithm=DiffusionDpo(
        Sampling(steps=10, stepper=Ddim(1.0), guidance=2.0, rescale=0.5),
        beta=500.0,
        weighting="flow",
        group=4,
        draws=2,
        refresh=40,
    ),
    batch=8,
    unit=4,
    updates=2,
    rate=3e-4,
    mixed="fastest",
    paper=Paper(
        "Wallace et al. 2024, Diffusion Model Alignment Using Direct Preference Optimization",
        "https://arxiv.org/abs/2311.12908",
        {
            "algorithm.beta": "2000 (SD 1.5) or 5000 (SDXL), for errors of the noise",
            "algorithm.refresh": "never",
            "algorithm.group": "pairs",
        },
        (
            "Pairs are drawn from the policy and chosen by the embedded reward.",
            "The reference is renewed every 40 steps, as in the online variant that Flow-GRPO compares with.",
        ),
    ),
)
