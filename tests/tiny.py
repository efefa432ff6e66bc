"""Tiny random models in the formats of the embedded ones, for tests of what uses them."""

from pathlib import Path

import torch

from rl3d.priors.embedded import EmbeddedPrior
from rl3d.priors.multiview import MultiviewTransformer
from rl3d.priors.words import Tokenizer
from rl3d.train import towers

WORDS = ("a", "red", "blue", "mug", "cube", "on")


def tiny_prior() -> EmbeddedPrior:
    """A prior all of whose weights matter: those that start at zero are drawn."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(WORDS, context=12)
    net = MultiviewTransformer(
        words=len(tokenizer), context=12, size=16, patch=8, width=32, depth=2, heads=2, text_depth=1, refiner_width=8
    )
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.05)
    return EmbeddedPrior(net.eval(), tokenizer)


def write_weights(folder: Path) -> Path:
    """A prior, an encoder and a judge; point RL3D_WEIGHTS at the folder."""
    tiny_prior().save(folder / "prior")
    for seed, name in enumerate(("encoder", "judge")):
        config = towers.config("encoder", WORDS)
        config["model_cfg"]["vision_cfg"] = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
        config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
        config["model_cfg"]["embed_dim"] = 8
        towers.write_blank(folder / name, config, WORDS)
        towers.write_weights(folder / name, towers.blank(folder / name, seed), "# A tiny random model\n")
    return folder
