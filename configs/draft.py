"""The draft: lifting alone, in seconds."""

from rl3d.recipe import Recipe
from rl3d.start import Draw, Hull
from rl3d.terms.match import Match
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="draw views, carve their hull, and match them: a draft in seconds",
    draw=Draw(views=4, elevations_deg=(5.0, 40.0)),
    start=Hull(),
    terms={"match": Match(views=4), "solid": Solid()},
    steps=80,
)
