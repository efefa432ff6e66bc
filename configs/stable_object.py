"""Objects that stand: the default, then a drop test in a simulator that shapes bend and turn to pass."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.recipe import Paper
from rl3d.rewards.physics import Drop, Stands
from rl3d.terms.ascent import Ascend
from rl3d.terms.match import Match
from rl3d.terms.subspace import Evolve, Lattice

QUICK = Drop(pieces="hull", seconds=3.0, step=0.005)

recipe = replace(
    default,
    about="the default, then bent until it stands when it is dropped; needs pip install 'rl3d[physics]'",
    terms={
        **default.terms,
        "rough": Match(until=0.5, pool=4),  # what stands need not look as it was drawn
        "stands": Ascend(Stands(), start=0.5),
        "drop": Evolve(QUICK, Lattice(), samples=8, surrogate=Stands(), trust=0.01, start=0.5),
    },
    ratios={"stands": 1.5, "drop": 1.5},
    paper=Paper(
        "Chen et al. 2024, Atlas3D: Physically Constrained Self-Supporting Text-to-3D for Simulation and Fabrication "
        "(and Li et al. 2025, DSO, https://arxiv.org/abs/2503.22677, for the test)",
        "https://arxiv.org/abs/2405.18515",
        {"terms.drop.reward.seconds": "10 (DSO)", "terms.drop.reward.step": "0.001 s (DSO)"},
        (
            "The simulator is a black box, and evolution strategies follow it; Atlas3D differentiates through its own.",
            "In the loop the convex hull stands for the object, as in DSO's code; judge with physics.Drop(), of many pieces.",
            "Only the tilt counts, where DSO's code counts turns about the vertical, too.",
        ),
    ),
)
