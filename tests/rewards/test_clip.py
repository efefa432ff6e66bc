"""The dual encoder, on a tiny random model in open_clip's format."""

import json
from dataclasses import replace

import pytest
import torch

from rl3d.cameras import look_at_origin
from rl3d.protocols import Situation
from rl3d.rewards.clip import Clip
from rl3d.terms.ascent import Ascend
from rl3d.train import towers
from rl3d.types import Prompt, Views

WORDS = ("a", "blue", "on", "red", "mug", "cube")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = towers.config("encoder", WORDS)
    # A smooth network without batch statistics, so that finite differences are exact enough.
    config["model_cfg"]["vision_cfg"] = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    config["model_cfg"]["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    config["model_cfg"]["embed_dim"] = 8
    towers.write_blank(folder, config, WORDS)
    towers.write_weights(folder, towers.blank(folder, seed=0), "# A tiny model\n")
    return folder


@pytest.fixture(scope="module")
def reward(folder):
    return Clip(str(folder)).build()


def views(b=2, v=3, size=16, dtype=torch.float32):
    rng = torch.Generator().manual_seed(1)
    alpha = torch.rand(b, v, size, size, 1, generator=rng, dtype=dtype)
    rgb = alpha * torch.rand(b, v, size, size, 3, generator=rng, dtype=dtype)
    return Views(rgb, alpha, None, None, look_at_origin(torch.zeros(b, v), torch.zeros(b, v), width=size, height=size))


PROMPTS = [Prompt("a red mug"), Prompt("a blue cube on a red cube")]


def test_scores_are_mean_cosines(reward):
    score = reward.score(views(), PROMPTS)
    assert score.value.shape == (2,)
    assert score.per_view is not None
    assert score.per_view.shape == (2, 3)
    torch.testing.assert_close(score.value, score.per_view.mean(1))
    assert score.valid.all()
    assert score.value.abs().max() <= 1 + 1e-5


def test_scores_follow_the_order_of_samples_and_views(reward):
    shown, turned = views(), [2, 0, 1]
    score, other = reward.score(shown, PROMPTS), reward.score(shown.select(turned), PROMPTS)
    torch.testing.assert_close(other.per_view, score.per_view[:, turned])
    flipped = replace(shown, rgb=shown.rgb.flip(0), alpha=shown.alpha.flip(0))
    torch.testing.assert_close(reward.score(flipped, PROMPTS[::-1]).value, score.value.flip(0))


def test_what_is_not_finite_is_not_valid(reward):
    shown = views()
    shown.rgb[1, 0, 0, 0] = torch.nan
    assert reward.score(shown, PROMPTS).valid.tolist() == [True, False]


def test_every_sample_needs_a_prompt(reward):
    with pytest.raises(ValueError, match="one prompt to each"):
        reward.score(views(), PROMPTS[:1])


def test_gradients_agree_with_finite_differences(folder):
    reward = Clip(str(folder)).build().double()
    shown, step = views(1, 1, 20, torch.float64), 1e-5
    direction = torch.randn(shown.rgb.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    # The types of images are float32; in float64 the same functions are called below that seam.
    def value(rgb):
        pixels = (rgb + (1 - shown.alpha) * 0.5).flatten(0, 1).movedim(-1, 1)
        found = reward.model.encode_image(reward.prepare(pixels), normalize=True)
        return (found @ reward.model.encode_text(reward.tokenizer(["a red mug"]), normalize=True).T).sum()

    rgb = shown.rgb.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(rgb), rgb)
    with torch.no_grad():
        slope = (value(rgb + step * direction) - value(rgb - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-9)


def test_gradients_reach_the_pixels_but_not_the_weights(reward):
    shown = views()
    shown.rgb.requires_grad_()
    reward.score(shown, PROMPTS).value.sum().backward()
    assert shown.rgb.grad is not None
    assert shown.rgb.grad.abs().amax((2, 3, 4)).min() > 0
    assert all(p.grad is None for p in reward.parameters())


def test_backgrounds(reward):
    shown = views()
    gray = reward.embed_views(shown, 0.3)
    torch.testing.assert_close(reward.embed_views(shown, torch.tensor([0.3, 0.3, 0.3])), gray)
    assert (reward.embed_views(shown, 0.9) - gray).abs().max() > 1e-4

    def drawn(seed):
        return reward.embed_views(shown, torch.Generator().manual_seed(seed))

    torch.testing.assert_close(drawn(0), drawn(0), rtol=0, atol=0)
    assert (drawn(0) - drawn(1)).abs().max() > 1e-4
    opaque = replace(shown, alpha=torch.ones_like(shown.alpha))
    torch.testing.assert_close(reward.embed_views(opaque, 0.1), reward.embed_views(opaque, 0.9))


def test_views_of_any_size_are_resized(reward):
    assert reward.score(views(size=40), PROMPTS).valid.all()


def test_rank_puts_the_most_similar_text_first(reward):
    texts = ["a red mug", "a blue cube", "red on blue"]
    shown = views()
    whole = torch.nn.functional.normalize(reward.embed_views(shown, 0.5).mean(1), dim=-1)
    similar = whole @ reward.embed_text(texts).T
    order = reward.rank(shown, texts, 0.5)
    assert order[:, 0].tolist() == similar.argmax(1).tolist()
    assert order.sort(1).values.tolist() == [[0, 1, 2]] * 2


def test_the_tokenizer_knows_its_words_and_no_others(reward):
    tokens = reward.tokenizer(["A red,  MUG!", "a red mug", "a zebra mug"])
    assert tokens.shape == (3, towers.CONTEXT)
    number = {word: i + 3 for i, word in enumerate(WORDS)}
    assert tokens[0].tolist() == tokens[1].tolist()
    assert tokens[1, :5].tolist() == [number["a"], number["red"], number["mug"], 2, 0]
    assert tokens[2, :4].tolist() == [number["a"], 1, number["mug"], 2]
    long = reward.tokenizer([" ".join(["red"] * 100)])
    assert long.shape == (1, towers.CONTEXT)
    assert long[0, -1] == 2


def test_texts_are_embedded_with_length_one_and_whatever_their_company(reward):
    texts = ["a red mug", "a zebra", "", "a red mug"]
    found = reward.embed_text(texts)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(found[0], found[3], rtol=0, atol=0)
    fresh = reward.train().eval().embed_text(["a zebra"])
    torch.testing.assert_close(fresh[0], found[1])


def test_what_it_says_of_itself(folder, reward):
    assert reward.info.differentiable == "pixels"
    assert reward.info.range == (-1.0, 1.0)
    assert str(folder) in reward.info.weights


def _copy(folder, tmp_path):
    other = tmp_path / "model"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    return other


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"])
def test_broken_files_are_named_with_a_remedy(folder, tmp_path, name):
    broken = _copy(folder, tmp_path)
    (broken / name).write_bytes((broken / name).read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cannot load .*model.*belong together"):
        Clip(str(broken)).build()


def test_weights_of_another_config_are_refused(folder, tmp_path):
    broken = _copy(folder, tmp_path)
    config = json.loads((broken / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 12
    (broken / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="belong together"):
        Clip(str(broken)).build()


def test_missing_models_say_where_and_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"are missing .*pretrained"):
        Clip(str(tmp_path / "nothing")).build()
    with pytest.raises(ValueError, match="list_pretrained"):
        Clip("ViT-B-32", "no-such-weights").build()


def test_the_judge_is_never_a_signal():
    with pytest.raises(ValueError, match="only ever reported"):
        Clip("judge").build_signal()
    with pytest.raises(ValueError, match="only ever reported"):
        Ascend(reward=Clip("judge")).build(Situation(Prompt("a ball"), None, None, torch.Generator(), torch.device("cpu")))
