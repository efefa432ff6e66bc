"""Every reward with every signal: one that can carry it does, any other refuses it and names one that can."""

import pytest
import torch
from fake_prior import GaussianViews, blob, redness, reward, situation, step, views

from rl3d import terms
from rl3d.cameras import Orbit
from rl3d.rewards.combine import Cached, Combine, Ensemble, Part
from rl3d.rewards.consistency import Normals
from rl3d.rewards.guards import Area, ColourEntropy, Sharpness
from rl3d.rewards.physics import Drop, Stands
from rl3d.rewards.shape import Decided, Printable, Symmetric, Whole
from rl3d.rewards.verify import Verified
from rl3d.terms.ascent import Ascend
from rl3d.terms.noise_search import SearchNoise
from rl3d.terms.policy import PixelPolicy
from rl3d.terms.preference import Prefer
from rl3d.terms.subspace import Evolve, KeepOrDrop, Pose

REWARDS = {
    "soft function": reward(redness, "pixels"),
    "black box": reward(),
    "area": Area(),
    "sharpness": Sharpness(),
    "colours": ColourEntropy(),
    "normals": Normals(),
    "decided": Decided(),
    "whole": Whole(),
    "stands": Stands(),
    "stands on mesh": Stands(on="mesh"),
    "drop": Drop(pieces="hull", seconds=0.1, step=0.005),
    "symmetric": Symmetric(),
    "printable": Printable(),
    "verified": Verified(),
    "combination": Combine({"area": Part(Area()), "red": Part(reward())}),
    "combination with a scene": Combine({"area": Part(Area()), "decided": Part(Decided())}),
    "ensemble": Ensemble({"area": Part(Area()), "red": Part(reward())}),
    "cached": Cached(reward()),
}
SEEN = {"rig": Orbit(views=2, size=16), "start": 0.0, "every": 1}
SIGNALS = {
    "Ascend": lambda r: Ascend(r, start=0.0),
    "Ascend, denoised": lambda r: Ascend(r, start=0.0, on="denoised"),
    "SearchNoise": lambda r: SearchNoise(r, noises=2),
    "Prefer": lambda r: Prefer(r),
    "PixelPolicy": lambda r: PixelPolicy(r, samples=4, start=0.0),
    "Evolve": lambda r: Evolve(r, Pose(), samples=2, **SEEN),
    "KeepOrDrop": lambda r: KeepOrDrop(r, count=3, samples=2, **SEEN),
}


def carries(signal, info):
    of_views, soft = info.needs == {"views"}, info.differentiable != "no"
    return {
        "Ascend": soft,
        "Ascend, denoised": soft and of_views,
        "SearchNoise": of_views,
        "Prefer": of_views,
        "PixelPolicy": "views" in info.needs,
    }.get(signal, True)


def seen_with_depth(scene):
    rendered = scene.render(Orbit(views=2, size=16).cameras())[0].detach()
    return rendered if rendered.depth is not None else views()


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", REWARDS)
def test_it_is_carried_or_refused(signal, name):
    part, scene, prior = REWARDS[name], blob(60), GaussianViews()
    with torch.no_grad():
        scene.opacity_logits.fill_(3.0)
    info = part.build("cpu").info
    term = SIGNALS[signal](part)
    if not carries(signal, info):
        with pytest.raises(ValueError, match=r"use (Ascend|SearchNoise|PixelPolicy|Evolve)"):
            term.build(situation(prior, scene))
        return
    live = term.build(situation(prior, scene))
    one = step(seen_with_depth(scene), prior, scene)
    losses = live.losses(one)
    assert losses.keys() <= {"pixels", "scene"}
    for kind, loss in losses.items():
        if loss.requires_grad:
            to = one.views.tensors() if kind == "pixels" else list(scene.parameters())
            found = torch.autograd.grad(loss, to, allow_unused=True, retain_graph=True)
            assert all(g is None or g.isfinite().all() for g in found)


def test_the_table_names_every_signal_there_is():
    import pkgutil

    assert {m.name for m in pkgutil.iter_modules(terms.__path__)} == {
        *("ascent", "distillation", "variational", "noise_search", "preference", "policy", "subspace", "match", "regularise"),
        *("denoising", "rewarded", "learner"),
    }, "a new signal that follows a reward belongs in SIGNALS above"
