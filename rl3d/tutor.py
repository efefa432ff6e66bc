"""Both actors at once: the prior is taught while it guides a scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rl3d.algorithms.common import Algorithm, FromSamples, Panel, Samples
from rl3d.algorithms.nft import Nft
from rl3d.cameras import RandomOrbit
from rl3d.estimators import Advantages
from rl3d.priors.lora import Lora, LoraPrior
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.priors.sampling import for_each
from rl3d.protocols import Prior, Representation, RewardPart, Situation
from rl3d.rewards.clip import Clip
from rl3d.terms.learner import Learner
from rl3d.terms.rewarded import VIEWS, build_reward

LEARNS = "policy"


@dataclass(frozen=True)
class Teach:
    """Teach the prior for this one prompt while it guides the scene: two optimisers, two clocks.

    All terms ask the taught prior. It learns by an algorithm of :mod:`rl3d.algorithms`, a lesson every so many steps, from its
    own samples, or from the scene: then renderings are the clean samples, the scene is what draws them, and its states so far
    are what is compared. That takes an algorithm that learns from samples of any source: NFT, DPO, RWR. No paper describes
    this.
    """

    algorithm: Algorithm = field(
        default_factory=lambda: Nft(
            Sampling(steps=8, stepper=Ddim(0.0), guidance=2.0, rescale=0.5), group=4, limit=2.0, follow=0.01
        )
    )
    rewards: dict[str, RewardPart] = field(default_factory=lambda: {"encoder": Clip()})
    """What judges. All remembered renderings are shown in each lesson, since some rewards compare; with the embedded encoder
    that is 3 % of a lesson. A slow one goes in :class:`~rl3d.rewards.combine.Cached`, which asks it about the new one alone.
    """
    weights: dict[str, float] = field(default_factory=dict)
    """Of rewards; 1 for those not named."""
    adapt: Lora = field(default_factory=lambda: Lora(dtype="loaded"))
    """What learns. Ratios of policies need a prior in float32 (``--prior.dtype float32``); NFT and DPO do not."""
    source: Literal["prior", "scene"] = "prior"
    """Who draws the samples."""
    every: int = 10
    """Steps of the scene from one lesson to the next."""
    start: float = 0.0
    """Progress in [0, 1) from which on it is taught."""
    rate: float = 1e-3
    """Adam's."""
    memory: int = 6
    """Renderings of the scene that are remembered and compared, where it draws the samples."""
    rig: RandomOrbit = field(default_factory=RandomOrbit)
    """The cameras of a sample; where the scene draws them they are the same each time, so that only its states differ."""

    def __post_init__(self):
        if self.every < 1 or self.memory < 2 or not 0 <= self.start < 1 or self.rate <= 0:
            raise ValueError(
                "teaching needs 1 step or more between lessons, 2 renderings or more, a start in [0, 1) and a positive rate; "
                f"got every {self.every}, memory {self.memory}, start {self.start}, rate {self.rate}"
            )
        if not self.rewards:
            raise ValueError("teaching needs at least one reward")
        if strange := set(self.weights) - set(self.rewards):
            raise ValueError(f"there is no reward {', '.join(sorted(strange))} to weigh: there are {', '.join(self.rewards)}")
        if self.source == "scene" and not isinstance(self.algorithm, FromSamples):
            raise ValueError(
                f"{type(self.algorithm).__name__} needs to know how samples were drawn, and the prior does not draw a scene's "
                'renderings: take Nft, DiffusionDpo or Rwr, or source "prior"'
            )

    @property
    def passes(self) -> float:
        """Network passes a step: those of sampling, and of a loss with the policy (forth and back) and two others."""
        a: Any = self.algorithm
        group, draws = getattr(a, "group", 1), getattr(a, "draws", 1)
        drawn = group * a.sampling.steps * (2 if a.sampling.guidance != 1 else 1) if self.source == "prior" else 0
        return (drawn + 5 * draws * (group if self.source == "prior" else self.memory)) / self.every

    def build(self, situation: Situation) -> Tutor:
        """Give the prior weights that learn.

        Raises:
            ValueError: if it cannot be taught, or the algorithm cannot follow the rewards.
        """
        if situation.prior is None:
            raise ValueError("there is no prior to teach: give the recipe one, or leave out `teach`")
        if not isinstance(situation.prior, nn.Module):
            raise ValueError("this prior is shared by several scenes, and one tutor cannot serve them all: leave out `search`")
        return Tutor(self, situation)


class Tutor(nn.Module):
    """Teaches while a scene is made. State: the adapters, the optimiser's, the algorithm's, and the renderings remembered."""

    latents: Tensor
    held: Tensor

    def __init__(self, value: Teach, situation: Situation):
        super().__init__()
        prior: Any = situation.prior
        self.value, self.prompt, device = value, situation.prompt, situation.device
        panel = build_panel(value.rewards, value.weights, device)
        if value.source == "prior":
            # Several of the scene's states are compared, whatever the group, and only their values count.
            value.algorithm.check(panel)
        names = value.algorithm.adapters()
        actor = value.adapt.build(prior, names, situation.rng).to(device)
        # In lists, so that no checkpoint holds the frozen prior and the rewards.
        self._actor, self._panel = [actor], [panel]
        self.remembered = value.algorithm.state(actor, situation.rng).to(device)
        self.learner = Learner([*actor.weights(LEARNS).values(), *self.remembered.parameters()], value.rate)
        self.followers = nn.ParameterList(p for name in names if name != LEARNS for p in actor.weights(name).values())
        info, count = prior.info, value.memory if value.source == "scene" else 0
        self.cameras = value.rig.cameras(torch.Generator().manual_seed(0)).to(device).resized(info.size, info.size)
        shape = (count, value.rig.views, info.channels, info.size, info.size)
        self.register_buffer("latents", torch.zeros(shape, device=device))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    @property
    def actor(self) -> LoraPrior:
        """The prior with its sets of weights."""
        return self._actor[0]

    @property
    def taught(self) -> Prior:
        """The prior that the scene's terms ask."""
        return self.actor.using(LEARNS)

    def due(self, step: int, progress: float) -> bool:
        """Whether there is a lesson after so many steps."""
        return progress >= self.value.start and step % self.value.every == 0

    def lesson(self, scene: Representation, rng: torch.Generator) -> dict[str, float]:
        """Collect, judge, and step once; what there is to tell. Nothing is learned where there is nothing to compare, or where
        the loss or its gradient is not finite.
        """
        algorithm, actor, panel = self.value.algorithm, self.actor, self._panel[0]
        with torch.no_grad():
            if self.value.source == "prior":
                cameras = self.value.rig.cameras(rng).to(self.held.device)
                batch = algorithm.collect(actor, panel, [self.prompt], cameras, rng, self.remembered)
            else:
                batch = self._from(scene, panel)
        if not len(batch):
            return {"learned": 0.0}
        with torch.enable_grad():
            loss, told = algorithm.loss(actor, panel, batch, rng, self.remembered)
            learned = loss.requires_grad and self.learner.step(loss)
        if learned:
            algorithm.after(actor, batch, self.remembered)
        return {"loss": float(loss.detach()), "learned": float(learned), **told}

    def _from(self, scene: Representation, panel: Panel) -> Any:
        """Remember what the scene looks like now, in the oldest one's place, and let the algorithm compare all it remembers."""
        algorithm = self.value.algorithm
        assert isinstance(algorithm, FromSamples)
        self.latents[int(self.held) % self.value.memory] = self.taught.encode(scene.render(self.cameras)[0])[0]
        self.held += 1
        count = min(int(self.held), self.value.memory)
        if count < 2:
            return ()
        clean, prompts = self.latents[:count], (self.prompt,) * count
        cameras = for_each(prompts, self.cameras)
        scores = panel.scores(self.taught, clean, prompts, cameras)
        nothing = Advantages(clean.new_zeros(count), torch.ones(count, dtype=torch.bool, device=clean.device))
        return algorithm.judged(Samples(clean.clone(), prompts, cameras, scores, nothing), panel)


def build_panel(rewards: Mapping[str, RewardPart], weights: Mapping[str, float], device: torch.device) -> Panel:
    """Build the rewards that teach a prior, frozen.

    Raises:
        ValueError: if one looks at more than views, or may not be optimised.
    """
    live = {name: build_reward(part, device) for name, part in rewards.items()}
    for reward in live.values():
        if reward.info.needs != VIEWS:
            more = ", ".join(sorted(reward.info.needs - VIEWS)) or "a scene alone"
            raise ValueError(f"{reward.info.name} needs {more}, and views alone teach a prior: wrap it in Lifted")
        if isinstance(reward, nn.Module):
            reward.requires_grad_(False)
    return Panel(live, weights)


def guided(situation: Situation, tutor: Tutor | None) -> Situation:
    """What the scene's terms look at: with a tutor, the prior that is being taught."""
    return situation if tutor is None else situation._replace(prior=tutor.taught)
