"""Run as a program: reads all meshes of a folder with little memory and a deadline for each, and says as JSON how it went."""

import json
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from rl3d.export.meshes.reading import read_mesh

DEADLINE_S, MORE_BYTES = 60, 1 << 30


class TooLongError(BaseException):
    """Nothing that catches exceptions catches that."""


def late(*_):
    raise TooLongError


def outcome(path):
    signal.alarm(DEADLINE_S)
    try:
        mesh = read_mesh(path)
        assert np.isfinite(mesh.vertices).all()
        assert len(mesh.faces) > 0
        assert 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices)
        assert 0 < mesh.area < np.inf
        if mesh.visual.kind == "texture":
            assert np.isfinite(mesh.visual.uv).all()
        return "mesh"
    except ValueError as error:
        # What a limit of ours refuses in time is fine; what only the system stopped is not.
        return "memory" if "MemoryError" in str(error) or isinstance(error.__cause__, MemoryError) else f"refused: {error}"
    except TooLongError:
        return "too long"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, late)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, used + MORE_BYTES))
    print("\n" + json.dumps({path.name: outcome(path) for path in sorted(Path(sys.argv[1]).iterdir())}))
