"""A reward of your own, in one file: copy it, change the function, and name it with --recipe my_reward.py."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.rewards.base import from_callable
from rl3d.terms.policy import PixelPolicy


def warm(shown, prompts):
    """How much redder than blue each view is; any Python will do, and higher is better."""
    views = shown.views
    return (views.rgb[..., 0] - views.rgb[..., 2]).mean((2, 3)) / views.alpha.mean((2, 3, 4)).clamp(min=0.01)


recipe = replace(
    default,
    about="the default and a function as a black box: colours that are tried and liked stay (REINFORCE at the pixels)",
    terms={**default.terms, "mine": PixelPolicy(from_callable(warm), start=0.4)},
    ratios={"mine": 0.3},
)
