"""What works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import torch

from rl3d.cameras import Orbit
from rl3d.hub import MODELS, find_model
from rl3d.types import Splats


def report() -> int:
    """Print a line for each part; return 1 if the embedded default cannot work, else 0."""
    needed = {
        "CPU rasterizer": _cpu_rasterizer,
        **{f"weights: {name}": lambda name=name: _weights(name) for name in MODELS},
        "video encoder": _video,
    }
    optional = {"CUDA": _cuda, "gsplat": _gsplat}
    failed = False
    for checks, vital in ((needed, True), (optional, False)):
        for name, check in checks.items():
            works, what = check()
            failed |= vital and not works
            print(f"{'ok  ' if works else 'FAIL' if vital else '-   '}  {name:18} {what}")
    print("\nsomething that rl3d needs is missing" if failed else '\nready: rl3d generate "a red mug"')
    return int(failed)


def _attempt(check: Callable[[], str], remedy: str) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:  # Whatever is wrong with a machine is what a doctor must survive.
        return False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; {remedy}"


def _cpu_rasterizer() -> tuple[bool, str]:
    def check() -> str:
        from rl3d.render.gaussians import render_splats

        one = Splats(torch.zeros(1, 3), torch.full((1, 3), -2.0), torch.eye(4)[:1], torch.full((1,), 4.0), torch.ones(1, 1, 3))
        views, _ = render_splats(one, Orbit(views=1, size=32).cameras())
        peak = float(views.alpha.max())
        if not 0.9 < peak < 1:
            raise RuntimeError(f"a Gaussian of opacity 0.98 renders with alpha {peak:.3f}")
        return f"works, on {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"

    return _attempt(check, "reinstall numba: pip install --force-reinstall numba")


def _weights(name: str) -> tuple[bool, str]:
    def check() -> str:
        folder = find_model(name)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        return f"{size / 1e6:.1f} MB"

    return _attempt(check, "reinstall rl3d, or set RL3D_WEIGHTS to a folder that holds it")


def _video() -> tuple[bool, str]:
    def check() -> str:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_version()

    return _attempt(check, "pip install imageio-ffmpeg")


def _cuda() -> tuple[bool, str]:
    if torch.cuda.is_available():
        return True, torch.cuda.get_device_name()
    return False, "no NVIDIA GPU: everything runs on the CPU"


def _gsplat() -> tuple[bool, str]:
    if not torch.cuda.is_available():
        return False, "not used without a GPU"
    if importlib.util.find_spec("gsplat") is None:
        return False, "not installed: pip install 'rl3d[cuda]'"
    if shutil.which("nvcc") is None:
        return False, "installed, but its kernels need nvcc to compile: install the CUDA toolkit"
    return True, "installed; its kernels compile at first use"
