"""A ball that has a texture, for tests of meshes that learn."""

import numpy as np
import trimesh
from PIL import Image


def globe(radius=0.6, subdivisions=3, size=64, seed=0, axes=(1.0, 1.0, 1.0)):
    """A ball with bands of colour, unwrapped by longitude and latitude; faces across the seam have corners of their own."""
    mesh = trimesh.creation.icosphere(subdivisions, 1.0)
    corners = np.asarray(mesh.triangles)
    around = np.arctan2(corners[..., 1], corners[..., 0]) / (2 * np.pi) + 0.5
    around = np.where(around < around.max(1, keepdims=True) - 0.5, around + 1, around)
    uv = np.stack([around, np.arcsin(corners[..., 2].clip(-1, 1)) / np.pi + 0.5], -1).reshape(-1, 2)
    rows, columns = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    picture = 0.5 + 0.4 * np.stack([np.sin(6.2832 * 2 * columns), np.cos(6.2832 * 2 * rows), np.sin(6.2832 * columns)], -1)
    picture += 0.05 * np.random.default_rng(seed).standard_normal(picture.shape)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray((255 * picture.clip(0, 1)).round().astype(np.uint8))
    )
    return trimesh.Trimesh(
        (radius * corners * np.array(axes)).reshape(-1, 3),
        np.arange(3 * len(corners)).reshape(-1, 3),
        visual=trimesh.visual.TextureVisuals(uv=uv, material=material),
        process=False,
    )
