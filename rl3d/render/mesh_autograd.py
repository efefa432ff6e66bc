"""Draw textured meshes differentiably: in the texture exactly, in the vertices within faces and at outlines.

What each sample sees is found by :mod:`rl3d.render.mesh`, on the CPU and without gradients. Where on its face the sample
lies follows from the vertices again, in torch, wherever they are, so colours slide, and depth and normals change, as vertices
move. At outlines, visibility itself changes: there the neighbouring samples are blended by where the outline passes between
them, as in the antialiasing of Laine et al. 2020 (arXiv 2011.03277), "Modular Primitives for High-Performance Differentiable
Rendering". Outlines are looked for among all edges of the mesh, not those of the faces that the two samples see, so faces
may be smaller than samples. Meshes shine in their own colours, without light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from rl3d.render import mesh as raster
from rl3d.render._silhouettes_numba import outlines
from rl3d.render.mipmap import texture_at_level
from rl3d.types import Cameras, Views

NEAR = 0.01
"""Depth from which on things are seen."""
VIEWS_AT_ONCE = 8
"""Samples take memory."""


@dataclass(frozen=True)
class Connectivity:
    """How faces hang together: what does not change while vertices move."""

    faces: Int[Tensor, "m 3"]
    edges: Int32[ndarray, "e 2"]
    """Edges of two faces once, all others once for each of their faces."""
    opposite: Int32[ndarray, "e 2"]
    """The third corners of an edge's faces; -1 where there is no second."""
    groups: Int[Tensor, "m 3"]
    """Corners of faces that share a normal have the same number: those around a vertex, parted at creases."""

    @staticmethod
    def of(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], crease_deg: float = 40.0) -> Connectivity:
        """Find it; faces that meet at more than ``crease_deg`` meet in a crease."""
        corners = faces.cpu().numpy().astype(np.int64)
        start, end, other = corners, np.roll(corners, -1, 1), np.roll(corners, -2, 1)
        pairs = np.sort(np.stack([start, end], -1).reshape(-1, 2), 1)
        order = np.lexsort(pairs.T)
        _, first, count = np.unique(pairs[order], axis=0, return_index=True, return_counts=True)
        two = order[first[count == 2][:, None] + [0, 1]]
        alone = np.setdiff1d(order, two)
        third = other.reshape(-1)
        edges = np.concatenate([pairs[two[:, 0]], pairs[alone]])
        opposite = np.concatenate([third[two], np.stack([third[alone], np.full(len(alone), -1)], 1)])
        groups = _groups(vertices.detach().cpu().numpy(), corners, two, crease_deg)
        found = torch.from_numpy(groups).to(faces.device)
        return Connectivity(faces, edges.astype(np.int32), opposite.astype(np.int32), found)


def _groups(vertices: Float[ndarray, "n 3"], corners: Int[ndarray, "m 3"], two: Int[ndarray, "k 2"], crease_deg: float):
    """Number the corners: two are linked where their faces share an edge that is no crease, and they its end."""
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    one, other = two[:, 0], two[:, 1]
    smooth = (normal[one // 3] * normal[other // 3]).sum(1) >= np.cos(np.radians(crease_deg))
    one, other = one[smooth], other[smooth]
    flat, following = corners.reshape(-1), lambda edge: edge // 3 * 3 + (edge + 1) % 3
    ends = [one, following(one)], [other, following(other)]
    links = [(p, q) for p in ends[0] for q in ends[1]]
    left = np.concatenate([p[flat[p] == flat[q]] for p, q in links])
    right = np.concatenate([q[flat[p] == flat[q]] for p, q in links])
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(len(flat),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64).reshape(-1, 3)


@dataclass(frozen=True)
class Surface:
    """A textured mesh as tensors on one device."""

    vertices: Float[Tensor, "n 3"]
    """World space."""
    texture: Float[Tensor, "h w 3"]
    """sRGB in [0, 1]; the first row is at the top."""
    uv: Float[Tensor, "m 3 2"]
    """Places of the corners of faces in the texture, to the right and up; they repeat beyond 0 to 1."""
    connectivity: Connectivity


class Hits(NamedTuple):
    """Samples that see a face."""

    view: Int[Tensor, "k"]
    face: Int[Tensor, "k"]
    weights: Float[Tensor, "k 3"]
    """Where on the face: perspective-correct weights of its corners, with their graph."""


class Seen(NamedTuple):
    """What the samples of ``v`` pictures see; ``h w`` count samples."""

    face: Int[Tensor, "v h w"]
    """The nearest face; -1 for none."""
    weights: Float[Tensor, "k 3"]
    """Where on it, for the samples that see one, in order."""
    inverse_depth: Float32[ndarray, "v h w"]
    """0 where nothing is."""


def render_surface(
    surface: Surface, cameras: Cameras, *, samples: int = 2, see: Callable[[Surface, Cameras, int], Seen] | None = None
) -> Views:
    """Draw a mesh, with ``samples`` squared samples a pixel.

    Args:
        surface: What to draw, on any device.
        cameras: ``[1 v]``, in front of which the whole mesh lies.
        samples: Along each side of a pixel.
        see: Another rasterizer: from a surface, cameras and samples to what is seen; :func:`seen_by_ours` if None.

    Returns:
        Views with depth and normals; differentiable in the vertices and the texture, but for where something that was hidden
        comes out between two neighbouring samples.
    """
    assert len(cameras.cam_from_world) == 1
    starts = range(0, cameras.views, VIEWS_AT_ONCE)
    some = [cameras.select(slice(i, i + VIEWS_AT_ONCE)) for i in starts]
    return views_of(torch.cat([_render(surface, c, samples, see or seen_by_ours) for c in some]), cameras)


def _render(surface: Surface, cameras: Cameras, samples: int, see: Callable) -> Float[Tensor, "v h w 8"]:
    """Premultiplied channels: colour, alpha, depth, normals."""
    seen: Seen = see(surface, cameras, samples)
    local = in_camera(surface.vertices, cameras, samples)
    where = (seen.face >= 0).flatten().nonzero()[:, 0]
    view = where // seen.face[0].numel()
    values = shade(surface, cameras, Hits(view, seen.face.flatten()[where].long(), seen.weights), local)
    image = values.new_zeros(seen.face.numel(), 8).index_copy(0, where, values).view(*seen.face.shape, 8)
    depth = local[..., 2:].clamp(min=NEAR)
    screen = torch.cat([local[..., :2] / depth, depth], -1)
    image = _antialiased(image, screen, surface.connectivity, seen.inverse_depth)
    parts = [image[:, i::samples, j::samples] for i in range(samples) for j in range(samples)]
    return torch.stack(parts).mean(0) if samples > 1 else image


def seen_by_ours(surface: Surface, cameras: Cameras, samples: int) -> Seen:
    """What the rasterizer of :mod:`rl3d.render.mesh` sees, on the CPU; weights follow from the vertices again."""
    vertices, faces = surface.vertices, surface.connectivity.faces
    plain = vertices.detach().float().cpu().contiguous().numpy()
    corners = faces.cpu().numpy().astype(np.int32)
    mesh = raster.TriangleMesh(plain, corners, np.zeros((len(corners), 3, 3), np.float32), np.zeros(len(corners), np.int32))
    fragments = raster.rasterize(mesh, cameras, samples=samples, near=NEAR)
    face = torch.from_numpy(fragments.face[0]).to(vertices.device)
    view, row, column = (face >= 0).nonzero().unbind(1)
    fallback = torch.from_numpy(fragments.barycentrics[0]).to(vertices)[view, row, column]
    at = torch.stack([column, row], -1).to(vertices) + 0.5
    local = in_camera(vertices, cameras, samples)[view[:, None], faces[face[view, row, column].long()]]
    return Seen(face, _weights(local, at, fallback), fragments.inverse_depth[0])


def in_camera(vertices: Float[Tensor, "n 3"], cameras: Cameras, samples: int = 1) -> Float[Tensor, "v n 3"]:
    """Homogeneous places in the picture, in samples: to the right and down times depth, and depth."""
    scale = torch.tensor([samples, samples, 1.0]).to(cameras.intrinsics)[:, None]
    project = (scale.double() * cameras.intrinsics[0].double() @ cameras.cam_from_world[0, :, :3].double()).to(vertices)
    return vertices @ project[..., :3].mT + project[:, None, :, 3]


def _weights(corners: Float[Tensor, "k 3 3"], at: Float[Tensor, "k 2"], fallback: Float[Tensor, "k 2"]) -> Float[Tensor, "k 3"]:
    """Where rays through places of the picture meet faces; faces seen edge-on have the ``fallback``, without a gradient."""
    # From the place itself, so that small faces are no differences of large numbers.
    x, y = (corners[..., :2] - at[:, None] * corners[..., 2:]).unbind(-1)
    raw = torch.stack([x[:, i] * y[:, j] - y[:, i] * x[:, j] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    total = raw.sum(-1, keepdim=True)
    thin = total.abs() < 2e-3 * corners[:, :1, 2].square()
    rest = torch.cat([1 - fallback.sum(1, keepdim=True), fallback], 1)
    return torch.where(thin, rest, raw / torch.where(thin, torch.ones_like(total), total))


def shade(surface: Surface, cameras: Cameras, hits: Hits, local: Float[Tensor, "v n 3"]) -> Float[Tensor, "k 8"]:
    """What is to be seen at places of faces: colour, 1, depth and the normal that faces the camera.

    ``local`` is :func:`in_camera`, in the samples that are drawn: a texture finer than they are is read as coarsely.
    """
    faces, weights = surface.connectivity.faces, hits.weights[..., None]
    corners = faces[hits.face]
    uv = (weights * surface.uv[hits.face]).sum(1)
    colour = texture_at_level(surface.texture, uv, _levels(surface, local.detach())[hits.view, hits.face])
    depth = (weights[..., 0] * local[..., 2][hits.view[:, None], corners]).sum(1, keepdim=True)
    normal = (weights * corner_normals(surface.vertices, surface.connectivity)[hits.face]).sum(1)
    point = (hits.weights.detach()[..., None] * surface.vertices.detach()[corners]).sum(1)
    away = (normal.detach() * (point - cameras.centers[0].to(point)[hits.view])).sum(1, keepdim=True) > 0
    normal = F.normalize(torch.where(away, -normal, normal), dim=-1, eps=1e-6)
    return torch.cat([colour, torch.ones_like(depth), depth, normal], -1)


def _levels(surface: Surface, local: Float[Tensor, "v n 3"]) -> Float[Tensor, "v m"]:
    """How many halvings make a face's texels about as large as samples."""
    h, w, _ = surface.texture.shape
    screen = (local[..., :2] / local[..., 2:].clamp(min=NEAR))[:, surface.connectivity.faces]
    texels = _area(surface.uv * surface.uv.new_tensor([w, h]))
    return 0.5 * torch.log2(texels.clamp(min=1e-9) / _area(screen).clamp(min=1e-9))


def _area(corners: Float[Tensor, "*m 3 2"]) -> Float[Tensor, "*m"]:
    x, y = (corners[..., 1:, :] - corners[..., :1, :]).unbind(-1)
    return 0.5 * (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).abs()


def corner_normals(vertices: Float[Tensor, "n 3"], connectivity: Connectivity) -> Float[Tensor, "m 3 3"]:
    """The mean normal of the faces of each corner's group, weighed by their area; differentiable."""
    a, b, c = vertices[connectivity.faces].unbind(1)
    flat = torch.linalg.cross(b - a, c - a)
    groups = connectivity.groups
    total = flat.new_zeros(int(groups.max()) + 1, 3).index_add(0, groups.flatten(), flat.repeat_interleave(3, 0))
    return F.normalize(total, dim=-1, eps=1e-20)[groups]


def _antialiased(
    image: Float[Tensor, "v h w c"],
    screen: Float[Tensor, "v n 3"],
    connectivity: Connectivity,
    inverse_depth: ndarray,
) -> Float[Tensor, "v h w c"]:
    """Blend the two samples beside an outline, by how far it is from the middle between them."""
    places = screen.detach().double().cpu().contiguous().numpy()
    found = outlines(places, connectivity.edges, connectivity.opposite, inverse_depth, NEAR)
    view, axis, row, column = np.nonzero(found >= 0)
    if not len(view):
        return image
    code = found[view, axis, row, column]
    ends = torch.from_numpy(connectivity.edges[code // 2].astype(np.int64)).to(image.device)
    view, axis, row, column, first = (torch.from_numpy(x).to(image.device) for x in (view, axis, row, column, code % 2 == 1))
    _, h, w, channels = image.shape
    p, q = (screen[view, ends[:, k]] for k in range(2))
    flat = axis == 1  # pairs in a column are cut by flat edges
    p_across, p_along = torch.where(flat, p[:, 1], p[:, 0]), torch.where(flat, p[:, 0], p[:, 1])
    q_across, q_along = torch.where(flat, q[:, 1], q[:, 0]), torch.where(flat, q[:, 0], q[:, 1])
    line, low = torch.where(flat, column, row).to(screen) + 0.5, torch.where(flat, row, column).to(screen) + 0.5
    part = p_across + (line - p_along) / (q_along - p_along) * (q_across - p_across) - low
    reach = torch.where(first, part, 1 - part)
    one = (view * h + row) * w + column
    two = one + torch.where(flat, w, 1)
    surface, behind = torch.where(first, one, two), torch.where(first, two, one)
    grows = reach > 0.5
    into, source = torch.where(grows, behind, surface), torch.where(grows, surface, behind)
    pixels = image.reshape(-1, channels)
    change = (reach - 0.5).abs()[:, None] * (pixels[source] - pixels[into])
    return pixels.index_add(0, into, change).view(image.shape)


def views_of(image: Float[Tensor, "v h w 8"], cameras: Cameras) -> Views:
    """Views of premultiplied channels (:func:`shade`)."""
    rgb, alpha, depth, normals = image[None].split([3, 1, 1, 3], -1)
    alpha = alpha.clamp(0, 1)
    return Views(rgb, alpha, depth / alpha.clamp(min=1e-6), F.normalize(normals, dim=-1, eps=1e-6), cameras)
