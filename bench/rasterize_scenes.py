"""What rasterizers are timed on: scenes, the whole of gsplat's call, and measuring by turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from rl3d.cameras import Orbit
from rl3d.math import sh_from_rgb
from rl3d.render import rasterization
from rl3d.types import Cameras


@dataclass(frozen=True)
class Case:
    """A scene and cameras."""

    gaussians: int
    size: int
    cameras: int
    large: float = 1.0
    """A factor on the Gaussians' size: large ones overlap, and little but blending is left."""

    @property
    def name(self) -> str:
        n = f"{self.gaussians // 1_000_000}M" if self.gaussians >= 1_000_000 else f"{self.gaussians // 1000}k"
        return f"{n}@{self.size}" + f"x{self.cameras}" * (self.cameras > 1) + "large" * (self.large > 1)

    @property
    def pixels(self) -> float:
        """The size of a Gaussian on the screen, as a standard deviation: about 3 at 128 pixels, less where there are many."""
        return self.large * 3 * self.size / 128 * math.sqrt(min(1.0, 10_000 / self.gaussians))

    def scene(self) -> tuple[list[Tensor], Cameras]:
        """Means, quats, scales, opacities and colours (harmonics of degree 0), spread over the middle of every image."""
        rng, n = torch.Generator().manual_seed(0), self.gaussians
        cameras = Orbit(views=self.cameras, size=self.size).cameras()
        pixel = 3.0 / float(cameras.intrinsics[0, 0, 0, 0])
        means = 0.18 * self.size * pixel * torch.randn(n, 3, generator=rng)
        scales = self.pixels * pixel * (0.3 * torch.randn(n, 3, generator=rng)).exp()
        quats, opacities = torch.randn(n, 4, generator=rng), 0.05 + 0.85 * torch.rand(n, generator=rng)
        colors = sh_from_rgb(torch.rand(n, 3, generator=rng))[:, None]
        return [x.requires_grad_() for x in (means, quats, scales, opacities, colors)], cameras


def whole(inputs: list[Tensor], cameras: Cameras, backend: str = "auto") -> dict[str, Callable[[], Any]]:
    """gsplat's call, without and with its backward."""
    view, K, size = cameras.cam_from_world[0].to(inputs[0]), cameras.intrinsics[0].to(inputs[0]), cameras.width
    rng = torch.Generator().manual_seed(1)
    shape = (cameras.cam_from_world.shape[1], size, size)
    cotangents = [torch.randn(*shape, c, generator=rng).to(inputs[0]) for c in (3, 1)]

    def draw():
        return rasterization(*inputs, view, K, size, size, sh_degree=0, packed=False, backend=backend)[:2]

    def forward():
        with torch.no_grad():
            draw()

    def both():
        for x in inputs:
            x.grad = None
        torch.autograd.backward(draw(), cotangents)

    return {"forward": forward, "forward_backward": both}


def turns(functions: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each, run by turns, and of a matrix product between them."""
    a, b = torch.randn(2, 1024, 1024)
    functions = {"matmul": lambda: a @ b, **functions}
    for function in functions.values():
        function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    begin = time.perf_counter()
    while len(found["matmul"]) < 3 or (time.perf_counter() - begin < seconds and len(found["matmul"]) < 100):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            found[name].append(1e3 * (time.perf_counter() - start))
    return found


def timed(functions: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Medians of :func:`turns`."""
    return {name: median(x) for name, x in turns(functions, seconds).items()}
