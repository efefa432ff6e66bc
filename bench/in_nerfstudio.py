"""Whether rl3d and nerfstudio work together, in an environment of nerfstudio's own; prints a table.

    python bench/in_nerfstudio.py --make /tmp/nerfstudio             # builds the environment first: some minutes, 7 GB
    python bench/in_nerfstudio.py --python /tmp/nerfstudio/bin/python

Trains `rl3d-splats` for 50 steps, exports, judges and views what came of it, makes a data set of that, and trains `nerfacto` on
it, all on the CPU. Nothing is fetched: nerfacto wants AlexNet for a figure (LPIPS) that is not looked at here, and gets one of
random weights. The exit code is 1 if a step fails; what each said is in --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

NERFSTUDIO = "nerfstudio==1.1.5"
PACKAGES = ("nerfstudio", "rl3d", "torch", "numpy", "viser", "gsplat", "timm")
PORT = 7097

VERSIONS = "import importlib.metadata as m, sys; print(*(f'{name} {m.version(name)}' for name in sys.argv[1:]), sep=', ')"

ALEXNET = """
import sys, torch, torchvision
torch.save(torchvision.models.alexnet(weights=None).state_dict(), sys.argv[1])
"""

SAME = """
import json, sys, torch
from rl3d.cameras import Orbit
from rl3d.export.splats.files import read_splats
from rl3d.cameras import to_opengl
from rl3d.render.gaussians import render_splats
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.eval_utils import eval_setup
from pathlib import Path

model = eval_setup(Path(sys.argv[1]), test_mode="inference")[1].model
ours = Orbit(views=1, size=96).cameras()
k = ours.intrinsics[0]
theirs = Cameras(to_opengl(ours)[0, :, :3], k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2], width=96, height=96)
background = torch.tensor([0.2, 0.4, 0.6])
model.set_background(background)
shown = model.get_outputs_for_camera(theirs)["rgb"]
splats = read_splats(sys.argv[2])
alone = render_splats(splats, ours)[0].over(background)[0, 0].clamp(0, 1)
print(json.dumps({"gaussians": len(splats), "apart": float((shown - alone).abs().max())}))
"""


@dataclass(frozen=True)
class Place:
    """An environment, and a folder for what is made with it."""

    python: Path
    out: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "TORCH_HOME": str(self.out / "torch"), "PYTHONWARNINGS": "ignore"}

    def command(self, *words: object) -> list[str]:
        """A program of the environment, with its words."""
        return [str(self.python.parent / str(words[0])), *(str(word) for word in words[1:])]

    def run(self, name: str, *words: object) -> str:
        """Run a program to its end; what it said is also in a file of this name. RuntimeError if it fails."""
        done = subprocess.run(
            self.command(*words), env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        (self.out / f"{name}.log").write_text(done.stdout)
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-15:])
            raise RuntimeError(f"{words[0]} ended with {done.returncode}:\n{tail}")
        return done.stdout

    def only(self, pattern: str) -> Path:
        """The one file of this pattern. RuntimeError if there is none, or several."""
        found = sorted(self.out.glob(pattern))
        if len(found) != 1:
            raise RuntimeError(f"{self.out} should hold one {pattern}, and holds {len(found)}")
        return found[0]


def make(folder: Path) -> Path:
    """Build an environment: nerfstudio first, with its pins, then rl3d; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, NERFSTUDIO], check=True)
    # pip remarks that timm is newer now than nerfstudio asks for, which imports it nowhere.
    subprocess.run([*pip, "-e", Path(__file__).parents[1]], check=True)
    return folder / "bin/python"


def versions(place: Place, _: int) -> str:
    return place.run("versions", "python", "-c", VERSIONS, *PACKAGES).strip()


def train(place: Place, steps: int) -> str:
    """ns-train rl3d-splats"""
    words = ["--prompt", "a red mug", "--max-num-iterations", steps, "--vis", "tensorboard", "--output-dir", place.out / "made"]
    place.run("train", "ns-train", "rl3d-splats", *words)
    return place.only("made/a-red-mug/rl3d-splats/*/nerfstudio_models/*.ckpt").name


def config(place: Place) -> Path:
    return place.only("made/a-red-mug/rl3d-splats/*/config.yml")


def export(place: Place, _: int) -> str:
    """ns-export gaussian-splat"""
    place.run("export", "ns-export", "gaussian-splat", "--load-config", config(place), "--output-dir", place.out)
    said = place.run("same", "python", "-c", SAME, config(place), place.out / "splat.ply")
    found = json.loads(said.strip().splitlines()[-1])
    if found["gaussians"] < 100 or not found["apart"] < 0.01:
        raise RuntimeError(f"the PLY is not what nerfstudio shows: {found}")
    return f"{found['gaussians']} Gaussians; at most {found['apart']:.4f} from what the model shows"


def judge(place: Place, _: int) -> str:
    """ns-eval"""
    place.run("eval", "ns-eval", "--load-config", config(place), "--output-path", place.out / "eval.json")
    found = json.loads((place.out / "eval.json").read_text())["results"]
    return ", ".join(f"{name.removeprefix('guards/')} {found[name]:.3f}" for name in ("guards/reward", "guards/judge"))


def view(place: Place, _: int) -> str:
    """ns-viewer"""
    words = place.command("ns-viewer", "--load-config", config(place), "--viewer.websocket-port", PORT)
    with (place.out / "view.log").open("w") as log:
        viewer = subprocess.Popen(words, env=place.environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            return _page(viewer)
        finally:
            viewer.terminate()
            viewer.wait()


def _page(viewer: subprocess.Popen, patience: float = 300) -> str:
    """Wait until a viewer serves its page."""
    until = time.monotonic() + patience
    while viewer.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://localhost:{PORT}", timeout=10) as page:
                size = len(page.read())
            time.sleep(5)  # It draws its scene after it has begun to serve.
            if viewer.poll() is None:
                return f"serves a page of {size} bytes"
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"ns-viewer serves no page; it ended with {viewer.poll()}")


def data_set(place: Place, _: int) -> str:
    """rl3d export --format nerfstudio"""
    words = ["--format", "nerfstudio", "--out", place.out / "set", "--posed.views", 24, "--posed.size", 100]
    place.run("data_set", "rl3d", "export", place.out / "splat.ply", *words)
    frames = json.loads(place.only("set/*/transforms.json").read_text())["frames"]
    return f"{len(frames)} frames"


def nerfacto(place: Place, _: int) -> str:
    """ns-train nerfacto"""
    alexnet = place.out / "torch/hub/checkpoints/alexnet-owt-7be5be79.pth"
    alexnet.parent.mkdir(parents=True, exist_ok=True)
    place.run("alexnet", "python", "-c", ALEXNET, alexnet)
    data = place.only("set/*/transforms.json").parent
    words = ["--data", data, "--max-num-iterations", 20, "--output-dir", place.out / "learnt", "--vis", "tensorboard"]
    words += ["--machine.device-type", "cpu", "--pipeline.model.implementation", "torch"]
    words += ["--pipeline.datamanager.train-num-rays-per-batch", 256, "--pipeline.model.camera-optimizer.mode", "off"]
    place.run("nerfacto", "ns-train", "nerfacto", *words)
    return place.only("learnt/*/nerfacto/*/nerfstudio_models/*.ckpt").name


STEPS = (versions, train, export, judge, view, data_set, nerfacto)


def check(python: Path, out: Path, steps: int = 50) -> list[tuple[str, bool, str, float]]:
    """Do all steps, up to the first that fails: name, whether it worked, what came of it, seconds."""
    place, rows = Place(python.absolute(), out.absolute()), []
    place.out.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        begun = time.monotonic()
        try:
            worked, said = True, step(place, steps)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            worked, said = False, str(error)
        rows.append((step.__doc__ or step.__name__, worked, said, time.monotonic() - begun))
        print(f"{'ok  ' if worked else 'FAIL'}  {rows[-1][3]:5.0f} s  {rows[-1][0]:34}  {said}", flush=True)
        if not worked:
            break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--make", type=Path, help="build an environment in this folder, which is not there yet")
    which.add_argument("--python", type=Path, help="the Python of an environment that has both")
    parser.add_argument("--out", type=Path, help="an empty folder for what is made; a temporary one if not given")
    parser.add_argument("--steps", type=int, default=50, help="of rl3d-splats")
    asked = parser.parse_args()
    if asked.make and asked.make.exists():
        parser.error(f"{asked.make} is there already: name another folder, or check it with --python")
    python = make(asked.make) if asked.make else asked.python
    out = asked.out or Path(tempfile.mkdtemp(prefix="in_nerfstudio_"))
    print(f"what is made and said: {out}")
    raise SystemExit(not all(worked for _, worked, _, _ in check(python, out, asked.steps)))


if __name__ == "__main__":
    main()
