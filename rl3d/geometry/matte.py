"""Objects cut out of a background that is known."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from rl3d.types import Views


def cut_out(views: Views, background: float, *, tolerance: float = 0.06) -> Views:
    """Opaque views with the background made transparent: what is nearly its gray and hangs together with the picture's edge.

    So gray parts within an object stay, and a gray object that touches the edge is lost. Alpha becomes 0 or 1; nothing is
    differentiable. ``tolerance`` is the largest difference, in any colour, that still counts as the gray.
    """
    near = ((views.rgb.detach() - background).abs().amax(-1) <= tolerance).cpu().numpy()
    alpha = np.ones((*near.shape, 1), np.float32)
    for i in np.ndindex(near.shape[:2]):
        parts = np.zeros(near.shape[2:], int)
        ndimage.label(near[i], output=parts)
        edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        alpha[i][np.isin(parts, edge[edge > 0])] = 0.0
    cut = torch.from_numpy(alpha).to(views.rgb)
    return Views(views.rgb * cut, cut, views.depth, views.normals, views.cameras)
