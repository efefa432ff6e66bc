import math
from dataclasses import replace

import pytest
import torch
from gaussian_scenes import run, scene

from rl3d.cameras import Orbit, look_at_origin
from rl3d.math import rotation_from_quat, sh_from_rgb
from rl3d.render import _gaussians_numba
from rl3d.render._gaussians_torch import MIN_ALPHA, MIN_TRANSMITTANCE, Settings, spherical_harmonics
from rl3d.render.gaussians import render_splats
from rl3d.types import Splats

FRONT = look_at_origin(torch.zeros(1, 1), torch.zeros(1, 1), width=33, height=33)
FOCAL = float(FRONT.intrinsics[0, 0, 0, 0])


def splats(means, scale=0.1, opacity=0.5, rgb=(1.0, 0.5, 0.25), quats=(1.0, 0.0, 0.0, 0.0), dtype=torch.float32) -> Splats:
    means = torch.tensor(means, dtype=dtype).view(-1, 3)
    n = len(means)
    scales = torch.as_tensor(scale, dtype=dtype).expand(n, 3)
    opacity = torch.as_tensor(opacity, dtype=dtype).expand(n)
    sh = sh_from_rgb(torch.tensor(rgb, dtype=dtype).expand(n, 3))[:, None]
    return Splats(means, scales.log(), torch.tensor(quats, dtype=dtype).expand(n, 4), opacity.logit(), sh)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_one_gaussian_has_its_closed_form(backend):
    views, trace = render_splats(splats([0, 0, 0]), FRONT, backend=backend)
    y, x = torch.meshgrid(torch.arange(33) - 16.0, torch.arange(33) - 16.0, indexing="ij")
    variance = (0.1 * FOCAL / 3) ** 2 + 0.3
    alpha = 0.5 * torch.exp(-(x**2 + y**2) / (2 * variance))
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0)[..., None]
    torch.testing.assert_close(views.alpha[0, 0], alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(views.rgb[0, 0], alpha * torch.tensor([1, 0.5, 0.25]), atol=1e-5, rtol=0)
    torch.testing.assert_close(views.depth[0, 0], 3.0 * (alpha > 0), atol=1e-4, rtol=0)
    torch.testing.assert_close(trace.means2d, torch.full((1, 1, 2), 16.5), atol=1e-4, rtol=0)
    assert trace.radii.item() == math.ceil(math.sqrt(2 * math.log(0.5 * 255) * variance))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_the_nearer_gaussian_covers_the_farther(backend):
    two = replace(splats([[-0.5, 0, 0], [0.5, 0, 0]], scale=0.2, opacity=0.6), sh=sh_from_rgb(torch.eye(3)[:2])[:, None])
    center = render_splats(two, FRONT, backend=backend)[0].rgb[0, 0, 16, 16]
    torch.testing.assert_close(center, torch.tensor([0.4 * 0.6, 0.6, 0.0]), atol=1e-4, rtol=0)
    swapped = render_splats(two[torch.tensor([1, 0])], FRONT, backend=backend)[0].rgb[0, 0, 16, 16]
    torch.testing.assert_close(swapped, center, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_flat_disc_has_depth_and_a_normal_that_faces_the_camera(backend):
    angle = math.radians(30)
    quats = (math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2))
    disc = splats([0.2, 0, 0], scale=(0.001, 0.3, 0.3), opacity=0.9, quats=quats)
    for azimuth, sign in ((0.0, 1.0), (180.0, -1.0)):
        cameras = look_at_origin(torch.tensor([[azimuth]]), torch.zeros(1, 1), width=33, height=33)
        views, _ = render_splats(disc, cameras, backend=backend)
        expected = sign * torch.tensor([math.cos(angle), math.sin(angle), 0])
        torch.testing.assert_close(views.normals[0, 0, 16, 16], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(views.depth[0, 0, 16, 16], torch.tensor([3 - sign * 0.2]), atol=1e-4, rtol=0)


def test_harmonics_are_orthonormal_and_the_first_ones_are_linear():
    rng = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(1, 30_000, 3, generator=rng, dtype=torch.float64), dim=-1)
    sh = torch.eye(16, dtype=torch.float64)[:, None].expand(16, 30_000, 16)
    basis = torch.stack([spherical_harmonics(s[:, :, None].expand(-1, -1, 3), directions)[0, :, 0] for s in sh])
    gram = 4 * math.pi * basis @ basis.T / directions.shape[1]
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=0.08, rtol=0)
    linear = math.sqrt(3 / (4 * math.pi)) * directions[0, :, [1, 2, 0]].T * torch.tensor([[-1.0], [1], [-1]])
    torch.testing.assert_close(basis[1:4], linear)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_colours_below_zero_are_cut(backend):
    rgb = render_splats(splats([0, 0, 0], rgb=(-1.0, 0.5, 2.0), opacity=0.9), FRONT, backend=backend)[0].rgb[0, 0, 16, 16]
    torch.testing.assert_close(rgb, 0.9 * torch.tensor([0, 0.5, 2.0]), atol=1e-4, rtol=0)


BAD = {
    "behind": {"means": [5.0, 0, 0]},
    "on the camera": {"means": [3.0, 0, 0]},
    "NaN mean": {"means": [math.nan, 0, 0]},
    "infinite mean": {"means": [0, math.inf, 0]},
    "far away": {"means": [-1e30, 1e30, 0]},
    "NaN colour": {"sh": [[math.nan, 0, 0]]},
    "NaN scale": {"log_scales": [math.nan, 0, 0]},
    "infinite scale": {"log_scales": [200.0, 0, 0]},
    "no rotation": {"quats": [0.0, 0, 0, 0]},
    "NaN opacity": {"opacity_logits": math.nan},
    "transparent": {"opacity_logits": -math.inf},
    "zero size": {"log_scales": [-math.inf] * 3},
    "covers everything": {"log_scales": [6.0] * 3},
    "one axis huge": {"log_scales": [-8.0, 8.0, -8.0]},
}


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", BAD)
def test_a_broken_gaussian_does_not_poison_its_neighbours(name, backend):
    good = splats([[0, 0, 0], [0.1, 0.3, 0.2]], opacity=0.8)
    bad = splats([-0.5, 0, 0])
    bad = replace(bad, **{field: torch.tensor([value]) for field, value in BAD[name].items()})
    both = {field: torch.cat([x, bad.tensors()[field]]).requires_grad_() for field, x in good.tensors().items()}
    views, _ = render_splats(Splats(**both), FRONT, backend=backend)
    pixels = torch.cat([views.rgb, views.alpha, views.depth, views.normals], -1)
    assert pixels.isfinite().all()
    pixels.sum().backward()
    for x in both.values():
        assert x.grad[:2].isfinite().all()
        assert (x.grad[:2] != 0).any() or x is both["quats"]
    if name in ("zero size", "covers everything", "one axis huge"):
        return
    alone = render_splats(good, FRONT, backend=backend)[0]
    torch.testing.assert_close(views.rgb, alone.rgb, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("kept", [[], [0]])
def test_few_or_no_gaussians_render(backend, kept):
    some = Splats(
        **{k: x.requires_grad_() for k, x in splats([0, 0, 9])[torch.tensor(kept, dtype=torch.long)].tensors().items()}
    )
    views, trace = render_splats(some, FRONT, backend=backend)
    assert not views.rgba.any()
    assert trace.radii.shape == (1, len(kept))
    (views.rgba.sum() + views.depth.sum()).backward()
    assert some.means.grad is not None
    assert not some.means.grad.any()


def test_bytes_do_not_depend_on_the_number_of_threads():
    inputs = scene(0, 400, "plain", 4)
    cameras = Orbit(views=3, size=50).cameras()
    settings = Settings(50, 50, sh_degree=1, depth=True, normals=True, absgrad=True)
    cotangent = torch.randn(3, 50, 50, 8, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            seen = run(_gaussians_numba, inputs, cameras, settings, cotangent)
            results.append([seen.pixels, *seen.grads, seen.projected.means2d.absgrad])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_thousands_on_one_pixel_stop_at_the_least_transmittance():
    n = 3000
    many = splats(torch.zeros(n, 3).tolist(), scale=0.02, opacity=0.3)
    ours, theirs = (render_splats(many, FRONT, backend=backend)[0] for backend in ("numba", "torch"))
    torch.testing.assert_close(ours.rgba, theirs.rgba, atol=2e-3, rtol=0)
    assert 1 - ours.alpha[0, 0, 16, 16, 0] == pytest.approx(0.7 ** math.floor(math.log(MIN_TRANSMITTANCE, 0.7)), abs=1e-6)


def test_what_is_not_asked_for_is_none():
    views, _ = render_splats(splats([0, 0, 0]), FRONT, depth=False, normals=False)
    assert views.depth is None
    assert views.normals is None


def test_several_scenes_are_refused():
    with pytest.raises(ValueError, match="one by one"):
        render_splats(splats([0, 0, 0]), look_at_origin(torch.zeros(2, 1), torch.zeros(2, 1)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing need be missing where there is a GPU")
def test_gsplat_says_what_is_missing():
    with pytest.raises(RuntimeError, match="backend='numba'"):
        render_splats(splats([0, 0, 0]), FRONT, backend="gsplat")


def test_the_screen_gradient_is_kept_for_densification():
    one = splats([0, 0.3, 0])
    one = replace(one, means=one.means.requires_grad_())
    views, trace = render_splats(one, FRONT)
    trace.means2d.retain_grad()
    (views.rgb[..., :16, :].sum() - views.rgb[..., 17:, :].sum()).backward()
    assert trace.means2d.grad is not None
    assert trace.means2d.grad[0, 0, 0].abs() > 10 * trace.means2d.grad[0, 0, 1].abs()


def test_rotation_of_the_world_changes_nothing():
    turn = rotation_from_quat(torch.tensor([0.7, 0.1, -0.4, 0.3]))
    inputs = [x.float() for x in scene(8, 40, "plain", 1)]
    cameras = Orbit(views=2, size=32).cameras()
    view, K, settings = cameras.cam_from_world[0], cameras.intrinsics[0], Settings(32, 32, sh_degree=0)
    plain = _gaussians_numba.rasterize(*inputs, view, K, settings)
    w, q = torch.tensor([0.7, 0.1, -0.4, 0.3]) / torch.tensor([0.7, 0.1, -0.4, 0.3]).norm(), inputs[1]
    real = w[0] * q[:, :1] - (w[1:] * q[:, 1:]).sum(1, keepdim=True)
    imaginary = w[0] * q[:, 1:] + q[:, :1] * w[1:] + torch.linalg.cross(w[1:].expand_as(q[:, 1:]), q[:, 1:])
    back = torch.eye(4)
    back[:3, :3] = turn.T
    turned = [inputs[0] @ turn.T, torch.cat([real, imaginary], 1), *inputs[2:]]
    other = _gaussians_numba.rasterize(*turned, view @ back, K, settings)
    assert ((plain.image - other.image).abs() > 1e-3).float().mean() < 0.002
