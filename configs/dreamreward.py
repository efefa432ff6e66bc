"""DreamReward: the default with the gradient of a reward, at the rendering and straight through the prior's clean picture."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.terms.ascent import Ascend

recipe = replace(
    default,
    about="the default, climbing the embedded reward on renderings and on what the prior makes of them (after DreamReward)",
    terms={
        **default.terms,
        "reward": Ascend(start=0.4, backgrounds=1),
        "clean": Ascend(start=0.4, backgrounds=1, on="denoised"),
    },
    ratios={"reward": 0.2, "clean": 0.2},
    paper=Paper(
        "Ye et al. 2024, DreamReward: Text-to-3D Generation with Human Preference",
        "https://arxiv.org/abs/2403.14613",
        {
            "terms.reward.start": "0.6 (or 0.1)",
            "terms.clean.t_max": "0.1 (or 0.3) of the steps of diffusion",
            "ratios.reward": "0.6 (or 0.3), by the numbers of digits of the losses",
            "steps": "10 000 (or 10 400)",
        },
        (
            "Weights are ratios of gradient norms, where the paper's code compares numbers of digits.",
            "Both rewards climb at every step, where its code takes the clean picture at low noise and else the rendering.",
            "No last phase of the reward alone, and no ceiling on it.",
            "The reward judges views one by one, not four together.",
        ),
    ),
)
