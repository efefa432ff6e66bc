"""From a picture to an object: six views by Zero123++, lifted. A recipe for a GPU."""

from rl3d.cameras import Poses
from rl3d.priors.zero123plus import Zero123Plus
from rl3d.recipe import Paper, Recipe
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.start import Draw, Hull
from rl3d.terms.match import Match
from rl3d.terms.regularise import Solid

recipe = Recipe(
    about="from a picture: six views by Zero123++, cut out, carved and matched; for a GPU",
    prior=Zero123Plus("zero123plus-1.2", dtype="float16"),
    draw=Draw(views=6, steps=28, guidance=4.0, rescale=0.0),
    start=Hull(resolution=64, limit=12000),
    rig=Poses(size=256),
    terms={"match": Match(views=3), "solid": Solid()},
    steps=400,
    paper=Paper(
        "Shi et al. 2023, Zero123++: a Single Image to Consistent Multi-view Diffusion Base Model",
        "https://arxiv.org/abs/2310.15110",
        {"draw.steps": "28 (code; 75 for faces)", "draw.guidance": "4 (code)", "draw.views": "6"},
        (
            "The paper ends at the views; hull and match are ours, and nothing is distilled.",
            "Sampled by DPM-Solver++ without fresh noise, where their code has Euler's ancestral steps.",
            "Both sides of guidance meet the same noise on the reference, and the reference is the mean of the autoencoder's.",
            "Their gray is cut off by its colour, from the edge inwards, where they train a network for it.",
        ),
    ),
    guards={"sharpness": Sharpness(), "colours": ColourEntropy(), "area": Area()},
)
