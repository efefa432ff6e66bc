"""Move a mesh's vertices until its silhouettes are the representation's.

Depth of a soft representation is the mean of what light meets, which lies behind the place where silhouettes end (by about the
size of a Gaussian); so a surface made of depth is too thin, and everywhere by about as much. Silhouettes say by how much.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import trimesh
from numba import njit, prange
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import cg

from rl3d.render import mesh as raster
from rl3d.render._threads import follow_torch
from rl3d.render.textured import triangles_of
from rl3d.types import Views


def fit_outline(
    mesh: trimesh.Trimesh, views: Views, *, steps: int = 4, reach: float = 0.1, smooth: float = 1.0
) -> trimesh.Trimesh:
    """Move vertices along their normals to where the views' alpha falls through one half; faces stay as they are.

    In each step every vertex that lies on a view's silhouette looks along its normal in that view for the nearest place
    where alpha falls below one half. The mean over the views is where it should go. Vertices on no silhouette go with their
    neighbours: the moves ``d`` minimise the squared distance to what was found, a vertex counting by the number of views, plus
    ``smooth`` times the squares of ``d``'s differences along edges.

    Args:
        mesh: Close to the surface; outward faces.
        views: ``[1 v h w]`` from all around.
        steps: How often.
        reach: How far to look, in world units.
        smooth: What differences along edges cost, beside one view.
    """
    alpha = np.ascontiguousarray(views.alpha[0, ..., 0].detach().cpu().numpy())
    cameras = views.cameras
    project = (cameras.intrinsics.double() @ cameras.cam_from_world[..., :3, :].double())[0].cpu().numpy()
    edges = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    n = len(mesh.vertices)
    link = csr_matrix((np.full(len(edges), smooth), edges.T), shape=(n, n))
    laplacian = diags(np.asarray(link.sum(1))[:, 0] + 1e-6) - link
    out = mesh.copy()
    for _ in range(steps):
        triangles = triangles_of(out)
        drawn = raster.rasterize(triangles, cameras, samples=1).face[0] >= 0
        normals = np.asarray(out.vertex_normals, np.float64)
        total, count = np.zeros(n), np.zeros(n)
        follow_torch()
        _look(np.asarray(out.vertices, np.float64), normals, project, drawn, alpha, reach, total, count)
        move, _ = cg(laplacian + diags(count), total, rtol=1e-4, maxiter=400)
        out.vertices = np.asarray(out.vertices) + normals * move[:, None]
    return out


@njit(parallel=True, cache=True)
@no_type_check
def _look(vertices, normals, project, drawn, alpha, reach, total, count):
    """The sum of the moves along its normal that views ask of each vertex, and how many ask."""
    views, height, width = alpha.shape
    for n in prange(len(vertices)):
        p, q = vertices[n], vertices[n] + 1e-4 * normals[n]
        for v in range(views):
            m = project[v]
            z = m[2, :3].dot(p) + m[2, 3]
            if z <= 0.01:
                continue
            x, y = (m[0, :3].dot(p) + m[0, 3]) / z, (m[1, :3].dot(p) + m[1, 3]) / z
            z2 = m[2, :3].dot(q) + m[2, 3]
            dx = ((m[0, :3].dot(q) + m[0, 3]) / z2 - x) * 1e4
            dy = ((m[1, :3].dot(q) + m[1, 3]) / z2 - y) * 1e4
            pixels = np.sqrt(dx * dx + dy * dy)  # to a world unit, along the normal
            whole = np.sqrt(m[0, :3].dot(m[0, :3]) - (m[0, :3].dot(m[2, :3])) ** 2) / z
            # On a silhouette the normal lies in the image's plane, and past the vertex there is nothing.
            if pixels < 0.95 * whole or not _outside(drawn[v], x + 1.5 * dx / pixels, y + 1.5 * dy / pixels):
                continue
            if _outside(drawn[v], x - 1.5 * dx / pixels, y - 1.5 * dy / pixels):
                continue
            dx, dy = dx / pixels, dy / pixels
            limit = int(2 * reach * pixels)
            inside = _read(alpha[v], x, y) >= 0.5
            way = 0.5 if inside else -0.5
            before = _read(alpha[v], x, y)
            for i in range(1, limit + 1):
                t = way * i
                now = _read(alpha[v], x + t * dx, y + t * dy)
                if (now >= 0.5) != inside:
                    t -= way * (now - 0.5) / (now - before)
                    total[n] += t / pixels
                    count[n] += 1
                    break
                before = now


@njit(cache=True)
@no_type_check
def _outside(drawn, x, y):
    """Whether a place in the image shows no mesh."""
    column, row = int(np.floor(x)), int(np.floor(y))
    return column < 0 or row < 0 or column >= drawn.shape[1] or row >= drawn.shape[0] or not drawn[row, column]


@njit(cache=True)
@no_type_check
def _read(image, x, y):
    """An image at a place, bilinearly; 0 beyond its border."""
    x, y = x - 0.5, y - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    fx, fy, value = x - column, y - row, 0.0
    for i in range(2):
        for j in range(2):
            if 0 <= row + i < image.shape[0] and 0 <= column + j < image.shape[1]:
                value += (fy if i else 1 - fy) * (fx if j else 1 - fx) * image[row + i, column + j]
    return value
