"""Ours in other libraries' terms: cameras in the conventions of OpenGL and pytorch3d, objects as trimesh has them."""

from __future__ import annotations

from pathlib import Path

import trimesh

from rl3d.cameras import from_opengl, to_opengl
from rl3d.generate import seen
from rl3d.protocols import Representation
from rl3d.render.gaussians import look_at
from rl3d.render.pytorch3d import from_pytorch3d, to_pytorch3d
from rl3d.representations.mesh import TexturedMesh
from rl3d.takeaway import Settings, Source, made_mesh, open_source
from rl3d.types import Splats

__all__ = ["from_opengl", "from_pytorch3d", "to_opengl", "to_pytorch3d", "to_trimesh"]


def to_trimesh(thing: str | Path | Source | Splats | Representation, settings: Settings | None = None) -> trimesh.Trimesh:
    """Make a ``trimesh.Trimesh`` of an object: z up, front along +x, in world units, with outward faces.

    A mesh (a file, a run of the mesh stage, a live :class:`~rl3d.representations.mesh.TexturedMesh`) is given as it is, with
    its texture. Of splats and radiance fields one is made as ``rl3d export`` makes it, which takes a while; its texture is in
    ``visual.material.baseColorTexture``, or its colours are at its vertices with ``Settings(colours="vertices")``.

    Args:
        thing: A run's folder or a file; what :func:`rl3d.takeaway.open_source` made of one; Gaussians; a live scene.
        settings: How a mesh is made, where there is none.

    Raises:
        ValueError: if there is no such thing, or it has no surface.
    """
    if isinstance(thing, TexturedMesh):
        return thing.to_trimesh()
    if isinstance(thing, (str, Path)):
        thing = open_source(Path(thing))
    if not isinstance(thing, Source):
        thing = _source(thing)
    return made_mesh(thing, settings or Settings())


def _source(thing: Splats | Representation) -> Source:
    look = look_at(thing) if isinstance(thing, Splats) else seen(thing)
    splats = (lambda: thing) if isinstance(thing, Splats) else thing.splats
    return Source(Path(), "", "object", "object", look, splats)
