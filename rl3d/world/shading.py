"""How real objects look in light that varies: a soft key light, sky and floor, each with a strength and a tint of its own.

As in the toybox, colours depend on the place and the normal only, so that views agree in 3D. Albedo, what a surface is without
any light, is a picture of its own, so that who learns from views can tell paint from shade.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit, prange
from numpy import ndarray

from rl3d.render.mesh import Fragments, TriangleMesh
from rl3d.toybox.things import Rng
from rl3d.types import Cameras
from rl3d.world.surface import Surface


@dataclass(frozen=True)
class Light:
    """A soft key light, and what comes from above and below."""

    direction: tuple[float, float, float] = (0.55, 0.45, 0.70)
    """Towards the key light, of any length."""
    key: tuple[float, float, float] = (0.70, 0.66, 0.60)
    sky: tuple[float, float, float] = (0.38, 0.40, 0.43)
    floor: tuple[float, float, float] = (0.25, 0.23, 0.22)
    wrap: float = 0.35
    """How far light reaches around: 0 for a point, 1 for half the sky."""


def random_light(rng: Rng) -> Light:
    """Draw a light: from any side, above the horizon; warm or cool; hard or softer; brighter or darker. White things, where
    they are lit best, are about white.
    """
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 0.95)
    flat = math.sqrt(1 - height**2)
    share = rng.uniform(0.35, 0.7)  # of the key in all light
    warmth, under = rng.uniform(-0.12, 0.12), rng.uniform(-0.06, 0.06)
    level = rng.uniform(0.92, 1.1)
    direction = (flat * math.cos(azimuth), flat * math.sin(azimuth), height)
    above = level * (1 - share)
    below = above * rng.uniform(0.55, 0.8)
    wrap = rng.uniform(0.2, 0.6)
    return Light(direction, _tint(level * share, warmth), _tint(above, -0.6 * warmth), _tint(below, under), wrap)


def _tint(level: float, warmth: float) -> tuple[float, float, float]:
    """A light's colour: more red and less blue, or the other way around."""
    return level * (1 + warmth), level * (1 + 0.2 * warmth), level * (1 - warmth)


def shade(
    fragments: Fragments, mesh: TriangleMesh, surface: Surface, cameras: Cameras, lights: Sequence[Light]
) -> tuple[Float32[ndarray, "b v h w 4"], Float32[ndarray, "b v h w 3"]]:
    """Colour every sample, scene ``b`` by light ``b``: premultiplied sRGB and coverage (0 or 1), and sRGB albedo.

    Normals are turned to the camera first, since not all makers' faces look outwards.
    """
    lit = np.array(
        [[*np.divide(x.direction, math.hypot(*x.direction)), *x.key, *x.sky, *x.floor, x.wrap] for x in lights], np.float32
    )
    out = np.empty((*fragments.face.shape, 4), np.float32)
    albedo = np.empty((*fragments.face.shape, 3), np.float32)
    centers = np.ascontiguousarray(cameras.centers.cpu().numpy(), np.float32)
    _shade(
        *(fragments.face, fragments.barycentrics, mesh.vertices, mesh.faces, mesh.normals, mesh.labels),
        *(surface.uv, surface.shapes, surface.starts, surface.texels, centers, lit, out, albedo),
    )
    return out, albedo


_f = np.float32


@njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _texel(texels, start, h, w, row, column, rgb, weight):
    """Add a texel of a picture that repeats in both directions, as linear light (with a gamma of 2)."""
    at = start + (row % h) * w + column % w
    for c in range(3):
        x = _f(texels[at, c]) * _f(1 / 255)
        rgb[c] += weight * x * x


@njit(parallel=True, cache=True, fastmath=True)
@no_type_check
def _shade(face, barycentrics, vertices, faces, normals, labels, uv, shapes, starts, texels, centers, lights, out, albedo):
    b, v, h, w = face.shape
    for view in prange(b * v):
        i, j = view // v, view % v
        rgb, p, n = np.empty(3, np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
        light = lights[i]
        for row in range(h):
            for column in range(w):
                f = face[i, j, row, column]
                if f < 0:
                    for c in range(3):
                        out[i, j, row, column, c] = 0
                        albedo[i, j, row, column, c] = 0
                    out[i, j, row, column, 3] = 0
                    continue
                w1, w2 = barycentrics[i, j, row, column, 0], barycentrics[i, j, row, column, 1]
                w0 = _f(1) - w1 - w2
                length, side = _f(0), _f(0)
                for d in range(3):
                    p[d] = w0 * vertices[faces[f, 0], d] + w1 * vertices[faces[f, 1], d] + w2 * vertices[faces[f, 2], d]
                    n[d] = w0 * normals[f, 0, d] + w1 * normals[f, 1, d] + w2 * normals[f, 2, d]
                    length += n[d] * n[d]
                    side += n[d] * (centers[i, j, d] - p[d])
                scale = _f(1) / math.sqrt(max(length, _f(1e-12)))
                if side < 0:
                    scale = -scale
                facing = scale * (n[0] * light[0] + n[1] * light[1] + n[2] * light[2])
                key = max((facing + light[12]) / (_f(1) + light[12]), _f(0))
                sky = _f(0.5) + _f(0.5) * scale * n[2]
                k = labels[f]
                height, width, start = shapes[k, 0], shapes[k, 1], starts[k]
                x = (w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]) * width - _f(0.5)
                y = (w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]) * height - _f(0.5)
                left, top = int(np.floor(x)), int(np.floor(y))
                right, low = x - _f(left), y - _f(top)
                for c in range(3):
                    rgb[c] = 0
                _texel(texels, start, height, width, top, left, rgb, (_f(1) - right) * (_f(1) - low))
                _texel(texels, start, height, width, top, left + 1, rgb, right * (_f(1) - low))
                _texel(texels, start, height, width, top + 1, left, rgb, (_f(1) - right) * low)
                _texel(texels, start, height, width, top + 1, left + 1, rgb, right * low)
                for c in range(3):
                    level = light[3 + c] * key + light[9 + c] + sky * (light[6 + c] - light[9 + c])
                    out[i, j, row, column, c] = math.sqrt(min(rgb[c] * level, _f(1)))
                    albedo[i, j, row, column, c] = math.sqrt(rgb[c])
                out[i, j, row, column, 3] = 1
