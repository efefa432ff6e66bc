"""Tiny random models in published formats."""

import pytest

from rl3d.train import towers

WORDS = ("a", "blue", "on", "red", "mug", "cube", "front", "side", "back", "overhead", "view", "blurry")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A dual encoder in open_clip's format, without batch statistics, so that finite differences are exact enough."""
    folder = tmp_path_factory.mktemp("clip")
    config = towers.config("encoder", WORDS)
    config["model_cfg"]["vision_cfg"] = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    config["model_cfg"]["embed_dim"] = 8
    towers.write_blank(folder, config, WORDS)
    towers.write_weights(folder, towers.blank(folder, seed=0), "# A tiny model\n")
    return folder
