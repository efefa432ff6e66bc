"""The default with reward ascent: after the shape has settled, the gradient of the embedded reward joins in."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.terms.ascent import Ascend

recipe = replace(
    default,
    about="the default, with the gradient of the embedded reward on the pixels",
    terms={**default.terms, "reward": Ascend()},
    ratios={"reward": 0.3},
)
