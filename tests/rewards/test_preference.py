"""Heads and preference models, on tiny random ones in the published formats, against plain versions of what the papers say."""

import pickle
from dataclasses import replace

import pytest
import torch
from conftest import stack
from safetensors.torch import save_file
from torch.nn import functional as F
from world import random_views

from rl3d.__main__ import main
from rl3d.cameras import worded
from rl3d.rewards.aesthetic import Aesthetic
from rl3d.rewards.clip import Clip
from rl3d.rewards.preference import Hps, ImageReward, PickScore
from rl3d.rewards.resize import fit
from rl3d.rewards.weights import convert, read_weights
from rl3d.types import Prompt, Views

PROMPTS = [Prompt("a red mug"), Prompt("a blue cube on a red cube")]


def wide(views: Views, columns: int) -> Views:
    """The same views with empty columns on both sides."""

    def pad(x):
        return F.pad(x, (0, 0, columns, columns))

    cameras = replace(views.cameras, width=views.cameras.width + 2 * columns)
    return Views(pad(views.rgb), pad(views.alpha), None, None, cameras)


def test_modes_of_fitting():
    pixels = torch.rand(1, 3, 16, 32)
    torch.testing.assert_close(fit(pixels, (16, 16), "shortest"), pixels[..., 8:24])
    longest = fit(pixels, (32, 32), "longest")
    torch.testing.assert_close(longest[..., 8:24, :], pixels)
    assert longest[..., :8, :].abs().max() == 0
    assert fit(pixels, (8, 8), "squash").shape == (1, 3, 8, 8)
    torch.testing.assert_close(
        fit(pixels, (8, 8), "longest")[..., 2:6, :], F.interpolate(pixels, (4, 8), mode="bicubic", antialias=True)
    )


def test_heads_are_what_their_files_say(clip_folder, linear_head, deep_head):
    clip = Clip(str(clip_folder))
    seen = clip.build().embed_views(random_views(2), 0.8)
    weights = torch.load(linear_head, weights_only=True)
    score = Aesthetic(str(linear_head), clip).build().score(random_views(2), PROMPTS)
    torch.testing.assert_close(score.per_view, (seen @ weights["weight"].T)[..., 0] + weights["bias"])
    score = Aesthetic(str(deep_head), clip).build().score(random_views(2), PROMPTS)
    torch.testing.assert_close(score.per_view, stack(8).eval()(seen)[..., 0])


def test_heads_for_other_features_are_refused(clip_folder, tmp_path):
    save_file(torch.nn.Linear(5, 1).state_dict(), tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=r"features of 5 numbers.* has 8"):
        Aesthetic(str(tmp_path / "head.safetensors"), Clip(str(clip_folder))).build()


class _Evil:
    def __reduce__(self):
        return print, ("run",)


def test_files_are_never_run(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": _Evil()}))
    torch.save({"weight": _Evil()}, tmp_path / "zipped.pth")
    for name in ("evil.pth", "zipped.pth", "missing.pth"):
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            convert(tmp_path / name, tmp_path / "out.safetensors")
    assert "run" not in capsys.readouterr().out
    assert not (tmp_path / "out.safetensors").exists()


def test_files_of_no_known_hash_are_converted_first(tmp_path, monkeypatch):
    head = torch.nn.Linear(5, 1).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in head.items()}}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"rl3d weights convert .*head.pth head.safetensors"):
        read_weights(tmp_path / "head.pth")
    monkeypatch.chdir(tmp_path)
    main(["weights", "convert", "head.pth", "head.safetensors"])
    torch.testing.assert_close(read_weights(tmp_path / "head.safetensors"), dict(head))
    with pytest.raises(SystemExit):
        main(["weights", "convert", "missing.pth", "other.safetensors"])


def test_hps_is_a_cosine_of_padded_views(hps_files):
    reward = Hps(*map(str, hps_files)).build()
    views = random_views(2)
    score = reward.score(views, PROMPTS)
    pixels = views.over(0.8).flatten(0, 1).movedim(-1, 1)
    image = F.normalize(reward.model.encode_image((pixels - 0.5) / 0.25), dim=-1)
    text = F.normalize(reward.model.encode_text(reward.tokenizer([p.text for p in PROMPTS])), dim=-1)
    torch.testing.assert_close(score.per_view, (image.unflatten(0, (2, 2)) * text[:, None]).sum(-1), rtol=1e-3, atol=1e-5)
    looked = reward.prepare(torch.ones(1, 3, 8, 16))
    assert (looked[..., :4, :] == -2).all()
    torch.testing.assert_close(looked[..., 4:12, :], torch.full((1, 3, 8, 16), 2.0))


def test_hps_of_another_architecture_is_refused(hps_files, linear_head):
    with pytest.raises(ValueError, match="does not fit"):
        Hps(str(linear_head), hps_files[1]).build()


def test_pickscore_is_a_scaled_cosine(pickscore_folder):
    from transformers import CLIPModel

    reward = PickScore(str(pickscore_folder)).build()
    views = random_views(2)
    score = reward.score(views, PROMPTS)
    model = CLIPModel.from_pretrained(pickscore_folder)
    pixels = views.over(0.8).flatten(0, 1).movedim(-1, 1)
    mean, std = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    tokens = reward.tokenizer([p.text for p in PROMPTS], padding=True, return_tensors="pt")
    found = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    logits = found.logits_per_image.unflatten(0, (2, 2))
    torch.testing.assert_close(score.per_view, torch.stack([logits[0, :, 0], logits[1, :, 1]]), rtol=1e-4, atol=1e-4)


def test_pickscore_and_imagereward_crop(pickscore_folder, imagereward_file, bert_folder):
    views = random_views(2)
    for value in (PickScore(str(pickscore_folder)), ImageReward(str(imagereward_file), str(bert_folder))):
        reward = value.build()
        torch.testing.assert_close(reward.score(wide(views, 5), PROMPTS).value, reward.score(views, PROMPTS).value)


def attend(w, name, x, context, heads_mask=None):
    q, k, v = (
        F.linear(y, w[f"{name}.{n}.weight"], w[f"{name}.{n}.bias"])
        for y, n in ((x, "query"), (context, "key"), (context, "value"))
    )
    scores = q @ k.mT / 8
    return (scores if heads_mask is None else scores + heads_mask).softmax(-1) @ v


def imagereward_by_hand(w, pixels, ids, mask):
    """BLIP (Li et al. 2022, sec. 3.1): a pre-norm ViT, and a post-norm BERT with cross-attention to it; one head of 64 each."""

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name, eps):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    s = "blip.visual_encoder"
    x = F.conv2d(pixels, w[f"{s}.patch_embed.proj.weight"], w[f"{s}.patch_embed.proj.bias"], stride=8).flatten(2).mT
    x = torch.cat([w[f"{s}.cls_token"].expand(len(x), -1, -1), x], 1) + w[f"{s}.pos_embed"]
    for i in range(2):
        b = f"{s}.blocks.{i}"
        q, k, v = linear(norm(x, f"{b}.norm1", 1e-6), f"{b}.attn.qkv").chunk(3, -1)
        x = x + linear((q @ k.mT / 8).softmax(-1) @ v, f"{b}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{b}.norm2", 1e-6), f"{b}.mlp.fc1")), f"{b}.mlp.fc2")
    seen = norm(x, f"{s}.norm", 1e-6)

    t = "blip.text_encoder"
    x = w[f"{t}.embeddings.word_embeddings.weight"][ids] + w[f"{t}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x, f"{t}.embeddings.LayerNorm", 1e-12)
    away = torch.where(mask[:, None] > 0, 0.0, -1e9)
    for i in range(2):
        n = f"{t}.encoder.layer.{i}"
        found = linear(attend(w, f"{n}.attention.self", x, x, away), f"{n}.attention.output.dense")
        x = norm(found + x, f"{n}.attention.output.LayerNorm", 1e-12)
        found = linear(attend(w, f"{n}.crossattention.self", x, seen), f"{n}.crossattention.output.dense")
        x = norm(found + x, f"{n}.crossattention.output.LayerNorm", 1e-12)
        x = norm(linear(F.gelu(linear(x, f"{n}.intermediate.dense")), f"{n}.output.dense") + x, f"{n}.output.LayerNorm", 1e-12)
    raw = stack(64).eval()(x[:, 0])[:, 0]
    return (raw - 0.16717362830052426) / 1.0333394966054072


def test_imagereward_is_blip_and_a_head(imagereward_file, bert_folder):
    reward = ImageReward(str(imagereward_file), str(bert_folder)).build()
    views = random_views(2)
    score = reward.score(views, PROMPTS)
    pixels = reward.tokenizer([p.text for p in PROMPTS], padding="max_length", max_length=35, return_tensors="pt")
    ids, mask = (pixels[k].repeat_interleave(2, 0) for k in ("input_ids", "attention_mask"))
    assert ids.shape == (4, 35)
    look = views.over(0.8).flatten(0, 1).movedim(-1, 1)
    look = (look - reward.mean[:, None, None]) / reward.std[:, None, None]
    expected = imagereward_by_hand(torch.load(imagereward_file, weights_only=True), look, ids, mask)
    torch.testing.assert_close(score.per_view, expected.reshape(2, 2), rtol=1e-4, atol=1e-4)


def test_weights_of_something_else_are_not_imagereward(linear_head, bert_folder):
    with pytest.raises(ValueError, match="does not hold ImageReward"):
        ImageReward(str(linear_head), str(bert_folder)).build()


def test_negative_prompts_count_against_a_view(clip_folder):
    reward = Clip(str(clip_folder), negative=0.5).build()
    views = random_views(2)
    wanted = reward.score(views, PROMPTS)
    unwanted = reward.score(views, [Prompt("a blue mug")] * 2)
    both = reward.score(views, [Prompt(PROMPTS[0].text, "a blue mug"), PROMPTS[1]])
    torch.testing.assert_close(both.value[0], (wanted.value[0] - 0.5 * unwanted.value[0]) / 1.5)
    torch.testing.assert_close(both.value[1], wanted.value[1])


def test_words_for_sides():
    said = [worded("x", a, e) for a, e in ((0, 0), (-44, 20), (46, 0), (-90, 0), (134, 0), (136, 0), (-180, 50), (0, 61))]
    sides = ["front", "front", "side", "side", "side", "back", "back", "overhead"]
    assert said == [f"x, {side} view" for side in sides]


def test_each_view_is_compared_with_the_prompt_as_worded_for_its_side(clip_folder):
    plain, sided = Clip(str(clip_folder)).build(), Clip(str(clip_folder), sides=True).build()
    views = random_views(2)  # azimuths 0 and 100
    found = sided.score(views, PROMPTS).per_view
    for view, side in enumerate(("front", "side")):
        said = [Prompt(f"{p.text}, {side} view") for p in PROMPTS]
        torch.testing.assert_close(found[:, view], plain.score(views, said).per_view[:, view])
