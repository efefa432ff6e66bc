"""The head that tells sides: what it learns, how it is measured, and that it stays with its encoder."""

from dataclasses import replace

import pytest
import torch

from rl3d.hub import find_model
from rl3d.rewards.sides import ENCODER, Sides
from rl3d.toybox.things import Item, Spec
from rl3d.train import sides

AZIMUTHS = torch.arange(8).repeat(60, 1) * 45.0


def features(told: float = 1.0) -> torch.Tensor:
    """Directions hidden in other numbers, of another scale; those of the last toys tell nothing."""
    rng = torch.Generator().manual_seed(0)
    x = 5 + 3 * torch.randn(60, 8, 16, generator=rng)
    x[:, :, 2:4] = 10 + told * sides.directions(AZIMUTHS) + 0.05 * torch.randn(60, 8, 2, generator=rng)
    return x


def test_a_head_finds_directions_and_says_nothing_where_there_are_none():
    x = features()
    x[40:, :, 2:4] = 10.0
    head = sides.fit(x, AZIMUTHS, 16, 400, 0)
    told = (head(x) * sides.directions(AZIMUTHS)).sum(-1)
    assert told[:40].mean() > 0.9
    assert head(x)[40:].norm(dim=-1).mean() < 0.4


def test_janus_has_a_face_on_every_side():
    class Perfect(torch.nn.Module):
        def forward(self, x):
            return x[..., 2:4] - 10

    found = sides.examine(Perfect(), features(), AZIMUTHS)
    assert found["score"] == pytest.approx(1, abs=0.02)
    assert found["janus"] == pytest.approx(0, abs=0.02)
    assert found["told_from_janus"] == 1
    assert found["within_45_deg"] == 1
    assert found["median_error_deg"] < 5


def test_only_single_toys_with_a_front_count():
    duck, cube = Item("duck", "red"), Item("cube", "red")
    specs = [Spec((duck,)), Spec((cube,)), Spec((duck, cube), "on"), Spec((replace(duck, count=2),)), Spec((duck,))]
    assert sides.with_front(specs, 9) == [0, 4]
    assert sides.with_front(specs, 1) == [0]


def test_a_head_is_read_again_and_refuses_another_encoder(tmp_path):
    training = sides.Training(tmp_path, out=tmp_path / "head")
    width = sum(p.shape[1] for p in Sides().build().head.parameters() if p.ndim == 2 and p.shape[0] != 2)
    head = torch.nn.Sequential(torch.nn.Linear(width, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    found = sides.examine(head, torch.rand(2, 4, width), AZIMUTHS[:2, :4])
    sides.write(training, head, 2, found)
    again = Sides(str(training.out)).build()
    x = torch.rand(3, width)
    torch.testing.assert_close(again.head(x), head(x), rtol=1e-2, atol=1e-2)
    assert "held-out toys" in (training.out / "README.md").read_text()
    (training.out / ENCODER).write_text("another\n")
    with pytest.raises(ValueError, match=r"not trained on the present encoder.*rl3d\.train\.sides"):
        Sides(str(training.out)).build()
    assert find_model("sides").is_dir()
