"""Memory that is computed without being taken, and runs that go on with less."""

import io
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from fake_prior import Fake, GaussianViews, tiny_recipe
from rich.console import Console
from torch import nn
from torch.utils.checkpoint import checkpoint

import rl3d.generate
from rl3d.commands.generate import show
from rl3d.generate import Request, create
from rl3d.memory import free_bytes, peak_bytes, ran_out
from rl3d.recipe import recipe_file, thriftier
from rl3d.run import Run
from rl3d.terms.distillation import Distill
from rl3d.types import Prompt

N = 4 * 1000
"""Bytes of the vector that the closed forms count in."""


def test_what_lives_at_once_is_counted_and_what_was_let_go_of_is_not():
    def work():
        x = torch.zeros(1000, device="meta")
        for _ in range(10):
            x = x + 1
        return x

    assert peak_bytes(work) == 2 * N
    assert peak_bytes(lambda: [torch.zeros(1000, device="meta") for _ in range(7)]) == 7 * N


def test_views_changes_in_place_and_what_was_there_before_cost_nothing():
    x = torch.zeros(1000, device="meta")
    assert peak_bytes(lambda: x.view(10, 100).transpose(0, 1)[3:]) == 0
    assert peak_bytes(lambda: x.mul_(2).add_(1)) == 0
    assert peak_bytes(lambda: (x + 1).mul_(2).view(-1)) == N


def test_what_autograd_keeps_is_seen_and_what_checkpointing_lets_go_of():
    def chain(x):
        for _ in range(8):
            x = x.exp()  # each keeps its result
        return x

    def work(saving: bool):
        x = torch.zeros(1000, device="meta", requires_grad=True)
        for _ in range(4):
            x = checkpoint(chain, x, use_reentrant=False) if saving else chain(x)
        x.sum().backward()

    assert 33 * N <= peak_bytes(lambda: work(False)) <= 37 * N
    assert 12 * N <= peak_bytes(lambda: work(True)) <= 17 * N


@pytest.mark.parametrize("grad", [False, True])
def test_on_meta_it_counts_what_it_counts_on_a_cpu(grad):
    def work(device):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(1152, 5)
        )
        net.to(device)

        def step():
            x = torch.zeros(4, 3, 16, 16, device=device, requires_grad=grad)
            with torch.set_grad_enabled(grad):
                y = net(x).sum()
                if grad:
                    y.backward()

        return peak_bytes(step)

    assert work("meta") == pytest.approx(work("cpu"), rel=0.02)


def test_attention_writes_no_matrix_of_all_pairs():
    q = torch.zeros(1, 1, 4096, 8, device="meta")
    assert peak_bytes(lambda: F.scaled_dot_product_attention(q, q, q)) == 4096 * (8 + 1) * 4
    before = F.scaled_dot_product_attention
    with pytest.raises(RuntimeError):
        peak_bytes(lambda: q @ torch.zeros(3, device="meta"))
    assert F.scaled_dot_product_attention is before


def test_errors_of_memory_are_told_from_others():
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(error.value)
    assert not ran_out(RuntimeError("shapes do not match"))
    assert free_bytes() > 2**20


@dataclass(frozen=True)
class Large(Fake):
    """A prior that runs out of memory at a certain prediction, unless it takes less of it."""

    low_memory: bool = False
    at: int = 1
    always: bool = False

    def build(self, device="cpu"):
        return Greedy(self)


class Greedy(GaussianViews):
    def __init__(self, value: Large):
        super().__init__()
        self.value, self.left = value, value.at

    def predict(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0 and (self.value.always or not self.value.low_memory):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines.")
        return super().predict(*args, **kwargs)


def made(folder, **prior) -> tuple[Run, str]:
    recipe = tiny_recipe(prior=Large(**prior), terms={"distill": Distill(guidance=1.0, rescale=0.0)}, steps=12)
    run, said = Run(folder), io.StringIO()
    create(run, Request(Prompt("red"), "draft"), recipe, recipe_file("draft"))
    show(run, recipe, "cpu", console=Console(file=said, width=200))
    return run, said.getvalue()


@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_run_that_runs_out_of_memory_goes_on_with_less_to_the_same_bytes(tmp_path, monkeypatch, at):
    monkeypatch.setattr(rl3d.generate, "CHECKPOINT_EVERY", 5)
    run, said = made(tmp_path / "large", at=at)
    assert "ran out of memory: going on with --prior.low-memory" in said
    small, quiet = made(tmp_path / "small", low_memory=True)
    assert "memory:" not in quiet
    assert [record["step"] for record in run.metrics()] == list(range(1, 13))
    assert (run.folder / "asset.ply").read_bytes() == (small.folder / "asset.ply").read_bytes()


def test_where_nothing_less_can_do_it_says_so_and_keeps_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setattr(rl3d.generate, "CHECKPOINT_EVERY", 5)
    with pytest.raises(ValueError, match="too little memory") as error:
        made(tmp_path / "large", low_memory=True, at=8, always=True)
    assert "More lines" not in str(error.value)
    assert "rl3d resume" in str(error.value)
    loaded = Run(tmp_path / "large").load()
    assert loaded is not None
    assert loaded[1]["step"] == 5


def test_thrift_is_known_by_the_priors_setting():
    recipe = tiny_recipe(prior=Large())
    smaller = thriftier(recipe)
    assert smaller == replace(recipe, prior=Large(low_memory=True))
    assert thriftier(smaller) is None
    assert thriftier(tiny_recipe(prior=Fake())) is None
    assert thriftier(tiny_recipe(prior=None)) is None
