import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl3d.priors.embedded import EmbeddedPrior, pixels_from_latents
from rl3d.priors.multiview import TextEncoder
from rl3d.priors.words import UNKNOWN, Tokenizer
from rl3d.toybox import grammar
from rl3d.toybox.dataset import ToyViews
from rl3d.toybox.things import Item, Spec
from rl3d.train.common import collect, learning_rate_factor, orthogonalized, refresh, replica
from rl3d.train.prior import Training, learn_to_read, train
from rl3d.train.sets import draw_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four discs of different colours, the same from everywhere, in the form of a data set."""
    folder = tmp_path_factory.mktemp("discs")
    y, x = np.mgrid[:64, :64]
    disc = ((x - 31.5) ** 2 + (y - 31.5) ** 2 < 20**2).astype(np.uint8)
    paints = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
    images = np.stack([np.dstack([*(disc * c for c in rgb), disc * 255]) for rgb in paints.values()])
    np.save(folder / "rgba.npy", np.repeat(images[:, None], 8, 1))
    np.save(folder / "azimuth_deg.npy", np.tile((np.arange(8) * 45 - 180).astype(np.float16), (4, 1)))
    np.save(folder / "elevation_deg.npy", np.full((4, 8), 20, np.float16))
    spec = '{{"items": [{{"kind": "ball", "paint": "{}", "form": null, "accent": null, "count": 1}}], "relation": null}}'
    lines = [f'{{"caption": "a {paint} ball", "spec": {spec.format(paint)}}}' for paint in paints]
    (folder / "toys.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tiny(folder, work, **changes) -> Training:
    settings = Training(
        data=folder, held_out=folder, out=work / "out", work=work, batch=4, micro=2, width=32, depth=2, heads=2, warmup=5,
        log_steps=1, ema=0.5, pictures=1, text_steps=2,
    )  # fmt: skip
    return replace(settings, **changes)


def records(work) -> list[dict]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def state(work) -> dict[str, torch.Tensor]:
    saved = torch.load(work / "state.pt", weights_only=True)
    return {f"{part}.{name}": x for part in ("net", "mean") for name, x in saved[part].items()}


def test_a_tiny_network_learns_four_sets(folder, tmp_path):
    out = train(tiny(folder, tmp_path, steps=120, lr=5e-3, decay=40.0))
    losses = [record["loss"] for record in records(tmp_path) if "loss" in record]
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) / 5
    assert EmbeddedPrior.load(out).info.size == 64
    assert (tmp_path / "samples_000120.png").exists()
    assert (tmp_path / "constant.pt").exists()
    assert "480 sets" in (out / "README.md").read_text()


def test_a_training_that_was_stopped_goes_on_bit_for_bit(folder, tmp_path):
    for name, stops in (("straight", (4,)), ("stopped", (2, 4))):
        for steps in stops:
            train(tiny(folder, tmp_path / name, steps=steps))
    straight, stopped = state(tmp_path / "straight"), state(tmp_path / "stopped")
    assert straight.keys() == stopped.keys()
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_exported_weights_start_a_new_training(folder, tmp_path):
    out = train(tiny(folder, tmp_path / "first", steps=2))
    train(tiny(folder, tmp_path / "second", steps=0, init=out))
    first, second = (EmbeddedPrior.load(tmp_path / name / "out").net.state_dict() for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_large_patches_start_a_training_on_small_ones(folder, tmp_path):
    out = train(tiny(folder, tmp_path / "first", steps=1, patch=16))
    train(tiny(folder, tmp_path / "second", steps=1, init=out))
    large, small = (EmbeddedPrior.load(tmp_path / name / "out").net.config["patch"] for name in ("first", "second"))
    assert (large, small) == (16, 8)


def test_a_text_encoder_learns_to_read():
    torch.manual_seed(0)
    tokenizer = Tokenizer(grammar.vocabulary())
    text = TextEncoder(len(tokenizer), 24, 64, 2, 1)
    start = learn_to_read(copy.deepcopy(text), tokenizer, 1, seed=0)
    assert learn_to_read(text, tokenizer, 60, seed=0) < 0.5 * start


def test_a_replica_computes_and_the_network_collects(folder):
    net = torch.nn.Linear(3, 2)
    fast = replica(net, torch.bfloat16)
    with torch.no_grad():
        net.weight.fill_(0.5)
    refresh(fast, net)
    x = torch.tensor([[1.0, 2.0, 3.0]])
    for _ in range(2):
        fast(x.bfloat16()).sum().backward()
        collect(fast, net)
    assert net.weight.grad is not None
    assert net.weight.grad.dtype == torch.float32
    torch.testing.assert_close(net.weight.grad, 2 * x.expand(2, 3))
    assert fast.weight.grad is None


def test_batches_depend_on_their_rng_alone_and_drop_captions(folder):
    data, tokenizer = ToyViews.open(folder), Tokenizer(grammar.vocabulary())
    one, other = (draw_batch(data, np.arange(4), tokenizer, np.random.default_rng(5), dropout=1.0) for _ in range(2))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    assert torch.equal(one.tokens, tokenizer([""] * 4))
    assert ((one.time > 0) & (one.time < 1)).all()
    assert one.clean.shape == (4, 4, 4, 64, 64)
    assert not one.clean[:, :, :3, 0, 0].any()


def test_shifted_noise_times_have_twice_the_noise_and_nothing_else_changes(folder):
    data, tokenizer = ToyViews.open(folder), Tokenizer(grammar.vocabulary())
    plain, shifted = (draw_batch(data, np.arange(4), tokenizer, np.random.default_rng(5), shift=shift) for shift in (1.0, 2.0))
    ratios = [torch.tan(torch.pi / 2 * batch.time) for batch in (plain, shifted)]
    torch.testing.assert_close(ratios[1], 2 * ratios[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(plain.noise, shifted.noise)


def test_dyed_sets_are_painted_alike_and_of_an_unknown_colour(folder):
    data, tokenizer = ToyViews.open(folder), Tokenizer(grammar.vocabulary())
    plain, dyed = (draw_batch(data, np.arange(4), tokenizer, np.random.default_rng(5), dyed=share) for share in (0.0, 1.0))
    assert (dyed.tokens[:, 0] == UNKNOWN).all()
    assert not (plain.tokens == UNKNOWN).any()
    paints = {tokenizer(["red green blue white"])[0, i].item() for i in range(4)}
    assert paints & set(plain.tokens.flatten().tolist())
    assert not paints & set(dyed.tokens.flatten().tolist())
    before, after = (pixels_from_latents(batch.clean) for batch in (plain, dyed))
    assert torch.equal(before[:, :, 3], after[:, :, 3])
    assert (after[:, :, :3] <= after[:, :, 3:] + 1e-6).all()
    colours = after[:, :, :3, 32, 32]
    torch.testing.assert_close(colours, colours[:, :1].expand_as(colours))  # the same from all sides
    assert (colours - before[:, :, :3, 32, 32]).abs().amax((1, 2)).min() > 0.05


def test_the_vocabulary_covers_captions():
    tokenizer, rng = Tokenizer(grammar.vocabulary()), np.random.default_rng(0)
    tokenizer([grammar.caption(grammar.sample(rng), rng) for _ in range(200)])
    tokenizer([grammar.caption(Spec((Item("ball", "gray", "big"),)), rng)])


def test_learning_rate_warms_up_stays_and_falls():
    factors = [learning_rate_factor(i, float(i), warmup=4, total=20.0, decay=10.0) for i in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[10] == 1
    assert factors[15] == 0.5
    assert factors[20] == 0
    assert learning_rate_factor(1000, 2000.0, warmup=4, total=20.0, decay=0.0) == 1


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_orthogonalized_updates_have_singular_values_near_one(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(x, steps=8))
    assert ((values > 0.5) & (values < 1.4)).all()
