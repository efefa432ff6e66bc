"""The mesh stage: texture and vertices of an exported mesh become what its splats look like, from all sides."""

from rl3d.cameras import RandomOrbit
from rl3d.recipe import Recipe
from rl3d.representations.mesh import Mesh
from rl3d.start import FromMesh, Renders
from rl3d.terms.match import Match

recipe = Recipe(
    about="refine the mesh of --init until it looks like the splats that it was made of, made solid; no prior",
    prior=None,
    draw=Renders(views=48, size=256, solid=True),
    start=FromMesh(),
    scene=Mesh(),
    terms={"match": Match(views=2)},
    rig=RandomOrbit(size=256),
    steps=100,
)
