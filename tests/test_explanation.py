"""Why a scene moved: the gradients are those that moved it, and a file of them says the same."""

import pytest
import torch
from fake_prior import RED, Fake, GaussianViews, Hold, redness, reward, run, tiny_recipe

from rl3d.cameras import RandomOrbit
from rl3d.explanation import SIDE, Explanation, explain, read_explanation, why_path, write_explanation
from rl3d.files import read_tensors, tensor_bytes
from rl3d.optimize import Report, advance, begin
from rl3d.protocols import Situation
from rl3d.recipe import Watch
from rl3d.record import Watcher
from rl3d.rewards.shape import Decided
from rl3d.run import Run
from rl3d.terms.ascent import Ascend
from rl3d.terms.distillation import Distill, Interval
from rl3d.terms.noise_search import SearchNoise
from rl3d.terms.preference import Prefer
from rl3d.terms.regularise import Solid
from rl3d.types import Views

PLAIN = {"guidance": 1.0, "rescale": 0.0}


def recipe(**changes):
    terms = {
        "distill": Distill(**PLAIN),
        "climb": Ascend(reward(redness, "pixels"), start=0.0),
        "solid": Solid(),
    }
    plain = {
        "terms": terms,
        "weights": {"distill": 0.5},
        "ratios": {"climb": 0.3},
        "guards": {"guard": reward()},
        "watch": Watch(),
    }
    return tiny_recipe(**(plain | changes))


def explained(value, steps=1) -> tuple[Explanation, Report]:
    o = begin(value, RED)
    for _ in range(steps):
        report = advance(o)
    return explain(report, o, Watcher(value, RED)), report


def test_gradients_are_those_after_weights_and_ratios():
    found, report = explained(recipe())
    distill, climb = found.terms["distill"].gradient, found.terms["climb"].gradient
    norm = {name: torch.stack([x.square().sum() for x in g.tensors()]).sum().sqrt() for name, g in report.gradients.items()}
    assert report.norms == pytest.approx({name: float(x) for name, x in norm.items()})
    assert norm["climb"] == pytest.approx(0.3 * float(norm["distill"]), rel=1e-4)
    assert distill is report.gradients["distill"]
    assert climb.rgb.shape == found.views.rgb.shape
    # Redness rises where red does: descent against the gradient makes what is covered redder.
    assert climb.rgb[..., 0].mean() < 0 < climb.rgb[..., 1].mean()
    assert found.terms["solid"].gradient is None
    assert found.terms["solid"].views is None
    assert found.terms["distill"].views == (0, 2)
    assert found.terms["distill"].weight == 0.5


def test_a_target_is_what_the_prior_predicted_and_gives_the_gradient():
    found, report = explained(recipe(terms={"distill": Distill(**PLAIN)}, ratios={}))
    target = found.terms["distill"].targets["target"]
    prior = GaussianViews()
    latents = prior.encode(Views(target[..., :3], target[..., 3:], None, None, found.views.cameras))
    torch.testing.assert_close(latents, report.predicted["distill"]["target"], rtol=1e-4, atol=1e-4)
    clean = prior.encode(found.views)
    assert 0.5 * (clean - latents).square().sum() / clean.shape[1] == pytest.approx(found.terms["distill"].loss, rel=1e-3)


@pytest.mark.parametrize(
    ("term", "names"),
    [
        (Interval(**PLAIN), {"target"}),
        (SearchNoise(reward(), noises=2, **PLAIN), {"target"}),
        (Prefer(reward(), gap=0.0, **PLAIN), {"winner", "loser"}),
        (Prefer(reward(), start=0.5, **PLAIN), {"target"}),
        (Ascend(reward(redness, "pixels"), start=0.0, on="denoised", **PLAIN), {"judged"}),
        (Hold(), set()),
    ],
)
def test_signals_note_what_the_prior_predicted(term, names):
    found, _ = explained(recipe(terms={"it": term, "hold": Hold()}, weights={}, ratios={}))
    targets = found.terms["it"].targets
    assert set(targets) == names
    assert all(x.shape == (1, 2, 16, 16, 4) and not x.requires_grad for x in targets.values())


def test_views_are_judged_one_by_one_by_rewards_and_guards():
    guards = {"guard": reward(), "shape": Decided()}
    found, _ = explained(recipe(guards=guards), steps=8)
    expected = redness(type("S", (), {"views": found.views}), None)[0].tolist()
    assert max(expected) > 0.05
    assert found.guards["guard"] == pytest.approx(expected, abs=1e-6)
    assert found.terms["climb"].per_view == pytest.approx(expected, abs=1e-6)
    assert found.terms["distill"].per_view is None
    assert "shape" not in found.guards
    # What the term showed it was shifted and zoomed a little.
    assert found.terms["climb"].heard["redness"].raw == pytest.approx([sum(expected) / 2], rel=0.2)


def test_a_file_says_the_same(tmp_path):
    found, _ = explained(recipe())
    write_explanation(tmp_path / "x", found)
    back = read_explanation(tmp_path / "x")
    assert back.step == found.step == 1
    torch.testing.assert_close(back.views.rgb, found.views.rgb.clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(back.views.alpha, found.views.alpha.clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(back.views.depth, found.views.depth, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back.views.normals, found.views.normals, rtol=0, atol=0.5 / 127 + 1e-6)
    torch.testing.assert_close(back.views.cameras.cam_from_world, found.views.cameras.cam_from_world)
    torch.testing.assert_close(back.views.cameras.intrinsics, found.views.cameras.intrinsics)
    assert list(back.terms) == list(found.terms)
    for name, pull in found.terms.items():
        other = back.terms[name]
        assert (other.loss, other.weight, other.views) == (pull.loss, pull.weight, pull.views)
        assert (other.heard, other.per_view) == (pull.heard, pull.per_view)
        assert (other.gradient is None) == (pull.gradient is None)
        for one, two in zip(*([] if g is None else g.tensors() for g in (other.gradient, pull.gradient)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-12)
        assert other.targets.keys() == pull.targets.keys()
        for key, x in pull.targets.items():
            torch.testing.assert_close(other.targets[key], x.clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)
    assert back.guards == found.guards


def test_large_views_are_averaged_down(tmp_path):
    large = recipe(prior=None, terms={"hold": Hold()}, weights={}, ratios={}, rig=RandomOrbit(views=1, size=2 * SIDE))
    found, _ = explained(large)
    write_explanation(tmp_path / "x", found)
    back = read_explanation(tmp_path / "x").views
    assert back.rgb.shape == (1, 1, SIDE, SIDE, 3)
    assert (back.cameras.width, back.cameras.height) == (SIDE, SIDE)
    blocks = found.views.rgb[0, 0].view(SIDE, 2, SIDE, 2, 3).mean((1, 3)).clamp(0, 1)
    torch.testing.assert_close(back.rgb[0, 0], blocks, rtol=0, atol=0.5 / 255 + 1e-5)
    covered = found.views.alpha[0, 0, ..., 0].reshape(SIDE, 2, SIDE, 2).amin((1, 3)) > 0.9
    nearest = found.views.depth[0, 0, ..., 0].reshape(SIDE, 2, SIDE, 2)
    assert (back.depth[0, 0, ..., 0][covered] >= nearest.amin((1, 3))[covered] - 1e-2).all()
    torch.testing.assert_close(
        back.cameras.intrinsics[0, 0, :2] * 2, found.views.cameras.intrinsics[0, 0, :2], rtol=1e-5, atol=1e-4
    )


def test_explaining_every_step_changes_nothing():
    value = recipe()
    alone, asked = run(begin(value, RED)), begin(value, RED)
    watcher = Watcher(value, RED)
    while asked.step < value.steps:
        explain(advance(asked), asked, watcher)
    assert torch.equal(alone.rng.get_state(), asked.rng.get_state())
    assert all(torch.equal(p, q) for p, q in zip(alone.scene.parameters(), asked.scene.parameters(), strict=True))


class NaN:
    """A pixel term whose gradient is not a number."""

    def build(self, situation: Situation):
        return self

    def cameras(self, shared, rng):
        return shared

    def losses(self, step):
        return {"pixels": step.views.rgb.sum() * float("nan")}


def test_a_step_that_was_left_out_is_explained_too(tmp_path):
    found, report = explained(recipe(terms={"hold": Hold(), "nan": NaN()}, weights={}, ratios={}))
    assert report.skipped
    write_explanation(tmp_path / "x", found)
    assert read_explanation(tmp_path / "x").terms["nan"].gradient.rgb.isnan().any()


@pytest.mark.parametrize(
    "change",
    [
        lambda t, a: t.pop("rgb"),
        lambda t, a: t.pop("pose"),
        lambda t, a: t.pop("0.target.0"),
        lambda t, a: t.update(rgb=t["rgb"][:, :1]),
        lambda t, a: t.update({"0.gradient.rgb": t["0.gradient.rgb"][..., :1]}),
        lambda t, a: t.update({"0.target.0": t["0.target.0"].repeat(1, 1, 99, 1, 1)}),
        lambda t, a: t["pose"].fill_(float("nan")),
        lambda t, a: a.pop("size"),
        lambda t, a: a.update(size=[10**9, 16]),
        lambda t, a: a.update(step="now"),
        lambda t, a: a.update(terms={"a": 1}),
        lambda t, a: a["terms"][0].update(views=[0, 99]),
        lambda t, a: a["terms"][0].pop("loss"),
        lambda t, a: a["terms"][0].update(heard={"x": 3}),
        lambda t, a: a.update(guards={"guard": [0.5] * 99}),
        lambda t, a: a.update(guards={"guard": ["much", 1]}),
        lambda t, a: a.update(guards=[]),
    ],
)
def test_damaged_explanations_are_refused(tmp_path, change):
    path = why_path(Run(tmp_path), 25)
    write_explanation(path, explained(recipe())[0])
    tensors, about = read_tensors(path)
    change(tensors, about)
    path.write_bytes(tensor_bytes(tensors, about))
    with pytest.raises(ValueError, match="damaged"):
        read_explanation(path)


def test_a_prior_that_is_shared_explains_the_leader():
    from rl3d.recipe import BestOf
    from rl3d.search import advance as advance_all
    from rl3d.search import begin as begin_all
    from rl3d.start import Draw

    value = recipe(search=BestOf(2, reward=reward()), draw=Draw(views=2, steps=2, **PLAIN), prior=Fake(coarse=True))
    o = begin_all(value, RED)
    found = explain(advance_all(o), o)
    assert found.terms["distill"].targets["target"].shape == (1, 2, 16, 16, 4)
