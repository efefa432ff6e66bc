"""A radiance field that learns: density and colour of every point, from a hash grid and a small network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rl3d.geometry.fit import fit_splats
from rl3d.geometry.tsdf import orbit_cameras
from rl3d.render.volume import Blended, Cells, Rays, blend, camera_rays, march, sphere_span
from rl3d.representations.hashgrid import HashGrid
from rl3d.types import Cameras, Splats, Views


@dataclass(frozen=True)
class Nerf:
    """A scene made of a radiance field within the unit sphere: how it renders and learns.

    Density is ``sharpness`` softplus(network + lump): the lump is ``inside`` where the first Gaussians are and ``outside`` away
    from them. As fog it gives score distillation something to pull at (as the density bias of Poole et al. 2022, "DreamFusion",
    appendix A.2, which is a ball), and empty space is empty from the first step.
    """

    levels: int = 8
    finest: int = 64
    """Cells along each side of the finest grid: as many as views have pixels; what is finer is not seen, and stays noise."""
    table: int = 2**19
    """Rows of each level's table at most. At 64 cells no two corners share a row; where they do, empty space and surfaces spoil
    each other, which looks like grain."""
    hidden: int = 32
    """Width of the network's only hidden layer."""
    samples: int = 64
    """Along the diameter of the sphere."""
    sharpness: float = 25.0
    """Factor on density, in 1 / world units."""
    inside: float = 1.0
    outside: float = -4.0
    rate_grid: float = 0.1
    """Adam's learning rate for the hash grid."""
    rate_network: float = 0.02
    occupancy_cells: int = 48
    occupancy_every: int = 8
    """Steps between updates of the grid that tells empty space (Müller et al. 2022, appendix E)."""
    occupancy_decay: float = 0.8
    opaque: float = 0.02
    """Opacity of one sample's step below which a cell is empty."""
    chunk: int = 2**15
    """Rays rendered at a time; memory grows with it."""
    seed: int = 0
    """Of the first weights."""

    def build(self, splats: Splats) -> RadianceField:
        """Make the live scene. It starts as fog, where ``splats``, a recipe's first Gaussians, are."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            field = RadianceField(self).to(splats.means.device)
        field.fill(splats.means)
        return field

    def restore(self, state: dict[str, Tensor]) -> RadianceField:
        """Make the live scene that had this ``state_dict``."""
        scene = RadianceField(self)
        scene.load_state_dict(state)
        return scene


class RadianceField(nn.Module):
    """A :class:`~rl3d.protocols.Representation`: colour does not depend on the direction it is seen from."""

    density_peak: Tensor
    lump: Tensor
    occupancy: Tensor
    solid: Tensor
    shift: Tensor

    def __init__(self, settings: Nerf | None = None):
        super().__init__()
        s = self.settings = settings or Nerf()
        self.grid = HashGrid(s.levels, finest=s.finest, table=s.table)
        self.network = nn.Sequential(nn.Linear(self.grid.width, s.hidden), nn.ReLU(), nn.Linear(s.hidden, 4))
        cells = (s.occupancy_cells,) * 3
        self.register_buffer("density_peak", torch.zeros(cells))
        self.register_buffer("occupancy", torch.ones(cells, dtype=torch.bool))
        self.register_buffer("solid", torch.zeros(cells))
        self.register_buffer("lump", torch.full(cells, s.inside))
        self.register_buffer("shift", torch.tensor(0.5))

    @property
    def device(self) -> torch.device:
        return self.shift.device

    def __len__(self) -> int:
        """How many cells of space are not empty."""
        return int(self.occupancy.sum())

    def field(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density in 1 / world units, and sRGB in [0, 1], of points in [-1, 1]^3. Differentiable in the weights."""
        s = self.settings
        raw = self.network(self.grid((points + 1) / 2))
        place = points.detach().flip(-1)[None, None, None]  # the lump's axes are x, y, z; grid_sample counts from the last
        lump = F.grid_sample(self.lump[None, None], place, padding_mode="border", align_corners=False).flatten()
        return s.sharpness * F.softplus(raw[:, 0] + lump), torch.sigmoid(raw[:, 1:])

    def render(self, cameras: Cameras, *, normals: bool = False) -> tuple[Views, None]:
        """Render ``[1 v]`` cameras, differentiably in every parameter. Normals come from the density around expected surface
        points, by central differences, and are left out unless asked for.
        """
        rays, chunk, parts = camera_rays(cameras), self.settings.chunk, []
        # Rays start at different fractions of a step, so that shells of samples do not show; they move from step to step.
        begin = (torch.arange(len(rays.slant), device=self.device) * 0.7548776662 + self.shift) % 1
        for start in range(0, len(begin), chunk):
            some = Rays(*(x[start : start + chunk] for x in rays)), begin[start : start + chunk]
            if torch.is_grad_enabled() and len(begin) > chunk:
                # Only what goes in and comes out of a chunk is kept; the rest is computed again on the way back.
                parts.append(checkpoint(self._see, *some, use_reentrant=False))
            else:
                parts.append(self._see(*some))
        seen = Blended(*(torch.cat(x) for x in zip(*parts, strict=True)))
        depth = seen.distance * rays.slant / seen.alpha.clamp(min=1e-3)
        facing = self._normals(rays, seen) if normals else None
        shape = 1, cameras.views, cameras.height, cameras.width
        rgb, alpha, depth = (x.view(*shape, -1) for x in (seen.features, seen.alpha, depth))
        return Views(rgb, alpha, depth, None if facing is None else facing.view(*shape, 3), cameras), None

    def _see(self, rays: Rays, begin: Float[Tensor, "r"]) -> Blended:
        """Sample rays evenly within the sphere and blend; samples in empty cells, and deep inside, cost nothing."""
        enter, leave = sphere_span(rays)
        step = (leave - enter) / self.settings.samples
        first = enter + begin * step
        ray, sample, points = march(rays, first, step, self.settings.samples, Cells(self.occupancy, self.solid))
        density, rgb = self.field(points)
        distances = first[:, None] + torch.arange(self.settings.samples, device=self.device) * step[:, None]
        densities = torch.zeros_like(distances).index_put((ray, sample), density)
        colours = rgb.new_zeros(*distances.shape, 3).index_put((ray, sample), rgb)
        return blend(densities, colours, distances, step[:, None])

    def _normals(self, rays: Rays, seen: Blended) -> Float[Tensor, "r 3"]:
        """The direction in which density falls fastest at each ray's expected surface point; 0 where there is none."""
        hit = seen.alpha > 0.3
        points = rays.origins + rays.directions * (seen.distance / seen.alpha.clamp(min=1e-3))[:, None]
        offsets = torch.eye(3, device=points.device) * (2 / self.settings.finest)
        around = (points[hit][:, None, None] + torch.stack([offsets, -offsets], 1)).detach()
        density = self.field(around.reshape(-1, 3))[0].view(-1, 3, 2)
        normal = F.normalize((density[..., 1] - density[..., 0]).float(), dim=-1)
        away = (normal * rays.directions[hit]).sum(-1, keepdim=True) > 0
        return torch.zeros_like(points).index_put((hit.nonzero()[:, 0],), torch.where(away, -normal, normal))

    @torch.no_grad()
    def splats(self) -> Splats:
        """Gaussians fitted to renders from all sides: a field has none of its own."""
        views, _ = self.render(orbit_cameras(8, (-20.0, 20.0, 60.0), 64))
        return fit_splats(views, rng=torch.Generator().manual_seed(self.settings.seed))

    def param_groups(self) -> list[dict]:
        """The hash grid and the network, with their learning rates."""
        return [
            {"params": [self.grid.table], "lr": self.settings.rate_grid, "name": "grid"},
            *(
                {"params": [p], "lr": self.settings.rate_network, "name": f"network.{name}"}
                for name, p in self.network.named_parameters()
            ),
        ]

    @torch.no_grad()
    def refine(self, optimizer: torch.optim.Optimizer, trace: None, step: int, rng: torch.Generator) -> None:
        """Move the samples, and now and then find out anew which space is empty or solid."""
        self.shift.fill_(torch.rand((), generator=rng))
        if step % self.settings.occupancy_every == 0:
            self.find_empty_space(torch.rand(3, generator=rng))

    @torch.no_grad()
    def fill(self, points: Float[Tensor, "n 3"]) -> None:
        """Put the first fog around points, a cell's width further than they reach."""
        s, size = self.settings, self.settings.occupancy_cells
        x, y, z = ((points + 1) * (size / 2)).long().clamp(0, size - 1).unbind(-1)
        near = torch.zeros_like(self.lump)
        near[x, y, z] = 1
        near = F.max_pool3d(near[None, None], 3, stride=1, padding=1)[0, 0]
        self.lump.copy_(s.outside + (s.inside - s.outside) * near)
        self.find_empty_space(torch.full((3,), 0.5))

    @torch.no_grad()
    def find_empty_space(self, jitter: Float[Tensor, "3"]) -> None:
        """Look at a point of every cell, remember the densest for a while; a cell is empty when it and its neighbours are.

        Nothing is called empty if all would be: a scene that has faded away may come back. A cell is as solid as the thinnest
        of it and its neighbours now.
        """
        s = self.settings
        cells = s.occupancy_cells
        corner = torch.arange(cells, device=self.device)
        points = torch.stack(torch.meshgrid(corner, corner, corner, indexing="ij"), -1) + jitter.to(self.device)
        density = self.field((points * (2 / cells) - 1).view(-1, 3))[0].view(cells, cells, cells)
        self.solid = -F.max_pool3d(-density[None, None], 3, stride=1, padding=1)[0, 0]
        self.density_peak = torch.maximum(s.occupancy_decay * self.density_peak, density)
        dense = -torch.expm1(-self.density_peak * 2 / s.samples) > s.opaque
        near = F.max_pool3d(dense[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        self.occupancy: Bool[Tensor, "x y z"] = near if near.any() else torch.ones_like(near)
