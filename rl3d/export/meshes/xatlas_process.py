"""Unwrap one mesh with xatlas: a program of its own, because a call into xatlas cannot be stopped from inside.

It reads ``vertices``, ``faces`` and ``settings`` (texels along a side, texels between charts, seconds of CPU) as an npz archive
from standard input, and writes ``vmapping``, ``faces`` and ``uv`` to standard output. The system kills it when its seconds are
spent (on Windows, :mod:`rl3d.export.meshes.unwrap`, which starts it, does later). So it is the mesh that decides, not what
else runs.
"""

import io
import sys

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None


def main() -> None:
    """Serve one request."""
    import xatlas

    asked = np.load(io.BytesIO(sys.stdin.buffer.read()))
    size, padding, limit_s = map(int, asked["settings"])
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
    atlas, pack = xatlas.Atlas(), xatlas.PackOptions()
    atlas.add_mesh(asked["vertices"], asked["faces"])
    pack.resolution, pack.padding = size, padding
    pack.bilinear = True
    atlas.generate(xatlas.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise SystemExit(f"xatlas made {atlas.atlas_count} pictures, not one")
    vmapping, faces, uv = atlas[0]
    answer = io.BytesIO()
    np.savez(answer, vmapping=vmapping, faces=faces, uv=uv)
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
