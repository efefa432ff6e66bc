"""What every reward keeps to, whatever it judges. A new reward is one more line of ``CASES``."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from trimesh import Trimesh
from trimesh.creation import box, icosphere
from trimesh.util import concatenate
from world import mesh_shown, random_views, spec, splat_shown, splats_of, toy_shown

from rl3d.protocols import Reward, RewardInfo, Shown
from rl3d.rewards.aesthetic import Aesthetic
from rl3d.rewards.base import FromCallable, Paired, SplatScene, Tournament, from_callable, pick, shown, together
from rl3d.rewards.clip import Clip
from rl3d.rewards.combine import Cached, Combine, Ensemble, Part
from rl3d.rewards.consistency import Normals, Refit, Reprojection
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.rewards.physics import Stands
from rl3d.rewards.preference import Hps, ImageReward, PickScore
from rl3d.rewards.remote import AskYesNo, Caller, Remote
from rl3d.rewards.shape import Closed, Decided, Pieces, Printable, Symmetric, Thick, Undercut, Whole
from rl3d.rewards.sides import Sides
from rl3d.rewards.trained import Trained
from rl3d.rewards.verify import Verified
from rl3d.types import Prompt, Splats

PROMPTS = [Prompt("a red mug"), Prompt("a blue cube on a red cube"), Prompt("a red cube")]


@dataclass(frozen=True)
class Case:
    """A reward, three samples to judge, and a good and a bad one where it has an opinion of its own."""

    name: str
    build: Callable[[Callable], Reward]
    """Gets a function from the name of a fixture to its value."""
    batch: Callable[[], Shown]
    good: Callable[[], Shown] | None = None
    bad: Callable[[], Shown] | None = None
    prompts: tuple[Prompt, ...] = tuple(PROMPTS)
    step: float = 1e-3
    """Of finite differences: smaller where the reward has kinks and is computed in double precision."""


def brightness(what, prompts):
    return what.views.rgb.mean((2, 3, 4))


def redness(what, prompts):
    return [float(rgb[..., 0].mean() - rgb[..., 2].mean()) for rgb in what.views.rgb.detach()]


def views(b=3):
    return Shown(random_views(b))


def grey(level: float):
    def make() -> Shown:
        one = random_views(1)
        return Shown(replace(one, rgb=level * one.alpha.expand_as(one.rgb)))

    return make


def toys() -> Shown:
    return together([toy_shown(spec(*what)) for what in (("mug", "red"), ("car", "blue"), ("chair", "wooden"))])


def solids() -> Shown:
    return mesh_shown(box((1, 0.5, 0.5)), broken(), icosphere(radius=0.4))


def good_mesh() -> Shown:
    return mesh_shown(box((0.5, 0.5, 0.5)))


def broken():
    """A cube that lacks a face, and to one side a thin plate in the air."""
    cube, plate = box((0.5, 0.5, 0.5)), box((0.6, 0.6, 0.03))
    plate.apply_translation((0, 0.5, 0.9))
    return concatenate([Trimesh(cube.vertices, cube.faces[1:], process=False), plate])


def bad_mesh() -> Shown:
    return mesh_shown(broken())


def clouds() -> Shown:
    made = [splats_of(icosphere(radius=r), 40, scale=s) for r, s in ((0.3, 0.05), (0.6, 0.05), (0.5, 0.08))]
    made = [replace(m, opacity_logits=m.opacity_logits - 0.7 * i + 0.03 * torch.arange(40)) for i, m in enumerate(made)]
    stray = torch.zeros(40, 3)
    stray[:1, 0] = 3.0
    made[1] = replace(made[1], means=made[1].means + stray)
    return together([splat_shown(m) for m in made])


def ball_of_splats(logit: float, stray: float = 0.0) -> Callable[[], Shown]:
    def make() -> Shown:
        made = splats_of(icosphere(radius=0.4), 100, scale=0.05)
        shift = torch.zeros(100, 3)
        shift[:4, 0] = stray
        return splat_shown(replace(made, means=made.means + shift, opacity_logits=torch.full((100,), logit)))

    return make


def block(side: float, height: float) -> Callable[[], Shown]:
    return lambda: splat_shown(splats_of(box((side, side, height)), 300, scale=0.02))


def mug() -> Shown:
    return toy_shown(spec("mug", "red"), views=6)


def wrong_mug() -> Shown:
    """Every second view in other colours, and normals that look sideways."""
    true = mug()
    rgb = true.views.rgb.clone()
    rgb[:, ::2] = rgb[:, ::2].flip(-1)
    return Shown(replace(true.views, rgb=rgb, normals=true.views.normals.roll(1, -1)), true.scenes)


def mesh_case(name: str, reward) -> Case:
    return Case(name, lambda get: reward, solids, good_mesh, bad_mesh)


def coloured(red: float, blue: float) -> Callable[[], Shown]:
    def make() -> Shown:
        one = random_views(1)
        return Shown(replace(one, rgb=one.alpha * torch.tensor([red, 0.3, blue])))

    return make


CUBE = spec("cube", "red")
CLAIMS = (Prompt("a red cube"), Prompt("two red cubes"), Prompt("a blue cube"))


def claimed() -> Shown:
    return together([toy_shown(CUBE)] * 3)


BRIGHT = RewardInfo("brightness", "pixels", (0.0, 1.0), "", "Apache-2.0", "a test")
CASES = [
    Case("clip", lambda get: Clip(str(get("clip_folder"))).build(), views),
    Case("clip by sides", lambda get: Clip(str(get("clip_folder")), sides=True).build(), views),
    Case("aesthetic", lambda get: Aesthetic(str(get("deep_head")), Clip(str(get("clip_folder")))).build(), views),
    Case("trained", lambda get: Trained(str(get("trained_folder"))).build(), views),
    Case("hps", lambda get: Hps(*map(str, get("hps_files"))).build(), views),
    Case("pickscore", lambda get: PickScore(str(get("pickscore_folder"))).build(), views),
    Case("imagereward", lambda get: ImageReward(str(get("imagereward_file")), str(get("bert_folder"))).build(), views),
    Case("differentiable function", lambda get: FromCallable(brightness, BRIGHT), views, grey(0.9), grey(0.1)),
    Case("function", lambda get: from_callable(redness), views),
    Case("cached", lambda get: Cached(from_callable(redness)).build(), views),
    Case("area", lambda get: Area(), views),
    Case("sharpness", lambda get: Sharpness(), views, lambda: views(1), grey(0.5)),
    Case("colour entropy", lambda get: ColourEntropy(), views, lambda: views(1), grey(0.5)),
    Case("sides", lambda get: Sides().build(), views),
    Case("reprojection", lambda get: Reprojection(), toys, mug, wrong_mug, step=1e-6),
    Case("normals", lambda get: Normals(), toys, mug, wrong_mug),
    Case("refit", lambda get: Refit(steps=5).build(), toys, mug, wrong_mug),
    Case("whole", lambda get: Whole(), clouds, ball_of_splats(2.0), ball_of_splats(2.0, 0.9)),
    Case("decided", lambda get: Decided(), clouds, ball_of_splats(5.0), ball_of_splats(0.5)),
    Case("stands", lambda get: Stands(contact=0.1), clouds, block(1.0, 0.5), block(0.3, 1.2)),
    mesh_case("stands as a solid", Stands("mesh")),
    mesh_case("thick", Thick(0.1)),
    mesh_case("symmetric", Symmetric()),
    mesh_case("closed", Closed()),
    mesh_case("pieces", Pieces()),
    mesh_case("printable", Printable()),
    Case("undercut", lambda get: Undercut(), solids, lambda: mesh_shown(icosphere(radius=0.4)), good_mesh),
    Case("remote", lambda get: Remote(Caller(get("service"))), views, coloured(0.9, 0.1), coloured(0.1, 0.9)),
    Case("yes or no", lambda get: AskYesNo(Caller(get("service")), "m"), views, coloured(0.9, 0.1), coloured(0.1, 0.9)),
    Case("verified", lambda get: Verified(), claimed, lambda: toy_shown(CUBE), lambda: toy_shown(spec("cube", "blue")), CLAIMS),
    Case("combination", lambda get: Combine({"a": Part(Area(), 2.0), "s": Part(Sharpness(), center=0.1)}).build(), views),
    Case("ensemble", lambda get: Ensemble({"a": Part(Area()), "s": Part(Sharpness())}).build(), views),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.fixture
def reward(case, request) -> Reward:
    return case.build(request.getfixturevalue)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5, equal_nan=True)


def test_scores_are_finite_and_within_their_range(case, reward):
    seen = case.batch()
    score = reward.score(seen, list(case.prompts))
    assert score.value.shape == (3,)
    assert score.valid.all()
    assert score.value.isfinite().all()
    low, high = reward.info.range
    assert low - 1e-5 <= score.value.min()
    assert score.value.max() <= high + 1e-5
    if score.per_view is not None:
        assert score.per_view.shape == seen.views.rgb.shape[:2]


def test_it_tells_samples_apart(case, reward):
    """A constant would pass most of what follows."""
    value = reward.score(case.batch(), list(case.prompts)).value.detach()
    assert value.max() - value.min() > 1e-6


def test_what_it_says_of_itself(reward):
    info = reward.info
    assert isinstance(reward, Reward)
    assert all((info.name, info.licence or not info.weights, info.source))
    assert info.needs <= {"views", "depth", "splats", "mesh"}
    assert info.range[0] < info.range[1]


def test_scores_follow_the_order_of_samples(case, reward):
    seen, order = case.batch(), [2, 0, 1]
    score = reward.score(seen, list(case.prompts))
    other = reward.score(pick(seen, order), [case.prompts[i] for i in order])
    close(other.value, score.value[order])
    assert other.valid.tolist() == score.valid[order].tolist()


def test_company_does_not_matter(case, reward):
    seen = case.batch()
    score = reward.score(seen, list(case.prompts))
    alone = [reward.score(pick(seen, [i]), [case.prompts[i]]).value for i in range(3)]
    close(torch.cat(alone), score.value)


def test_what_is_not_finite_is_not_valid_and_harms_no_other(case, reward):
    seen = case.batch()
    score = reward.score(seen, list(case.prompts))
    rgb = seen.views.rgb.clone()
    rgb[1, 0] = torch.nan
    broken = reward.score(Shown(replace(seen.views, rgb=rgb), seen.scenes), list(case.prompts))
    assert broken.valid.tolist() == [True, False, True]
    close(broken.value[[0, 2]], score.value[[0, 2]])


def test_every_sample_needs_a_prompt(case, reward):
    with pytest.raises(ValueError, match="one prompt to each"):
        reward.score(case.batch(), list(case.prompts[:2]))


def test_what_it_needs_must_be_shown(case, reward):
    seen = case.batch()
    poor = Shown(replace(seen.views, depth=None, normals=None))
    if reward.info.needs == {"views"}:
        close(reward.score(poor, list(case.prompts)).value, reward.score(seen, list(case.prompts)).value)
    else:
        with pytest.raises(ValueError, match="needs"):
            reward.score(poor, list(case.prompts))


def test_what_nothing_covers_does_not_count(case, reward):
    seen = case.batch()
    if seen.views.depth is None:
        pytest.skip("no depth")
    empty = seen.views.alpha == 0
    assert empty.any()
    depth = torch.where(empty, 7.0, seen.views.depth)
    normals = torch.where(empty, 0.5, seen.views.normals)
    other = Shown(replace(seen.views, depth=depth, normals=normals), seen.scenes)
    close(reward.score(other, list(case.prompts)).value, reward.score(seen, list(case.prompts)).value)


def test_backgrounds_show_only_where_they_are_said_to(case, reward):
    if not reward.info.background:
        pytest.skip("it lays nothing under the views")
    seen = case.batch()
    opaque = replace(seen.views, alpha=torch.ones_like(seen.views.alpha))

    def score(what, background):
        return reward.score(what, list(case.prompts), background=background).value.detach()

    close(score(opaque, 0.1), score(opaque, 0.9))
    assert (score(seen, 0.1) - score(seen, 0.9)).abs().max() > 1e-6


def test_gradients_agree_with_finite_differences(case, reward):
    """Along the gradient itself, in double precision where the reward can."""
    if reward.info.differentiable != "pixels":
        pytest.skip("no gradient in the pixels")
    if isinstance(reward, nn.Module):
        reward.double()
    seen = case.batch()
    images = [x.double() for x in seen.views.tensors()]

    def value(moved):
        names = [n for n in ("rgb", "alpha", "depth", "normals") if getattr(seen.views, n) is not None]
        cameras = seen.views.cameras
        cameras = replace(cameras, cam_from_world=cameras.cam_from_world.double(), intrinsics=cameras.intrinsics.double())
        looked = replace(seen.views, cameras=cameras, **dict(zip(names, moved, strict=True)))
        return reward.score(Shown(looked, seen.scenes), list(case.prompts)).value.double().sum()

    agree(value, images, case.step)


def agree(value, tensors, step=1e-3, rtol=2e-2):
    """The slope along the gradient is its norm."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    found = torch.autograd.grad(value(leaves), leaves, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
    norm = torch.stack([g.square().sum() for g in found]).sum().sqrt()
    assert norm.isfinite()
    assert norm > 1e-6
    ways = [step / norm * g for g in found]
    with torch.no_grad():
        ahead = value([x + d for x, d in zip(tensors, ways, strict=True)])
        behind = value([x - d for x, d in zip(tensors, ways, strict=True)])
    torch.testing.assert_close((ahead - behind) / (2 * step), norm.to(ahead), rtol=rtol, atol=1e-6)


def test_gradients_in_the_scene_agree_with_finite_differences(case, reward):
    if reward.info.differentiable != "scene":
        pytest.skip("no gradient in the scene")
    seen = pick(case.batch(), [0])
    fields = seen.scenes[0].splats().tensors()

    def value(moved):
        scene = type(seen.scenes[0])(Splats(**dict(zip(fields, moved, strict=True))))
        return reward.score(replace(seen, scenes=(scene,)), [case.prompts[0]]).value.sum()

    agree(value, [x.double() for x in fields.values()], step=1e-4)


def test_black_boxes_have_no_gradient(case, reward):
    if reward.info.differentiable != "no":
        pytest.skip("it has one")
    seen = case.batch()
    score = reward.score(Shown(seen.views.leaves(), seen.scenes), list(case.prompts))
    assert not score.value.requires_grad


def test_a_good_sample_ranks_above_a_bad_one(case, reward):
    if case.good is None or case.bad is None:
        pytest.skip("a random model has no taste")
    good, bad = (reward.score(make(), [case.prompts[0]]).value for make in (case.good, case.bad))
    assert good > bad


def test_weights_are_frozen_and_modes_are_of_evaluation(reward):
    if not isinstance(reward, nn.Module):
        pytest.skip("no weights")
    assert not any(p.requires_grad for p in reward.parameters())
    assert not any(module.training for module in reward.modules())


def test_functions_must_give_a_number_for_each_sample():
    def wrong(what, prompts):
        return [1.0]

    with pytest.raises(ValueError, match=r"must give \[3\]"):
        from_callable(wrong).score(views(), PROMPTS)


def test_none_is_not_valid():
    score = from_callable(lambda what, prompts: [1.0, None, 3.0]).score(views(), PROMPTS)
    assert score.valid.tolist() == [True, False, True]
    assert score.value[[0, 2]].tolist() == [1.0, 3.0]


def test_pairs_follow_the_difference():
    reward = Paired(from_callable(brightness), temperature=0.1)
    a, b = grey(0.9)(), grey(0.1)()
    won = reward.prefer(a, b, PROMPTS[:1])
    gap = brightness(a, None).mean() - brightness(b, None).mean()
    torch.testing.assert_close(won.value, torch.sigmoid(gap / 0.1)[None])
    torch.testing.assert_close(reward.prefer(b, a, PROMPTS[:1]).value, 1 - won.value)
    torch.testing.assert_close(reward.prefer(a, a, PROMPTS[:1]).value, torch.tensor([0.5]))


def test_a_tournament_ranks_samples_of_one_prompt_as_its_judge_would():
    many = together([grey(0.2)(), grey(0.9)(), grey(0.5)(), grey(0.7)()])
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[1]]
    score = Tournament(Paired(from_callable(brightness), 0.1)).score(many, prompts)
    assert score.value[:3].argsort().tolist() == [0, 2, 1]
    assert score.valid.tolist() == [True, True, True, False]


class _FirstIsBetter:
    info = BRIGHT

    def prefer(self, a, b, prompts):
        from rl3d.types import Score

        n = len(prompts)
        return Score(torch.full((n,), 0.9), None, torch.tensor([i % 2 == 0 for i in range(n)]))


def test_a_tournament_takes_no_heed_of_places_nor_of_what_is_not_valid():
    class Biased(_FirstIsBetter):
        def prefer(self, a, b, prompts):
            return replace(super().prefer(a, b, prompts), valid=torch.ones(len(prompts), dtype=torch.bool))

    two = together([grey(0.2)(), grey(0.9)()])
    torch.testing.assert_close(Tournament(Biased()).score(two, PROMPTS[:1] * 2).value, torch.tensor([0.5, 0.5]))
    # Of the two meetings only the first counts, which sample 0 won.
    once = Tournament(_FirstIsBetter()).score(two, PROMPTS[:1] * 2)
    torch.testing.assert_close(once.value, torch.tensor([0.9, 0.1]))


def test_samples_can_be_taken_apart_and_put_together():
    batch = views()
    again = together([pick(batch, [i]) for i in range(3)])
    torch.testing.assert_close(again.views.rgb, batch.views.rgb)
    torch.testing.assert_close(again.views.cameras.intrinsics, batch.views.cameras.intrinsics)
    assert shown(batch.views).scenes == ()
    with pytest.raises(ValueError, match="one scene for each"):
        Shown(batch.views, (SplatScene(splats_of(icosphere())),))
