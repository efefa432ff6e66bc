"""pytorch3d, the one place that knows it: its cameras, and its rasterizer for meshes where it is installed.

Cameras need no pytorch3d. Its view space has x to the left, y up and z forward; its matrices stand on the right
(``p_view = p_world @ R + T``). Lengths on the image are in units of half the shorter side, from the centre, to the left and up
("NDC"): https://github.com/facebookresearch/pytorch3d/blob/main/docs/notes/cameras.md.

There are no wheels of it for a current torch; docs/mesh_stage.md says how it is built.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.render.mesh_autograd import Seen, Surface, render_surface
from rl3d.types import Cameras, Views


def to_pytorch3d(cameras: Cameras) -> dict[str, Tensor]:
    """What ``pytorch3d.renderer.PerspectiveCameras(**...)`` takes, for all cameras in a row.

    Returns:
        ``R`` ``[b v 3 3]`` and ``T`` ``[b v 3]``, ``focal_length`` and ``principal_point`` ``[b v 2]`` in NDC, ``image_size``
        ``[b v 2]`` as height and width, each with the first two axes as one.
    """
    pose = (_turned(cameras.cam_from_world) @ cameras.cam_from_world).flatten(0, 1)
    matrix = cameras.intrinsics.flatten(0, 1)
    half = min(cameras.width, cameras.height) / 2
    centre = matrix.new_tensor([cameras.width / 2, cameras.height / 2])
    return {
        "R": pose[:, :3, :3].mT,
        "T": pose[:, :3, 3],
        "focal_length": torch.stack([matrix[:, 0, 0], matrix[:, 1, 1]], -1) / half,
        "principal_point": (centre - matrix[:, :2, 2]) / half,
        "image_size": matrix.new_tensor([[cameras.height, cameras.width]]).expand(len(matrix), -1),
    }


def from_pytorch3d(
    R: Float[Tensor, "n 3 3"],
    T: Float[Tensor, "n 3"],
    focal_length: Float[Tensor, "n 2"],
    principal_point: Float[Tensor, "n 2"],
    image_size: Float[Tensor, "n 2"],
) -> Cameras:
    """Cameras of one scene from the fields of a ``PerspectiveCameras`` in NDC, by the names it gives them.

    Raises:
        ValueError: if their pictures are of different sizes.
    """
    if not (image_size == image_size[:1]).all():
        raise ValueError(f"cameras of one scene have pictures of one size; got {image_size.tolist()}")
    height, width = (int(side) for side in image_size[0])
    pose = torch.eye(4).to(R).repeat(len(R), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = R.mT, T
    half = min(width, height) / 2
    matrix = torch.eye(3).to(R).repeat(len(R), 1, 1)
    matrix[:, 0, 0], matrix[:, 1, 1] = half * focal_length[:, 0], half * focal_length[:, 1]
    matrix[:, :2, 2] = R.new_tensor([width / 2, height / 2]) - half * principal_point
    return Cameras((_turned(pose) @ pose)[None], matrix[None], width, height)


def _turned(pose: Tensor) -> Tensor:
    """A half turn about z, which carries either view space to the other."""
    return torch.diag(pose.new_tensor([-1.0, -1.0, 1.0, 1.0]))


def check_pytorch3d() -> None:
    """Refuse, before anything is made, if pytorch3d cannot be used (``ValueError``)."""
    try:
        import pytorch3d.renderer  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise ValueError(
            f"pytorch3d is not installed, or was built for another torch ({error}): docs/mesh_stage.md says how to build it; "
            'or leave the renderer at "own"'
        ) from None


def render_with_pytorch3d(surface: Surface, cameras: Cameras, *, samples: int = 2) -> Views:
    """Draw a mesh with pytorch3d's rasterizer: as :func:`~rl3d.render.mesh_autograd.render_surface`, which says what else.

    What each sample sees, where on its face and how far away, comes from pytorch3d, with its gradients, on the mesh's device.
    Its own answer to outlines, soft faces, leaves seams between faces and a wide hem; ours are blended as otherwise. On a CPU
    it tries every face at every sample, so it is for GPUs.

    Raises:
        ValueError: if pytorch3d is not installed.
    """
    check_pytorch3d()
    return render_surface(surface, cameras, samples=samples, see=_seen)


def _seen(surface: Surface, cameras: Cameras, samples: int) -> Seen:
    """What samples see."""
    from pytorch3d.renderer import (  # pyright: ignore[reportMissingImports]
        MeshRasterizer,
        PerspectiveCameras,
        RasterizationSettings,
    )
    from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]

    fine = cameras.resized(samples * cameras.width, samples * cameras.height).to(surface.vertices.device)
    faces, views = surface.connectivity.faces, cameras.views
    settings = RasterizationSettings(image_size=(fine.height, fine.width), faces_per_pixel=1, perspective_correct=True)
    theirs = PerspectiveCameras(**to_pytorch3d(fine), device=surface.vertices.device)
    meshes = Meshes(verts=[surface.vertices.float()] * views, faces=[faces] * views)
    found = MeshRasterizer(cameras=theirs, raster_settings=settings)(meshes)
    face = found.pix_to_face[..., 0]
    hit = face >= 0
    # Faces of all views are counted on.
    face = torch.where(hit, face - len(faces) * torch.arange(views, device=face.device)[:, None, None], -1)
    nearness = torch.where(hit, 1 / found.zbuf[..., 0].clamp(min=1e-6), torch.zeros_like(found.zbuf[..., 0]))
    weights = found.bary_coords[..., 0, :][hit]
    return Seen(face, weights.to(surface.vertices), nearness.detach().float().cpu().contiguous().numpy())
