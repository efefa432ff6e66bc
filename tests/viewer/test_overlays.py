"""Gradients, depth and normals as pictures."""

import torch
from rl3d.viewer import overlays
from rl3d.viewer.cameras import as_pose, first_position, fov_y, of_pose
from rl3d.viewer.compare import layout
from rl3d.viewer.subjects import colours, covariances

from rl3d.cameras import look_at_origin
from rl3d.math import SH_C0
from rl3d.types import Splats, Views

CAMERAS = look_at_origin(torch.tensor([[0.0, 90.0]]), torch.tensor([[10.0, 60.0]]), width=8, height=8)


def views(rgb=0.0, alpha=1.0):
    image = torch.zeros(1, 2, 8, 8, 1)
    return Views((image + rgb).expand(1, 2, 8, 8, 3), image + alpha, image + 2.0, (image + 1).expand(1, 2, 8, 8, 3), CAMERAS)


def test_ramps_pass_through_their_colours():
    anchors = torch.tensor(overlays.SIGNED) / 255
    assert torch.allclose(overlays.ramp(torch.linspace(0, 1, 5), overlays.SIGNED), anchors)
    assert torch.allclose(overlays.ramp(torch.tensor([-9.0, 9.0]), overlays.SIGNED), anchors[[0, -1]])


def test_signs_follow_a_descent():
    gradient = views(rgb=0.0, alpha=0.0)
    gradient.rgb.data = gradient.rgb.clone()
    gradient.rgb[0, 0, :4] = -1.0  # a descent makes these brighter
    gradient.rgb[0, 0, 4:] = 1.0
    wish = overlays.brighter(gradient)
    picture = overlays.signed(views(0.5), wish, overlays.limit_of(wish))
    assert (picture[0, 0, :4, :, 0] > picture[0, 0, :4, :, 2]).all()  # red
    assert (picture[0, 0, 4:, :, 2] > picture[0, 0, 4:, :, 0]).all()  # blue
    grey = picture[0, 1]
    assert torch.allclose(grey, grey.mean(-1, keepdim=True).expand_as(grey))


def test_strength_is_the_norm_and_zero_pulls_nothing():
    gradient = views(rgb=0.3, alpha=0.1)
    assert torch.allclose(overlays.sizes(gradient), torch.full((1, 2, 8, 8), (3 * 0.3**2 + 0.1**2) ** 0.5))
    assert overlays.limit_of(torch.zeros(3, 3)) == 0.0
    nothing = overlays.strength(views(0.5), views(0.0, 0.0), 0.0)
    assert torch.allclose(nothing, nothing.mean(-1, keepdim=True).expand_as(nothing))


def test_empty_pixels_are_white_in_depth_and_normals():
    for picture in (overlays.depth_picture(views(alpha=0.0)), overlays.normal_picture(views(alpha=0.0))):
        assert (picture == 1).all()


def test_cameras_survive_the_way_to_viser_and_back():
    back = of_pose(*as_pose(CAMERAS, 1), fov_y(CAMERAS, 1), 8, 8)
    assert torch.allclose(back.cam_from_world[0, 0], CAMERAS.cam_from_world[0, 1], atol=1e-5)
    assert torch.allclose(back.intrinsics[0, 0], CAMERAS.intrinsics[0, 1], atol=1e-4)


def test_a_narrow_canvas_is_seen_from_further_away():
    near, far = (torch.tensor(first_position(aspect)).norm() for aspect in (2.0, 0.5))
    assert torch.allclose(near, torch.tensor(3.0), atol=1e-4)
    assert torch.allclose(far, torch.tensor(6.0), atol=1e-4)


def test_tiles_are_as_large_as_can_be():
    assert layout(2, 2.0) == (2, 1)
    assert layout(2, 0.5) == (1, 2)
    assert layout(4, 1.0) == (2, 2)
    assert layout(1, 3.0) == (1, 1)


def test_the_browser_gets_the_same_gaussians():
    scales = torch.tensor([[0.1, 0.2, 0.3]])
    turn = torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]])  # a quarter around z: x becomes y
    splats = Splats(torch.zeros(1, 3), scales.log(), turn, torch.zeros(1), torch.full((1, 1, 3), 0.25 / SH_C0))
    assert torch.allclose(torch.from_numpy(covariances(splats))[0].diag(), torch.tensor([0.04, 0.01, 0.09]), atol=1e-6)
    assert torch.allclose(torch.from_numpy(colours(splats)), torch.full((1, 3), 0.75))
