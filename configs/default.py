"""The default: views drawn from the prior give a first shape and say what it is; score distillation makes it whole."""

from rl3d.recipe import Recipe
from rl3d.representations.densify import Prune
from rl3d.representations.gaussians import Gaussians
from rl3d.start import Draw, Hull
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="draw views, carve their hull, match them, at the end only roughly, and distil the prior (x0 form, after MVDream)",
    draw=Draw(views=4, elevations_deg=(10.0, 35.0), guided=0.5, candidates=12),
    start=Hull(),
    scene=Gaussians(strategy=Prune(start=50, stop=100, islands=0.02)),  # what is left of it then grows together
    terms={"match": Match(until=0.5), "rough": Match(pool=4), "distill": Distill(), "solid": Solid()},
    weights={"distill": 0.5},
    steps=150,
)
