"""A mesh that learns: it is what it was at first, comes back from its state, and gets better at sides that were not used."""

import numpy as np
import pytest
import torch
import trimesh
from globes import globe

from rl3d.cameras import Orbit, lattice_cameras
from rl3d.export.meshes.report import bake_gap
from rl3d.geometry.points import ball
from rl3d.protocols import Representation, Scene
from rl3d.render.textured import look_at_mesh
from rl3d.representations.mesh import Mesh, TexturedMesh
from rl3d.terms.regularise import Solid

CAMERAS = Orbit(views=3, elevation_deg=15.0, size=40).cameras()


def learn(scene, target, steps, size=40):
    """Match renders of a target from random sides, as recipes do."""
    optimizer = torch.optim.Adam(scene.param_groups(), betas=(0.9, 0.99), eps=1e-15)
    rng = torch.Generator().manual_seed(0)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.1 ** (step / steps)
        turn = float(torch.rand((), generator=rng)) * 360
        cameras = lattice_cameras(4, size, turn_deg=turn)
        optimizer.zero_grad()
        error = scene.render(cameras)[0].rgba - target(cameras).rgba
        error.square().sum().backward()
        optimizer.step()
        scene.refine(optimizer, None, step, rng)
    return scene


def test_it_is_what_protocols_ask_for():
    scene = Mesh().build(globe())
    assert isinstance(scene, Representation)
    assert isinstance(scene, Scene)
    assert len(scene) == 1280
    assert scene.render(CAMERAS)[1] is None


def test_at_first_it_looks_like_the_mesh_and_seams_are_welded():
    mesh = globe()
    scene = Mesh(samples=3).build(mesh)
    assert len(scene.rest) == 642 < len(mesh.vertices)
    with torch.no_grad():
        ours = scene.render(CAMERAS)[0]
    theirs = look_at_mesh(mesh)(CAMERAS)
    solid = ((ours.alpha > 0.999) & (theirs.alpha > 0.999))[..., 0]
    assert (ours.rgb - theirs.rgb)[solid].abs().mean() < 0.01
    assert (ours.alpha - theirs.alpha).abs().mean() < 3e-3


def test_as_trimesh_it_is_the_same_mesh():
    mesh = globe()
    back = Mesh().build(mesh).to_trimesh()
    assert len(back.faces) == len(mesh.faces)
    np.testing.assert_allclose(back.triangles, mesh.triangles, atol=1e-6)
    np.testing.assert_allclose(back.visual.uv[back.faces], np.asarray(mesh.visual.uv)[mesh.faces], atol=1e-6)
    pictures = (x.visual.material.baseColorTexture for x in (back, mesh))
    assert np.array_equal(*(np.asarray(picture) for picture in pictures))
    bare = Mesh().build(mesh).mesh()
    assert bare.is_watertight
    assert bare.volume > 0


def test_it_comes_back_from_its_state_to_the_bit():
    scene = Mesh().build(globe())
    learn(scene, look_at_mesh(globe(0.55)), 2, size=16)
    again = Mesh().restore({k: v.clone() for k, v in scene.state_dict().items()})
    one, two = (x.render(CAMERAS)[0] for x in (scene, again))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors(), two.tensors(), strict=True))


def test_it_gets_better_at_sides_that_were_not_used():
    truth = look_at_mesh(globe(0.62, 4, axes=(1.0, 0.85, 1.1)))
    unseen = lattice_cameras(8, 96, turn_deg=31.0)
    made = truth(unseen)
    scene = Mesh(rate_texture=0.04, rate_vertices=0.015).build(globe(0.57, seed=5))
    before = bake_gap(made, look_at_mesh(scene.to_trimesh())(unseen))
    learn(scene, truth, 60)
    after = bake_gap(made, look_at_mesh(scene.to_trimesh())(unseen))
    assert before["silhouette_iou"] < 0.9
    assert after["silhouette_iou"] > 0.97
    for background in ("white", "black"):
        assert after[f"psnr_{background}"] > before[f"psnr_{background}"] + 6
    found = scene.mesh()
    assert found.is_watertight
    np.testing.assert_allclose(found.extents, np.array([1.24, 1.054, 1.364]), rtol=0.07)


def test_a_rate_of_zero_keeps_what_it_is_of():
    mesh, truth = globe(), look_at_mesh(globe(0.5, seed=3))
    flat = learn(Mesh(rate_vertices=0.0).build(mesh), truth, 3, size=16)
    assert torch.equal(flat.vertices(), flat.rest)
    assert not torch.equal(flat.texture, Mesh().build(mesh).texture)
    shape = learn(Mesh(rate_texture=0.0).build(mesh), truth, 3, size=16)
    assert torch.equal(shape.texture, Mesh().build(mesh).texture)
    assert (shape.vertices() - shape.rest).norm(dim=1).max() > 1e-5


def test_texels_stay_colours():
    scene = Mesh(rate_texture=0.5).build(globe())
    learn(scene, look_at_mesh(globe(seed=2)), 3, size=16)
    assert scene.texture.min() >= 0
    assert scene.texture.max() <= 1


def test_its_gaussians_lie_on_it_in_its_colours():
    scene = Mesh().build(globe(0.5, 4))
    splats = scene.splats()
    assert (splats.means.norm(dim=1) - 0.5).abs().max() < 0.01
    again = scene.splats()
    assert all(torch.equal(x, again.tensors()[name]) for name, x in splats.tensors().items())


def test_large_textures_are_scaled_down():
    assert Mesh(texels=32).build(globe(size=64)).texture.shape == (32, 32, 3)
    assert Mesh(texels=64).build(globe(size=64)).texture.shape == (64, 64, 3)


def test_what_is_no_textured_mesh_is_refused():
    with pytest.raises(ValueError, match="starts from a mesh"):
        Mesh().build(ball(5, torch.Generator()))
    with pytest.raises(ValueError, match="no texture"):
        Mesh().build(trimesh.creation.box())
    with pytest.raises(ValueError, match="one is above 0"):
        Mesh(rate_texture=0, rate_vertices=0)
    with pytest.raises(ValueError, match="samples from 1 to 8"):
        Mesh(samples=0)


def test_terms_of_gaussians_refuse_it_by_name():
    from fake_prior import situation

    scene = Mesh().build(globe())
    assert isinstance(scene, TexturedMesh)
    with pytest.raises(ValueError, match="Solid looks at Gaussians, and the scene is a TexturedMesh"):
        Solid().build(situation(scene=scene))
