"""Trainings on real objects, and on both worlds at once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_world
import torch
from tiny import tiny_prior

from rl3d.priors.embedded import EmbeddedPrior
from rl3d.priors.multiview import reworded
from rl3d.priors.words import Tokenizer
from rl3d.toybox import dataset as toys
from rl3d.toybox import grammar
from rl3d.toybox.dataset import Order
from rl3d.toybox.language import TOYS
from rl3d.toybox.things import Item, Spec
from rl3d.train import encoder, prior, worlds
from rl3d.train.common import about
from rl3d.train.facets import Facets
from rl3d.train.sets import draw_batch
from rl3d.world.dataset import make, open_views
from rl3d.world.language import Words
from rl3d.world.nouns import naming


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    stock, folder = tmp_path_factory.mktemp("stock"), tmp_path_factory.mktemp("real")
    tiny_world.prepare(stock)
    for _ in make(Order(folder, 8, views=4, samples=1), stock, workers=1):
        pass
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    for _ in toys.make(Order(folder, 6, views=4, samples=1), workers=1):
        pass
    return folder


@pytest.mark.parametrize("language", [TOYS, Words(naming().nouns), Words(naming().nouns, toys=True)])
def test_facets_have_an_answer_to_whatever_is_said(language):
    facets = Facets(8, 0, language)
    rng = np.random.default_rng(0)
    specs = [language.sample(rng, None) for _ in range(200)]
    for spec in list(specs):
        specs += language.some_misses(spec, rng, 1)
    told, seen = facets.right(specs, seen=False), facets.right(specs, seen=True)
    assert told.shape == (len(specs), 2 * (len(language.answers()) - 1) + 1)
    assert told.min() == 0
    open_paint = [i for i, spec in enumerate(specs) if spec.items[0].paint is None and spec.relation is None]
    assert (seen[open_paint, facets.asked.index("paint")] == -1).all()
    loss = facets(torch.nn.functional.normalize(torch.randn(len(specs), 8), dim=1), seen)
    assert loss.isfinite()


def test_facets_of_the_toybox_ask_what_they_asked():
    facets = Facets(8, 0)
    assert facets.asked == ("kind", "paint", "form", "accent", "count")
    spec = Spec((Item("mug", "red", accent=("handle", "blue")),))
    row = facets.right([spec], seen=True)[0].tolist()
    assert [facets.answers[k][x] for k, x in enumerate(("mug", "red", None, "blue", 1))] == row[:5]
    assert row[5:] == [0, -1, 0, -1, 0, 0]


def test_albedo_can_be_the_target(real):
    data = open_views(real)
    tokenizer = Tokenizer(data.language.vocabulary())

    def clean(target):
        return draw_batch(data, np.arange(4), tokenizer, np.random.default_rng(0), target=target).clean

    shaded, albedo = clean("shaded"), clean("albedo")
    assert torch.equal(shaded[:, :, 3], albedo[:, :, 3])
    assert not torch.equal(shaded[:, :, :3], albedo[:, :, :3])


def tiny(data, work, **changes):
    settings = prior.Training(
        data=data, work=work, out=work / "out", steps=2, batch=4, micro=4, width=32, depth=2, heads=2, log_steps=1, pictures=1,
        text_steps=2,
    )  # fmt: skip
    return replace(settings, **changes)


def test_a_prior_trains_on_both_worlds(real, toy, tmp_path):
    out = prior.train(tiny(toy, tmp_path, more=(real,), held_out=real))
    words = EmbeddedPrior.load(out).tokenizer.words
    assert {"castle", "armchair", "hound"} <= set(words)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    card = (out / "README.md").read_text()
    assert "7 kinds of named meshes" in card
    assert "toybox's procedural meshes" in card


def test_albedo_must_be_there(real, toy, tmp_path):
    with pytest.raises(ValueError, match="needs data sets with albedo"):
        prior.train(tiny(toy, tmp_path, more=(real,), target="albedo"))


def test_weights_of_toys_start_a_training_on_real_objects(real, toy, tmp_path):
    first = EmbeddedPrior.load(prior.train(tiny(toy, tmp_path)), dtype=torch.float32)
    settings = tiny(real, tmp_path / "other", init=tmp_path / "out", steps=0, text_steps=3)
    second = EmbeddedPrior.load(prior.train(settings), dtype=torch.float32)
    count = len(first.tokenizer)
    assert second.tokenizer.words[: count - 3] == first.tokenizer.words
    assert {"hound", "armchair"} <= set(second.tokenizer.words[count - 3 :]) | set(first.tokenizer.words)
    old, new = first.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(x, new[name]) for name, x in old.items() if name != "text.words.weight")
    assert torch.equal(old["text.words.weight"], new["text.words.weight"][:count])
    known = "a red mug", "a blue chair"
    assert torch.equal(first.tokenizer(list(known)), second.tokenizer(list(known)))
    unread = EmbeddedPrior.load(prior.train(replace(settings, work=tmp_path / "unread", out=tmp_path / "unread", text_steps=0)))
    added = unread.net.state_dict()["text.words.weight"].float()[count:]
    assert not torch.allclose(new["text.words.weight"][count:], added, atol=1e-4)  # the new words were read
    assert torch.pdist(added).min() > 0


def test_a_network_cannot_forget_words():
    net = tiny_prior().net
    with pytest.raises(ValueError, match="cannot forget"):
        reworded(net, 3, torch.Generator())


def test_an_encoder_draws_and_validates_in_the_language_of_its_data(real, toy, tmp_path, monkeypatch):
    small = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}
    monkeypatch.setitem(encoder.towers.IMAGE, "encoder", small)
    data = open_views(toy, real)
    training = encoder.Training(
        "encoder", work=tmp_path, out=tmp_path / "out", steps=2, toys=6, save_seconds=0.0, held=5, held_data=(real,)
    )
    batch = encoder.draw(data, training, 3)
    known = set(data.language.vocabulary()) | set(grammar.words(encoder.towers.UNKNOWN))
    assert all(set(grammar.words(text)) <= known for text in batch.texts)
    assert all(data.language.contradicts(one, miss) for one, miss in zip(batch.toys, batch.claims[6:], strict=False))
    records = list(encoder.train(training, data))
    assert all(0 <= record["r1"] <= 1 for record in records)
    encoder.export(training, len(data.specs), data.language)
    assert "7 kinds" in (tmp_path / "out" / "README.md").read_text()


def test_cards_say_whose_work_the_data_is():
    assert "procedural meshes" in about(TOYS)
    assert "catalogue.csv" in about(Words(tiny_world.NOUNS))


@pytest.mark.slow
def test_everything_is_trained_with_one_command_and_not_again(real, toy, tmp_path, monkeypatch):
    for role, small in (
        ("encoder", {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}),
        ("judge", {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}),
    ):
        monkeypatch.setitem(encoder.towers.IMAGE, role, small)
    made = prior.Training
    monkeypatch.setattr(
        prior,
        "Training",
        lambda *args, **more: made(*args, **more, width=32, depth=2, heads=2, batch=4, pictures=1, text_steps=2),
    )
    stock = tmp_path / "debian"
    tiny_world.prepare(stock)
    settings = worlds.Training(out=tmp_path, scenes=6, held=4, steps=1, workers=1)
    report = worlds.train(settings)
    assert set(report["encoder"]) == set(report["prior"]) == {"real combinations", "real objects", "toys"}
    assert report["words"]["never taught"] == 2  # "beaker" and "board"
    assert all(0 <= found["r1"] <= 1 for found in report["judge"].values())
    assert report["judge"]["real objects"]["synonyms"] > 0
    assert "synonyms" not in report["judge"]["toys"]
    assert EmbeddedPrior.load(tmp_path / "models" / "prior").tokenizer.words
    before = (tmp_path / "data" / "real-train" / "rgba.npy").stat().st_mtime_ns
    assert worlds.train(replace(settings, models=("prior",)))["prior"] == report["prior"]
    assert (tmp_path / "data" / "real-train" / "rgba.npy").stat().st_mtime_ns == before
    albedo = replace(settings, models=("prior",), target="albedo", out=tmp_path / "albedo")
    tiny_world.prepare(tmp_path / "albedo" / "debian")
    assert set(worlds.train(albedo)["prior"]) == set(report["prior"])
