"""The method for nerfstudio, on a stand-in; tests/test_in_nerfstudio.py does it on the real one."""

import copy

import nerfstudio_stand_in
import pytest
import torch

from rl3d.cameras import Orbit, from_opengl, to_opengl
from rl3d.recipe import load_recipe
from rl3d.render.gaussians import render_splats
from rl3d.search import begin, optimize
from rl3d.types import Prompt, Splats

RECIPE = """
from dataclasses import replace
from fake_prior import tiny_recipe
from rl3d.representations.densify import Prune
from rl3d.representations.gaussians import Gaussians
from rl3d.start import Draw
from rl3d.terms.distillation import Distill

scene = Gaussians(strategy=Prune(start=2, every=2, min_opacity=0.3), sh_degree=1, antialiased=True)
recipe = tiny_recipe(terms={"distill": Distill()}, draw=Draw(views=2, steps=2), scene=scene, steps=8)
"""


@pytest.fixture
def method(monkeypatch):
    return nerfstudio_stand_in.ours(monkeypatch)


@pytest.fixture
def trainer(method, tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE)

    def make(prompt="red", **changes):
        config = copy.deepcopy(method.splats.config)
        config.pipeline.model.prompt = config.prompt = prompt
        config.pipeline.recipe = str(tmp_path / "recipe.py")
        for name, value in changes.items():
            setattr(config, name, value)
        return config._target(config)

    return make


def test_it_does_the_recipes_steps_unless_told_otherwise(trainer, tmp_path):
    assert len(trainer().train(tmp_path / "a")) == 8
    few = trainer(max_num_iterations=3)
    assert few.pipeline.run.recipe.steps == 3
    assert len(few.train(tmp_path / "b")) == 3
    assert few.pipeline.run.step == 3


def test_it_is_the_run_that_rl3d_does_itself(trainer, tmp_path):
    made = trainer()
    made.train(tmp_path / "made")
    o = begin(load_recipe(tmp_path / "recipe.py"), Prompt("red"))
    for _ in optimize(o):
        pass
    for name, x in o.scene.splats().tensors().items():
        assert torch.equal(x, made.pipeline.model.splats().tensors()[name])


def test_what_is_written_for_tensorboard_is_what_guards_say_and_pictures(trainer, tmp_path):
    (tmp_path / "recipe.py").write_text(
        RECIPE + "from rl3d.rewards.guards import Area\nrecipe = replace(recipe, guards={'area': Area()})"
    )
    pipeline = trainer(max_num_iterations=1).pipeline
    said, pictures = pipeline.get_eval_image_metrics_and_images(0)
    assert 0 < said.pop("guards/area") < 1
    assert said == {"num_rays": float(pictures["views"][..., 0].numel())}
    assert 0 <= pictures["views"].min() < pictures["views"].max() <= 1
    assert pipeline.get_average_eval_image_metrics().keys() == {"guards/area"}


def test_a_run_that_goes_on_from_a_checkpoint_is_the_run_that_did_not_stop(trainer, tmp_path):
    whole, first = trainer(), trainer()
    losses = whole.train(tmp_path / "whole")
    begun = first.train(tmp_path / "half", stop_after=5)
    later = trainer(load_checkpoint=tmp_path / "half")
    assert (later._start_step, later.config.max_num_iterations) == (5, 3)
    assert begun + later.train(tmp_path / "rest") == losses
    assert len(later.pipeline.model.means) < 80  # pruning goes on, too
    for name, x in whole.pipeline.model.splats().tensors().items():
        assert torch.equal(x, later.pipeline.model.splats().tensors()[name])


def test_what_is_loaded_to_be_looked_at_is_what_was_saved(method, trainer, tmp_path):
    made = trainer()
    made.train(tmp_path / "state")
    state = torch.load(tmp_path / "state")
    config = copy.deepcopy(made.config.pipeline)
    pipeline = config._target(config, "cpu", "inference")
    pipeline.load_pipeline(state["pipeline"], state["step"])
    assert pipeline.run is None
    model, scene = pipeline.model, made.pipeline.run.scene.splats()
    for name, x in scene.tensors().items():
        assert torch.equal(x, model.splats().tensors()[name])
    # What `ns-export gaussian-splat` reads beside these.
    assert model.config.sh_degree == 1
    assert torch.equal(model.shs_0, scene.sh[:, 0])
    assert torch.equal(model.gauss_params["opacities"], scene.opacity_logits[:, None])
    assert model.render_settings == {"eps2d": 0.3, "antialiased": True}
    drawn = made.pipeline.run.drawn
    assert torch.equal(pipeline.datamanager.train_dataset[1]["image"], drawn.over(1.0)[0, 1].clamp(0, 1))
    # It can be saved once more without losing the run.
    again = pipeline.get_extra_state()
    assert again["tensors"].keys() == state["pipeline"]["_extra_state"]["tensors"].keys()


def test_a_camera_of_nerfstudio_sees_what_ours_sees(trainer):
    model = trainer(max_num_iterations=1).pipeline.model
    ours = Orbit(views=3, elevation_deg=30.0).cameras().resized(40, 24)
    k = ours.intrinsics[0]
    theirs = nerfstudio_stand_in.Cameras(to_opengl(ours)[0, :, :3], k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2], 40, 24)
    model.background_color = torch.tensor([0.1, 0.5, 0.9])
    views = render_splats(model.splats(), ours, antialiased=True)[0]
    for i in range(3):
        seen = model.get_outputs_for_camera(theirs[i])
        torch.testing.assert_close(seen["rgb"], views.over(model.background_color)[0, i].clamp(0, 1), atol=1e-4, rtol=0)
        torch.testing.assert_close(seen["accumulation"], views.alpha[0, i], atol=1e-4, rtol=0)
        solid = views.alpha[0, i] > 0.5
        assert solid.sum() > 20
        torch.testing.assert_close(seen["depth"][solid], views.depth[0, i][solid], atol=1e-3, rtol=0)


def test_cameras_in_the_viewer_are_those_of_the_drawn_views(trainer):
    run = trainer(max_num_iterations=1).pipeline
    theirs = run.datamanager.train_dataset.cameras
    back = from_opengl(theirs.camera_to_worlds, theirs.get_intrinsics_matrices(), 16, 16)
    torch.testing.assert_close(back.cam_from_world, run.run.drawn.cameras.cam_from_world, atol=1e-5, rtol=0)
    assert len(run.datamanager.train_dataset) == 2


def test_a_crop_shows_what_lies_in_it_and_nothing_else(trainer):
    model = trainer(max_num_iterations=1).pipeline.model
    one = nerfstudio_stand_in.Cameras(
        to_opengl(Orbit(views=1).cameras())[0, :, :3], *(torch.full((1,), x) for x in (80.0, 80.0, 32.0, 32.0)), 64, 64
    )

    class Box:
        def __init__(self, bound):
            self.bound = bound

        def within(self, means):
            return (means[:, 2] > self.bound)[:, None]

    whole = model.get_outputs_for_camera(one)["accumulation"]
    model.crop_box = Box(0.0)
    half = model.get_outputs_for_camera(one)["accumulation"]
    assert 0 < half.sum() < 0.8 * whole.sum()
    model.crop_box = Box(9.0)
    assert torch.equal(model.get_outputs_for_camera(one)["rgb"][0, 0], model.background_color)


def test_colours_of_degree_0_are_harmonics(method):
    model = method.SplatsModel(method.SplatsModelConfig())
    sh = torch.full((2, 1, 3), 1.5)
    model.show(Splats(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 4), torch.zeros(2), sh))
    assert model.config.sh_degree == 0
    torch.testing.assert_close(model.colors, torch.full((2, 3), 0.5 + 0.28209479177387814 * 1.5))


def test_mistakes_end_in_a_sentence(method, trainer, tmp_path):
    with pytest.raises(SystemExit, match="say what to make"):
        trainer(prompt="")
    done = trainer(max_num_iterations=2)
    done.train(tmp_path / "done")
    with pytest.raises(SystemExit, match="all 2 steps of this run are done"):
        trainer(load_checkpoint=tmp_path / "done")
    half = trainer()
    half.train(tmp_path / "half", stop_after=2)
    with pytest.raises(SystemExit, match="the checkpoint is of 'red'"):
        trainer(prompt="blue", load_checkpoint=tmp_path / "half")
    (tmp_path / "recipe.py").write_text(RECIPE.replace("sh_degree=1", "sh_degree=2"))
    with pytest.raises(SystemExit, match="not what it was for this checkpoint"):
        trainer(load_checkpoint=tmp_path / "half")
    (tmp_path / "recipe.py").write_text(
        "from rl3d.recipe import load_recipe, recipe_file\nrecipe = load_recipe(recipe_file('nerf'))"
    )
    with pytest.raises(SystemExit, match="makes a field"):
        trainer()
    with pytest.raises(SystemExit, match="reads no --data"):
        method.SidesManager(method.SidesManagerConfig(data=tmp_path))
    with pytest.raises(SystemExit, match="one process"):
        method.SplatsPipeline(method.SplatsPipelineConfig(), "cpu", world_size=2)
