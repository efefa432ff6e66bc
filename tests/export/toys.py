"""Meshes that the tests of files write and read: a toy in colours, and the same with a texture."""

import numpy as np
import trimesh
import xatlas
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from rl3d.toybox.assemble import build
from rl3d.toybox.things import Item, Spec


def toy(kind="duck", seed=0):
    """A toy of the toybox with a colour for each part; the duck's front is told from its back."""
    return build(Spec((Item(kind),)), np.random.default_rng(seed)).mesh()


def textured(mesh, size=256, normal_map=True):
    """The same unwrapped by xatlas, with a texture of one colour for each face, and a normal map of shallow waves."""
    origin, faces, uv = xatlas.parametrize(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
    rgb = np.asarray(mesh.visual.vertex_colors)[origin][faces][:, 0, :3]
    picture, covered = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    for corners, colour in zip(np.stack([uv[..., 0], 1 - uv[..., 1]], -1)[faces] * size - 0.5, rgb.tolist(), strict=True):
        shape = [tuple(corner) for corner in corners.tolist()]
        ImageDraw.Draw(picture).polygon(shape, fill=tuple(colour))
        ImageDraw.Draw(covered).polygon(shape, fill=255)
    nearest = distance_transform_edt(np.asarray(covered) == 0, return_distances=False, return_indices=True)
    padded = Image.fromarray(np.asarray(picture)[tuple(nearest)])
    x = 0.2 * np.sin(np.arange(size) * 0.5)[None].repeat(size, 0)
    normals = np.stack([x, np.zeros_like(x), np.sqrt(1 - x**2)], -1)
    waves = Image.fromarray(np.uint8(np.round(255 * (0.5 + normals / 2))))
    material = PBRMaterial(
        baseColorTexture=padded, normalTexture=waves if normal_map else None, metallicFactor=0, roughnessFactor=1
    )
    made = trimesh.Trimesh(np.asarray(mesh.vertices)[origin], faces, process=False)
    made.visual = TextureVisuals(uv=uv, material=material)
    return made


def block():
    """A box that is longest along the front, red at the top and blue at the bottom."""
    mesh = trimesh.creation.box((1.2, 0.6, 0.8)).subdivide()
    colours = np.where(mesh.vertices[:, 2:] > 0, [[200, 20, 20, 255]], [[20, 20, 200, 255]]).astype(np.uint8)
    mesh.visual = ColorVisuals(mesh, vertex_colors=colours)
    return mesh
