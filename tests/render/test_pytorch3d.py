"""Meshes by pytorch3d's rasterizer look as by ours: by the real one where it is installed, else by a slow stand-in.

The stand-in follows what pytorch3d's documents say of its spaces and of `Fragments`, and nothing of ours.
"""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from rl3d.cameras import Orbit
from rl3d.render.mesh_autograd import Connectivity, Surface, render_surface
from rl3d.render.pytorch3d import render_with_pytorch3d

CAMERAS = Orbit(views=2, elevation_deg=20.0, start_deg=30.0, size=16).cameras().resized(20, 16)


class Meshes:
    def __init__(self, verts, faces):
        self.verts, self.faces = verts, faces


class PerspectiveCameras:
    def __init__(self, R, T, focal_length, principal_point, image_size, device):
        self.R, self.T, self.focal, self.principal = R, T, focal_length, principal_point


class RasterizationSettings(SimpleNamespace):
    pass


class MeshRasterizer:
    def __init__(self, cameras, raster_settings):
        assert raster_settings.faces_per_pixel == 1
        assert raster_settings.perspective_correct
        self.cameras, self.settings = cameras, raster_settings

    def __call__(self, meshes):
        c, (h, w) = self.cameras, self.settings.image_size
        found = []
        for k, (verts, faces) in enumerate(zip(meshes.verts, meshes.faces, strict=True)):
            local = verts @ c.R[k] + c.T[k]
            ndc = c.focal[k] * local[:, :2] / local[:, 2:] + c.principal[k]
            short = min(h, w)
            # +x is left and +y up; the shorter side goes from 1 to -1.
            x = (w - 2 * (torch.arange(w) + 0.5)) / short
            y = (h - 2 * (torch.arange(h) + 0.5)) / short
            at = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None]
            a, b, d = (ndc[faces[:, i]] for i in range(3))

            def side(p, q, at=at):
                return (q[:, 0] - p[:, 0]) * (at[..., 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (at[..., 0] - p[:, 0])

            flat = torch.stack([side(b, d), side(d, a), side(a, b)], -1)
            flat = flat / flat.sum(-1, keepdim=True)
            over = flat / local[faces][..., 2]
            bary = over / over.sum(-1, keepdim=True)
            depth = (bary * local[faces][..., 2]).sum(-1)
            inside = (flat >= 0).all(-1)
            nearest = torch.where(inside, depth, torch.inf).min(-1)
            hit, face = nearest.values.isfinite(), nearest.indices
            weights = bary.gather(2, face[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
            index = torch.where(hit, face + k * len(faces), -1)
            zbuf = torch.where(hit, depth.gather(2, face[..., None])[..., 0], -1.0)
            found.append((index, zbuf, torch.where(hit[..., None], weights, -1.0)))
        face, zbuf, bary = (
            torch.stack(x)[..., None] if i < 2 else torch.stack(x)[..., None, :] for i, x in enumerate(zip(*found, strict=True))
        )
        return SimpleNamespace(pix_to_face=face, zbuf=zbuf, bary_coords=bary)


@pytest.fixture
def pytorch3d(monkeypatch):
    """The real one, or the stand-in."""
    try:
        import pytorch3d.renderer  # noqa: F401
    except ImportError:
        whole, renderer, structures = (ModuleType(name) for name in ("pytorch3d", "pytorch3d.renderer", "pytorch3d.structures"))
        renderer.MeshRasterizer, renderer.PerspectiveCameras = MeshRasterizer, PerspectiveCameras
        renderer.RasterizationSettings, structures.Meshes = RasterizationSettings, Meshes
        whole.renderer, whole.structures = renderer, structures
        for module in (whole, renderer, structures):
            monkeypatch.setitem(sys.modules, module.__name__, module)


def surface():
    mesh = trimesh.creation.icosphere(2, 0.5)
    mesh.vertices *= [1.2, 0.8, 1.0]
    vertices, faces = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32), torch.tensor(np.asarray(mesh.faces))
    texture = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    return Surface(vertices, texture, 0.5 + 0.4 * vertices[faces][..., 1:], Connectivity.of(vertices, faces))


@pytest.mark.parametrize("samples", [1, 2])
def test_the_two_see_the_same(pytorch3d, samples):
    one = surface()
    ours, theirs = render_surface(one, CAMERAS, samples=samples), render_with_pytorch3d(one, CAMERAS, samples=samples)
    for a, b in zip(ours.tensors(), theirs.tensors(), strict=True):
        assert (a - b).abs().max() < 2e-3


def test_the_two_have_the_same_gradients(pytorch3d):
    found = []
    for draw in (render_surface, render_with_pytorch3d):
        one = surface()
        vertices, texture = one.vertices.requires_grad_(), one.texture.requires_grad_()
        views = draw(one, CAMERAS)
        (views.rgb.square().sum() + views.depth.sum()).backward()
        found.append((vertices.grad, texture.grad))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 2e-2 * a.norm()


def test_it_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(ValueError, match="pytorch3d is not installed"):
        render_with_pytorch3d(surface(), CAMERAS)
