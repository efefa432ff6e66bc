# A script as it is written for gsplat: it fits a picture, seen by one camera, or a solid, seen by several, with Adam and a
# densification strategy. test_gsplat_compat.py runs it with its import changed, and nothing else.
import math

import torch
from gsplat import DefaultStrategy, MCMCStrategy, rasterization


def picture(size):
    """Three discs on white."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    image = torch.ones(1, size, size, 3)
    for cx, cy, r, color in (
        (-0.3, -0.2, 0.4, (0.9, 0.1, 0.1)),
        (0.4, 0.1, 0.35, (0.1, 0.3, 0.9)),
        (0.0, 0.5, 0.25, (0.1, 0.7, 0.2)),
    ):
        image[:, (x - cx) ** 2 + (y - cy) ** 2 < r**2] = torch.tensor(color)
    viewmats = torch.eye(4)[None]
    viewmats[:, 2, 3] = 4.0
    return image, viewmats


def solid(size, views=6):
    """A sphere whose colour is its normal, on white, from around."""
    images, viewmats = [], []
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    rays = torch.stack([(x - size / 2) / (2 * size), (y - size / 2) / (2 * size), torch.ones_like(x)], -1)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    for k in range(views):
        a = 2 * math.pi * k / views
        viewmat = torch.eye(4)
        viewmat[:3, :3] = torch.tensor([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
        viewmat[2, 3] = 4.0
        along = 4 * rays[..., 2:]
        root = along**2 - (16 - 0.6**2)
        normal = (rays * (along - root.clamp(min=0).sqrt()) - torch.tensor([0, 0, 4.0])) @ viewmat[:3, :3] / 0.6
        images.append(torch.where(root > 0, 0.5 + 0.5 * normal, 1.0))
        viewmats.append(viewmat)
    return torch.stack(images), torch.stack(viewmats)


def fit(target, viewmats, strategy, steps, packed, n=200):
    size = target.shape[1]
    Ks = torch.tensor([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]]).expand(len(target), 3, 3)
    params = torch.nn.ParameterDict(
        {
            "means": torch.nn.Parameter(torch.rand(n, 3) * 1.6 - 0.8),
            "scales": torch.nn.Parameter(torch.full((n, 3), math.log(0.05))),
            "quats": torch.nn.Parameter(torch.rand(n, 4)),
            "opacities": torch.nn.Parameter(torch.logit(torch.full((n,), 0.5))),
            "sh0": torch.nn.Parameter(torch.zeros(n, 1, 3)),
            "shN": torch.nn.Parameter(torch.zeros(n, 3, 3)),
        }
    )
    rates = {"means": 5e-3, "scales": 1e-2, "quats": 1e-2, "opacities": 3e-2, "sh0": 2e-2, "shN": 1e-3}
    optimizers = {name: torch.optim.Adam([params[name]], lr=lr) for name, lr in rates.items()}
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    backgrounds = torch.ones(len(target), 3)
    for step in range(steps):
        renders, _, info = rasterization(
            params["means"],
            params["quats"],
            torch.exp(params["scales"]),
            torch.sigmoid(params["opacities"]),
            torch.cat([params["sh0"], params["shN"]], 1),
            viewmats,
            Ks,
            size,
            size,
            sh_degree=1,
            backgrounds=backgrounds,
            packed=packed,
            absgrad=isinstance(strategy, DefaultStrategy) and strategy.absgrad,
        )
        strategy.step_pre_backward(params, optimizers, state, step, info)
        loss = (renders - target).abs().mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if isinstance(strategy, DefaultStrategy):
            strategy.step_post_backward(params, optimizers, state, step, info, packed=packed)
        else:
            strategy.step_post_backward(params, optimizers, state, step, info, lr=rates["means"])
    error = (renders.clamp(0, 1) - target).square().mean()
    return -10 * torch.log10(error).item(), len(params["means"])


torch.manual_seed(0)
size, steps = 40, 150
every = {"refine_start_iter": 20, "refine_every": 20, "refine_stop_iter": 120}
results = {
    "picture, default": fit(*picture(size), DefaultStrategy(**every, reset_every=10_000, grow_grad2d=0.001), steps, True),
    "picture, mcmc": fit(*picture(size), MCMCStrategy(**every, cap_max=230, noise_lr=1e3), steps, False),
    "solid, default": fit(
        *solid(size), DefaultStrategy(**every, reset_every=10_000, absgrad=True, grow_grad2d=0.002), steps, False
    ),
    "solid, mcmc": fit(*solid(size), MCMCStrategy(**every, cap_max=230, noise_lr=1e3), steps, True),
}
