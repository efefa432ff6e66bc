"""What the viewer costs: frames in a browser, memory, and the share it takes of a run that it follows.

    python bench/viewer.py                # frames and memory with 10k, 100k and 1M Gaussians
    python bench/viewer.py --follow       # a run of the default recipe, alone and beside a viewer with a client

Frames are those of requestAnimationFrame in headless Chromium while a script turns the camera. Where there is no GPU Chromium
draws in software (SwiftShader), which the table says: these are the least that a browser does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "viewer.json"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SIZES = (10_000, 100_000, 1_000_000)
COUNT = "() => { window.n = 0; const f = () => { window.n++; requestAnimationFrame(f) }; requestAnimationFrame(f) }"


def write_ball(path: Path, n: int) -> None:
    """Write a shell of ``n`` small coloured Gaussians."""
    from rl3d.export.splats.ply import write_ply
    from rl3d.types import Splats

    rng = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=-1) * 0.8
    size = torch.full((n, 3), 2.0 / n**0.5).log()
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    write_ply(path, Splats(means, size, quats, torch.full((n,), 2.0), means[:, None] * 1.5))


def memory_mb(pids: list[int]) -> float:
    """Proportional set size of processes, in MB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


def below(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += below(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


COUNTING = """
import sys
from rl3d.__main__ import main
from rl3d.viewer.stream import Stream

draw, pictures = Stream._draw, open(sys.argv[1], "ab", buffering=0)
Stream._draw = lambda self, seconds: (draw(self, seconds), pictures.write(b"."))[0]
main(sys.argv[2:])
"""
"""``rl3d view``, which adds a byte to a file for each picture that it has sent."""


def start_viewer(path: Path, pictures: Path = Path(os.devnull)) -> tuple[subprocess.Popen, str]:
    """Start ``rl3d view`` and wait for its address."""
    words = [sys.executable, "-c", COUNTING, str(pictures), "view", str(path), "--port", "0"]
    viewer = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert viewer.stdout is not None
    for line in viewer.stdout:
        if "http://" in line:
            return viewer, line.split()[2]
    raise RuntimeError("the viewer did not start")


def frames(browser, folder: Path, n: int, seconds: float) -> dict:
    """Frames a second and memory with ``n`` Gaussians, at rest and while the camera turns."""
    path = folder / f"{n}.ply"
    write_ball(path, n)
    pictures = folder / f"{n}.pictures"
    viewer, url = start_viewer(path, pictures)
    try:
        began = time.monotonic()
        tab = open_tab(browser, url)
        tab.wait_for_selector(".rl3d-head:has-text('Gaussians')", state="attached")
        drawn = "server" if "rendered here" in tab.inner_text(".rl3d-head") else "browser"
        ready = time.monotonic() - began
        time.sleep(5)
        box = tab.locator("canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.evaluate(COUNT)
        tab.mouse.move(x, y)
        tab.mouse.down()
        before, sent, began, i = tab.evaluate("window.n"), pictures.stat().st_size, time.monotonic(), 0
        used = cpu_s(viewer.pid)
        while time.monotonic() - began < seconds:
            i += 1
            tab.mouse.move(x + 100 * (i % 20 - 10) / 10, y)
            time.sleep(0.05)
        took = time.monotonic() - began
        count, used = tab.evaluate("window.n") - before, cpu_s(viewer.pid) - used
        tab.mouse.up()
        # Where the server draws, the browser's own frames repeat its last picture.
        count = pictures.stat().st_size - sent if drawn == "server" else count
        own = set(below(viewer.pid))
        tabs = [pid for pid in chromiums() if pid not in own]
        told = {"gaussians": n, "drawn_by": drawn, "ready_s": ready, "frames_per_s": count / took, "server_cores": used / took}
        told |= {"server_mb": memory_mb(sorted(own)), "browser_mb": memory_mb(tabs)}
        tab.close()
        return told
    finally:
        viewer.terminate()
        viewer.wait()


def chromiums() -> list[int]:
    """The browser that this process started, and what belongs to it."""
    mine = below(os.getpid())
    return [pid for pid in mine if "chrom" in _name(pid)]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def renderer(browser) -> str:
    """What the browser draws with, as WebGL says."""
    tab = browser.new_page()
    name = tab.evaluate(
        "() => { const gl = document.createElement('canvas').getContext('webgl2');"
        " return gl.getParameter(gl.getExtension('WEBGL_debug_renderer_info').UNMASKED_RENDERER_WEBGL) }"
    )
    tab.close()
    return name


def follow(browser, folder: Path, recipe: str, steps: int) -> dict:
    """CPU time of a viewer that follows a run with one client, over the run's in the same while; and what being watched costs
    the run: its own CPU time, over that of the same run beside a viewer and a browser that show something else.

    The latter, because a browser that draws in software on the same cores makes any program beside it slower.
    """

    def begin(name: str) -> subprocess.Popen:
        words = ["generate", "a red mug", "--recipe", recipe, "--out", str(folder / name), "--steps", str(steps)]
        return subprocess.Popen([sys.executable, "-m", "rl3d", *words], stderr=subprocess.DEVNULL)

    def end(work: subprocess.Popen) -> float:
        _, status, used = os.wait4(work.pid, 0)
        work.returncode = os.waitstatus_to_exitcode(status)
        assert work.returncode == 0, "the run failed"
        return used.ru_utime + used.ru_stime

    alone = end(begin("alone"))
    viewer, url = start_viewer(folder / "alone" / "asset.ply")
    try:
        tab = open_tab(browser, url)
        tab.wait_for_selector(".rl3d-head:has-text('Gaussians')", state="attached")
        work = begin("beside")
        while os.waitid(os.P_PID, work.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            tab.wait_for_timeout(500)
        beside = end(work)
        tab.close()
    finally:
        viewer.terminate()
        viewer.wait()
    run = folder / "watched"
    run.mkdir()
    viewer, url = start_viewer(folder)  # imported before the run begins, as one that is open already
    tab = open_tab(browser, url)
    try:
        tab.wait_for_selector(".rl3d-card")
        work = begin("watched")
        tab.locator(".rl3d-card:has-text('running') label").first.click()
        tab.wait_for_selector(".rl3d-head:has-text('running')")
        before, began, during = (cpu_s(viewer.pid), cpu_s(work.pid)), time.monotonic(), 0.0
        while not (run / "asset.ply").is_file():
            assert os.waitid(os.P_PID, work.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "the run ended early"
            during = cpu_s(work.pid) - before[1]
            tab.wait_for_timeout(500)
        spent, took = cpu_s(viewer.pid) - before[0], time.monotonic() - began
        watched = end(work)
        told = {"recipe": recipe, "steps": steps, "seconds": took, "viewer_cpu_s": spent, "run_cpu_s": during}
        told |= {"share": spent / during, "run_watched_cpu_s": watched, "run_beside_cpu_s": beside, "run_alone_cpu_s": alone}
        return told | {"watching_costs": watched / beside - 1}
    finally:
        tab.close()
        viewer.terminate()
        viewer.wait()


def open_tab(browser, url: str):
    """A page of the viewer, with patience for a machine that draws in software."""
    tab = browser.new_page(viewport={"width": 1000, "height": 500})
    tab.set_default_timeout(240_000)
    tab.goto(url)
    return tab


def pace(frames_per_s: float) -> str:
    """Frames a second, or seconds a frame where those are fewer than one."""
    return f"{frames_per_s:.1f} frames/s" if frames_per_s >= 1 else f"{1 / max(frames_per_s, 1e-9):.1f} s/frame"


def table(told: dict) -> str:
    """What was measured, as Markdown."""
    lines = [f"Chromium draws with: {told['renderer']}", ""]
    if "frames" in told:
        heads = ("Gaussians", "drawn by", "ready after", "pace", "server", "browser", "server's cores")
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [
            f"| {r['gaussians']:,} | {r['drawn_by']} | {r['ready_s']:.1f} s | {pace(r['frames_per_s'])} "
            f"| {r['server_mb']:.0f} MB | {r['browser_mb']:.0f} MB | {r['server_cores']:.2f} |"
            for r in told["frames"]
        ]
    if "follow" in told:
        r = told["follow"]
        spent = f"{r['viewer_cpu_s']:.1f} s of {r['run_cpu_s']:.1f} s of CPU time: {100 * r['share']:.1f} %"
        lines += ["", f"A viewer with a client that followed a run ({r['recipe']}, {r['steps']} steps) took {spent}."]
        both = f"{r['run_watched_cpu_s']:.1f} s instead of {r['run_beside_cpu_s']:.1f} s"
        lines += [f"The watched run itself took {both} of CPU time beside a browser that shows something else:"]
        lines += [f"{100 * r['watching_costs']:+.1f} %. Without any browser it takes {r['run_alone_cpu_s']:.1f} s."]
    return "\n".join(lines)


def main() -> None:
    from playwright.sync_api import sync_playwright

    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--follow", action="store_true", help="measure the share of a run instead")
    words.add_argument("--recipe", default="default")
    words.add_argument("--steps", type=int, default=150)
    words.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    words.add_argument("--seconds", type=float, default=10.0)
    asked = words.parse_args()
    told = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        told["renderer"] = renderer(browser)
        if asked.follow:
            told["follow"] = follow(browser, Path(scratch), asked.recipe, asked.steps)
        else:
            told["frames"] = [frames(browser, Path(scratch), n, asked.seconds) for n in asked.sizes]
        browser.close()
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(table(told))


if __name__ == "__main__":
    main()
