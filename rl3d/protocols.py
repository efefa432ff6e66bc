"""The interfaces of the library: two actors (:class:`Representation`, :class:`Prior`), what judges them (:class:`Reward`), and
what turns judgement into change (:class:`Term`). Anything that has these methods fits; nothing inherits from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.math import Level
from rl3d.types import Cameras, Prompt, Score, Splats, Views


@runtime_checkable
class Trace(Protocol):
    """What densification needs to know of a rendering, beside its pixels."""

    means2d: Tensor
    radii: Tensor


@runtime_checkable
class Representation(Protocol):
    """The first actor: *one* scene that renders. An ``nn.Module``."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int:
        """Its size, for people: Gaussians, or cells that are not empty."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def render(self, cameras: Cameras) -> tuple[Views, Any]:
        """Render ``[1 v]`` cameras, differentiably in every parameter; and the trace of it."""
        ...

    def splats(self) -> Splats:
        """The scene as Gaussians, detached: what exporters read."""
        ...

    def param_groups(self) -> list[dict]:
        """Parameters with their learning rates, as an optimiser takes them."""
        ...

    def refine(self, optimizer: torch.optim.Optimizer, trace: Any, step: int, rng: torch.Generator) -> None:
        """Densify and prune after a step; the optimiser's state follows."""
        ...


@dataclass(frozen=True)
class PriorInfo:
    """What a prior can do: everything that others may ask about it before they use it."""

    channels: int
    """Of its latents."""
    size: int
    """Height and width of its latents."""
    views: int
    """Views that it was trained to predict jointly."""
    elevation_deg: tuple[float, float]
    """The elevations it knows."""
    distance: float
    """The camera distance it knows, in world units."""
    fov_y_deg: float
    """The field of view it knows."""
    alpha: bool
    """Whether its views carry alpha, so that a background need not be invented."""
    negative_prompts: bool
    text: bool = True
    """Whether it reads what prompts say; if not, it goes by their pictures alone."""
    image: bool = False
    """Whether it needs a picture of each prompt."""
    poses: tuple[tuple[float, float], ...] = ()
    """Azimuths and elevations in degrees of the only views that it predicts, in their order; empty if it is free."""
    background: float | None = None
    """The gray that it draws around objects, where that is known and there is no alpha."""


@runtime_checkable
class Prior(Protocol):
    """The second actor: a diffusion model of (sets of) views. An ``nn.Module``."""

    info: PriorInfo

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Any:
        """The condition of ``b`` prompts seen by ``[b v]`` cameras; words it does not know raise ``ValueError``."""
        ...

    def encode(self, views: Views) -> Float[Tensor, "b v c h w"]:
        """Views as latents, differentiably in the pixels; resized where sizes differ."""
        ...

    def decode(self, latents: Float[Tensor, "b v c h w"], cameras: Cameras) -> Views:
        """Latents as views, differentiably."""
        ...

    def predict(
        self, noisy: Float[Tensor, "b v c h w"], level: Level, condition: Any, *, guidance: float = 1.0, rescale: float = 0.0
    ) -> Float[Tensor, "b v c h w"]:
        """The clean latents, in float32: with classifier-free guidance, whose contrast is pulled back by ``rescale``."""
        ...


@runtime_checkable
class Scene(Protocol):
    """One object in three dimensions, as rewards of its shape look at it."""

    def splats(self) -> Splats:
        """The object as Gaussians, with their graph where it is being learned."""
        ...

    def mesh(self) -> Any:
        """The object's surface as a ``trimesh.Trimesh`` with outward faces, in world units; not differentiable."""
        ...


@dataclass(frozen=True)
class Shown:
    """What a reward looks at: ``b`` samples, always as pixels, and where they are known as scenes too."""

    views: Views
    scenes: tuple[Scene, ...] = ()
    """One for each sample, or none at all (views that come from a prior)."""

    def __post_init__(self):
        if self.scenes and len(self.scenes) != len(self.views.rgb):
            raise ValueError(f"{len(self.scenes)} scenes for {len(self.views.rgb)} samples: show one scene for each, or none")


Need = Literal["views", "depth", "splats", "mesh"]
"""What a reward may look at; "depth" stands for depth and normals."""


REFERENCE = "reference"
"""The name of a prior's weights as they were before anything taught it."""


@runtime_checkable
class Actor(Protocol):
    """A prior that learns: one network with several sets of weights by name. An ``nn.Module``."""

    names: tuple[str, ...]
    """Of the sets of weights, beside the frozen reference."""

    def using(self, name: str) -> Prior:
        """The prior with these weights; :data:`REFERENCE` is always there. Gradients reach the named weights alone."""
        ...

    def weights(self, name: str) -> dict[str, torch.nn.Parameter]:
        """The weights of this name, in float32: what an optimiser takes. Keys are the same for all names."""
        ...


@dataclass(frozen=True)
class RewardInfo:
    """What a reward says of itself."""

    name: str
    differentiable: Literal["pixels", "scene", "no"]
    """In what its gradient can be taken."""
    range: tuple[float, float]
    """The least and the greatest value it can give."""
    weights: str
    """Where its weights come from; empty if it has none."""
    licence: str
    source: str
    """Paper or page."""
    needs: frozenset[Need] = frozenset({"views"})
    """What it must be shown."""
    background: bool = False
    """Whether it lays the views over a background, so that its value depends on one."""


@runtime_checkable
class Reward(Protocol):
    """A judge of what is shown; higher is better. With weights it is an ``nn.Module``."""

    @property
    def info(self) -> RewardInfo: ...

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        """Judge ``b`` samples against their prompts; views alone will do where no scene is needed."""
        ...


@runtime_checkable
class PairReward(Protocol):
    """A judge of two at a time."""

    @property
    def info(self) -> RewardInfo: ...

    def prefer(self, a: Shown | Views, b: Shown | Views, prompts: list[Prompt]) -> Score:
        """The probability in [0, 1], for each sample, that ``a``'s is better than ``b``'s; 0.5 is a tie."""
        ...


@runtime_checkable
class RewardPart(Protocol):
    """A value that describes a reward, as recipes hold it."""

    def build(self, device: torch.device | str = "cpu") -> Reward:
        """Make the live part."""
        ...


class Heard(NamedTuple):
    """What a reward said of some samples, in their order; None where it could not judge."""

    raw: list[float | None]
    normalised: list[float | None]
    """Advantages within the group where samples were compared, else (value - center) / scale; a lone reward has no scale of its
    own, so that of one sample is as it was.
    """


@dataclass(frozen=True)
class Step:
    """What a term sees of one step of an optimization."""

    views: Views
    """The term's views; their tensors are leaves, whose gradients cross the rasterizer together with all others'."""
    scene: Representation
    prior: Prior | None
    prompt: Prompt
    progress: float
    """In [0, 1)."""
    rng: torch.Generator
    number: int = 0
    """Steps done before this one."""
    heard: dict[str, Heard] = field(default_factory=dict)
    """What rewards said in this step, by their names: whoever asks one notes it here, for the record alone."""
    predicted: dict[str, Float[Tensor, "1 v c h w"]] = field(default_factory=dict)
    """Clean latents that the prior predicted in this step, by what became of them: whoever asks it notes one set of views here,
    detached, for the record alone.
    """


@runtime_checkable
class Signal(Protocol):
    """A live term. With state or weights it is an ``nn.Module``, and the checkpoint stores its ``state_dict``."""

    def cameras(self, shared: Cameras, rng: torch.Generator) -> Cameras | None:
        """The cameras whose views it wants: ``shared`` ones, its own, or None for no views at all."""
        ...

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Scalars by what they reach: "pixels" (through the views), "scene" (through the representation directly).

        One loss may stand under both, where its gradient has two ways.
        """
        ...


class Situation(NamedTuple):
    """What a term may look at when it is built, once, before the first step."""

    prompt: Prompt
    prior: Prior | None
    drawn: Views | None
    """Views drawn from the prior at the start, where the recipe draws any."""
    rng: torch.Generator
    device: torch.device
    scene: Representation | None = None
    """The scene as it is then; None while the first Gaussians are made."""


@runtime_checkable
class Term(Protocol):
    """A value that describes one signal: how something known about the wanted object changes the scene.

    A term that ends before the run does may say so by a method ``over(progress) -> bool``: its views are then rendered no more,
    unless every term of the recipe is over.
    """

    def build(self, situation: Situation) -> Signal:
        """Make the live part."""
        ...
