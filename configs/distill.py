"""Score distillation alone, from a gray ball."""

from rl3d.recipe import Recipe
from rl3d.start import Ball
from rl3d.terms.distillation import Distill
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="score distillation alone (x0 form, after MVDream) from a gray ball",
    draw=None,
    start=Ball(),
    terms={"distill": Distill(), "solid": Solid()},
    steps=250,
)
