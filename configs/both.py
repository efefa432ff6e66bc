"""Both actors: the default, whose prior learns meanwhile what the reward prefers of the scene's own states."""

from dataclasses import replace

from rl3d.configs.default import recipe as default  # pyright: ignore[reportMissingImports]

from rl3d.algorithms.nft import Nft
from rl3d.tutor import Teach

recipe = replace(
    default,
    about="the default, whose prior is taught meanwhile by the scene's states, as the embedded reward ranks them (no paper)",
    teach=Teach(Nft(limit=2.0, draws=2, follow=0.05), source="scene", every=8, start=0.2, memory=4),
)
