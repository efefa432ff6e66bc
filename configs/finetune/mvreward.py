"""After MVReward: ReFL with a reward that looks at all views."""

from rl3d.algorithms.backprop import Refl
from rl3d.lesson import Lesson
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.recipe import Paper
from rl3d.rewards.clip import Clip
from rl3d.rewards.joint import Joint

recipe = Lesson(
    about="a reward of all views together, by its gradient at a late step (after MVReward)",
    algorithm=Refl(
        Sampling(steps=10, stepper=Ddim(0.0), guidance=3.0, rescale=0.5), first=0.6, last=0.9, margin=None, weight=1.0
    ),
    rewards={"joint": Joint(), "views": Clip()},
    weights={"views": 0.5},
    rate=3e-4,
    mixed="fastest",
    paper=Paper(
        "Wang et al. 2024, MVReward: Better Aligning and Evaluating Multi-View Diffusion Models with Human Preferences",
        "https://arxiv.org/abs/2412.06614",
        {"rewards.joint": "a model of human preferences over sets of views"},
        (
            "The reward is the embedded encoder's, on the mean embedding of the views: no model of preferences is needed.",
            "How the paper tunes was not published as code; here it is ReFL, without a margin.",
            "Each view's own score is added at half the weight.",
        ),
    ),
)
