from pathlib import Path

import pytest
import torch
from gaussian_scenes import scene

from rl3d.cameras import Orbit
from rl3d.render import _gaussians_torch, rasterization
from rl3d.render._gaussians_torch import Settings

CAMERAS = Orbit(views=3, size=32).cameras()
VIEW, K = CAMERAS.cam_from_world[0], CAMERAS.intrinsics[0]


def gaussians(n: int = 30, seed: int = 0, k: int = 4, dtype=torch.float32) -> list[torch.Tensor]:
    return [x.to(dtype).requires_grad_() for x in scene(seed, n, "plain", k)]


def render(inputs, view=VIEW, intrinsics=K, **options):
    return rasterization(*inputs, view, intrinsics, 32, 32, **{"sh_degree": 1, **options})


def test_a_script_written_for_gsplat_runs_with_only_its_import_changed():
    path = Path(__file__).with_name("gsplat_script.py")
    text = path.read_text().replace("from gsplat import", "from rl3d.render import")
    names = {}
    exec(compile(text, str(path), "exec"), names)
    for name, (psnr, n) in names["results"].items():
        assert psnr > 25, (name, psnr)
        assert n != 200, name
        assert "mcmc" not in name or n == 230


def test_every_mode_shows_what_it_says():
    inputs = gaussians(dtype=torch.float64)
    raster = _gaussians_torch.rasterize(*inputs, VIEW.double(), K.double(), Settings(32, 32, sh_degree=1, depth=True))
    rgb, depth = raster.image.split([3, 1], -1)
    expected = depth / raster.alpha.clamp(min=1e-10)
    wanted = {
        "RGB": rgb,
        "D": depth,
        "ED": expected,
        "RGB+D": torch.cat([rgb, depth], -1),
        "RGB+ED": torch.cat([rgb, expected], -1),
    }
    for mode, image in wanted.items():
        for kind in (torch.float64, torch.float32):
            seen, alpha, _ = render([x.to(kind) for x in inputs], render_mode=mode)
            assert seen.dtype == kind
            assert ((seen - image).abs() > 1e-3 * image.abs().max()).float().mean() < 1e-3
            assert ((alpha - raster.alpha).abs() > 1e-3).float().mean() < 1e-3


def test_packed_and_unpacked_info_are_the_same_in_another_order():
    inputs = gaussians()
    inputs[0].data[:6] *= 8  # out of sight
    found = {}
    for packed in (True, False):
        image, _, info = render(inputs, packed=packed, absgrad=True)
        info["means2d"].retain_grad()
        (image[..., 0] * torch.linspace(0, 1, 32)).sum().backward()
        found[packed] = image.detach(), info
    (image, packed), (other, whole) = found[True], found[False]
    assert torch.equal(image, other)
    seen = (whole["radii"] > 0).all(-1)
    assert 0 < int(seen.sum()) < seen.numel()
    _, cameras, which = (packed[name] for name in ("batch_ids", "camera_ids", "gaussian_ids"))
    assert torch.equal(torch.stack([cameras, which], 1), seen.nonzero())
    for name in ("means2d", "radii", "depths", "conics", "opacities"):
        assert packed[name].shape[0] == int(seen.sum()), name
        assert torch.equal(packed[name], whole[name][seen]), name
    assert torch.equal(packed["means2d"].grad, whole["means2d"].grad[seen])
    assert torch.equal(packed["means2d"].absgrad, whole["means2d"].absgrad[seen])
    assert packed["means2d"].grad.abs().sum() > 0
    assert (packed["means2d"].absgrad >= packed["means2d"].grad.abs() - 1e-6).all()
    assert whole["means2d"].shape == (3, 30, 2)
    assert whole["gaussian_ids"] is None
    assert (packed["n_cameras"], packed["n_batches"], packed["tile_width"], packed["width"]) == (3, 1, 2, 32)


@pytest.mark.parametrize("packed", [True, False])
def test_leading_axes_are_scenes(packed):
    parts = [gaussians(seed=seed) for seed in range(4)]
    many = [torch.stack(x).view(2, 2, *x[0].shape) for x in zip(*parts, strict=True)]
    image, alpha, info = render(many, VIEW.expand(2, 2, 3, 4, 4), K.expand(2, 2, 3, 3, 3), packed=packed, absgrad=True)
    assert image.shape == (2, 2, 3, 32, 32, 3)
    assert alpha.shape == (2, 2, 3, 32, 32, 1)
    info["means2d"].retain_grad()
    image.square().sum().backward()
    for i, part in enumerate(parts):
        alone, _, own = render(part, packed=False, absgrad=True)
        assert torch.equal(image[i // 2, i % 2], alone)
        own["means2d"].retain_grad()
        grads = [x.grad.clone() for x in part]
        for x in part:
            x.grad = None
        alone.square().sum().backward()
        assert all(torch.allclose(a, x.grad) for a, x in zip(grads, part, strict=True))
        for name in ("grad", "absgrad"):
            wanted = getattr(own["means2d"], name)
            if packed:
                mine = info["batch_ids"] == i
                wanted = wanted[info["camera_ids"][mine], info["gaussian_ids"][mine]]
                assert torch.allclose(getattr(info["means2d"], name)[mine], wanted)
            else:
                assert torch.allclose(getattr(info["means2d"], name)[i // 2, i % 2], wanted)


def test_colours_with_and_without_a_camera_axis():
    inputs = gaussians()
    values = torch.rand(30, 7)
    image, _, _ = render([*inputs[:4], values], sh_degree=None)
    assert image.shape == (3, 32, 32, 7)
    again, _, _ = render([*inputs[:4], values.expand(3, 30, 7)], sh_degree=None)
    assert torch.equal(image, again)
    own = torch.rand(3, 30, 7)
    different, _, _ = render([*inputs[:4], own], sh_degree=None)
    assert torch.equal(different[1], render([*inputs[:4], own[1]], sh_degree=None)[0][1])
    sh = inputs[4].expand(3, 30, 4, 3)
    assert torch.equal(render(inputs)[0], render([*inputs[:4], sh])[0])


def test_coefficients_beyond_the_degree_do_not_count():
    inputs = gaussians(k=16)
    image, _, _ = render(inputs)
    few, _, _ = render([*inputs[:4], inputs[4][:, :4]])
    assert torch.equal(image, few)
    (gradient,) = torch.autograd.grad(image.sum(), inputs[4])
    assert gradient[:, :4].abs().sum() > 0
    assert not gradient[:, 4:].any()


def test_a_background_shows_where_alpha_does_not_and_not_behind_depth():
    inputs, background = gaussians(), torch.rand(3, 3).requires_grad_()
    plain, alpha, _ = render(inputs, render_mode="RGB+D")
    over, _, _ = render(inputs, render_mode="RGB+D", backgrounds=background)
    torch.testing.assert_close(over[..., :3], plain[..., :3] + (1 - alpha) * background[:, None, None])
    assert torch.equal(over[..., 3], plain[..., 3])
    (gradient,) = torch.autograd.grad(over[..., :3].sum(), background)
    torch.testing.assert_close(gradient, (1 - alpha).sum((1, 2)).expand(3, 3).detach())


def test_an_orthographic_camera_shows_the_same_size_at_any_depth():
    means = torch.tensor([[0.0, 0.3, 0.1]]) + torch.tensor([[0.5], [-0.5]]) * VIEW[:1, 2, :3]
    quats, scales = torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4), torch.full((2, 3), 0.1)
    flat = torch.tensor([[[16.0, 0, 16], [0, 16, 16], [0, 0, 1]]])
    options = {"sh_degree": None, "camera_model": "ortho", "packed": False}
    _, _, info = render([means, quats, scales, torch.full((2,), 0.9), torch.ones(2, 3)], VIEW[:1], flat, **options)
    assert torch.equal(info["radii"][0, 0], info["radii"][0, 1])
    assert (info["depths"][0].diff().abs() > 0.5).all()
    torch.testing.assert_close(info["means2d"][0, 0], info["means2d"][0, 1], atol=1e-4, rtol=0)


def test_small_and_far_gaussians_can_be_skipped():
    inputs = gaussians()
    radii = render(inputs, packed=False)[2]["radii"]
    clip = float(radii.amax(-1).median())
    few = render(inputs, packed=False, radius_clip=clip)[2]["radii"]
    assert torch.equal(few > 0, (radii > 0) & (radii.amax(-1, keepdim=True) > clip))
    depths = render(inputs, packed=False)[2]["depths"]
    middle = float(depths[depths > 0].median().detach())
    seen = (render(inputs, packed=False, near_plane=middle)[2]["radii"] > 0).all(-1)
    assert torch.equal(seen, (radii > 0).all(-1) & (depths >= middle))
    seen = (render(inputs, packed=False, far_plane=middle)[2]["radii"] > 0).all(-1)
    assert torch.equal(seen, (radii > 0).all(-1) & (depths <= middle))


def test_poses_learn():
    view = VIEW.clone().requires_grad_()
    render(gaussians(), view)[0].square().sum().backward()
    assert view.grad.abs().sum() > 0


class Shutter:
    name = "ROLLING_TOP_TO_BOTTOM"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("camera_model", "fisheye"),
        ("camera_model", "ftheta"),
        ("render_mode", "RGBD"),
        ("rasterize_mode", "smooth"),
        ("sh_degree", 4),
        ("sparse_grad", True),
        ("distributed", True),
        ("with_ut", True),
        ("with_eval3d", True),
        ("covars", torch.eye(3).expand(30, 3, 3)),
        ("radial_coeffs", torch.zeros(3, 4)),
        ("tangential_coeffs", torch.zeros(3, 2)),
        ("thin_prism_coeffs", torch.zeros(3, 4)),
        ("ftheta_coeffs", object()),
        ("viewmats_rs", VIEW),
        ("rolling_shutter", Shutter()),
    ],
)
def test_what_is_not_supported_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        render(gaussians(k=25), **{name: value})


def test_a_global_shutter_is_every_shutter():
    class Global:
        name = "GLOBAL"

    render(gaussians(), rolling_shutter=Global())


def test_shapes_that_do_not_fit_are_named():
    inputs = gaussians()
    for i, name in ((1, "quats"), (2, "scales"), (3, "opacities")):
        wrong = [*inputs[:i], inputs[i][:-1], *inputs[i + 1 :]]
        with pytest.raises(ValueError, match=name):
            render(wrong)
    with pytest.raises(ValueError, match="Ks"):
        render(inputs, intrinsics=K[:2])
    with pytest.raises(ValueError, match="sh_degree is None"):
        render(inputs, sh_degree=None, view=VIEW[:2], intrinsics=K[:2])
    with pytest.raises(ValueError, match="k >= 9"):
        render(inputs, sh_degree=2)
    with pytest.raises(ValueError, match="backgrounds"):
        render(inputs, backgrounds=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="backend"):
        render(inputs, backend="cuda")


def test_no_gaussians_are_a_background():
    inputs = [x[:0] for x in gaussians()]
    for packed in (True, False):
        image, alpha, _ = render(inputs, backgrounds=torch.full((3, 3), 0.25), packed=packed)
        assert torch.equal(image, torch.full((3, 32, 32, 3), 0.25))
        assert not alpha.any()


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["RGB", "ED", "RGB+ED"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
def test_gsplat_gives_what_the_cpu_gives(mode, packed, rasterize_mode, camera_model):
    intrinsics = K.clone()
    if camera_model == "ortho":
        intrinsics[:, :2, :2] *= 0.3
    found = []
    for device in ("cpu", "cuda"):
        inputs = [x.detach().to(device).requires_grad_() for x in gaussians(200)]
        options = {"render_mode": mode, "packed": packed, "absgrad": True, "rasterize_mode": rasterize_mode}
        image, alpha, info = render(inputs, VIEW.to(device), intrinsics.to(device), camera_model=camera_model, **options)
        info["means2d"].retain_grad()
        weights = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(device)
        (image * weights).sum().backward()
        grads = [x.grad for x in inputs if x.grad is not None]
        found.append([x.detach().cpu() for x in (image, alpha, *grads, info["means2d"].grad, info["means2d"].absgrad)])
        found[-1].append(info["radii"].cpu())
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        assert ((one - other).abs() > 1e-3 * other.abs().max()).float().mean() < 2e-3
    for one, other in zip(found[0][2:-1], found[1][2:-1], strict=True):
        assert (one - other).norm() < 2e-2 * other.norm()
    assert torch.equal(found[0][-1] > 0, found[1][-1] > 0)
