"""What the mesh stage wins back: the bake gap of runs' meshes before and after the recipe `refine_mesh`, at sides unused by it.

    python bench/refining.py runs/a-red-mug runs/three-gray-hammers --faces 20000

Meshes are made of the runs' splats by the exporter's defaults, but for the number of faces.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from rl3d.assets import load_asset
from rl3d.export.meshes.meshing import Meshing
from rl3d.export.meshes.report import bake_gap, unseen_cameras
from rl3d.optimize import begin, optimize
from rl3d.recipe import load_recipe, recipe_file, starting_from
from rl3d.render.textured import look_at_mesh
from rl3d.types import Prompt


def refined(folder: Path, faces: int, steps: int | None) -> dict[str, dict]:
    """The bake gap before and after."""
    recipe = starting_from(load_recipe(recipe_file("refine_mesh")), str(folder))
    recipe = replace(recipe, start=replace(recipe.start, mesh=Meshing(faces=faces)), steps=steps or recipe.steps)
    cameras = unseen_cameras()
    made = load_asset(folder).look(cameras)
    o = begin(recipe, Prompt(""))
    found = {"before": bake_gap(made, look_at_mesh(o.scene.to_trimesh())(cameras))}
    clock = time.process_time()
    for _ in optimize(o):
        pass
    found["seconds"] = round(time.process_time() - clock, 1)
    found["after"] = bake_gap(made, look_at_mesh(o.scene.to_trimesh())(cameras))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=Path, help="a JSON file to write")
    asked = parser.parse_args()
    rows = []
    for folder in asked.runs:
        found = refined(folder, asked.faces, asked.steps)
        rows.append({"run": folder.name, "faces": asked.faces, **found})
        print(f"{folder.name}, {asked.faces} faces, {found['seconds']} s of CPU")
        for name, before in found["before"].items():
            print(f"  {name:20} {before:8.4f} {found['after'][name]:8.4f}", flush=True)
    if asked.rows:
        asked.rows.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
