"""DiffusionNFT: learn from good samples what to predict, from bad ones what not to."""

from rl3d.algorithms.nft import Nft
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper

recipe = Lesson(
    about="good samples say what to predict and bad ones what not to, without likelihoods (DiffusionNFT)",
    algorithm=Nft(Sampling(steps=10, stepper=Ddim(0.0), guidance=2.0, rescale=0.5), group=8, limit=2.0, draws=2, follow=0.01),
    batch=4,
    unit=2,
    updates=2,
    steps=200,
    rate=3e-4,
    mixed="fastest",
    paper=Paper(
        "Zheng et al. 2025, DiffusionNFT: Online Diffusion Reinforcement with Forward Process",
        "https://arxiv.org/abs/2509.16117",
        {
            "algorithm.group": "24",
            "algorithm.beta": "1 (0.1 for text in pictures, and for several rewards)",
            "algorithm.limit": "5",
            "algorithm.anchor": "1e-4",
            "algorithm.follow": "0.001",
            "algorithm.sampling.steps": "10 (25 for several rewards)",
            "algorithm.sampling.guidance": "1",
            "rate": "3e-4",
        },
        (
            "Samples are drawn with guidance, and the conditional model learns from them.",
            "Advantages are cut at 2 deviations, since groups are small; its code takes the deviation of the batch.",
        ),
    ),
)
