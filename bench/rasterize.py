"""What rasterizing costs, and how near that is to what the machine can: ``python bench/rasterize.py [--json FILE]``.

A case is ``10k@128x4``: ten thousand Gaussians, images of 128 x 128 pixels, four cameras. Of each it measures the compiled
loops one by one, and the whole of gsplat's call, forward alone and with its backward, by turns with a float32 matrix product of
1024 x 1024 x 1024, so that a busy machine shows. A limit stands beside: the arithmetic that the scene needs at least (counted
pair by pair; once with a power of two for each, once with rows that follow from the one before) at the speed at which the same
vectors multiply and add when they do nothing else (by turns, too), or the memory that must be moved at the speed of copying,
whichever takes longer. Milliseconds are medians; ratios to the limit are of the shortest times on both sides.

``--only`` measures some cases and leaves the others in the file as they are: ``--only '10k@*' workload oracle``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from rasterize_rivals import rivals
from rasterize_scenes import Case, timed, turns, whole
from torch import Tensor

from rl3d.files import write_whole
from rl3d.render import _gaussians_numba, _numba_bins, _numba_blend, _numba_project, _numba_unblend
from rl3d.render._compile import PARALLEL, STRICT, njit
from rl3d.render._gaussians_torch import Settings as Drawing
from rl3d.render._numba_bins import HIGH, TILE
from rl3d.render._threads import follow_torch
from rl3d.render._vectors import LANES, exp2, scratch, splat, store
from rl3d.render.gaussians import render_splats
from rl3d.types import Cameras, Splats

FORWARD = {"exponent": 2, "exp2": 10, "cut-offs": 2, "weight, light, end": 3, "three colours": 3}
BACKWARD = {
    "exponent": 2,
    "exp2": 10,
    "cut-offs": 2,
    "weight, light, end": 3,
    "gradient of alpha": 3,
    "what is behind": 2,
    "reciprocal": 4,
    "gradient of the exponent": 3,
    "six moments": 5,
    "three colours": 3,
}
"""Vector instructions that a row of sixteen pixels needs at least if it is computed on its own. Each takes a slot of the units
that multiply and add (with AVX-512 all arithmetic, comparisons and selections do); loads, stores and sums over lanes are not
counted."""
FOLLOWING = {"exponent": 0, "exp2": 2, "six moments": 3}
"""What changes where a row follows from the one before: alpha and its factor are products, and moments sums of sums."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    gaussians: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Width and height in pixels."""
    cameras: tuple[int, ...] = (1, 4, 16)
    only: tuple[str, ...] = ("*",)
    """Patterns of the names of cases to measure; "workload", "oracle", "gsplat" and "litesplat" are others."""
    most: float = 2e6
    """Skip cases in which cameras times Gaussians are more: they take gigabytes, and nothing new is learned."""
    seconds: float = 1.0
    """To spend on each case, about; 3 repeats at least."""
    json: Path | None = None


def peak_megabytes(function: Callable[[], Any]) -> float | None:
    """Memory that a call needs at most, above what was there before; None where the system does not say."""
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
        before = _status("VmRSS")
        function()
        return (_status("VmHWM") - before) / 1024
    except OSError:
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


# The machine's limits


@njit(**PARALLEL)
def _multiply_adds(rounds, out):
    """Twelve independent chains of multiply-adds in each of a few tasks."""
    for task in prange(len(out)):
        room = scratch(LANES)
        a0, a1, a2, a3, a4, a5 = splat(0.1), splat(0.2), splat(0.3), splat(0.4), splat(0.5), splat(0.6)
        b0, b1, b2, b3, b4, b5 = splat(0.7), splat(0.8), splat(0.9), splat(1.1), splat(1.2), splat(1.3)
        factor, step = splat(0.999), splat(0.001 + task)
        for _ in range(rounds):
            a0, a1, a2, a3 = a0 * factor + step, a1 * factor + step, a2 * factor + step, a3 * factor + step
            a4, a5, b0, b1 = a4 * factor + step, a5 * factor + step, b0 * factor + step, b1 * factor + step
            b2, b3, b4, b5 = b2 * factor + step, b3 * factor + step, b4 * factor + step, b5 * factor + step
        store(room, 0, a0 + a1 + a2 + a3 + a4 + a5 + b0 + b1 + b2 + b3 + b4 + b5)
        out[task] = room[0]


@njit(**PARALLEL)
def _exponentials(rounds, out):
    for task in prange(len(out)):
        room = scratch(LANES)
        a, b, c, d = splat(-0.1), splat(-0.2), splat(-0.3), splat(-0.4)
        for _ in range(rounds):
            a, b, c, d = exp2(a) - 1.5, exp2(b) - 1.5, exp2(c) - 1.5, exp2(d) - 1.5
        store(room, 0, a + b + c + d)
        out[task] = room[0]


@dataclass(frozen=True)
class Limits:
    """What this process was seen to reach at best, with all its threads."""

    vectors: float
    """Multiply-adds of sixteen float32, in a second."""
    exponentials: float
    """Powers of two of sixteen float32, as the loops compute them, in a second."""
    bandwidth: float
    """Bytes that copying reads and writes, in a second."""
    matmul: float
    """Floating-point operations of a product of 1024 x 1024 x 1024, in a second."""

    @classmethod
    def measured(cls) -> Limits:
        follow_torch()
        out, rounds = np.zeros(8 * numba.get_num_threads(), np.float32), 20_000
        source = torch.ones(32 * 2**20)
        target = torch.empty_like(source)
        a, b = torch.randn(2, 1024, 1024)
        functions: dict[str, Callable[[], Any]] = {
            "vectors": lambda: _multiply_adds(rounds, out),
            "exponentials": lambda: _exponentials(rounds, out),
            "bandwidth": lambda: target.copy_(source),
            "matmul": lambda: a @ b,
        }
        work = {
            "vectors": 12 * rounds * len(out),
            "exponentials": 4 * rounds * len(out),
            "bandwidth": 8 * len(source),
            "matmul": 2 * 1024**3,
        }
        best = dict.fromkeys(functions, math.inf)
        for _ in range(8):
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                best[name] = min(best[name], time.perf_counter() - start)
        return cls(**{name: work[name] / best[name] for name in best})

    def record(self) -> dict[str, float]:
        return {
            "multiply_add_gflops": 2 * LANES * self.vectors / 1e9,
            "exp2_per_ns": LANES * self.exponentials / 1e9,
            "copy_gb_per_s": self.bandwidth / 1e9,
            "matmul_gflops": self.matmul / 1e9,
        }


@njit(**STRICT)
def _count_blended(starts, pairs, records, views, width, height):
    """The pairs of a pixel and a Gaussian that end up in the image."""
    across, down = (width + TILE - 1) // TILE, (height + HIGH - 1) // HIGH
    found = 0
    for task in range(views * across * down):
        records_, t = records[task // (across * down)], task % (across * down)
        left, top = t % across * TILE, t // across * HIGH
        through = np.ones((HIGH, TILE), np.float32)
        for k in range(starts[task], starts[task + 1]):
            g, first, last = _numba_bins.unpack(pairs[k])
            x, y, a, b, c, limit = (
                records_[g, 0],
                records_[g, 1],
                records_[g, 2],
                records_[g, 3],
                records_[g, 4],
                records_[g, 5],
            )
            for row in range(first, min(last, height - top)):
                dy = top + row + np.float32(0.5) - y
                for column in range(min(TILE, width - left)):
                    dx = left + column + np.float32(0.5) - x
                    log_alpha = limit - a * dx * dx - (b * dx + c * dy) * dy
                    if through[row, column] > 0 and log_alpha >= np.float32(-7.994353436858858):
                        after = through[row, column] * (1 - min(2.0**log_alpha, np.float32(0.999)))
                        found += after > np.float32(1e-4)
                        through[row, column] = after if after > np.float32(1e-4) else np.float32(0)
    return found


# The compiled loops, one by one


class Loops:
    """The rasterizer's loops on the arrays of a case, forward and backward."""

    def __init__(self, inputs: list[Tensor], cameras: Cameras):
        view, K = cameras.cam_from_world[0], cameras.intrinsics[0]
        self.inputs, self.view, self.K = inputs, view, K
        self.drawing = Drawing(cameras.width, cameras.height, sh_degree=0)
        self.size = (cameras.width, cameras.height)
        rng = torch.Generator().manual_seed(1)
        with torch.no_grad():
            self.projected = self.project()
            arrays = [x.numpy() for x in self.projected]
            self.means2d, self.depths, self.conics, self.opacities, self.radii, self.features = arrays
            self.bin()
            v, c = len(self.depths), self.features.shape[-1]
            image, alpha = torch.empty(v, *self.size[::-1], c), torch.empty(v, *self.size[::-1], 1)
            self.image, self.alpha = image.numpy(), alpha.numpy()
            d_image = torch.randn(image.shape, generator=rng)
            self.d_image, self.d_alpha = d_image.numpy(), torch.randn(alpha.shape, generator=rng).numpy()
            self.blend()
            self.unblend()
        self._prepare_unproject()

    def project(self):
        with torch.no_grad():
            return _gaussians_numba.project(*self.inputs, self.view, self.K, self.drawing)

    def bin(self):
        """Sort, find the tiles, list the pairs."""
        self.records = _numba_bins.ellipses(self.means2d, self.conics, self.opacities)
        self.starts, self.pairs = _numba_bins.bin_pairs(self.records, self.depths, self.radii, *self.size)

    def blend(self):
        blended = _numba_blend.blend(self.starts, self.pairs, self.records, self.features, self.image, self.alpha)
        self.kept, self.taken = blended

    def unblend(self):
        known = (self.starts, self.kept, self.taken, self.conics, self.opacities, self.records, self.features)
        self.found = _numba_unblend.unblend(*known, self.image, self.alpha, self.d_image, self.d_alpha, False)

    def _prepare_unproject(self):
        ctx = _gaussians_numba.project(*self.inputs, self.view, self.K, self.drawing).means2d.grad_fn
        d_means2d, d_conics, d_opacities, d_features, _ = self.found
        self.known = ctx.known  # pyright: ignore
        self.upstream = (d_means2d, np.zeros_like(self.depths), d_conics, d_opacities, d_features)

    def unproject(self):
        grads = tuple(np.zeros(x.shape, np.float32) for x in self.known[0])
        _numba_project.unproject(*self.known, self.upstream, grads)

    def functions(self) -> dict[str, Callable[[], Any]]:
        return {name: getattr(self, name) for name in ("project", "bin", "blend", "unblend", "unproject")}

    def work(self) -> dict[str, float]:
        """What the scene needs, and what was done."""
        blended = _count_blended(self.starts, self.pairs, self.records, len(self.depths), *self.size)
        taken = [self.kept[start : start + n] for start, n in zip(self.starts, self.taken, strict=False)]
        rows = sum(int(((x & 255) - ((x >> 8) & 255)).sum()) for x in taken)
        seen = int((self.radii > 0).all(-1).sum())
        forward = 4 * (seen * (6 + 3) + self.image.shape[0] * self.size[0] * self.size[1] * 4)
        backward = 4 * (seen * (6 + 3 + 6 + 3) + self.image.shape[0] * self.size[0] * self.size[1] * 8)
        return {
            "pairs": len(self.pairs),
            "rows": rows,
            "blended": blended,
            "lanes_used": blended / max(1, LANES * rows),
            "forward_bytes": forward,
            "backward_bytes": backward,
        }


# Rows of the table


def measure(case: Case, limits: Limits, seconds: float) -> dict[str, Any]:
    inputs, cameras = case.scene()
    loops, calls = Loops(inputs, cameras), whole(inputs, cameras)
    room, rounds = np.zeros(8 * numba.get_num_threads(), np.float32), 100_000
    found = turns({"multiply_adds": lambda: _multiply_adds(rounds, room), **loops.functions(), **calls}, seconds)
    ms, best = ({name: take(x) for name, x in found.items()} for take in (median, min))
    vectors_per_ms = 12 * rounds * len(room) / best["multiply_adds"]
    work = loops.work()
    megabytes = peak_megabytes(calls["forward_backward"])
    blending = ms["blend"] + ms["unblend"]
    vectors = work["blended"] / LANES
    counts = [*FORWARD.items(), *BACKWARD.items()]
    arithmetic = vectors * sum(n for _, n in counts) / vectors_per_ms
    following = vectors * sum(FOLLOWING.get(name, n) for name, n in counts) / vectors_per_ms
    memory = 1e3 * (work["forward_bytes"] + work["backward_bytes"]) / limits.bandwidth
    limit = max(arithmetic, memory)
    return {
        "gaussians": case.gaussians,
        "size": case.size,
        "cameras": case.cameras,
        "large": case.large,
        "ms": ms,
        "best_ms": best,
        "blending_ms": blending,
        "blending_matmuls": blending / ms["matmul"],
        "whole_matmuls": ms["forward_backward"] / ms["matmul"],
        "ns_per_blended_pair": {
            "blend": 1e6 * ms["blend"] / max(1, work["blended"]),
            "unblend": 1e6 * ms["unblend"] / max(1, work["blended"]),
            "whole": 1e6 * ms["forward_backward"] / max(1, work["blended"]),
        },
        "megabytes": megabytes,
        **work,
        "limit_ms": {"arithmetic": arithmetic, "rows that follow": following, "memory": memory},
        "bound_by": "arithmetic" if arithmetic >= memory else "memory",
        "blending_to_limit": (best["blend"] + best["unblend"]) / limit,
        "blending_to_limit_of_rows_that_follow": (best["blend"] + best["unblend"]) / max(following, memory),
        "whole_to_limit": best["forward_backward"] / limit,
    }


def workload(seconds: float) -> dict[str, Any]:
    """The project's own: 2,000 Gaussians, 8 views of 64 x 64, with depth and normals as in the main loop, and colours alone."""
    inputs, cameras = Case(2_000, 64, 8).scene()
    means, quats, scales, opacities, sh = (x.detach() for x in inputs)
    splats = Splats(means, scales.log(), quats, opacities.logit(), sh)
    splats = Splats(**{name: x.requires_grad_() for name, x in splats.tensors().items()})
    rng = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(1, 8, 64, 64, c, generator=rng) for c in (3, 1, 1, 3)]

    def draw(surfaces: bool, backward: bool):
        for x in splats.tensors().values():
            x.grad = None
        views, _ = render_splats(splats, cameras, depth=surfaces, normals=surfaces)
        parts = [x for x in (views.rgb, views.alpha, views.depth, views.normals) if x is not None]
        if backward:
            torch.autograd.backward(parts, cotangents[: len(parts)])

    functions: dict[str, Callable[[], Any]] = {
        "colours": lambda: draw(False, True),
        "colours_depth_normals": lambda: draw(True, True),
        "colours_forward": lambda: draw(False, False),
        **whole(inputs, cameras),
    }
    ms = timed(functions, seconds)
    return {"ms": ms, "matmuls": {name: x / ms["matmul"] for name, x in ms.items()}}


def wanted(s: Settings, name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in s.only)


def describe(name: str, row: dict[str, Any]) -> str:
    ms = row["ms"]
    if "blending_ms" not in row:
        return f"{name:14} " + ", ".join(f"{key} {x:.2f} ms" for key, x in ms.items())
    stages = "".join(f"{ms[x]:8.2f}" for x in ("project", "bin", "blend", "unblend", "unproject"))
    calls = f"{row['blending_ms']:9.2f}{ms['forward']:9.2f}{ms['forward_backward']:9.2f}"
    per = f"{row['ns_per_blended_pair']['blend']:7.3f}{row['ns_per_blended_pair']['unblend']:7.3f}"
    ratios = f"{row['blending_matmuls']:8.2f}{row['whole_matmuls']:8.2f}{row['blending_to_limit']:7.2f}"
    ratios += f"{row['blending_to_limit_of_rows_that_follow']:7.2f}{row['whole_to_limit']:7.2f}"
    return f"{name:14}{stages}{calls}{per}{ratios}{row['lanes_used']:7.0%}{row['megabytes'] or math.nan:8.0f}"


HEADER = (
    f"{'':14}{'project':>8}{'bin':>8}{'blend':>8}{'unblend':>8}{'unproj':>8}{'blending':>9}{'forward':>9}{'fwd+bwd':>9}"
    f"{'ns fwd':>7}{'ns bwd':>7}{'b/mm':>8}{'w/mm':>8}{'b/lim':>7}{'b/fol':>7}{'w/lim':>7}{'lanes':>7}{'MB':>8}"
)


def main(s: Settings) -> None:
    results: dict[str, Any] = json.loads(s.json.read_text()) if s.json and s.json.exists() else {}
    limits = Limits.measured()
    print(", ".join(f"{name} {x:.1f}" for name, x in limits.record().items()), flush=True)
    results["machine"] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }
    results["slots"] = {"forward": FORWARD, "backward": BACKWARD, "following": FOLLOWING}
    cases, skipped = results.setdefault("cases", {}), results.setdefault("skipped", [])

    def keep(name: str, row: dict[str, Any]) -> None:
        cases[name] = {**row, "limits": limits.record()}
        print(describe(name, row), flush=True)
        if s.json:
            write_whole(s.json, (json.dumps(results, indent=1) + "\n").encode())

    print(HEADER)
    if wanted(s, "workload"):
        keep("workload", workload(s.seconds))
    grid = (Case(n, size, v) for v in s.cameras for n in s.gaussians for size in s.sizes)
    for case in (Case(2_000, 64, 8), Case(1_000, 512, 1, large=4), *grid):
        if not wanted(s, case.name):
            continue
        if case.cameras * case.gaussians > s.most:
            print(f"{case.name:14} skipped: {case.cameras * case.gaussians:.1e} Gaussians as cameras see them, see --most")
            skipped[:] = sorted({*skipped, case.name})
            continue
        keep(case.name, measure(case, limits, s.seconds))
    for name, row in rivals(lambda name: wanted(s, name), s.seconds):
        keep(name, row)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings))
