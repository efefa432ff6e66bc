"""The reward alone, with no prior to hold it to the world: what ``bench/hacked.py`` shows."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.terms.ascent import Ascend

recipe = replace(
    default,
    about="the embedded reward alone, from drawn views: nothing holds it to the world",
    terms={"reward": Ascend(start=0.0, jitter=0.0, backgrounds=1)},
    weights={},
    steps=240,
)
