"""Textures repeat beyond their borders, as glTF has it."""

import numpy as np
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from rl3d.render.textured import colours_of


def test_a_tiled_texture_is_seen_twice():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4], picture[:, 4:] = (255, 0, 0), (0, 0, 255)
    uv = np.array([[0.0, 0.5], [2.0, 0.5], [0.0, 0.5]])
    visual = trimesh.visual.TextureVisuals(uv=uv, material=PBRMaterial(baseColorTexture=Image.fromarray(picture)))
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], visual=visual, process=False)
    along = torch.tensor([0.125, 0.375, 0.625, 0.875])
    found = colours_of(mesh)(torch.zeros(4, dtype=torch.long), torch.stack([1 - along, along, 0 * along], 1))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]))
