"""A textured mesh that learns: its texels and its vertices; the faces stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from rl3d.geometry.laplacian import Diffusion
from rl3d.geometry.surfels import on_surface
from rl3d.render.mesh_autograd import Connectivity, Surface, render_surface
from rl3d.render.mipmap import LEVELS
from rl3d.render.pytorch3d import check_pytorch3d, render_with_pytorch3d
from rl3d.types import Cameras, Splats, Views

SURFELS = 6000
"""Gaussians on the surface, for what wants some."""


@dataclass(frozen=True)
class Mesh:
    """A scene that is a textured mesh: how it renders and learns.

    For the last stage of an object: a mesh that was exported is there already, and any term makes its texture and its vertices
    better. It is drawn in its own colours, without light; a normal map is not kept.
    """

    rate_texture: float = 0.002
    """Adam's learning rate for the texels, in sRGB from 0 to 1; 0 keeps the texture."""
    rate_vertices: float = 0.0016
    """Adam's learning rate for the vertices, in world units; 0 keeps the shape."""
    smooth: float = 0.08
    """How far a vertex takes others along, in world units, about: the strength of :class:`~rl3d.geometry.laplacian.Diffusion`
    is the square of it in mean edges."""
    texels: int = 1024
    """Along each side of the texture at most: larger ones are scaled down."""
    samples: int = 1
    """Along each side of a pixel. One will do: outlines are blended, and textures read as coarsely as they are seen."""
    renderer: Literal["own", "pytorch3d"] = "own"
    """What draws it: :mod:`rl3d.render.mesh_autograd`, or pytorch3d where it is installed."""

    def __post_init__(self):
        if self.rate_texture < 0 or self.rate_vertices < 0 or not self.rate_texture + self.rate_vertices > 0:
            raise ValueError(
                f"a mesh learns its texture or its vertices: no rate is negative and one is above 0; "
                f"got {self.rate_texture} and {self.rate_vertices}"
            )
        if not 0 <= self.smooth < 100 or self.texels < 8 or not 1 <= self.samples <= 8:
            got = f"smooth {self.smooth}, texels {self.texels}, samples {self.samples}"
            raise ValueError(f"smooth is from 0 to 100, texels 8 or more, samples from 1 to 8; got {got}")

    def build(self, mesh: trimesh.Trimesh | Splats) -> TexturedMesh:
        """Make the live scene of a mesh in our axes with a texture.

        Raises:
            ValueError: if it is no mesh, has no texture, or its renderer is not installed.
        """
        if not isinstance(mesh, trimesh.Trimesh):
            raise ValueError(
                "a mesh scene starts from a mesh: name one with --init, or set the recipe's start to FromMesh(path)"
            )
        self.check()
        picture = getattr(getattr(mesh.visual, "material", None), "baseColorTexture", None)
        if picture is None or getattr(mesh.visual, "uv", None) is None:
            raise ValueError("this mesh has no texture to learn: bake one with rl3d.export.meshes.texture.textured")
        faces = np.asarray(mesh.faces, np.int64)
        # Once, even where the texture has a seam.
        points, index = np.unique(np.asarray(mesh.vertices, np.float32), axis=0, return_inverse=True)
        corners, uv = index.reshape(-1)[faces], np.asarray(mesh.visual.uv, np.float32)[faces]
        texture = np.asarray(_fitting(picture.convert("RGB"), self.texels), np.float32) / 255
        parts = (torch.from_numpy(np.ascontiguousarray(x)) for x in (points, corners, uv, texture))
        return TexturedMesh(*parts, settings=self)

    def restore(self, state: dict[str, Tensor]) -> TexturedMesh:
        """Make the live scene that had this ``state_dict``."""
        self.check()
        scene = TexturedMesh(state["rest"], state["faces"], state["uv"], state["texture"], settings=self)
        scene.load_state_dict(state)
        return scene

    def check(self) -> None:
        """Refuse a renderer that is not installed (``ValueError``)."""
        if self.renderer == "pytorch3d":
            check_pytorch3d()


def _fitting(picture: Image.Image, most: int) -> Image.Image:
    """The picture, no larger than so many texels a side, which can be halved as often as it is read coarsely."""
    times, factor = 2**LEVELS, min(1.0, most / max(picture.size))
    width, height = (max(times, int(side * factor) // times * times) for side in picture.size)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BOX)


class TexturedMesh(nn.Module):
    """A :class:`~rl3d.protocols.Representation`, and a :class:`~rl3d.protocols.Scene`.

    Vertices are where they first were (``rest``) plus ``pulls`` that are shared among neighbours; texels are sRGB, brought back
    to [0, 1] after every step.

    Adam makes steps of one length whether gradients are large or next to nothing, as they are where no outline and no pattern
    is, and the surface would tremble there. So its epsilon follows the root mean square of the gradients (``calm``): smaller
    ones give shorter steps in proportion. (Nicolet et al. divide all by the largest one.) The first step only looks.
    """

    calm: Tensor
    rest: Tensor
    faces: Tensor
    uv: Tensor

    def __init__(
        self,
        rest: Float[Tensor, "n 3"],
        faces: Int[Tensor, "m 3"],
        uv: Float[Tensor, "m 3 2"],
        texture: Float[Tensor, "h w 3"],
        settings: Mesh | None = None,
    ):
        super().__init__()
        self.settings = settings or Mesh()
        self.register_buffer("rest", rest.clone())
        self.register_buffer("faces", faces.clone())
        self.register_buffer("uv", uv.clone())
        self.texture = nn.Parameter(texture.clone())
        self.pulls = nn.Parameter(torch.zeros_like(rest))
        self.register_buffer("calm", torch.full((2,), torch.inf, dtype=torch.float64))
        self._diffusion: Diffusion | None = None
        self._connectivity: Connectivity | None = None

    @property
    def device(self) -> torch.device:
        return self.rest.device

    def __len__(self) -> int:
        """How many faces it has."""
        return len(self.faces)

    def vertices(self) -> Float[Tensor, "n 3"]:
        """Where the vertices are; differentiable in ``pulls``."""
        if not self.settings.rate_vertices:
            return self.rest
        if self._diffusion is None:
            corners = self.rest[self.faces]
            edge = float((corners - corners.roll(1, 1)).norm(dim=-1).double().mean())
            strength = (self.settings.smooth / max(edge, 1e-6)) ** 2
            self._diffusion = Diffusion(self.faces.cpu().numpy(), len(self.rest), strength)
        return self.rest + self._diffusion.solve(self.pulls)

    def surface(self) -> Surface:
        """What is drawn, with its graph."""
        if self._connectivity is None or self._connectivity.faces.device != self.device:
            self._connectivity = Connectivity.of(self.rest, self.faces)
        return Surface(self.vertices(), self.texture, self.uv, self._connectivity)

    def render(self, cameras: Cameras) -> tuple[Views, None]:
        """Render ``[1 v]`` cameras, differentiably in texels and vertices: :func:`rl3d.render.mesh_autograd.render_surface`."""
        draw = render_with_pytorch3d if self.settings.renderer == "pytorch3d" else render_surface
        return draw(self.surface(), cameras, samples=self.settings.samples), None

    def param_groups(self) -> list[dict]:
        """The texels and the vertices, with their learning rates."""
        s = self.settings
        calm = self.calm.tolist()
        groups = [
            {"params": [self.texture], "lr": s.rate_texture, "eps": calm[0], "name": "texture"},
            {"params": [self.pulls], "lr": s.rate_vertices, "eps": calm[1], "name": "vertices"},
        ]
        return [group for group in groups if group["lr"] > 0]

    @torch.no_grad()
    def refine(self, optimizer: torch.optim.Optimizer, trace: None, step: int, rng: torch.Generator) -> None:
        """Bring texels back to what a picture can hold, and see how large gradients are. No face comes or goes."""
        self.texture.clamp_(0, 1)
        for group in optimizer.param_groups:
            state = optimizer.state.get(group["params"][0], {})
            if "exp_avg_sq" in state:
                unbiased = 1 - group["betas"][1] ** float(state["step"])
                group["eps"] = max(float(state["exp_avg_sq"].double().mean() / unbiased) ** 0.5, 1e-15)
                self.calm[0 if group["params"][0] is self.texture else 1] = group["eps"]

    @torch.no_grad()
    def to_trimesh(self) -> trimesh.Trimesh:
        """The mesh in our axes, with its texture in 8 bits: what exporters write. Vertices at seams are there twice."""
        corners, places = self.faces.flatten().cpu().numpy(), self.uv.flatten(0, 1).cpu().numpy()
        keys = np.concatenate([corners[:, None].astype(np.float64), places], 1)
        _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        picture = Image.fromarray((255 * self.texture.clamp(0, 1)).round().byte().cpu().numpy())
        material = PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0)
        return trimesh.Trimesh(
            self.vertices().cpu().numpy()[corners[first]],
            index.reshape(-1, 3),
            visual=TextureVisuals(uv=places[first].astype(np.float64), material=material),
            process=False,
        )

    @torch.no_grad()
    def mesh(self) -> trimesh.Trimesh:
        """The surface alone, without seams or colours: what rewards of shape look at."""
        return trimesh.Trimesh(self.vertices().cpu().numpy(), self.faces.cpu().numpy(), process=False)

    def splats(self) -> Splats:
        """Gaussians spread over the surface, in its colours: the same ones each time."""
        found = on_surface(self.to_trimesh(), SURFELS, torch.Generator().manual_seed(0))
        return Splats(**{name: x.to(self.device) for name, x in found.tensors().items()})
