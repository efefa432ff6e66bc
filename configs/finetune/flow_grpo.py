"""Flow-GRPO: groups of samples of a prompt, compared with each other, along the SDE of a flow."""

from rl3d.algorithms.grpo import Grpo
from rl3d.lesson import Lesson
from rl3d.priors.rollout import FlowSde, Sampling
from rl3d.recipe import Paper

recipe = Lesson(
    about="samples of a prompt compared with each other, along the SDE of a flow (Flow-GRPO)",
    algorithm=Grpo(
        Sampling(steps=8, stepper=FlowSde(0.7), path="flow", start=0.96),
        group=8,
        clip=1e-3,
        kl=0.004,
        spread="group",
        fraction=0.5,
    ),
    batch=4,
    unit=2,
    updates=2,
    steps=200,
    rate=1e-3,
    paper=Paper(
        "Liu et al. 2025, Flow-GRPO: Training Flow Matching Models via Online RL",
        "https://arxiv.org/abs/2505.05470",
        {
            "algorithm.group": "24",
            "algorithm.sampling.steps": "10",
            "algorithm.sampling.stepper.noise": "0.7",
            "algorithm.kl": "0.04 (0.01 with PickScore) of a KL without the steps' size: a tenth of that here",
            "algorithm.clip": "1e-4",
            "algorithm.fraction": "0.99: 9 of 10 steps",
            "updates": "2",
            "rate": "3e-4",
        },
        (
            "The prior is a diffusion model that answers at the levels of flows.",
            "Half of the steps are learned from, drawn anew for each batch.",
            "A reward is divided by the deviation of its group, as the paper says; its code takes the batch's.",
        ),
    ),
)
