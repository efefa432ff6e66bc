import math

import pytest
import torch

from rl3d.cameras import Orbit, look_at_origin
from rl3d.math import Level, level_at
from rl3d.priors.embedded import EmbeddedPrior, fastest_dtype, latents_from_pixels, pixels_from_latents
from rl3d.priors.multiview import MultiviewTransformer, attend, repatched
from rl3d.priors.words import Tokenizer
from rl3d.types import Prompt, Views

WORDS = ("a", "ball", "cube", "red")


def tiny_prior(size: int = 16) -> EmbeddedPrior:
    """A small network all of whose weights matter: those that start at zero are drawn anew."""
    torch.manual_seed(3)
    tokenizer = Tokenizer(WORDS, context=8)
    net = MultiviewTransformer(
        words=len(tokenizer), context=8, size=size, patch=8, width=32, depth=2, heads=2, text_depth=1, refiner_width=8
    )
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return EmbeddedPrior(net.eval(), tokenizer)


def noise(views: int, b: int = 1, size: int = 16) -> torch.Tensor:
    return torch.randn(b, views, 4, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("views", [1, 4, 8])
def test_predicts_any_number_of_views(views):
    prior = tiny_prior()
    condition = prior.embed([Prompt("a red ball"), Prompt("a cube")], Orbit(views).cameras())
    clean = prior.predict(noise(views, b=2), level_at(0.5), condition, guidance=3.0, rescale=0.5)
    assert clean.shape == (2, views, 4, 16, 16)
    assert clean.dtype == torch.float32
    assert clean.isfinite().all()


def test_is_equivariant_to_permutations_of_views_with_their_cameras():
    prior, cameras, order = tiny_prior(), Orbit(4).cameras(), [2, 0, 3, 1]
    clean = prior.predict(noise(4), level_at(0.5), prior.embed([Prompt("a ball")], cameras))
    turned = prior.predict(noise(4)[:, order], level_at(0.5), prior.embed([Prompt("a ball")], cameras.select(order)))
    torch.testing.assert_close(turned, clean[:, order], atol=1e-5, rtol=1e-4)


def test_views_see_each_other():
    prior = tiny_prior()
    condition = prior.embed([Prompt("a ball")], Orbit(4).cameras())
    x = noise(4)
    other = x.clone()
    other[:, 3] = 0
    change = prior.predict(x, level_at(0.5), condition) - prior.predict(other, level_at(0.5), condition)
    assert change[:, 0].abs().max() > 1e-4


def test_text_cameras_and_noise_level_matter():
    prior, x = tiny_prior(), noise(4)
    base = prior.predict(x, level_at(0.5), prior.embed([Prompt("a ball")], Orbit(4).cameras()))
    for other in (
        prior.predict(x, level_at(0.5), prior.embed([Prompt("a cube")], Orbit(4).cameras())),
        prior.predict(x, level_at(0.5), prior.embed([Prompt("a ball")], Orbit(4, start_deg=45.0).cameras())),
        prior.predict(x, level_at(0.6), prior.embed([Prompt("a ball")], Orbit(4).cameras())),
    ):
        assert (base - other).abs().max() > 1e-3


def test_guidance_zero_is_the_null_condition_and_a_negative_prompt_takes_its_place():
    prior, x, cameras, level = tiny_prior(), noise(4), Orbit(4).cameras(), level_at(0.4)
    null = prior.predict(x, level, prior.embed([Prompt("")], cameras))
    torch.testing.assert_close(prior.predict(x, level, prior.embed([Prompt("a ball")], cameras), guidance=0.0), null)
    negative = prior.predict(x, level, prior.embed([Prompt("a ball", negative="red")], cameras), guidance=0.0)
    torch.testing.assert_close(negative, prior.predict(x, level, prior.embed([Prompt("red")], cameras)))


def test_levels_of_flows_are_seen_as_variance_preserving_ones():
    prior, x = tiny_prior(), noise(2)
    condition = prior.embed([Prompt("a ball")], Orbit(2).cameras())
    scale = math.hypot(0.7, 0.3)
    expected = prior.predict(x / scale, Level(0.7 / scale, 0.3 / scale), condition)
    torch.testing.assert_close(prior.predict(x, Level(0.7, 0.3), condition), expected)


def test_azimuth_is_periodic():
    prior, x = tiny_prior(), noise(1)
    angles = (torch.tensor([[a]]) for a in (math.radians(30), math.radians(390)))
    tokens, elevation = prior.tokenizer(["a ball"]), torch.zeros(1, 1)
    one, other = (prior.net(x, torch.tensor([0.5]), tokens, azimuth, elevation) for azimuth in angles)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_noisy_views_and_every_parameter():
    prior, x = tiny_prior(), noise(4).requires_grad_()
    prior.predict(x, level_at(0.5), prior.embed([Prompt("a ball")], Orbit(4).cameras()), guidance=2.0).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.any() for p in prior.parameters())


def test_attention_is_torchs():
    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_half_precision_changes_little_and_results_stay_float32():
    prior = tiny_prior()
    condition = prior.embed([Prompt("a ball")], Orbit(4).cameras())
    exact = prior.predict(noise(4), level_at(0.5), condition)
    torch.nn.Module.to(prior.net, torch.bfloat16)
    rough = prior.predict(noise(4), level_at(0.5), condition)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean() < 1e-3 * exact.square().mean()
    assert not torch.equal(rough, exact)


def test_another_patch_size_treats_plain_views_alike():
    net = tiny_prior(size=32).net
    fine = repatched(net, 4)
    assert fine.config["patch"] == 4
    assert fine.positions.shape == (64, 32)
    assert torch.equal(fine.blocks[0].mlp.up.weight, net.blocks[0].mlp.up.weight)
    plain = torch.tensor([0.2, -0.4, 0.6, 1.0])
    one, other = (plain.repeat_interleave(p**2) @ n.enter.weight.T for n, p in ((net, 8), (fine, 4)))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    same = repatched(net, 8).state_dict()
    assert all(torch.allclose(same[name], x) for name, x in net.state_dict().items())
    with pytest.raises(ValueError, match="divisor"):
        repatched(net, 5)


def test_round_trip_through_a_folder(tmp_path):
    prior = tiny_prior()
    prior.net.half().float()  # what float16 cannot hold would differ
    prior.save(tmp_path)
    loaded = EmbeddedPrior.load(tmp_path, dtype=torch.float32)
    assert loaded.info == prior.info
    assert loaded.tokenizer == prior.tokenizer
    condition = loaded.embed([Prompt("a red cube")], Orbit(4).cameras())
    torch.testing.assert_close(
        loaded.predict(noise(4), level_at(0.5), condition), prior.predict(noise(4), level_at(0.5), condition), rtol=0, atol=0
    )


def test_scheduler_matches_the_schedule(tmp_path):
    from diffusers import DDIMScheduler

    tiny_prior().save(tmp_path)
    alphas = DDIMScheduler.from_pretrained(tmp_path / "scheduler").alphas_cumprod.sqrt()
    ours = torch.tensor([level_at(((i + 1) / 1000 + 0.008) / 1.008).alpha for i in range(999)])
    torch.testing.assert_close(alphas[:999], ours, atol=5e-4, rtol=0)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        EmbeddedPrior.load(tmp_path / "nowhere")


def test_latents_are_a_lossless_view_of_pixels_with_zero_background():
    rgba = torch.rand(1, 2, 4, 8, 8)
    torch.testing.assert_close(pixels_from_latents(latents_from_pixels(rgba)), rgba)
    empty = latents_from_pixels(torch.zeros(1, 1, 4, 2, 2))
    assert not empty[:, :, :3].any()
    white = latents_from_pixels(torch.ones(1, 1, 4, 2, 2))
    assert (white == 1).all()


@pytest.mark.parametrize("size", [16, 32])
def test_encode_and_decode_keep_empty_background_empty(size):
    prior, cameras = tiny_prior(), Orbit(2, size=size).cameras()
    empty = torch.zeros(1, 2, size, size, 4)
    views = prior.decode(prior.encode(Views(empty[..., :3], empty[..., 3:], None, None, cameras)), cameras)
    assert not views.rgba.any()
    assert (views.cameras.width, views.cameras.height) == (16, 16)


def test_encode_is_differentiable_through_a_resize():
    prior, cameras = tiny_prior(), Orbit(1, size=32).cameras()
    rgb, alpha = torch.rand(1, 1, 32, 32, 3, requires_grad=True), torch.ones(1, 1, 32, 32, 1)
    prior.encode(Views(rgb, alpha, None, None, cameras)).sum().backward()
    assert rgb.grad is not None
    assert (rgb.grad > 0).all()


def test_embed_reads_camera_angles():
    cameras = look_at_origin(torch.tensor([[0.0, 90.0]]), torch.tensor([[20.0, 40.0]]))
    condition = tiny_prior().embed([Prompt("a ball"), Prompt("a cube")], cameras)
    torch.testing.assert_close(condition.azimuth[1], torch.tensor([0.0, math.pi / 2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(condition.elevation[1], torch.deg2rad(torch.tensor([20.0, 40.0])), atol=1e-5, rtol=0)


def test_unknown_words_are_named_with_near_ones_unless_allowed():
    prior, cameras = tiny_prior(), Orbit(1).cameras()
    with pytest.raises(ValueError, match=r"'bal' \(near: ball"):
        prior.embed([Prompt("a red bal")], cameras)
    prior.allow_unknown = True
    assert prior.embed([Prompt("a red bal")], cameras).tokens[0, 2] == 1


def test_tokens_ignore_case_and_punctuation_and_are_bounded():
    tokenizer = Tokenizer(WORDS, context=8)
    assert torch.equal(tokenizer(["A red, ball!"]), tokenizer(["a red ball"]))
    assert tokenizer([""])[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="at most 7 words, got 8"):
        tokenizer(["a " * 8])


def test_fastest_dtype_is_one_of_two_and_kept():
    assert fastest_dtype() in (torch.float32, torch.bfloat16)
    assert fastest_dtype() is fastest_dtype()


def test_a_saved_prior_does_not_tell_where_it_came_from(tmp_path):
    tiny_prior().save(tmp_path / "one")
    EmbeddedPrior.load(tmp_path / "one").save(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "two" / "transformer" / "config.json").read_text()
