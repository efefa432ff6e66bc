"""A world of few simple objects, prepared as real ones are."""

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from rl3d.world import things
from rl3d.world.nouns import Noun
from rl3d.world.surface import clean, read, upright
from rl3d.world.things import Thing

RED, BLUE, WOOD = (220, 40, 30), (40, 70, 210), (225, 205, 170)

NOUNS = {
    noun.name: noun
    for noun in (
        Noun("table", ("dining table",), ("board",), group="furniture", colours=("beige",)),
        Noun("chair", ("seat",), group="furniture", colours=("red",)),
        Noun("armchair", ("easy chair",), broader=("chair",), group="furniture", colours=("blue",)),
        Noun("mug", ("cup",), ("beaker",), unsure=("bowl",), group="kitchen", colours=("blue", "red")),
        Noun("bowl", group="kitchen", colours=("red",)),
        Noun("dog", ("hound",), natural=True, group="animals", colours=("red",)),
        Noun("scissors", ("pair of scissors",), group="tools"),
    )
}


def coloured(mesh: trimesh.Trimesh, rgb) -> trimesh.Trimesh:
    mesh = mesh.copy()
    mesh.visual.face_colors = [*rgb, 255]
    return mesh


def box(width, height, depth, rgb=RED) -> trimesh.Trimesh:
    """A box with the axes of files: y is up."""
    return coloured(trimesh.creation.box((width, height, depth)), rgb)


def quad(image=None, material=None, **options) -> trimesh.Trimesh:
    """A square of 2 by 2 that faces +z, with a picture."""
    vertices = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], float)
    mesh = trimesh.Trimesh(vertices, [(0, 1, 2), (0, 2, 3)], process=False)
    if material is None:
        material = SimpleMaterial(image=image, **options)
    mesh.visual = TextureVisuals(uv=(vertices[:, :2] + 1) / 2, material=material)
    return mesh


def picture(pixels) -> Image.Image:
    return Image.fromarray(np.array(pixels, np.uint8))


def pbr(pixels=None, **options) -> PBRMaterial:
    return PBRMaterial(baseColorTexture=None if pixels is None else picture(pixels), **options)


def prepare(folder) -> list[Thing]:
    """Write a prepared folder: six objects, of which one mug is never trained on."""
    made = {
        "table": (box(1.5, 0.7, 0.8, WOOD), {"flat": True, "change": True}),
        "chair": (box(0.5, 0.9, 0.5), {"change": True}),
        "armchair": (box(0.9, 0.8, 0.9, BLUE), {"change": True}),
        "mug": (box(0.1, 0.12, 0.1, BLUE), {"small": True, "change": True}),
        "other mug": (box(0.1, 0.1, 0.1), {"small": True, "change": True, "held": True}),
        "dog": (box(0.3, 0.5, 0.8), {}),
    }
    found = []
    for name, (mesh, known) in made.items():
        surface = clean(upright(read(mesh)))
        depth, width, height = np.ptp(surface.bounds, axis=0).tolist()
        thing = Thing(name.replace(" ", "-"), name.split()[-1], name=name, size=(width, depth, height), **known)
        found.append(things.measured(thing, surface))
        surface.save(things.file_of(folder, thing.id))
    things.write(folder, [*found, Thing("broken", "", reason="it has no visible triangles")], NOUNS)
    return found
