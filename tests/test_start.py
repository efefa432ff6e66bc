from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from fake_prior import RED, Fake, GaussianViews, blob, situation, tiny_recipe
from PIL import Image

from rl3d.export.meshes.files import write_mesh
from rl3d.export.splats.files import splat_bytes
from rl3d.export.splats.ply import write_ply
from rl3d.math import rgb_from_sh, rotation_from_quat
from rl3d.recipe import BestOf, starting_from
from rl3d.representations.densify import Prune
from rl3d.representations.gaussians import Gaussians
from rl3d.representations.nerf import Nerf
from rl3d.rewards.clip import Clip
from rl3d.search import begin, optimize
from rl3d.start import Ball, Draw, FromFile
from rl3d.terms.distillation import Distill
from rl3d.terms.match import Match
from rl3d.terms.noise_search import SearchNoise


def build(path, **settings):
    return FromFile(str(path), **settings).build(situation())


def test_splats_of_ours_come_back_as_they_were(tmp_path):
    splats = blob(50).splats()
    splats = replace(splats, means=splats.means * 1.8)
    write_ply(tmp_path / "a.ply", splats)
    found = build(tmp_path / "a.ply")
    for name, x in splats.tensors().items():
        torch.testing.assert_close(found.tensors()[name], x)


def test_splats_of_others_are_fitted_turned_and_thinned_by_what_they_show(tmp_path):
    splats = blob(50).splats()
    stretched = replace(splats, means=5 * splats.means + 3, log_scales=splats.log_scales + torch.tensor([1.0, 0, -1]))
    stretched.opacity_logits[10:] = -4.0
    write_ply(tmp_path / "a.ply", stretched)
    found = build(tmp_path / "a.ply", limit=10, up="y")
    assert len(found) == 10
    assert (found.opacity_logits > -4).all()
    assert found.means.norm(dim=1).max() <= 0.9 + 1e-5
    whole = build(tmp_path / "a.ply", up="y")
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(
        rotation_from_quat(whole.quats), turn @ rotation_from_quat(stretched.quats), atol=1e-5, rtol=1e-5
    )
    axis = torch.nn.functional.normalize(whole.means[1] - whole.means[0], dim=0)
    torch.testing.assert_close(axis, turn @ torch.nn.functional.normalize(stretched.means[1] - stretched.means[0], dim=0))


def painted_box():
    """Red at the top, blue at the bottom; z is up, and it is longest along the front."""
    mesh = trimesh.creation.box((1.2, 0.6, 0.8)).subdivide()
    colours = np.where(mesh.vertices[:, 2:] > 0, [[200, 20, 20, 255]], [[20, 20, 200, 255]]).astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
    return mesh


def test_a_mesh_of_ours_stands_as_it_did_in_its_colours(tmp_path):
    write_mesh(tmp_path / "a.glb", painted_box())
    found = build(tmp_path / "a.glb", limit=2000)
    half = torch.tensor([0.6, 0.3, 0.4])
    torch.testing.assert_close(found.means.abs().amax(0), half, atol=0.02, rtol=0)
    on = (found.means.abs() - half).abs().min(1).values
    assert on.max() < 1e-5, "all lie on the surface"
    rgb = rgb_from_sh(found.sh[:, 0])
    top = found.means[:, 2] > 0.39
    torch.testing.assert_close(rgb[top].mean(0), torch.tensor([200, 20, 20]) / 255, atol=0.03, rtol=0)
    share = top.float().mean() / (1.2 * 0.6 / (2 * (1.2 * 0.6 + 1.2 * 0.8 + 0.6 * 0.8)))
    assert share.item() == pytest.approx(1, abs=0.15)


def test_textures_and_plain_materials_are_read(tmp_path):
    box = trimesh.creation.box()
    picture = Image.fromarray(np.full((4, 4, 3), (10, 180, 90), np.uint8))
    uv = np.full((len(box.vertices), 2), 0.5)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    box.export(tmp_path / "a.glb")
    rgb = rgb_from_sh(build(tmp_path / "a.glb", limit=50).sh[:, 0])
    torch.testing.assert_close(rgb, (torch.tensor([10, 180, 90]) / 255).expand(50, 3), atol=0.02, rtol=0)
    (tmp_path / "plain.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    found = build(tmp_path / "plain.obj", limit=50)
    assert found.means[:, 0].abs().max() < 1e-4, "y was up and z the front, so that x is the front now"
    assert rgb_from_sh(found.sh).std() < 0.01


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xyz", b"", "a file of Gaussians or a mesh"),
        ("nowhere.glb", None, "there is no asset"),
        ("a.glb", b"rubbish", "cannot read"),
        ("a.obj", b"v 0 0 0\n", "no surface|cannot read"),
        ("a.ply", b"rubbish", "PLY"),
    ],
)
def test_mistakes_are_named(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        build(tmp_path / name)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"candidates": 3, "guidance": 1.0},
        {"candidates": 4, "chosen_after": 3, "guided": 0.5},
        {"guided": 0.0},
        {"climb": 0.2},
    ],
)
def test_a_draw_asks_the_prior_as_often_as_it_says(settings):
    prior, rng = GaussianViews(), torch.Generator().manual_seed(0)
    draw = Draw(elevations_deg=(0.0, 30.0), steps=5, **settings)
    one, two = draw.draw_sets(RED, prior, rng, torch.device("cpu"), 2)
    assert one.rgb.shape == two.rgb.shape == (1, 8, 16, 16, 3)
    assert not torch.equal(one.rgb, two.rgb)
    assert prior.asked / 2 == draw.passes / 2  # half of a pass's views are on each of two rings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"candidates": 0}, "at least 1"),
        ({"chosen_after": 0}, "at least 1"),
        ({"guided": 1.5}, "from 0 to 1, got 1.5"),
        ({"climb": -0.1}, "0 or more"),
        ({"climbed": (0.5, 0.2)}, r"in \(0.5, 0.2\)"),
    ],
)
def test_draws_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Draw(**settings)


def test_a_draw_climbs_what_its_chooser_thinks_of_it():
    def liked(**settings):
        rng = torch.Generator().manual_seed(0)
        views = Draw(steps=5, **settings).draw(RED, GaussianViews(), rng, torch.device("cpu"))
        return Clip().build().score(views, [RED]).value.item()

    assert liked(climb=0.3) > liked() + 0.02
    with pytest.raises(ValueError, match="the judge is only ever reported"):
        liked(climb=0.3, chooser=Clip("judge"))


def test_a_recipe_that_starts_from_an_asset_keeps_it_in_sight(tmp_path):
    write_ply(tmp_path / "a.ply", blob(60).splats())
    terms = {"match": Match(), "distill": Distill(), "search": SearchNoise(t_min=0.05, t_end=0.3)}
    scene = Gaussians(strategy=Prune(start=1, islands=0.4))
    plain = tiny_recipe(prior=Fake(), draw=Draw(), terms=terms, weights={"match": 2.0}, steps=3, scene=scene)
    r = starting_from(plain, str(tmp_path / "a.ply"))
    assert r.draw is None
    assert r.scene == Gaussians(strategy=Prune(start=1)), "what an asset has is meant"
    assert r.terms.keys() == {"distill", "search"}
    assert r.weights == {}
    assert (r.terms["distill"].t_max, r.terms["search"].t_end) == (0.6, 0.3)
    o = begin(r, RED)
    assert len(o.scene) == 60
    for _ in optimize(o):
        pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"terms": {"match": Match()}}, "only matches"),
        ({"terms": {"d": Distill()}, "scene": Nerf()}, "fog"),
        ({"terms": {"d": Distill()}, "draw": Draw(), "search": BestOf()}, "a search compares"),
    ],
)
def test_recipes_that_cannot_start_from_an_asset_say_so(changes, says):
    with pytest.raises(ValueError, match=says):
        starting_from(replace(tiny_recipe(start=Ball()), **changes), "a.ply")


@pytest.mark.parametrize("kind", ["ply", "compressed.ply", "splat", "spz", "glb"])
def test_splats_of_every_kind_of_file_stand_as_they_did(tmp_path, kind):
    splats = blob(50).splats()
    splats = replace(splats, means=splats.means * 1.8)
    (tmp_path / f"a.{kind}").write_bytes(splat_bytes(splats, kind))
    start = FromFile(str(tmp_path / f"a.{kind}"))
    assert start.is_splats
    found = build(tmp_path / f"a.{kind}").means
    torch.testing.assert_close(torch.cdist(splats.means, found).amin(1), torch.zeros(50), atol=2e-3, rtol=0)
    # The axis that is up in the file is what it says, if it is said; and SPZ and glTF say y by themselves.
    other = build(tmp_path / f"a.{kind}", up="z" if kind in ("spz", "glb") else "y").means
    turned = splats.means[:, [1, 2, 0]] if kind in ("spz", "glb") else splats.means[:, [2, 0, 1]]
    torch.testing.assert_close(torch.cdist(turned, other).amin(1), torch.zeros(50), atol=2e-3, rtol=0)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    (tmp_path / "a.spz").write_bytes(b"PK\3\4 a zip")
    with pytest.raises(ValueError, match=r"a\.spz holds no Gaussian splats"):
        build(tmp_path / "a.spz")
