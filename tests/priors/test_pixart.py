"""PixArt, on tiny random models: Sigma, and Alpha, which is told of sizes."""

import torch
from family_checks import ChecksBesideDiffusers, noise
from tiny_families import write_alpha, write_pixart

from rl3d.cameras import Orbit
from rl3d.math import level_at
from rl3d.types import Prompt


class TestPixArt(ChecksBesideDiffusers):
    writers = (
        ("pixart", write_pixart),
        ("alpha", write_alpha),
    )

    def test_words_that_are_not_there_do_not_count(self, made):
        prior, x = made.prior, noise(made.prior, 1, 1)
        condition = prior.embed([Prompt("a mug")], Orbit(1).cameras())
        told = condition.wanted
        assert told.mask is not None
        count = int(told.mask.sum())
        assert told.text.shape[2] == {"pixart": 300, "alpha": 120}[made.name] > count > 1
        before = prior.predict(x, level_at(0.5), condition)
        told.text[:, :, count:] += 100
        torch.testing.assert_close(prior.predict(x, level_at(0.5), condition), before)
        told.text[:, :, :count] += 1
        assert not torch.allclose(prior.predict(x, level_at(0.5), condition), before, atol=1e-3)

    def test_alpha_is_told_of_sizes(self, made):
        prior = made.value().build()
        condition, x = prior.embed([Prompt("a mug")], Orbit(1).cameras()), noise(prior, 1, 1)
        before, seen = prior.predict(x, level_at(0.5), condition), []
        forward = prior.net.forward

        def other(*args, added_cond_kwargs, **more):
            seen.append(added_cond_kwargs)
            return forward(*args, added_cond_kwargs=added_cond_kwargs, **more)

        prior.net.forward = other
        torch.testing.assert_close(prior.predict(x, level_at(0.5), condition), before)
        if made.name == "pixart":
            assert seen == [{"resolution": None, "aspect_ratio": None}]
        else:
            assert seen[0]["resolution"].tolist() == [[16, 16]]
            assert seen[0]["aspect_ratio"].tolist() == [[1]]
