"""Other rasterizers on the same scenes: the torch oracle, gsplat on CUDA, and what else runs on a CPU."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rasterize_scenes import Case, timed, whole

from rl3d.render import rasterization


def rivals(wanted: Callable[[str], bool], seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The torch oracle on small scenes, gsplat where there is CUDA, litesplat where it is installed."""
    for case in (Case(1_000, 64, 1), Case(1_000, 128, 1), Case(10_000, 64, 1)):
        if wanted("oracle"):
            inputs, cameras = case.scene()
            slow = timed(whole(inputs, cameras, "torch"), seconds)
            yield f"oracle {case.name}", {"ms": slow}
        if wanted("litesplat") and (found := litesplat(case, seconds)):
            yield f"litesplat {case.name}", {"ms": found}
    for case in (Case(10_000, 256, 1), Case(100_000, 512, 1), Case(1_000_000, 1024, 1)):
        if wanted("gsplat") and torch.cuda.is_available():
            yield f"gsplat {case.name}", {"ms": on_cuda(case, seconds)}


def on_cuda(case: Case, seconds: float) -> dict[str, float]:
    """Our call and gsplat's bare one."""
    import gsplat  # pyright: ignore[reportMissingImports]

    inputs, cameras = case.scene()
    inputs = [x.detach().cuda().requires_grad_() for x in inputs]
    view, K = cameras.cam_from_world[0].cuda(), cameras.intrinsics[0].cuda()

    def both(call: Callable) -> Callable[[], None]:
        def run():
            for x in inputs:
                x.grad = None
            image, alpha, _ = call(*inputs, view, K, case.size, case.size, sh_degree=0, packed=False)
            (image.sum() + alpha.sum()).backward()
            torch.cuda.synchronize()

        return run

    return timed({"ours": both(rasterization), "bare": both(gsplat.rasterization)}, seconds)


def litesplat(case: Case, seconds: float) -> dict[str, float] | None:
    """litesplat's forward: every pixel looks at every Gaussian, in Keras on torch."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        from litesplat.core import CameraLayer, GaussianParameterLayer  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    inputs, cameras = case.scene()
    means, quats, scales, opacities, colors = (x.detach() for x in inputs)
    view, K = cameras.cam_from_world[0, 0], cameras.intrinsics[0, 0]
    with tempfile.TemporaryDirectory() as folder:
        rows = zip(means.tolist(), colors[:, 0].tolist(), quats.tolist(), scales.tolist(), opacities.tolist(), strict=True)
        names = ("position", "color", "rotation", "scale", "opacity")
        gaussians = [{**dict(zip(names, row, strict=True)), "translation": row[0]} for row in rows]
        Path(folder, "gaussians.json").write_text(json.dumps(gaussians))
        camera = {"camera_id": 0, "model": "PINHOLE", "image_name": "", "width": case.size, "height": case.size}
        camera |= {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        camera |= {"rotation": view[:3, :3].tolist(), "translation": view[:3, 3].tolist()}
        Path(folder, "camera.json").write_text(json.dumps([camera]))
        layer = CameraLayer(folder, GaussianParameterLayer(folder))
    # Keras would refuse sizes that are no tensors, and unless told not to, the layer shows a window.
    return timed({"forward": lambda: layer.call((case.size, case.size), batch_size=1024, render=False)}, seconds)
