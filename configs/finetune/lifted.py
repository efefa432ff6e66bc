"""Samples judged as the object that they make: lifted to splats, and looked at from new sides."""

from rl3d.algorithms.grpo import Grpo
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.rewards.lifted import Lifted

recipe = Lesson(
    about="samples of a prompt compared as lifted objects, seen from new sides",
    algorithm=Grpo(Sampling(steps=8, stepper=Ddim(1.0)), group=6, clip=1e-3, fraction=0.5),
    rewards={"lifted": Lifted()},
    batch=4,
    unit=2,
    steps=100,
    rate=5e-4,
)
