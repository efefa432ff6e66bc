from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from trimesh.creation import box, icosphere
from world import mesh_shown, splat_shown, splats_of

from rl3d.protocols import Shown
from rl3d.rewards.base import MeshScene, SplatScene
from rl3d.rewards.shape import Closed, Decided, Pieces, Printable, Symmetric, Thick, Undercut, Whole
from rl3d.types import Prompt, Splats

P = [Prompt("a")]


def value(reward, what):
    score = reward.score(what, P)
    assert score.valid[0]
    return float(score.value[0])


def moved(mesh, *offset):
    other = mesh.copy()
    other.apply_translation(offset)
    return other


def joined(*splats):
    return Splats(*(torch.cat(parts) for parts in zip(*(s.tensors().values() for s in splats), strict=True)))


def test_floaters_are_what_hangs_alone():
    body = splats_of(icosphere(radius=0.4), 600)
    assert value(Whole(), splat_shown(body)) == 1.0
    far = splats_of(icosphere(radius=0.02), 12)
    floater = replace(far, means=far.means + torch.tensor([0.8, 0.0, 0.0]))
    assert value(Whole(), splat_shown(joined(body, floater))) == pytest.approx(600 / 612, abs=1e-4)
    two = replace(body, means=body.means + torch.tensor([2.0, 0.0, 0.0]))
    assert value(Whole(), splat_shown(joined(body, two))) == 1.0, "two things are not debris"
    faint = replace(floater, opacity_logits=torch.full_like(floater.opacity_logits, -6.0))
    assert value(Whole(), splat_shown(joined(body, faint))) == 1.0


def test_opacities_in_between_are_undecided():
    body = splats_of(icosphere(radius=0.4), 50)

    def with_logit(x):
        return splat_shown(replace(body, opacity_logits=torch.full((50,), x)))

    assert value(Decided(), with_logit(0.0)) == pytest.approx(-1.0)
    assert value(Decided(), with_logit(9.0)) == pytest.approx(value(Decided(), with_logit(-9.0)), abs=1e-5)
    assert value(Decided(), with_logit(9.0)) > -0.01


def test_thin_parts_are_not_thick():
    block, sheet = box((1.0, 1.0, 1.0)), box((1.0, 1.0, 0.06))
    assert value(Thick(0.12), mesh_shown(block)) > 0.95
    assert value(Thick(0.12), mesh_shown(sheet)) == 0.0
    both = trimesh.util.concatenate([block, moved(box((0.06, 0.06, 0.8)), 0, 0, 0.9)])
    assert 0.9 < value(Thick(0.12), mesh_shown(both)) < 1.0


def test_the_mirror_is_upright_along_the_front():
    ball = icosphere(radius=0.4)
    assert value(Symmetric(), mesh_shown(ball)) > 0.95
    front = trimesh.util.concatenate([ball, moved(icosphere(radius=0.2), 0.6, 0, 0)])
    side = trimesh.util.concatenate([ball, moved(icosphere(radius=0.2), 0, 0.6, 0)])
    assert value(Symmetric(), mesh_shown(front)) > 0.95
    assert value(Symmetric(), mesh_shown(side)) < 0.8


def test_holes_are_counted_by_their_edges():
    ball = icosphere(radius=0.4, subdivisions=2)
    assert value(Closed(), mesh_shown(ball)) == 1.0
    open_ball = trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False)
    assert value(Closed(), mesh_shown(open_ball)) == pytest.approx(1 - 3 / 480)


def test_pieces():
    two = trimesh.util.concatenate([icosphere(radius=0.3), moved(icosphere(radius=0.3), 1, 0, 0)])
    assert value(Pieces(), mesh_shown(two)) == 0.5
    assert value(Pieces(2), mesh_shown(two)) == 1.0
    crumb = trimesh.util.concatenate([icosphere(radius=0.3), moved(icosphere(radius=0.01), 1, 0, 0)])
    assert value(Pieces(), mesh_shown(crumb)) == 1.0


def test_overhangs_are_faces_that_look_down_off_the_ground():
    cube = box((1, 1, 1))
    assert value(Printable(), mesh_shown(cube)) == 1.0
    table = trimesh.util.concatenate([moved(box((2, 2, 0.2)), 0, 0, 1.1), box((0.4, 0.4, 2.0))])
    expected = 1 - 4 / table.area
    assert value(Printable(), mesh_shown(table)) == pytest.approx(expected)
    roof = trimesh.creation.cone(0.5, 1.0)
    assert value(Printable(), mesh_shown(roof)) == 1.0


def test_a_plinth_lowers_what_is_undercut():
    assert value(Undercut(), mesh_shown(box((1, 1, 1)))) == 0.0
    table = trimesh.util.concatenate([moved(box((2, 2, 0.2)), 0, 0, 1.1), box((0.4, 0.4, 2.0))])
    free = value(Undercut(), mesh_shown(table))
    assert free == pytest.approx(1 - 0.2**2, abs=0.02)
    plinth = trimesh.util.concatenate([table, moved(box((1.2, 1.2, 0.1)), 0, 0, -1)])
    assert value(Undercut(), mesh_shown(plinth)) == pytest.approx(1 - 0.6**2, abs=0.05)
    assert value(Undercut(), mesh_shown(icosphere(radius=0.4, subdivisions=4))) == pytest.approx(0.87, abs=0.03)


def test_what_cannot_be_measured_is_not_valid():
    what = mesh_shown(icosphere())
    nothing = Shown(what.views, (MeshScene(trimesh.Trimesh()),))
    for reward in (Thick(), Symmetric(), Closed(), Pieces(), Printable(), Undercut()):
        assert not reward.score(nothing, P).valid[0]
    invisible = splats_of(icosphere(), 5)
    invisible = replace(invisible, opacity_logits=torch.full((5,), -9.0))
    shown = Shown(what.views, (SplatScene(invisible),))
    assert not Whole().score(shown, P).valid[0]
    assert not Closed().score(shown, P).valid[0]


def test_a_mesh_has_no_gaussians_to_judge():
    with pytest.raises(ValueError, match="fit_splats"):
        Whole().score(mesh_shown(icosphere()), P)


def test_a_scene_of_gaussians_can_be_meshed():
    shown = splat_shown(splats_of(icosphere(radius=0.5), 2000, scale=0.03))
    assert value(Closed(), shown) == 1.0
    # As wide as its silhouettes are: half opaque at 0.564, two standard deviations beyond the centres.
    assert 0.55 < np.cbrt(shown.scenes[0].mesh().volume / (4 / 3 * np.pi)) < 0.58
