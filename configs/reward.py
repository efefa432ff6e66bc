"""The default with reward ascent: the gradient of the embedded reward, on what is drawn and on what is rendered."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.terms.ascent import Ascend

recipe = replace(
    default,
    about="the default, whose drawn views and whose pixels climb the gradient of the embedded reward",
    draw=default.draw and replace(default.draw, climb=0.3),
    terms={**default.terms, "reward": Ascend()},
    ratios={"reward": 0.3},
)
