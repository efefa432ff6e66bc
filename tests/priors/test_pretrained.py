"""Published priors from folders: what does not depend on the family. The rest is in family_checks.py, for each."""

import json
import math
from dataclasses import replace

import pytest
import torch
from family_checks import PROMPTS, noise
from safetensors.torch import save_file
from tiny_families import write_flux, write_if
from tiny_pipelines import scheduler, write_sd

from rl3d.cameras import Orbit, look_at_origin
from rl3d.math import Level
from rl3d.priors.pretrained import Pretrained, loading
from rl3d.protocols import Situation
from rl3d.recipe import comparison, load_recipe, recipe_file, shortage, thriftier
from rl3d.start import Hull
from rl3d.types import Prompt, Views


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, write in {"sd": write_sd, "if": write_if, "flux": write_flux}.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp(name)
        write(found[name])
    return found


def value(folders, name, **changes):
    return Pretrained(str(folders[name]), pixels=16, **changes)


def test_views_are_laid_over_the_background(folders):
    prior = value(folders, "sd", background=0.3).build()
    cameras = Orbit(1).cameras()
    empty = Views(torch.zeros(1, 1, 16, 16, 3), torch.zeros(1, 1, 16, 16, 1), None, None, cameras)
    gray = Views(torch.full((1, 1, 16, 16, 3), 0.3), torch.ones(1, 1, 16, 16, 1), None, None, cameras)
    torch.testing.assert_close(prior.encode(empty), prior.encode(gray))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_predictions_are_those_of_the_scheduler(tmp_path, prediction):
    """At a trained step, the clean latents are what diffusers' own scheduler makes of the network's answer."""
    torch.manual_seed(0)
    write_sd(tmp_path, prediction)
    prior = Pretrained(str(tmp_path), sides=False).build()
    ddim, step = scheduler(prediction), 400
    kept = float(ddim.alphas_cumprod[step])
    condition, x = prior.embed([Prompt("a red mug")], Orbit(1).cameras()), noise(prior, 1, 1)
    clean = prior.predict(x, Level(math.sqrt(kept), math.sqrt(1 - kept)), condition)
    said = prior.net(x[:, 0], step, encoder_hidden_states=condition.wanted.text[:, 0]).sample
    ddim.set_timesteps(1000)
    torch.testing.assert_close(clean[:, 0], ddim.step(said, step, x[:, 0]).pred_original_sample, rtol=1e-3, atol=1e-3)


def test_priors_without_cameras_read_sides_in_words(folders):
    prior = value(folders, "sd").build()
    cameras = look_at_origin(torch.tensor([[0.0, 180.0]]), torch.tensor([[10.0, 10.0]]))
    told = prior.embed([Prompt("a mug")], cameras).wanted.text[0]
    plain = value(folders, "sd", sides=False).build()
    for row, text in zip(told, ("a mug, front view", "a mug, back view"), strict=True):
        torch.testing.assert_close(row, plain.embed([Prompt(text)], Orbit(1).cameras()).wanted.text[0, 0])


def test_no_hull_is_carved_from_opaque_views(folders):
    prior = value(folders, "sd").build()
    drawn = prior.decode(noise(prior, 1), Orbit(4).cameras())
    with pytest.raises(ValueError, match="opaque"):
        Hull().build(Situation(PROMPTS[0], prior, drawn, torch.Generator(), torch.device("cpu")))


def test_folders_that_hold_no_known_prior_are_refused(tmp_path, folders):
    with pytest.raises(ValueError, match="missing"):
        Pretrained(str(tmp_path / "nowhere")).check(PROMPTS[0])
    with pytest.raises(ValueError, match=r"model_index\.json"):
        Pretrained(str(folders["sd"] / "unet")).check(PROMPTS[0])
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(ValueError, match="SanaPipeline"):
        Pretrained(str(tmp_path)).check(PROMPTS[0])
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="cannot load"):
        Pretrained(str(tmp_path)).build()
    index.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Pretrained(str(tmp_path)).check(PROMPTS[0])


def test_pictures_and_sizes_that_do_not_fit_are_refused(folders):
    with pytest.raises(ValueError, match="reads no picture"):
        value(folders, "sd").check(Prompt("a mug", image="mug.png"))
    with pytest.raises(ValueError, match="reads no picture"):
        value(folders, "sd").build().embed([Prompt("a mug", image="mug.png")], Orbit(1).cameras())
    for name, pixels, needed in (("sd", 18, 4), ("flux", 18, 4), ("if", 15, 2)):
        with pytest.raises(ValueError, match=f"multiple of {needed} pixels, got {pixels}"):
            Pretrained(str(folders[name]), pixels=pixels).build()
    assert Pretrained(str(folders["if"]), pixels=24).build().info.size == 24


def test_prompts_are_read_once_and_again_when_what_is_kept_is_damaged(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = value(folders, "sd", low_memory=True, sides=False)
    cameras = Orbit(2).cameras()
    first = asked.build().embed(PROMPTS, cameras).wanted.text
    kept = sorted((tmp_path / "rl3d" / "prompts").iterdir())
    assert len(kept) == 4, "two prompts, nothing, and a negative one"
    again = asked.build()
    with monkeypatch.context() as within:
        within.setattr("rl3d.priors.loading.index_of", lambda *_: pytest.fail("an encoder was loaded again"))
        torch.testing.assert_close(again.embed(PROMPTS, cameras).wanted.text, first)
    for path in kept:
        path.write_bytes(path.read_bytes()[:20])
    torch.testing.assert_close(asked.build().embed(PROMPTS, cameras).wanted.text, first)


def test_what_tokenizers_lack_is_named(folders):
    def lacking():
        raise ValueError("`tiktoken` is required to read a `tiktoken` file")

    with pytest.raises(ValueError, match=r"rl3d\[t5\]"):
        loading(folders["if"], lacking)


def test_too_little_memory_is_said_beforehand_with_what_would_do(folders):
    recipe = replace(load_recipe(recipe_file("mvdream_large")), prior=value(folders, "sd"))
    assert shortage(recipe, 100.0) is None
    said = shortage(recipe, 1e-6)
    assert said is not None
    assert "--prior.low-memory needs" in said
    assert "low-memory" not in (shortage(thriftier(recipe), 1e-6) or "")
    assert "memory: about" in comparison(recipe)
    elsewhere = replace(recipe, prior=Pretrained("sdxl"))
    assert shortage(elsewhere, 1e-6) is None
    assert "memory: computed once" in comparison(elsewhere)
