"""A radiance field instead of splats: the default's draw and terms on a hash grid (after Müller et al. 2022)."""

from rl3d.recipe import Recipe
from rl3d.representations.nerf import Nerf
from rl3d.start import Draw, Hull
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match

recipe = Recipe(
    about="a radiance field on a hash grid: match drawn views, then distil the prior; asset.ply holds splats fitted to it",
    draw=Draw(views=4, elevations_deg=(10.0, 35.0), guided=0.5, candidates=12),
    start=Hull(),
    scene=Nerf(),
    terms={"match": Match(until=0.5), "rough": Match(pool=4), "distill": Distill()},
    weights={"distill": 0.5},
    steps=150,
)
