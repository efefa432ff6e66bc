"""A second stage on a mesh: the prior goes on to say what it is, while it roughly stays what its splats look like.

As the refinement of Magic3D, which also distils a prior into a textured mesh that a first stage made.
"""

from rl3d.cameras import RandomOrbit
from rl3d.recipe import Paper, Recipe
from rl3d.representations.mesh import Mesh
from rl3d.start import FromMesh, Renders
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match

recipe = Recipe(
    about="refine the mesh of --init by distilling the prior; means over 4 x 4 pixels hold it to what it was made of",
    draw=Renders(views=48, size=128, solid=True),
    start=FromMesh(),
    scene=Mesh(),
    terms={"rough": Match(views=4, pool=4), "distill": Distill(t_max=0.5, t_end=0.3)},
    weights={"distill": 0.5},
    rig=RandomOrbit(size=128),
    steps=100,
    paper=Paper(
        "Lin et al. 2023, Magic3D: High-Resolution Text-to-3D Content Creation",
        "https://arxiv.org/abs/2211.10440",
        departures=(
            "Texels and vertices of a mesh with fixed faces, not a hash grid and a deformable tetrahedral grid.",
            "The same prior as in the first stage, in pixels of 64 x 64; held to the first stage's views; no light.",
        ),
    ),
)
