"""How toys look in light: soft, warm and bright, as in a catalogue.

Colours depend on the place and the normal only, never on the camera, so that views agree in 3D. There is one warm key light
that wraps around (a broad source), an ambient hemisphere of cool sky and warm floor, and a soft sheen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit, prange
from numpy import ndarray

from rl3d.render.mesh import Fragments, TriangleMesh
from rl3d.toybox.paints import Material


@dataclass(frozen=True)
class Light:
    """The key light."""

    direction: tuple[float, float, float] = (0.55, 0.45, 0.70)
    """Towards the light, of any length; by default the upper front left."""
    strength: float = 1.0
    """Factor on its brightness; 0 leaves the ambient light."""
    none: bool = False
    """No light at all: paints show as they are, their albedo."""


@dataclass(frozen=True)
class Finish:
    """The paint of each part, as arrays."""

    colour: Float32[ndarray, "p 3"]
    """Linear albedo."""
    second: Float32[ndarray, "p 3"]
    material: Int32[ndarray, "p"]
    axes: Int32[ndarray, "p 3"]
    """World axes by the part's extent, longest first: grain runs along the first."""


def shade(
    fragments: Fragments, mesh: TriangleMesh, finish: Finish, light: Light | Sequence[Light] | None = None
) -> Float32[ndarray, "b v h w 4"]:
    """Colour every sample: premultiplied sRGB and coverage (0 or 1). The mesh's labels say which part's finish a face has.

    One light for all scenes, or one for each.
    """
    lights = [light or Light()] * len(fragments.face) if light is None or isinstance(light, Light) else light
    direction = np.array([x.direction for x in lights], np.float32)
    direction /= np.array([[math.hypot(*x.direction)] for x in lights], np.float32)
    strength, none = np.array([x.strength for x in lights], np.float32), np.array([x.none for x in lights])
    out = np.empty((*fragments.face.shape, 4), np.float32)
    _shade(
        *(fragments.face, fragments.barycentrics, mesh.vertices, mesh.faces, mesh.normals, mesh.labels),
        *(finish.colour, finish.second, finish.material, finish.axes, direction, strength, none, out),
    )
    return out


_WOOD, _METAL, _STONE = int(Material.WOOD), int(Material.METAL), int(Material.STONE)
_f = np.float32
_KEY = (_f(0.84), _f(0.79), _f(0.71))
_SKY = (_f(0.41), _f(0.43), _f(0.47))
_FLOOR = (_f(0.25), _f(0.23), _f(0.22))
_WRAP = _f(0.25)


@njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _smoothstep(low, high, x):
    t = min(max((x - low) / (high - low), _f(0)), _f(1))
    return t * t * (_f(3) - _f(2) * t)


@njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _wave(x):
    """A cheap sine of period 1: two parabolas."""
    t = x - np.floor(x) - _f(0.5)
    return _f(8) * t * (_f(2) * abs(t) - _f(1))


@njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _grain(u, v, w):
    """Wood in [0, 1]: wavy stripes that run along ``u``, as sections of tilted rings."""
    wave = _f(0.07) * _wave(_f(0.37) * u + _f(0.8) * v) + _f(0.025) * _wave(_f(1.1) * u + _f(0.5) * w)
    phase = _f(6.5) * (v + _f(0.55) * w + wave)
    phase -= np.floor(phase)
    return _smoothstep(_f(0.05), _f(0.75), phase) * (_f(1) - _smoothstep(_f(0.85), _f(1.0), phase))


@njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _speckle(x, y, z):
    """Stone in [-1, 1]: small cells, turned so that none lies flush with a wall; some dark, some light."""
    i = np.int32(np.floor(_f(23) * (_f(0.80) * x + _f(0.36) * y - _f(0.48) * z)))
    j = np.int32(np.floor(_f(23) * (_f(-0.60) * x + _f(0.48) * y - _f(0.64) * z)))
    k = np.int32(np.floor(_f(23) * (_f(0.80) * y + _f(0.60) * z)))
    h = np.uint32(np.uint32(i) * np.uint32(73856093) ^ np.uint32(j) * np.uint32(19349663) ^ np.uint32(k) * np.uint32(83492791))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0x5BD1E995))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    t = _f(h & np.uint32(0xFFFF)) / _f(65535)
    return _f(2) * t - _f(1)


@njit(parallel=True, cache=True, fastmath=True)
@no_type_check
def _shade(face, barycentrics, vertices, faces, normals, labels, colour, second, material, axes, lights, strengths, none, out):
    b, v, h, w = face.shape
    for view in prange(b * v):
        i, j = view // v, view % v
        light, strength = lights[i], strengths[i]
        p = np.empty(3, np.float32)
        for row in range(h):
            for column in range(w):
                f = face[i, j, row, column]
                if f < 0:
                    out[i, j, row, column, 0] = 0
                    out[i, j, row, column, 1] = 0
                    out[i, j, row, column, 2] = 0
                    out[i, j, row, column, 3] = 0
                    continue
                w1, w2 = barycentrics[i, j, row, column, 0], barycentrics[i, j, row, column, 1]
                w0 = _f(1) - w1 - w2
                nx = w0 * normals[f, 0, 0] + w1 * normals[f, 1, 0] + w2 * normals[f, 2, 0]
                ny = w0 * normals[f, 0, 1] + w1 * normals[f, 1, 1] + w2 * normals[f, 2, 1]
                nz = w0 * normals[f, 0, 2] + w1 * normals[f, 1, 2] + w2 * normals[f, 2, 2]
                scale = _f(1) / math.sqrt(max(nx * nx + ny * ny + nz * nz, _f(1e-12)))
                nx, ny, nz = nx * scale, ny * scale, nz * scale
                part = labels[f]
                kind = material[part]
                r, g, bl = colour[part, 0], colour[part, 1], colour[part, 2]
                facing = nx * light[0] + ny * light[1] + nz * light[2]
                key = max((facing + _WRAP) / (_f(1) + _WRAP), _f(0)) * strength
                sky = _f(0.5) + _f(0.5) * nz
                sheen = max(facing, _f(0))
                sheen = sheen * sheen * sheen * sheen
                sheen = sheen * sheen
                gloss = _f(0.05) * sheen * sheen * strength
                if kind > 0:
                    for d in range(3):
                        p[d] = w0 * vertices[faces[f, 0], d] + w1 * vertices[faces[f, 1], d] + w2 * vertices[faces[f, 2], d]
                    mix = _f(0)
                    if kind == _WOOD:
                        mix = _f(1) - _grain(p[axes[part, 0]], p[axes[part, 1]], p[axes[part, 2]])
                        gloss *= _f(0.5)
                    elif kind == _STONE:
                        t = _speckle(p[0], p[1], p[2])
                        mix = t if t > _f(0.45) else _f(0.4) * t
                        gloss = _f(0)
                    elif not none[i]:
                        # A fake studio: a bright window band above a dark horizon; places shift it, so flat walls gleam too.
                        s = nz + _f(0.25) * nx + _f(0.2) * ny + _f(0.35) * (p[2] + _f(0.5) * p[1] + _f(0.3) * p[0])
                        window = _smoothstep(_f(0.05), _f(0.45), s) * (_f(1) - _smoothstep(_f(0.7), _f(1.1), s))
                        horizon = _smoothstep(_f(-0.45), _f(-0.1), s) * (_f(1) - _smoothstep(_f(-0.1), _f(0.2), s))
                        level = _f(0.62) + _f(0.58) * window - _f(0.42) * horizon
                        r, g, bl = r * level, g * level, bl * level
                        gloss = _f(0.45) * sheen * sheen * strength + _f(0.12) * window
                    r += mix * (second[part, 0] - r)
                    g += mix * (second[part, 1] - g)
                    bl += mix * (second[part, 2] - bl)
                if none[i]:
                    out[i, j, row, column, 0] = math.sqrt(r)
                    out[i, j, row, column, 1] = math.sqrt(g)
                    out[i, j, row, column, 2] = math.sqrt(bl)
                    out[i, j, row, column, 3] = 1
                    continue
                r = r * (_KEY[0] * key + _FLOOR[0] + sky * (_SKY[0] - _FLOOR[0])) + gloss
                g = g * (_KEY[1] * key + _FLOOR[1] + sky * (_SKY[1] - _FLOOR[1])) + gloss
                bl = bl * (_KEY[2] * key + _FLOOR[2] + sky * (_SKY[2] - _FLOOR[2])) + gloss
                out[i, j, row, column, 0] = math.sqrt(min(max(r, _f(0)), _f(1)))
                out[i, j, row, column, 1] = math.sqrt(min(max(g, _f(0)), _f(1)))
                out[i, j, row, column, 2] = math.sqrt(min(max(bl, _f(0)), _f(1)))
                out[i, j, row, column, 3] = 1
