"""DRaFT-1: the reward's gradient through the last step of the sampler."""

from rl3d.algorithms.backprop import Draft
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper

recipe = Lesson(
    about="the embedded reward's gradient through the last step of the sampler (DRaFT-1)",
    algorithm=Draft(Sampling(steps=10, stepper=Ddim(0.0), guidance=3.0, rescale=0.5), last=1),
    batch=8,
    unit=4,
    steps=200,
    rate=3e-3,
    mixed="fastest",
    paper=Paper(
        "Clark et al. 2024, Directly Fine-Tuning Diffusion Models on Differentiable Rewards",
        "https://arxiv.org/abs/2309.17400",
        {"algorithm.last": "1"},
        (
            "The reward looks at all views of a sample, and is the embedded encoder, not an aesthetic score.",
            "It stops when a guard falls while the reward rises.",
        ),
    ),
)
