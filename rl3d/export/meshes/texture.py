"""Bake what a representation shows into a mesh's texture.

Everything happens in the space of the renders, which is sRGB: a representation blends its colours there, and whoever draws
the mesh without light shows the texture's sRGB as they are, so texture and renders compare number by number. (In linear light,
a mean would follow the brightest view.) Renders are premultiplied; the surface's colour is colour over alpha, and where alpha
is low, at silhouettes, it says little of the surface, so it counts less or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix, diags
from scipy.spatial import cKDTree

from rl3d.cameras import lattice_cameras
from rl3d.export.meshes._blend_numba import blend
from rl3d.export.meshes.normal_map import directions, tangent_space
from rl3d.export.meshes.unwrap import Unwrapped, unwrap
from rl3d.render import mesh as raster
from rl3d.render.textured import triangles_of
from rl3d.types import Cameras, Look, Views


@dataclass(frozen=True)
class Baking:
    """How a texture is made."""

    size: int = 1024
    """Texels along each side."""
    views: int = 64
    """How many renders, from all around."""
    view_size: int = 384
    """Pixels along each side of a render."""
    refine: int = 12
    """Steps of conjugate gradients that fit the texture to the renders; 0 leaves the blend as it is."""
    smooth: float = 0.1
    """How much a difference of neighbouring texels costs that the blend had not, beside a render's pixel."""
    padding: int = 6
    """Texels between charts, about."""
    unwrap_limit_s: float = 20.0
    """Seconds of CPU for xatlas, before a plain unwrapping takes its place."""
    normal_map: bool = False
    """Also bake the representation's normals, in tangent space; it must show normals."""


def textured(mesh: trimesh.Trimesh, look: Look, settings: Baking = Baking()) -> trimesh.Trimesh:
    """Unwrap a mesh and bake its texture from what a representation shows.

    ``metadata["unwrapped"]`` of the result says how it was cut.
    The texels of each point of the surface are a mean of the views that see it, by how squarely they do and how solid it is
    there; then the texture, which the renders are linear in, is fitted to all renders at once by least squares. What no view
    sees takes the colours of the nearest places that are seen, and charts are continued beyond their borders.

    Args:
        mesh: In the representation's place, at least one face; its own colours do not matter.
        look: What to bake.
        settings: How.

    Raises:
        ValueError: if the mesh has no faces, or normals are asked for and not shown.
    """
    if len(mesh.faces) == 0:
        raise ValueError("there is nothing to texture: the mesh has no faces")
    views = look(lattice_cameras(settings.views, settings.view_size))
    if settings.normal_map and views.normals is None:
        raise ValueError("a normal map needs a representation that shows normals, and this one does not: leave it out")
    cut = unwrap(mesh, size=settings.size, padding=settings.padding, limit_s=settings.unwrap_limit_s)
    sheet = Sheet.of(mesh, cut, settings.size)
    fragments = raster.rasterize(sheet.triangles, views.cameras, samples=1)
    seen, weight = _blended(sheet, views, fragments, views.rgb[0] / views.alpha[0].clamp(min=1e-3))
    texture = _spread(sheet, seen, weight > 0)
    if settings.refine > 0:
        texture = refined(texture, sheet, views, fragments, steps=settings.refine, smooth=settings.smooth)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=_picture(texture), metallicFactor=0.0, roughnessFactor=1.0)
    if settings.normal_map:
        assert views.normals is not None
        normals, weight = _blended(sheet, views, fragments, views.normals[0])
        material.normalTexture = _picture(0.5 + 0.5 * _tangent_normals(sheet, normals, weight > 0))
    out = trimesh.Trimesh(
        np.asarray(mesh.vertices)[cut.sources],
        cut.faces,
        vertex_normals=np.asarray(mesh.vertex_normals)[cut.sources],
        visual=trimesh.visual.TextureVisuals(uv=cut.uv, material=material),
        process=False,
    )
    out.metadata["unwrapped"] = cut.how
    return out


@dataclass(frozen=True)
class Sheet:
    """The texture's plane: what each texel's centre is of the surface."""

    triangles: raster.TriangleMesh
    """The cut mesh in space, with the normals of the mesh before it was cut."""
    uv: Float32[ndarray, "n 2"]
    """Places of its vertices in texels: right and down."""
    face: Int[ndarray, "h w"]
    """The face at each texel, -1 where there is none."""
    weights: Float32[ndarray, "h w 3"]
    """Where on the face: the weights of its three corners."""

    @staticmethod
    def of(mesh: trimesh.Trimesh, cut: Unwrapped, size: int) -> Sheet:
        """Draw an unwrapped mesh in the plane of its texture."""
        whole = triangles_of(mesh)
        faces = cut.faces.astype(np.int32)
        solid = raster.TriangleMesh(whole.vertices[cut.sources], faces, whole.normals, whole.labels)
        uv = np.stack([cut.uv[:, 0], 1 - cut.uv[:, 1]], 1).astype(np.float32) * size
        flat = np.concatenate([uv, np.ones_like(uv[:, :1])], 1)  # at depth 1 of a camera whose focal length is 1
        eye = torch.eye(4)[None, None]
        cameras = Cameras(eye, eye[..., :3, :3], size, size)
        drawn = raster.rasterize(raster.TriangleMesh(flat, faces, whole.normals, whole.labels), cameras, samples=1)
        rest = drawn.barycentrics[0, 0]
        return Sheet(solid, uv, drawn.face[0, 0], np.concatenate([1 - rest.sum(-1, keepdims=True), rest], -1))

    def interpolated(self, corners: Float32[ndarray, "m 3 c"]) -> Float32[ndarray, "k c"]:
        """Values at the texels that have a face, in order, from values at the corners of faces."""
        hit = self.face >= 0
        return np.einsum("kj,kjc->kc", self.weights[hit], corners[self.face[hit]])


def _blended(
    sheet: Sheet, views: Views, fragments: raster.Fragments, image: Float[torch.Tensor, "v h w 3"]
) -> tuple[Float32[ndarray, "k 3"], Float32[ndarray, "k"]]:
    """The mean of what views show at each texel with a face, and the sum of weights that it took, 0 where nothing sees it."""
    points = sheet.interpolated(sheet.triangles.vertices[sheet.triangles.faces])
    normals = sheet.interpolated(sheet.triangles.normals)
    cameras = views.cameras
    project = (cameras.intrinsics.double() @ cameras.cam_from_world[..., :3, :].double())[0].cpu().numpy()
    layers = torch.cat([image, views.alpha[0]], -1).detach().cpu().contiguous().numpy()
    return blend(points, normals, project, cameras.centers[0].cpu().numpy(), fragments.inverse_depth[0], layers)


def _tangent_normals(sheet: Sheet, normals: Float32[ndarray, "k 3"], known: Bool[ndarray, "k"]) -> Float32[ndarray, "h w 3"]:
    """Normals of the world, at the texels with a face, as a map in tangent space; flat where none is known."""
    solid, hit = sheet.triangles, sheet.face >= 0
    up = sheet.uv * np.array([1, -1], np.float32)  # v grows upwards
    along = directions(solid.vertices[solid.faces], up[solid.faces])
    smooth, face = sheet.interpolated(solid.normals), sheet.face[hit]
    local = tangent_space(np.where(known[:, None], normals, smooth), smooth, along[0][face], along[1][face])
    return _spread(sheet, local, np.ones_like(known))


def _spread(sheet: Sheet, values: Float32[ndarray, "k 3"], known: Bool[ndarray, "k"]) -> Float32[ndarray, "h w 3"]:
    """Values at all texels: what is not known comes from the nearest known places in space, what has no face from the nearest
    texel that has one.
    """
    hit = sheet.face >= 0
    values = values.copy()
    if known.any() and not known.all():
        points = sheet.interpolated(sheet.triangles.vertices[sheet.triangles.faces])
        distance, near = cKDTree(points[known]).query(points[~known], k=min(4, int(known.sum())))
        distance, near = distance.reshape(len(distance), -1), near.reshape(len(near), -1)
        share = 1 / np.maximum(distance, 1e-6)
        share /= share.sum(1, keepdims=True)
        values[~known] = np.einsum("nk,nkc->nc", share, values[known][near])
    image = np.zeros((*hit.shape, 3), np.float32)
    image[hit] = values
    return _continued(image, hit)


def refined(
    texture: Float32[ndarray, "h w 3"],
    sheet: Sheet,
    views: Views,
    fragments: raster.Fragments,
    *,
    steps: int,
    smooth: float,
) -> Float32[ndarray, "h w 3"]:
    """Fit a texture to renders: minimise the squares of what the mesh shows less what the views show, by conjugate gradients.

    A pixel reads four texels, so all pixels are a sparse matrix times the texture. What is solved for is the change of the
    texture; its differences between neighbouring texels cost ``smooth``, so texels that no pixel reads follow those beside.
    Pixels count by how squarely they see the surface, where alpha is nearly 1 and the surface goes on around them.

    Args:
        texture: Where to start; sRGB.
        sheet: The texture's plane.
        views: ``[1 v]``.
        fragments: What the cameras of the views see of the mesh, one sample a pixel.
        steps: Of conjugate gradients.
        smooth: Weight of the differences, beside one pixel's.
    """
    size = len(texture)
    view, row, column, weight = _reliable(sheet, views, fragments)
    face = fragments.face[0][view, row, column]
    rest = fragments.barycentrics[0][view, row, column]
    corners = np.concatenate([1 - rest.sum(1, keepdims=True), rest], 1)
    at = np.einsum("pj,pjc->pc", corners, sheet.uv[sheet.triangles.faces[face]]) - 0.5
    low = np.floor(at).astype(np.int64)
    part = (at - low).astype(np.float32)
    x = np.stack([low[:, 0], low[:, 0] + 1] * 2, 1).clip(0, size - 1)
    y = np.stack([low[:, 1]] * 2 + [low[:, 1] + 1] * 2, 1).clip(0, size - 1)
    shares = np.stack([1 - part[:, 0], part[:, 0]] * 2, 1) * np.stack([1 - part[:, 1]] * 2 + [part[:, 1]] * 2, 1)
    read = csr_matrix(
        (shares.astype(np.float32).ravel(), (y * size + x).ravel(), np.arange(0, 4 * len(face) + 1, 4)),
        shape=(len(face), size * size),
    )
    rgba = views.rgba[0].detach().cpu().numpy()[view, row, column]
    target = rgba[:, :3] / rgba[:, 3:]
    back = (diags(weight) @ read).T.tocsr()
    used = ((sheet.face >= 0).ravel() | (back.getnnz(1) > 0)).reshape(size, size)
    across, down = (used[:, 1:] & used[:, :-1])[..., None], (used[1:] & used[:-1])[..., None]

    def normal(d: Float32[ndarray, "t 3"]) -> Float32[ndarray, "t 3"]:
        out = (back @ (read @ d)).reshape(size, size, 3)
        picture = d.reshape(size, size, 3)
        dx, dy = smooth * across * np.diff(picture, axis=1), smooth * down * np.diff(picture, axis=0)
        out[:, 1:] += dx
        out[:, :-1] -= dx
        out[1:] += dy
        out[:-1] -= dy
        return out.reshape(-1, 3)

    start = texture.reshape(-1, 3)
    change = _conjugate_gradients(normal, back @ (target - read @ start), steps)
    found = (start + change).reshape(size, size, 3).clip(0, 1)
    return _continued(found, used)


def _reliable(
    sheet: Sheet, views: Views, fragments: raster.Fragments
) -> tuple[Int[ndarray, "p"], Int[ndarray, "p"], Int[ndarray, "p"], Float32[ndarray, "p"]]:
    """Pixels that say something of the surface: their view, row, column and weight."""
    far = 1 / np.maximum(fragments.inverse_depth[0], 1e-6)
    alpha = views.alpha[0, ..., 0].detach().cpu().numpy()
    _, normals = raster.depth_and_normals(fragments, sheet.triangles, views.cameras)
    rays = _rays(views.cameras)
    facing = -(normals[0] * rays).sum(-1)
    weight = facing.clip(0, 1) ** 2 * ((alpha - 0.8) / 0.2).clip(0, 1) * (fragments.face[0] >= 0)
    steps = far * (4 / views.cameras.width)
    for axis in (1, 2):
        jump = np.abs(np.diff(far, axis=axis)) > np.take(steps, range(1, far.shape[axis]), axis)
        pad = [(0, 0)] * 3
        for side in ((1, 0), (0, 1)):
            pad[axis] = side
            weight *= ~np.pad(jump, pad)
    view, row, column = np.nonzero(weight > 0.01)
    return view, row, column, weight[view, row, column].astype(np.float32)


def _rays(cameras: Cameras) -> Float32[ndarray, "v h w 3"]:
    """Unit directions from the camera through each pixel's centre, in world space."""
    from rl3d.render.surface import points_from_depth

    ones = torch.ones(1, cameras.views, cameras.height, cameras.width, 1)
    away = points_from_depth(ones, cameras) - cameras.centers[:, :, None, None]
    return torch.nn.functional.normalize(away, dim=-1)[0].numpy()


def _conjugate_gradients(normal, right: Float32[ndarray, "t 3"], steps: int) -> Float32[ndarray, "t 3"]:
    """Solve ``normal(x) = right`` for each channel, from 0 (Hestenes and Stiefel 1952)."""
    x, r = np.zeros_like(right), right.copy()
    p, square = r.copy(), (r * r).sum(0)
    for _ in range(steps):
        image = normal(p)
        step = square / np.maximum((p * image).sum(0), 1e-20)
        x += step * p
        r -= step * image
        square, before = (r * r).sum(0), square
        p = r + square / np.maximum(before, 1e-20) * p
    return x


def _continued(image: Float32[ndarray, "h w 3"], used: Bool[ndarray, "h w"]) -> Float32[ndarray, "h w 3"]:
    """Continue an image from the texels that are used to all others."""
    if not used.any():
        return image
    nearest = distance_transform_edt(~used, return_distances=False, return_indices=True)
    assert nearest is not None
    return image[nearest[0], nearest[1]]


def _picture(image: Float32[ndarray, "h w 3"]) -> Image.Image:
    """8-bit RGB of values in [0, 1]."""
    return Image.fromarray((255 * image.clip(0, 1)).round().astype(np.uint8))
