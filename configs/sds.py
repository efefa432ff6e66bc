"""DreamFusion: score distillation in its first form, from nothing."""

from rl3d.recipe import Paper, Recipe
from rl3d.start import Ball
from rl3d.terms.distillation import Distill
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="score distillation alone, from a gray ball: the form of the noise (after DreamFusion)",
    draw=None,
    start=Ball(),
    terms={"distill": Distill(form="noise", guidance=5.0, rescale=0.0, t_max=0.98, t_end=0.7, t_min=0.1), "solid": Solid()},
    steps=250,
    paper=Paper(
        "Poole et al. 2022, DreamFusion: Text-to-3D using 2D Diffusion",
        "https://arxiv.org/abs/2209.14988",
        {
            "terms.distill.form": "noise, w = sigma^2",
            "terms.distill.guidance": "101 (the paper's 100 counts on top of the conditional)",
            "terms.distill.t_max": "0.98",
            "terms.distill.t_end": "0.98",
            "terms.distill.t_min": "0.02",
            "rig.views": "4, each shown alone",
            "steps": "15 000",
        },
        (
            "The prior sees four sides at once, and is told the cameras instead of being told of sides in words.",
            "Splats, not a radiance field: no shading, and no loss on normals.",
        ),
    ),
)
