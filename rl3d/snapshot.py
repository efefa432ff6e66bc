"""A scene as it was after some step, as data alone: what is looked at needs neither the recipe nor its code.

A run keeps some in ``steps/`` (:func:`saved_steps`), and the present one in ``live/`` while somebody watches
(:mod:`rl3d.live`). Numbers are stored in half precision: positions within the unit sphere to 0.0003, which no picture shows.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl3d.export.meshes.limits import MOST_CORNERS
from rl3d.files import read_tensors, tensor_bytes, write_whole
from rl3d.protocols import Representation
from rl3d.representations.gaussians import Gaussians, GaussianSplats
from rl3d.representations.mesh import Mesh, TexturedMesh
from rl3d.representations.nerf import Nerf, RadianceField
from rl3d.run import Run
from rl3d.types import Cameras, Splats, Views

MOST_SAVED = 20
"""Steps of a run whose scene is kept, at most; of longer runs every second checkpoint's, every third's, ..."""

LIMITS = {"levels": 32, "finest": 4096, "table": 2**24, "hidden": 1024, "samples": 4096, "occupancy_cells": 512, "chunk": 2**22}
"""What a file may ask of a radiance field at most: more than any recipe has."""


@dataclass(frozen=True)
class Snapshot:
    """A scene after so many steps."""

    step: int
    scene: Representation

    @torch.no_grad()
    def look(self, cameras: Cameras) -> Views:
        """What ``[1 v]`` cameras see: a :data:`rl3d.types.Look`."""
        return self.scene.render(cameras)[0]

    def splats(self) -> Splats:
        """The scene as Gaussians: its own, those on a mesh, or those fitted to a radiance field, which takes seconds."""
        return self.scene.splats()


def scene_path(run: Run, step: int | None = None) -> Path:
    """Where a run's scene after a saved step is, or the present one."""
    return run.folder / ("live/scene.safetensors" if step is None else f"steps/scene_{step:05d}.safetensors")


def saved_steps(run: Run) -> list[int]:
    """The steps whose scene is kept, in order."""
    names = (re.fullmatch(r"scene_(\d+)\.safetensors", path.name) for path in (run.folder / "steps").glob("scene_*"))
    return sorted(int(name[1]) for name in names if name is not None)


def is_kept(step: int, steps: int, every: int) -> bool:
    """Whether the scene after this step of ``steps`` is kept, where a checkpoint is written after ``every`` so many."""
    apart = every * -(-steps // (every * MOST_SAVED))
    return step % apart == 0 or step == steps


def write_snapshot(path: Path, scene: Representation, step: int, *, durable: bool = True) -> None:
    """Write a scene: of Gaussians 28 bytes each (with colours of degree 0), of a radiance field or a mesh some megabytes.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(scene, GaussianSplats):
        settings = {"eps2d": scene.settings.eps2d, "antialiased": scene.settings.antialiased}
        tensors, kind = scene.splats().tensors(), "gaussians"
    elif isinstance(scene, RadianceField):
        settings = {f.name: type(f.default)(getattr(scene.settings, f.name)) for f in fields(Nerf)}
        tensors, kind = scene.state_dict(), "nerf"
    elif isinstance(scene, TexturedMesh):
        settings, kind, tensors = {"samples": scene.settings.samples}, "mesh", _mesh_tensors(scene)
    else:
        raise ValueError(f"a snapshot holds Gaussians, a radiance field or a mesh, not a {type(scene).__name__}")
    small = {name: x.half() if x.is_floating_point() else x for name, x in tensors.items()}
    write_whole(path, tensor_bytes(small, {"snapshot": kind, "step": step, "settings": settings}), durable=durable)


def read_snapshot(path: Path) -> Snapshot:
    """Read a scene, while the run may be replacing the file; nothing in it is run.

    Raises:
        ValueError: if the file is damaged, or no snapshot.
        FileNotFoundError: if there is none.
    """
    tensors, about = read_tensors(path)
    try:
        step, kind, settings = (about[key] for key in ("step", "snapshot", "settings"))
        if type(step) is not int or step < 0:
            raise ValueError(f"its step is {step!r}")
        scenes = {"gaussians": _gaussians, "nerf": _field, "mesh": _mesh}
        for name, x in tensors.items():
            if x.dtype not in ((torch.float16, torch.int32, torch.uint8) if kind == "mesh" else (torch.float16, torch.bool)):
                raise ValueError(f"{name} is of {x.dtype}")
            if x.dtype == torch.float16 and not x.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
        wide = {name: x.float() if x.dtype == torch.float16 else x for name, x in tensors.items()}
        return Snapshot(step, scenes[kind](wide, settings))
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is no snapshot of a scene, or damaged ({error})") from None


def read_checkpoint(run: Run) -> Snapshot:
    """Read the scene of a run's checkpoint, in full precision; of a search, the scene that leads. Nothing in the folder is run.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged.
    """
    saved = run.load()
    if saved is None:
        raise ValueError(f"{run.folder} holds no checkpoint yet: wait, or continue with `rl3d resume {run.folder}`")
    tensors, plain = saved
    try:
        within = f"{plain['order'][0]}/scene." if "order" in plain else "scene."
        found = {name.removeprefix(within): x for name, x in tensors.items() if name.startswith(within)}
        asked = json.loads((run.folder / "recipe.json").read_text())["scene"]
        if asked["is"] == "Gaussians":
            # How they learn, and what was noted of it, does not matter any more.
            scene = _gaussians({f.name: found[f.name] for f in fields(Splats)}, {name: asked[name] for name in SEEN_BY})
        elif asked["is"] == "Mesh":
            known = _checked({name: asked[name] for name in ("smooth", "samples")}, {"smooth": 0.08, "samples": 1})
            scene = Mesh(**known).restore(_checked_mesh(found))
        else:
            scene = _field(found, {name: asked[name] for name in asdict(Nerf())})
        return Snapshot(plain["step"], scene)
    except (OSError, KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the checkpoint of {run.folder} and its recipe.json do not fit each other ({error})") from None


SEEN_BY = {"eps2d": 0.3, "antialiased": False}
"""The settings of Gaussians that pictures depend on."""


def _gaussians(tensors: dict[str, Tensor], settings: dict[str, Any]) -> GaussianSplats:
    known = _checked(settings, SEEN_BY)
    names = [f.name for f in fields(Splats)]
    if sorted(tensors) != sorted(names):
        raise ValueError(f"it has {', '.join(sorted(tensors)) or 'nothing'}, not {', '.join(names)}")
    n, k = len(tensors["means"]), tensors["sh"].shape[1]
    shapes = {"means": (n, 3), "log_scales": (n, 3), "quats": (n, 4), "opacity_logits": (n,), "sh": (n, k, 3)}
    if k not in (1, 4, 9, 16) or any(tensors[name].shape != shape for name, shape in shapes.items()):
        raise ValueError(f"shapes are {', '.join(f'{name} {tuple(x.shape)}' for name, x in tensors.items())}")
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[k]
    return GaussianSplats(Splats(**tensors), Gaussians(strategy=None, sh_degree=degree, **known))


def _field(tensors: dict[str, Tensor], settings: dict[str, Any]) -> RadianceField:
    value = Nerf(**_checked(settings, asdict(Nerf())))
    for name, most in LIMITS.items():
        if not 1 <= getattr(value, name) <= most:
            raise ValueError(f"{name} is {getattr(value, name)}: more than {most}, or less than 1")
    # Without memory first: a file that promises more than it holds is refused before anything is made.
    with torch.device("meta"):
        expected = RadianceField(value).state_dict()
    for name, x in expected.items():
        if tensors[name].shape != x.shape or tensors[name].dtype != x.dtype:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, and should be {tuple(x.shape)}")
    with torch.random.fork_rng(devices=[]):
        return value.restore(tensors)


def _mesh_tensors(scene: TexturedMesh) -> dict[str, Tensor]:
    """A mesh where it is now; its texture in 8 bits, places in it to a 65,536th of its side."""
    with torch.no_grad():
        texels = (255 * scene.texture.clamp(0, 1)).round().to(torch.uint8)
        places = (scene.uv * 65536).round().to(torch.int32)
        return {"rest": scene.vertices(), "faces": scene.faces.int(), "uv": places, "texture": texels}


def _mesh(tensors: dict[str, Tensor], settings: dict[str, Any]) -> TexturedMesh:
    known = _checked(settings, {"samples": 1})
    if sorted(tensors) != ["faces", "rest", "texture", "uv"]:
        raise ValueError(f"it has {', '.join(sorted(tensors)) or 'nothing'}, not faces, rest, texture, uv")
    types = {"faces": torch.int32, "rest": torch.float32, "texture": torch.uint8, "uv": torch.int32}
    if any(tensors[name].dtype != kind for name, kind in types.items()):
        raise ValueError(f"types are {', '.join(f'{name} {x.dtype}' for name, x in tensors.items())}")
    wide = {"faces": tensors["faces"].long(), "uv": tensors["uv"].float() / 65536, "texture": tensors["texture"].float() / 255}
    state = _checked_mesh({"rest": tensors["rest"].float(), **wide, **_unmoved(len(tensors["rest"]))})
    return Mesh(**known).restore(state)


def _unmoved(n: int) -> dict[str, Tensor]:
    """What the state of a mesh holds of how it learned, before it did."""
    return {"pulls": torch.zeros(n, 3), "calm": torch.full((2,), torch.inf, dtype=torch.float64)}


def _checked_mesh(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a mesh, if it is one: shapes fit, faces have their corners, and it is no larger than meshes are."""
    n, m = len(state["rest"]), len(state["faces"])
    shapes = {"rest": (n, 3), "pulls": (n, 3), "calm": (2,), "faces": (m, 3), "uv": (m, 3, 2)}
    if any(state[name].shape != shape for name, shape in shapes.items()) or state["texture"].ndim != 3:
        raise ValueError(f"shapes are {', '.join(f'{name} {tuple(x.shape)}' for name, x in state.items())}")
    if not m or state["texture"].shape[2] != 3 or not min(state["texture"].shape) or 3 * m > MOST_CORNERS:
        raise ValueError(f"it has {m} faces, and a texture of {tuple(state['texture'].shape)}")
    faces = state["faces"]
    if not bool(((faces >= 0) & (faces < n)).all()):
        raise ValueError(f"its faces refer to vertices from {int(faces.min())} to {int(faces.max())}, of {n}")
    return state


def _checked(settings: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Settings of the types that these examples have, all of them and no others, and finite."""
    if settings.keys() != like.keys():
        raise ValueError(f"its settings are {', '.join(settings)}, not {', '.join(like)}")
    for name, value in settings.items():
        if type(value) is not type(like[name]) or not abs(value) < 1e9:
            raise ValueError(f"{name} is {value!r}")
    return settings
