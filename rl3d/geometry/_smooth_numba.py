"""Compiled loops of the bilateral filter of normals."""

from __future__ import annotations

import math
from typing import no_type_check

from numba import njit, prange

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(parallel=True, **COMPILED)
@no_type_check
def filter_normals(faces, first, around, normals, centers, areas, spread, tell, out):
    """Write the bilateral mean of the normals around each face: of faces that share a vertex with it."""
    for f in prange(len(faces)):
        x, y, z = 0.0, 0.0, 0.0
        for corner in range(3):
            vertex = faces[f, corner]
            for slot in range(first[vertex], first[vertex + 1]):
                g = around[slot]
                far, unlike = 0.0, 0.0
                for d in range(3):
                    far += (centers[f, d] - centers[g, d]) ** 2
                    unlike += (normals[f, d] - normals[g, d]) ** 2
                weight = areas[g] * math.exp(-far / (2 * spread * spread) - unlike / (2 * tell * tell))
                x += weight * normals[g, 0]
                y += weight * normals[g, 1]
                z += weight * normals[g, 2]
        length = math.sqrt(x * x + y * y + z * z)
        for d, value in enumerate((x, y, z)):
            out[f, d] = value / length if length > 0 else normals[f, d]


@njit(parallel=True, **COMPILED)
@no_type_check
def follow_normals(vertices, first, around, normals, centers, out):
    """Write each vertex moved to the planes that its faces should lie in (Sun et al. 2007, eq. 11)."""
    for v in prange(len(vertices)):
        count = first[v + 1] - first[v]
        for d in range(3):
            out[v, d] = vertices[v, d]
        for slot in range(first[v], first[v + 1]):
            g = around[slot]
            away = 0.0
            for d in range(3):
                away += normals[g, d] * (centers[g, d] - vertices[v, d])
            for d in range(3):
                out[v, d] += normals[g, d] * away / count
