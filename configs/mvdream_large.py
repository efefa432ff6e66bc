"""MVDream with its own weights: a recipe for a GPU."""

from rl3d.cameras import RandomOrbit
from rl3d.priors.pretrained import Pretrained
from rl3d.recipe import Paper, Recipe
from rl3d.start import Ball
from rl3d.terms.distillation import Distill
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="score distillation from MVDream's own weights, from a gray ball; for a GPU",
    prior=Pretrained("mvdream", dtype="float16"),
    draw=None,
    start=Ball(4000),
    rig=RandomOrbit(elevation_max_deg=30.0, distance=3.2, size=256),
    terms={"distill": Distill(guidance=50.0, rescale=0.5, t_max=0.98, t_end=0.5, t_min=0.02), "solid": Solid()},
    steps=5000,
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
            "steps": "10 000",
        },
        ("Splats, not a radiance field; no shading.",),
    ),
)
