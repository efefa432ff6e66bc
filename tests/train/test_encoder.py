"""Training of the dual encoders: loss, augmentations, and that a resumed training is the same training."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from rl3d.toybox import grammar, pools
from rl3d.toybox.dataset import ToyViews
from rl3d.toybox.things import Item, Spec
from rl3d.train import augment, encoder, towers
from rl3d.train.contrast import compare, contrast
from rl3d.train.facets import Facets

RED, BLUE = Spec((Item("mug", "red"),)), Spec((Item("mug", "blue"),))
PAIR = Spec((Item("cube", "red"), Item("ball", "blue")), "next to")


def test_contrast_has_its_closed_form():
    logits = torch.tensor([[2.0, 1.0, 0.0, 5.0], [0.0, 3.0, 1.0, 5.0], [9.0, 9.0, 9.0, 9.0]])
    right = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    wrong = torch.tensor([[0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]]).bool()  # the last column is neither, for two rows

    def cost(right, *wrong):
        return -math.log(math.exp(right) / (math.exp(right) + sum(map(math.exp, wrong))))

    expected = (0.5 * (cost(2, 0) + cost(1, 0)) + cost(3, 0, 1)) / 2
    assert float(contrast(logits, right, wrong)) == pytest.approx(expected, rel=1e-6)


def test_contrast_without_wrong_answers_is_zero_with_a_finite_gradient():
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = contrast(logits, torch.tensor([[True, False]]), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_equal_specs_are_right_and_only_contradictions_are_wrong():
    mirrored = Spec(PAIR.items[::-1], "next to")
    plain = Spec((Item("mug"),))
    toys, claims = (RED, PAIR, plain), (RED, BLUE, plain, mirrored, Spec(PAIR.items, "on"))
    right, wrong = compare(toys, claims)
    assert right.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    # A red mug is a mug, and a mug may be red.
    assert wrong.tolist() == [[0, 1, 0, 1, 1], [1, 1, 1, 0, 1], [0, 0, 0, 1, 1]]


def pictures(n=6, size=32):
    rng = torch.Generator().manual_seed(3)
    alpha = (torch.rand(n, 1, size, size, generator=rng) > 0.4).float() * 0.9
    return torch.cat([alpha * torch.rand(n, 3, size, size, generator=rng), alpha], 1)


@pytest.mark.parametrize("role", ["encoder", "judge"])
def test_augmentations_keep_the_range_and_depend_on_the_generator_alone(role):
    x = pictures()
    before = x.clone()
    first, second, other = (
        augment.compose(augment.AUGMENT[role], x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (6, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "change",
    [
        partial(augment.light, gain=0.15, gamma=0.25),
        partial(augment.blur, most=0.8),
        partial(augment.coverage, steepness=(0.7, 3.0), veil=0.2),
        partial(augment.frame, zoom=(0.7, 1.1), shift=0.1, wobble=0.03),
        partial(augment.coarsen, size=16, share=1.0),
        partial(augment.occlude, size=0.3),
    ],
)
def test_changes_keep_the_order_of_channels(change):
    alpha = torch.zeros(8, 1, 32, 32)
    alpha[..., 8:24, 8:24] = 1
    colour = torch.tensor([0.8, 0.5, 0.2])[None, :, None, None]  # orange: red > green > blue
    changed = change(torch.cat([colour * alpha, alpha], 1), torch.Generator().manual_seed(0))
    shown = changed[:, 3] > 0.1
    red, green, blue = (changed[:, i][shown] for i in range(3))
    assert (red > green).all()
    assert (green > blue).all()


def test_blobs_have_the_colours_of_the_object():
    alpha = torch.ones(8, 1, 32, 32)
    x = torch.cat([0.7 * alpha, 0 * alpha, 0 * alpha, alpha], 1)
    changed = augment.blobs(x, torch.Generator().manual_seed(0), count=4, opacity=0.8, share=1.0)
    torch.testing.assert_close(changed, x)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    specs = tuple(grammar.sample(rng) for _ in range(6))
    rgba = rng.integers(0, 255, (6, 3, 64, 64, 4), dtype=np.uint8)
    angles = np.zeros((6, 3), np.float16)
    return ToyViews(rgba, angles, angles, tuple(map(grammar.canonical, specs)), specs)


def test_a_batch_is_views_captions_and_near_misses(data):
    training = encoder.Training("encoder", toys=4, views=2)
    batch = encoder.draw(data, training, 7)
    assert batch.pixels.shape == (8, 4, 64, 64)
    assert 4 <= len(batch.texts) == len(batch.claims) <= 8
    assert batch.claims[:4] == batch.toys
    assert all(any(pools.contradicts(toy, miss) for toy in batch.toys) for miss in batch.claims[4:])
    assert encoder.draw(data, training, 7).texts == batch.texts
    assert encoder.draw(data, training, 8).texts != batch.texts


def test_dyed_toys_are_not_spoken_of_in_colours_and_their_shapes_stay(data):
    batch = encoder.draw(data, encoder.Training("judge", toys=6, views=2, dyed=1.0, melted=0.0), 3)
    assert batch.dyed.all()
    assert not batch.melted.any()
    assert all(item.paint is item.accent is item.stuff is None for claim in batch.claims for item in claim.items)
    assert not {word for text in batch.texts for word in text.split()} & set(grammar.COLOURS)
    right, wrong = compare(batch.toys, batch.claims)
    assert right[:, :6].diagonal().all()
    assert not (right & wrong).any()
    x = pictures()
    dyed = augment.dye(x, torch.Generator().manual_seed(0))
    assert torch.equal(dyed[:, 3], x[:, 3])
    assert (dyed[:, :3] <= dyed[:, 3:] + 1e-6).all()  # still premultiplied
    assert (dyed[:, :3] - x[:, :3]).abs().mean() > 0.1


def test_melted_toys_are_asked_for_colours_alone(data, tmp_path):
    training = encoder.Training("judge", toys=6, views=2, dyed=0.0, melted=1.0)
    batch = encoder.draw(data, training, 3)
    words = grammar.vocabulary()
    towers.write_blank(tmp_path, towers.config("judge", words), words)
    reward = encoder.wrap(towers.blank(tmp_path, 0), tmp_path)
    facets = Facets(192, 0)
    _, parts = encoder.loss_of(reward, facets, batch, "judge", torch.Generator().manual_seed(0))
    assert math.isnan(parts["kind"])  # nobody was asked
    right = facets.of_colours(facets.right(batch.toys, seen=True))
    (kind, paint), told = (facets.asked.index(name) for name in ("kind", "paint")), [toy.items[0].paint for toy in batch.toys]
    assert (right[:, kind] == -1).all()
    assert [int(x) >= 0 for x in right[:, paint]] == [x is not None for x in told]
    x = torch.zeros(4, 4, 32, 32)
    x[:, 0::3, 8:24, 8:24] = 1.0  # red squares
    melted = augment.melt(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(melted[:, 0], melted[:, 3])
    assert not melted[:, 1:3].any()
    assert ((melted - x).abs().mean((1, 2, 3)) > 0.05).all()


def test_new_facets_read_a_trained_model_before_they_teach_it(data, tmp_path):
    words = grammar.vocabulary()
    towers.write_blank(tmp_path, towers.config("judge", words), words)
    reward = encoder.wrap(towers.blank(tmp_path, 0), tmp_path)
    before = {name: x.clone() for name, x in reward.state_dict().items()}
    facets, training = Facets(192, 0), encoder.Training("judge", toys=6, views=2)
    batch = encoder.draw(data, training, 0)
    losses = []
    for _ in range(2):
        _, parts = encoder.loss_of(reward, facets, batch, "judge", torch.Generator().manual_seed(0))
        losses.append(parts["told"])
        reward.load_state_dict(before)  # running means of batch normalisation
        encoder.acquaint(reward, facets, data, training, batches=2)
    assert losses[1] < 0.6 * losses[0]
    assert all(torch.equal(x, before[name]) for name, x in reward.state_dict().items())


def test_texts_embed_alike_without_padding(tmp_path):
    words = grammar.vocabulary()
    towers.write_blank(tmp_path, towers.config("judge", words), words)
    reward = encoder.wrap(towers.blank(tmp_path, 0), tmp_path)
    tokens = reward.tokenizer(["a red mug", "a big blue ball next to a green cube"])
    torch.testing.assert_close(towers.embed_tokens(reward.model, tokens), reward.model.encode_text(tokens))


def test_a_resumed_training_is_bit_exact(data, tmp_path, monkeypatch):
    small = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}
    monkeypatch.setitem(towers.IMAGE, "encoder", small)
    whole = encoder.Training("encoder", work=tmp_path / "whole", steps=6, toys=4, save_seconds=1e9)
    records = list(encoder.train(whole, data))
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]

    halved = replace(whole, work=tmp_path / "halved")
    monkeypatch.setattr(encoder, "due", lambda saved, training: True)  # a checkpoint after each step
    monkeypatch.setattr(encoder, "held_out", lambda *args: None)
    monkeypatch.setattr(encoder, "validate", lambda *args: {})
    started = encoder.train(halved, data)
    for _ in range(3):
        next(started)
    started.close()
    with (halved.cache / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4}) + "\n")  # what a killed training logged after its checkpoint
    resumed = list(encoder.train(halved, data))
    assert [record["step"] for record in resumed] == [4, 5, 6]
    assert [record["loss"] for record in resumed] == [record["loss"] for record in records[3:]]
    lines = [json.loads(line)["step"] for line in (halved.cache / "log.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6]
    one, other = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole.cache, halved.cache))
    torch.testing.assert_close(other["model"], one["model"], rtol=0, atol=0)
    torch.testing.assert_close(other["optimizers"], one["optimizers"], rtol=0, atol=0)


def test_a_checkpoint_of_another_architecture_is_refused(data, tmp_path, monkeypatch):
    training = encoder.Training("judge", work=tmp_path, steps=1, toys=4, save_seconds=1e9)
    list(encoder.train(training, data))
    monkeypatch.setitem(towers.EMBED, "judge", 48)
    with pytest.raises(ValueError, match="choose another --work"):
        list(encoder.train(replace(training, steps=2), data))


def test_written_weights_start_another_model(tmp_path):
    words = ("a", "red", "mug")
    towers.write_blank(tmp_path, towers.config("judge", words), words)
    first, second = (towers.blank(tmp_path, seed).half().float() for seed in (0, 1))
    towers.write_weights(tmp_path, first, "# A card\n")
    towers.read_weights(tmp_path, second, words)
    assert all(torch.equal(x, second.state_dict()[name]) for name, x in first.state_dict().items())
    with pytest.raises(ValueError, match="nowhere"):
        towers.read_weights(tmp_path / "nowhere", second, words)


def test_weights_go_with_their_words_into_a_larger_vocabulary(tmp_path):
    few, many = ("a", "red", "mug"), ("a", "armchair", "blue", "mug", "red", "settee")
    for folder, words in (("few", few), ("many", many)):
        towers.write_blank(tmp_path / folder, towers.config("judge", words), words)
    old = towers.blank(tmp_path / "few", 0).half().float().eval()
    towers.write_weights(tmp_path / "few", old, "")
    new = towers.blank(tmp_path / "many", 1).eval()
    towers.read_weights(tmp_path / "few", new, towers.read_words(tmp_path / "many"))
    before, after = encoder.wrap(old, tmp_path / "few"), encoder.wrap(new, tmp_path / "many")
    # What was known means the same, and what is new means what it meant: nothing.
    texts = ["a red mug", "a settee", "one blue armchair", "red red a"]
    assert torch.equal(before.embed_text(texts), after.embed_text(texts))
    tokens = after.tokenizer(["a settee", "a blue"])
    assert not torch.equal(*tokens)
    assert towers.UNKNOWN not in towers.read_words(tmp_path / "many")


def test_a_training_goes_on_with_more_words(data, tmp_path, monkeypatch):
    small = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}
    monkeypatch.setitem(towers.IMAGE, "encoder", small)
    few = ("a", "mug", "zebra")  # one of them is in no caption of the data
    towers.write_blank(tmp_path / "old", towers.config("encoder", few), few)
    towers.write_weights(tmp_path / "old", towers.blank(tmp_path / "old", 0), "")
    training = encoder.Training("encoder", work=tmp_path / "work", out=tmp_path / "out", init=tmp_path / "old", steps=1, held=4)
    training = replace(training, held_data=(), save_seconds=1e9, toys=4)
    assert len(list(encoder.train(training, data))) == 1
    words = towers.read_words(tmp_path / "work" / "model")
    assert set(words) == {"zebra", *data.language.vocabulary()}


def test_no_claim_of_a_batch_is_held_out(data):
    for step in range(3):
        claims = encoder.draw(data, encoder.Training("judge", misses=3, seed=1), step).claims
        assert len(claims) > 2 * len(data.specs)
        assert {grammar.split_of(claim) for claim in claims} == {"train"}


def test_a_new_text_tower_is_beside_the_old_picture_tower(tmp_path):
    words = grammar.vocabulary()
    towers.write_blank(tmp_path, towers.config("judge", words), words)
    old, new, fresh = (towers.blank(tmp_path, seed) for seed in (0, 1, 1))
    towers.write_weights(tmp_path, old, "")
    towers.read_weights(tmp_path, new, words, text=False)
    old, new, fresh = (model.state_dict() for model in (old, new, fresh))
    for name, x in new.items():
        expected = fresh[name] if name.startswith("text.") else old[name]
        assert torch.allclose(x, expected, atol=1e-3), name
    assert not torch.allclose(fresh["text.token_embedding.weight"], old["text.token_embedding.weight"], atol=1e-3)
    with pytest.raises(SystemExit, match="--init"):
        encoder.main(encoder.Training("judge", data=tmp_path, new_text=True))
