"""The compiled rasterizer against the float64 oracle, over generated scenes."""

from dataclasses import replace

import pytest
import torch
from gaussian_scenes import KINDS, cutoff_pixels, run, scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl3d.cameras import Orbit, look_at_origin
from rl3d.render import _gaussians_numba, _gaussians_torch
from rl3d.render._gaussians_torch import Settings


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counts:
    """What was compared."""

    unsure = pixels = ill = gradients = 0
    worst_pixel = worst_gradient = 0.0
    """Differences: of a pixel as a part of the peak, of a gradient's norm as a part of it, the ill-conditioned left out."""


def compare(inputs, cameras, options: Settings, seed: int, counts: Counts) -> None:
    """Assert that both agree outside the pixels at a cut-off, which are counted.

    A gradient that rounding the oracle to float32 changes as much is ill-conditioned (a needle's turn, say), and counted.
    """
    unsure = cutoff_pixels(inputs, cameras, options)
    channels = inputs[4].shape[-1] + options.depth + 3 * options.normals + 1
    cotangent = torch.randn(*unsure.shape, channels, generator=rng(seed)) * ~unsure[..., None]
    ours, theirs = (run(x, inputs, cameras, options, cotangent) for x in (_gaussians_numba, _gaussians_torch))
    error = ((ours.pixels - theirs.pixels).abs() * ~unsure[..., None]).amax((0, 1, 2))
    error = error / theirs.pixels.abs().amax((0, 1, 2)).clamp(min=1)
    assert (error <= 1e-4).all(), error
    counts.worst_pixel = max(counts.worst_pixel, float(error.max()))
    rounded = None
    for i, (one, other) in enumerate(zip(ours.grads, theirs.grads, strict=True)):
        error = float((one - other).norm())
        if error > 1e-3 * other.norm() + 1e-6:
            rounded = rounded or run(_gaussians_torch, inputs, cameras, options, cotangent, torch.float32)
            assert error <= 5 * (rounded.grads[i] - other).norm(), (i, error, other.norm())
            counts.ill += 1
        elif other.norm() > 1e-3:
            assert torch.nn.functional.cosine_similarity(one.double().flatten(), other.flatten(), dim=0) > 0.9999
            counts.worst_gradient = max(counts.worst_gradient, error / float(other.norm()))
    counts.unsure += int(unsure.sum())
    counts.pixels += unsure.numel()
    counts.gradients += len(theirs.grads)


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(KINDS))
    n = 3000 if kind == "crowd" else draw(st.integers(1, 80))
    degree = draw(st.integers(0, 3))
    width, height = draw(st.integers(9, 60)), draw(st.integers(9, 60))
    options = Settings(
        width,
        height,
        eps2d=draw(st.sampled_from([0.3, 0.1, 1.0])),
        antialiased=draw(st.booleans()),
        ortho=draw(st.integers(0, 4)) == 0,
        radius_clip=draw(st.sampled_from([0.0, 0.0, 3.0])),
        sh_degree=degree,
        depth=draw(st.booleans()),
        normals=draw(st.booleans()),
    )
    return draw(st.integers(0, 2**31)), kind, n, options, draw(st.integers(degree, 3)), draw(st.floats(-180, 180))


@pytest.mark.parametrize("examples", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_generated_scenes_agree_and_few_pixels_are_unsure(examples):
    counts = Counts()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def check(case):
        seed, kind, n, options, degree, azimuth = case
        inputs = scene(seed, n, kind, (degree + 1) ** 2)
        cameras = look_at_origin(
            torch.tensor([[azimuth, -azimuth]]), torch.tensor([[20.0, -40.0]]), width=options.width, height=options.height
        )
        if options.ortho:
            shrink = torch.tensor([[0.3, 0.3, 1.0], [0.3, 0.3, 1.0], [1, 1, 1]])
            cameras = replace(cameras, intrinsics=cameras.intrinsics * shrink)
        shift = torch.tensor([[0, 0, seed % 7 - 3.0], [0, 0, seed % 5 - 2.0], [0, 0, 0]])
        cameras = replace(cameras, intrinsics=cameras.intrinsics + shift)
        compare(inputs, cameras, options, seed, counts)

    check()
    print(vars(counts))
    assert counts.unsure < 1e-3 * counts.pixels, vars(counts)
    assert counts.ill < 0.03 * counts.gradients, vars(counts)


def test_a_pixel_whose_light_ends_at_the_cutoff_behind_an_opaque_gaussian_is_unsure():
    """The light let through is ill-conditioned there: a change of alpha by 1e-4 changes it by a hundred times as much."""
    inputs = scene(2**31, 36, "huge", 1)
    options = Settings(19, 48, antialiased=True, sh_degree=0)
    cameras = look_at_origin(torch.zeros(1, 2), torch.tensor([[20.0, -40.0]]), width=19, height=48)
    shift = torch.tensor([[0, 0, -1.0], [0, 0, 1.0], [0, 0, 0]])
    compare(inputs, replace(cameras, intrinsics=cameras.intrinsics + shift), options, 0, Counts())


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 19])
def test_any_number_of_channels(channels, per_view):
    inputs = scene(channels, 40, "plain", 1)
    inputs[4] = torch.randn(*[2] * per_view, 40, channels, generator=rng()).double()
    options = Settings(31, 26, depth=channels == 4, normals=channels == 5)
    cameras = look_at_origin(torch.tensor([[20.0, 200.0]]), torch.zeros(1, 2), width=31, height=26)
    compare(inputs, cameras, options, 1, Counts())


def test_harmonics_of_their_own_for_each_view():
    inputs = scene(2, 40, "plain", 1)
    inputs[4] = 0.4 * torch.randn(2, 40, 9, 3, generator=rng()).double()
    compare(inputs, Orbit(views=2, size=30).cameras(), Settings(30, 30, sh_degree=1, depth=True), 1, Counts())


@pytest.mark.parametrize("ortho", [False, True])
@pytest.mark.parametrize("antialiased", [False, True])
def test_the_oracle_passes_gradcheck(antialiased, ortho):
    inputs = [x.requires_grad_() for x in scene(3, 5, "plain", 4)]
    inputs[3].data.clamp_(0.3, 0.8)
    inputs[2].data.mul_(6)  # wide, so that no pixel of a small image lies at the lower cut-off
    cameras = Orbit(views=1, size=6).cameras()
    view, K = cameras.cam_from_world[0].double().requires_grad_(), cameras.intrinsics[0].double().requires_grad_()
    options = Settings(6, 6, antialiased=antialiased, ortho=ortho, sh_degree=1, depth=True, normals=True)

    def pixels(*x):
        if ortho:
            x = (*x[:6], x[6] * torch.tensor([[0.3], [0.3], [1.0]]))
        return torch.cat(_gaussians_torch.rasterize(*x, options)[:2], -1)

    assert torch.autograd.gradcheck(pixels, (*inputs, view, K), atol=1e-5, fast_mode=True)


def test_poses_get_the_oracles_gradient():
    inputs = scene(4, 40, "plain", 4)
    cameras, options = Orbit(views=2, size=24).cameras(), Settings(24, 24, sh_degree=1, depth=True)
    cotangent = torch.randn(2, 24, 24, 4, generator=rng()) * ~cutoff_pixels(inputs, cameras, options)[..., None]
    found = []
    for backend, dtype in ((_gaussians_numba, torch.float32), (_gaussians_torch, torch.float64)):
        view = cameras.cam_from_world[0].to(dtype).requires_grad_()
        raster = backend.rasterize(*(x.to(dtype) for x in inputs), view, cameras.intrinsics[0].to(dtype), options)
        found.append(torch.autograd.grad(raster.image[..., :4], view, cotangent.to(dtype))[0].double())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_absolute_gradients_agree():
    inputs = scene(5, 60, "plain", 1)
    cameras, options = Orbit(views=2, size=40).cameras(), Settings(40, 40, sh_degree=0, absgrad=True)
    cotangent = torch.randn(2, 40, 40, 4, generator=rng()) * ~cutoff_pixels(inputs, cameras, options)[..., None]
    ours, theirs = (run(x, inputs, cameras, options, cotangent) for x in (_gaussians_numba, _gaussians_torch))
    one, other = ours.projected.means2d.absgrad.double(), theirs.projected.means2d.absgrad
    assert (one - other).norm() < 1e-3 * other.norm()
    assert (one >= ours.grads[-1].abs() - 1e-4).all()


def test_the_gradient_of_projected_depths_reaches_the_means():
    inputs = [x.float().requires_grad_() for x in scene(6, 9, "plain", 1)]
    cameras = Orbit(views=1, size=16).cameras()
    view, K = cameras.cam_from_world[0], cameras.intrinsics[0]
    depths = _gaussians_numba.rasterize(*inputs, view, K, Settings(16, 16, sh_degree=0)).projected.depths
    (gradient,) = torch.autograd.grad(depths.sum(), inputs[0])
    seen = depths[0] > 0
    assert seen.any()
    torch.testing.assert_close(gradient[seen], view[0, 2, :3].expand(int(seen.sum()), -1))


def test_the_median_gaussian_agrees():
    inputs = scene(7, 90, "plain", 1)
    inputs[2] *= 3
    cameras, options = Orbit(views=2, size=33).cameras(), Settings(33, 33, sh_degree=0)
    found = []
    for backend in (_gaussians_numba, _gaussians_torch):
        raster = run(backend, inputs, cameras, options)
        found.append(backend.median_gaussian(raster.projected, options))
    half = found[1] >= 0
    assert 0.2 < half.float().mean() < 1
    assert (found[0] == found[1]).float().mean() > 0.999
