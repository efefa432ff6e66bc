"""A guard against Janus: held-out toys look like the sides that they are, and their Janus does not."""

from dataclasses import replace

import torch
from world import spec, toy_shown

from rl3d.rewards.sides import Sides
from rl3d.types import Prompt, Views


def janus(views: Views) -> Views:
    """The first view on every side."""
    count = views.cameras.views
    return replace(views, rgb=views.rgb[:, :1].repeat(1, count, 1, 1, 1), alpha=views.alpha[:, :1].repeat(1, count, 1, 1, 1))


def test_a_face_on_every_side_is_worth_less_than_an_object_with_a_back():
    reward, lost = Sides().build(), 0
    toys = [(kind, paint) for kind in ("duck", "chair", "car", "armchair", "dog", "truck") for paint in ("red", "blue")]
    own, other = [], []
    for kind, paint in toys:
        views = toy_shown(spec(kind, paint), seed=5, size=64).views
        right, wrong = (reward.score(x, [Prompt("a thing")]).value.item() for x in (views, janus(views)))
        lost += right <= wrong
        own.append(right)
        other.append(wrong)
    assert lost <= 2
    assert sum(own) / len(own) > sum(other) / len(other) + 0.25


def test_turning_the_camera_without_the_object_makes_a_view_wrong():
    reward = Sides().build()
    views = toy_shown(spec("chair", "red"), seed=5, size=64).views
    half = views.cameras.views // 2
    turned = replace(views, rgb=views.rgb.roll(half, 1), alpha=views.alpha.roll(half, 1))
    one, other = (reward.score(x, [Prompt("a chair")]).per_view for x in (views, turned))
    assert one is not None
    assert other is not None
    # The back where the front should be: the same answers, along the opposite directions.
    torch.testing.assert_close(other, -one.roll(half, 1), atol=1e-4, rtol=1e-3)
