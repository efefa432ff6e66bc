"""Imports point down: a module imports only from the layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    {"cards", "files", "hub", "math", "memory", "team", "types"},
    {"cameras", "protocols", "scene"},
    {"render"},
    {"geometry"},
    {"toybox"},
    {"world"},
    {"estimators", "priors", "representations", "rewards"},
    {"algorithms", "evaluate", "export", "start", "terms"},
    {"tutor"},
    {"recipe", "run"},
    {"lesson", "optimize"},
    {"finetune", "search"},
    {"assets", "control", "record", "snapshot"},
    {"choices", "explanation"},
    {"live"},
    {"contest", "doctor", "generate", "preferences", "scoring", "takeaway"},
    {"assess", "interop"},
    {"commands"},
    {"__main__", "configs", "nerfstudio", "viewer"},
]
"""From the ground up. Rooms in one layer do not import each other, but for the exceptions below."""

SIDEWAYS = {
    ("math", "types"),
    ("hub", "cards"),
    ("hub", "files"),
    ("protocols", "cameras"),
    ("evaluate", "export"),
    ("generate", "doctor"),
    ("start", "export"),
    ("optimize", "run"),
    ("__main__", "configs"),
}
"""(who, whom) within one layer that is fine: values of the ground, and the benchmark that meshes what it measures."""

OUTSIDE = {"train"}
"""Scripts, which may import anything and which nothing imports."""

LEVEL = {room: i for i, layer in enumerate(LAYERS) for room in layer}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def modules():
    for folder, package in (("rl3d", "rl3d"), ("configs", "rl3d.configs"), ("viewer", "rl3d.viewer")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            if name not in ("rl3d", "rl3d.configs", "rl3d.viewer"):
                yield pytest.param(name, path, id=name)


def imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "rl3d":
                yield from (f"rl3d.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("rl3d."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("rl3d."))


@pytest.mark.parametrize(("name", "path"), modules())
def test_imports_point_down(name, path):
    own = room(name)
    if own in OUTSIDE:
        return
    assert own in LEVEL, f"say in LAYERS where the room {own} stands"
    for target in imported(path):
        other = room(target)
        if other == own or (own, other) in SIDEWAYS:
            continue
        assert other not in OUTSIDE, f"{name} imports {target}: nothing imports the training scripts"
        assert LEVEL[other] < LEVEL[own], f"{name} imports {target}, which does not lie below it"


def test_importing_the_package_is_light():
    heavy = ("diffusers", "open_clip", "numba", "peft", "trimesh")
    code = f"import sys, rl3d, rl3d.types, rl3d.cameras; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
