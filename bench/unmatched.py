"""The default as it was: matched for half of the steps and then left to distillation, in a hull that all views agree on."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.representations.gaussians import Gaussians
from rl3d.start import Hull

recipe = replace(
    default,
    about="the default, without what holds it to the drawn views to the end",
    start=Hull(agreement=1.0),
    scene=Gaussians(),
    terms={name: term for name, term in default.terms.items() if name != "rough"},
    weights={},
    steps=200,
)
