import math

import pytest
import torch

from rl3d.render import DefaultStrategy, MCMCStrategy, rasterization
from rl3d.render.strategy import carry_over

NOW = {"refine_start_iter": 0, "refine_every": 1}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(n: int = 4, scale: float = 0.005, opacity: float = 0.5, column: bool = False):
    """Parameters and optimisers that have taken a step, so that there is state to follow."""
    params = torch.nn.ParameterDict(
        {
            "means": torch.nn.Parameter(torch.arange(3.0 * n).view(n, 3)),
            "scales": torch.nn.Parameter(torch.full((n, 3), math.log(scale))),
            "quats": torch.nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)),
            "opacities": torch.nn.Parameter(torch.full((n, 1) if column else (n,), math.log(opacity / (1 - opacity)))),
            "colors": torch.nn.Parameter(torch.arange(float(n))[:, None].repeat(1, 3)),
        }
    )
    optimizers = {name: torch.optim.Adam([x], lr=0.0) for name, x in params.items()}
    for name, x in params.items():
        x.grad = torch.arange(1.0, n + 1).view(-1, *[1] * (x.ndim - 1)).expand_as(x).clone()
        optimizers[name].step()
    return params, optimizers


def seen(gradients, n_cameras: int = 1, packed: bool = False, radius: int = 3, absgrad=None) -> dict:
    """The info of a rendering in which every camera saw every Gaussian."""
    gradients = torch.tensor(gradients).view(n_cameras, -1, 2)
    n = gradients.shape[1]
    means2d = torch.zeros_like(gradients).requires_grad_()
    radii = torch.full((n_cameras, n, 2), radius, dtype=torch.int32)
    info = {"width": 20, "height": 10, "n_cameras": n_cameras, "gaussian_ids": None, "radii": radii}
    if packed:
        means2d = means2d.detach().view(-1, 2).requires_grad_()
        info |= {"gaussian_ids": torch.arange(n).repeat(n_cameras), "radii": radii.view(-1, 2)}
    means2d.grad = gradients.view_as(means2d)
    if absgrad is not None:
        means2d.absgrad = torch.tensor(absgrad).view_as(means2d)
    return info | {"means2d": means2d}


@pytest.mark.parametrize("packed", [True, False])
def test_gradients_count_in_half_images_and_are_averaged_over_sightings(packed):
    params, optimizers = scene(2)
    strategy = DefaultStrategy()
    state = strategy.initialize_state()
    info = seen([[0.3, 0.0], [0.0, 0.4], [0.0, 0.0], [0.0, 0.2]], n_cameras=2, packed=packed)
    strategy.step_post_backward(params, optimizers, state, 1, info, packed=packed)
    torch.testing.assert_close(state["grad2d"], torch.tensor([0.3 * 10 * 2, (0.4 + 0.2) * 5 * 2]))
    assert state["count"].tolist() == [2, 2]


def test_small_ones_are_cloned_large_ones_split_and_the_transparent_dropped():
    params, optimizers = scene(4)
    params["scales"].data[1] = math.log(0.05)
    params["opacities"].data[3] = -9
    before = {name: optimizers[name].state[x]["exp_avg"].clone() for name, x in params.items()}
    strategy = DefaultStrategy(**NOW, generator=rng())
    state = strategy.initialize_state()
    strategy.step_post_backward(params, optimizers, state, 1, seen([[1.0, 0], [1, 0], [0, 0], [0, 0]]))
    assert params["colors"][:, 0].tolist() == [0, 2, 0, 1, 1]
    torch.testing.assert_close(params["scales"].exp()[3:], torch.full((2, 3), 0.05 / 1.6))
    assert torch.equal(params["means"][2], params["means"][0])
    assert 0 < (params["means"][3:] - torch.tensor([3.0, 4, 5])).norm() < 0.5
    for name, x in params.items():
        (group,) = optimizers[name].param_groups
        assert group["params"][0] is x
        moments = optimizers[name].state[x]["exp_avg"]
        assert torch.equal(moments[:2], before[name][[0, 2]])
        assert not moments[2:].any()
    assert not state["grad2d"].any()
    assert len(state["grad2d"]) == 5


def test_halves_let_through_what_one_did_if_asked():
    params, optimizers = scene(1, scale=0.05, opacity=0.75, column=True)
    strategy = DefaultStrategy(**NOW, revised_opacity=True, generator=rng())
    strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 1, seen([[1.0, 0.0]]))
    torch.testing.assert_close(params["opacities"].sigmoid(), torch.full((2, 1), 0.5))


def test_absolute_gradients_are_looked_at_if_asked():
    params, optimizers = scene(2)
    strategy = DefaultStrategy(**NOW, absgrad=True)
    info = seen([[0.0, 0], [1, 0]], absgrad=[[1.0, 0], [0, 0]])
    strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 1, info)
    assert params["colors"][:, 0].tolist() == [0, 1, 0]


def test_what_is_large_on_the_screen_is_split_until_it_is_time_to_stop():
    params, optimizers = scene(2)
    strategy = DefaultStrategy(**NOW, refine_scale2d_stop_iter=5, generator=rng())
    for step, n in ((1, 4), (5, 4)):
        state = strategy.initialize_state()
        info = seen([[0.0, 0]] * len(params["means"]), radius=2)  # of 20 pixels: above 0.05, below 0.15
        strategy.step_post_backward(params, optimizers, state, step, info)
        assert len(params["means"]) == n


def test_opacities_are_reset_and_the_huge_dropped_afterwards():
    params, optimizers = scene(3)
    strategy = DefaultStrategy(**NOW, reset_every=10, pause_refine_after_reset=2)
    state = strategy.initialize_state()
    strategy.step_post_backward(params, optimizers, state, 10, seen([[0.0, 0]] * 3))
    torch.testing.assert_close(params["opacities"].sigmoid(), torch.full((3,), 0.01))
    assert not optimizers["opacities"].state[params["opacities"]]["exp_avg"].any()
    assert optimizers["means"].state[params["means"]]["exp_avg"].any()
    params["scales"].data[1] = math.log(0.2)
    strategy.step_post_backward(params, optimizers, state, 11, seen([[0.0, 0]] * 3))
    assert len(params["means"]) == 3  # it pauses
    strategy.step_post_backward(params, optimizers, state, 12, seen([[0.0, 0]] * 3))
    assert params["colors"][:, 0].tolist() == [0, 2]


def test_the_dead_move_to_the_living_and_the_sum_looks_the_same():
    """Two Gaussians in one place, of which one dies: afterwards they are two that look like the one."""
    n, place = 12, torch.zeros(12, 3)
    params, optimizers = scene(n, scale=0.3, opacity=0.6)
    params["means"].data[:] = place
    params["colors"].data[:] = 1
    params["opacities"].data[1:] = -9.0
    view, K = torch.eye(4)[None], torch.tensor([[[40.0, 0, 16], [0, 40, 16], [0, 0, 1]]])
    view[:, 2, 3] = 4

    def alpha():
        fields = (params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(), params["colors"])
        return rasterization(*fields, view, K, 32, 32)[1].detach()

    before = alpha()
    strategy = MCMCStrategy(**NOW, cap_max=n, noise_lr=0.0, generator=rng())
    strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 1, {}, lr=1.0)
    assert len(params["means"]) == n
    assert (params["opacities"].sigmoid() < 0.2).all()
    inside = before > 0.1
    # Equation 9 makes the mean the same along a line through the middle; the shape differs a little.
    assert abs(float((alpha() - before)[inside].mean())) < 0.03
    assert float((alpha() - before)[inside].abs().max()) < 0.12


def test_new_ones_are_added_up_to_the_cap_and_their_optimisers_start_anew():
    params, optimizers = scene(100)
    strategy = MCMCStrategy(**NOW, cap_max=108, noise_lr=0.0, generator=rng())
    for step, n in ((1, 105), (2, 108), (3, 108)):
        strategy.step_post_backward(params, optimizers, {}, step, {}, lr=0.0)
        assert all(len(x) == n for x in params.values())
    moments = optimizers["means"].state[params["means"]]["exp_avg"]
    assert not moments[100:].any()
    assert moments.any()


def test_noise_moves_only_what_is_nearly_transparent_and_along_its_extent():
    params, optimizers = scene(400, scale=0.1)
    params["opacities"].data[:200] = -8
    params["scales"].data[:, 0] = math.log(1e-3)
    before = params["means"].detach().clone()
    strategy = MCMCStrategy(noise_lr=10.0, generator=rng())
    strategy.step_post_backward(params, optimizers, {}, 1, {}, lr=0.1)
    moved = params["means"].detach() - before
    assert not moved[200:].any()
    deviation = 0.1**2 / (1 + math.exp(-100 * (0.005 - 1 / (1 + math.exp(8)))))
    assert moved[:200, 1:].std().item() == pytest.approx(deviation, rel=0.1)
    assert moved[:200, 0].abs().max() < 1e-3 * deviation


@pytest.mark.parametrize("strategy", [DefaultStrategy(), MCMCStrategy()])
def test_parameters_and_optimisers_must_fit(strategy):
    params, optimizers = scene()
    strategy.check_sanity(params, optimizers)
    with pytest.raises(ValueError, match="needs an optimiser"):
        strategy.check_sanity(params, {"means": optimizers["means"]})
    optimizers["means"].add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match="one parameter group"):
        strategy.check_sanity(params, optimizers)
    del params["quats"], optimizers["quats"]
    optimizers["means"] = torch.optim.Adam([params["means"]])
    with pytest.raises(ValueError, match="quats"):
        strategy.check_sanity(params, optimizers)


def test_nothing_random_depends_on_the_global_generator_if_one_is_given():
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        params, optimizers = scene(50, scale=0.05)
        DefaultStrategy(**NOW, generator=rng()).step_post_backward(
            params, optimizers, {"grad2d": None, "count": None, "scene_scale": 1.0}, 1, seen([[1.0, 0]] * 50)
        )
        MCMCStrategy(**NOW, generator=rng()).step_post_backward(params, optimizers, {}, 1, {}, lr=1e-3)
        found.append(params["means"])
    assert len(found[0]) == 105
    assert torch.equal(*found)


def test_state_that_never_was_is_not_made_up():
    old = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([old])
    new = torch.nn.Parameter(torch.zeros(3))
    carry_over(optimizer, old, new, torch.tensor([0, 1, -1]))
    assert optimizer.param_groups[0]["params"] == [new]
    assert not optimizer.state
