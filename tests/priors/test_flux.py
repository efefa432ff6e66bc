"""FLUX.1, on tiny random models: dev, which is told of guidance, and schnell, which is not."""

import torch
from family_checks import PROMPTS, ChecksBesideDiffusers, noise
from tiny_families import write_flux, write_schnell

from rl3d.cameras import Orbit
from rl3d.math import flow_level_at
from rl3d.priors.flux import pack, unpack


class TestFlux(ChecksBesideDiffusers):
    writers = (
        ("flux", write_flux),
        ("schnell", write_schnell),
    )

    def test_dev_is_told_of_guidance_at_no_cost(self, made):
        x, level = noise(made.prior), flow_level_at(0.6)
        weak, strong = (made.value(distilled_guidance=g).build() for g in (1.0, 7.0))
        condition = weak.embed(PROMPTS, Orbit(4).cameras())
        assert condition.wanted.text.shape[2] == (512 if made.name == "flux" else 256)
        one, other = (prior.predict(x, level, condition) for prior in (weak, strong))
        assert torch.allclose(one, other) == (made.name == "schnell")

    def test_without_a_size_it_takes_that_of_its_training(self, made):
        assert made.prior.family.shape(made.prior.net.config) == (4, 128, 2)


def test_patches_are_those_of_the_pipeline():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 6, 8))
    assert torch.equal(unpack(pack(latents), 6), latents)
