"""MVDream: score distillation alone, from nothing, with a prior that sees four sides at once."""

from rl3d.recipe import Paper, Recipe
from rl3d.start import Ball
from rl3d.terms.distillation import Distill
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="score distillation alone, from a gray ball: the x0 form (after MVDream)",
    draw=None,
    start=Ball(),
    terms={"distill": Distill(), "solid": Solid()},
    steps=250,
    paper=Paper(
        "Shi et al. 2023, MVDream: Multi-view Diffusion for 3D Generation",
        "https://arxiv.org/abs/2308.16512",
        {
            "terms.distill.form": "x0",
            "terms.distill.guidance": "50",
            "terms.distill.rescale": "0.5",
            "terms.distill.t_max": "0.98",
            "terms.distill.t_end": "0.5 after 8000 steps",
            "terms.distill.t_min": "0.98 falling to 0.02",
            "rig.views": "4",
            "steps": "10 000",
        },
        ("Splats, not a radiance field; no shading.", "The prior shows RGBA, so that no background is learned."),
    ),
)
