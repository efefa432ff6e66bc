"""Views of a prior, judged as the object that they make: lifted to splats by a quick fit, and looked at from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from rl3d.cameras import look_at_origin
from rl3d.geometry.fit import fit_splats
from rl3d.protocols import Reward, RewardInfo, RewardPart, Shown
from rl3d.render.gaussians import look_at
from rl3d.rewards.base import SplatScene, look, together
from rl3d.rewards.clip import Clip
from rl3d.types import Cameras, Prompt, Score, Views


@dataclass(frozen=True)
class Lifted:
    """A reward of the object that views make: a hull is carved from them, splats are fitted, and rendered from new sides.

    Whatever the reward looks at it gets: views with depth and normals, and the splats as a scene. So a reward of shape or of
    physics can teach a prior of views. New sides lie halfway between the drawn ones by default, where views that contradict
    each other show it. A black box, since the fit is not differentiated.
    """

    reward: RewardPart = field(default_factory=Clip)
    steps: int = 40
    """Of the fit."""
    resolution: int = 40
    """Voxels along the sides of the hull's cube."""
    limit: int = 3000
    """Gaussians at most."""
    views: int = 4
    """New sides."""
    azimuth_deg: float = 0.0
    """Of the first new side, beyond halfway between the first two drawn ones."""
    elevation_deg: float = 25.0
    seed: int = 0
    """Of the fit, which is the same for all samples: what differs is the views."""

    def __post_init__(self):
        if min(self.steps, self.resolution, self.limit, self.views) < 1:
            raise ValueError("a lift needs at least 1 step, voxel, Gaussian and view")

    def build(self, device: torch.device | str = "cpu") -> LiftedReward:
        return LiftedReward(self, self.reward.build(device))


class LiftedReward(torch.nn.Module):
    """A live :class:`Lifted`. A sample of which nothing can be carved is not valid."""

    def __init__(self, value: Lifted, reward: Reward):
        super().__init__()
        self.value, self.reward = value, reward
        inner = reward.info
        self.info = RewardInfo(
            name=f"lifted:{inner.name}",
            differentiable="no",
            range=inner.range,
            weights=inner.weights,
            licence=inner.licence,
            source=inner.source,
        )
        self.eval()

    @torch.no_grad()
    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views.detach()
        lifted = [self.lift(views.sample(i)) for i in range(len(prompts))]
        good = [i for i, one in enumerate(lifted) if one is not None]
        value = views.rgb.new_full((len(prompts),), torch.nan)
        valid = torch.zeros(len(prompts), dtype=torch.bool, device=value.device)
        if good:
            found = self.reward.score(together([one for one in lifted if one is not None]), [prompts[i] for i in good])
            value[good], valid[good] = found.value.to(value), found.valid.to(valid)
        return Score(value, None, valid)

    def lift(self, views: Views) -> Shown | None:
        """Fit splats to one sample's views and look at them from the new sides; None where there is nothing to fit."""
        if not views.rgba.isfinite().all() or not (views.alpha > 0.5).any():
            return None
        s, rng = self.value, torch.Generator().manual_seed(self.value.seed)
        try:
            splats = fit_splats(views, rng=rng, steps=s.steps, resolution=s.resolution, limit=s.limit)
        except ValueError:  # the silhouettes have nothing in common
            return None
        if not len(splats):
            return None
        return Shown(look_at(splats)(self.cameras(views.cameras)), (SplatScene(splats),))

    def cameras(self, drawn: Cameras) -> Cameras:
        """The new sides for one sample's ``[1 v]`` cameras: at their distance, field of view and size."""
        s = self.value
        first = float(drawn.azimuths_deg[0, 0]) + 180.0 / drawn.views + s.azimuth_deg
        azimuth = first + torch.arange(s.views) * (360.0 / s.views)
        focal = float(drawn.intrinsics[0, 0, 1, 1])
        fov = 2 * torch.rad2deg(torch.atan(torch.tensor(drawn.height / 2 / focal))).item()
        cameras = look_at_origin(
            azimuth[None],
            torch.full((1, s.views), s.elevation_deg),
            distance=float(drawn.centers[0, 0].norm()),
            fov_y_deg=fov,
            width=drawn.width,
            height=drawn.height,
        )
        return cameras.to(drawn.cam_from_world.device)
