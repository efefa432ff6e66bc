"""A prior that is taught: several sets of its weights by name, as LoRA adapters or in full, over one frozen reference.

Names are free; algorithms use ``policy`` (learns), ``old`` (drew the samples, follows the policy slowly), ``ema`` (a running
mean to show) and ``reference``, which is no set of its own but the prior as it was: adapters off.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.math import Level
from rl3d.protocols import REFERENCE, Actor, Prior
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b v c h w"]
ATTENTION = ("qkv", "out", "up", "down", "to_q", "to_k", "to_v", "to_out.0")
"""Names of the linear layers that LoRA adapts: those of the embedded prior, and attention in the networks of diffusers."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2022, "LoRA", eq. 3) through peft; float32, whatever the network computes in."""

    rank: int = 8
    alpha: float = 8.0
    """The adapter's product is scaled by alpha / rank."""
    targets: tuple[str, ...] = ATTENTION
    """Ends of the names of adapted layers."""
    network: str = "net"
    """The prior's submodule that is adapted."""
    dtype: Literal["float32", "loaded"] = "float32"
    """What the network must compute in; "loaded" takes it as it is. Ratios of policies need float32 to mean something."""

    def build(self, prior: Prior, names: Sequence[str] = ("policy",), rng: torch.Generator | None = None) -> LoraPrior:
        """Give a prior adapters of these names, in place, and freeze the rest. They change nothing before they learn.

        All start alike, from ``rng``. Raises ``ValueError`` where no layer has a name in ``targets``.
        """
        from peft import LoraConfig, inject_adapter_in_model

        net = _network(prior, self.network, self.dtype)
        _check_names(names)
        found = [n for n, m in net.named_modules() if isinstance(m, nn.Linear) and _ends(n, self.targets)]
        if not found:
            linear = sorted({n.rsplit(".", 1)[-1] for n, m in net.named_modules() if isinstance(m, nn.Linear)})
            raise ValueError(f"no layer of {self.network} is named {self.targets}: its linear layers are {linear}; set targets")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=found)  # pyright: ignore[reportArgumentType]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are the point
            for name in names:
                inject_adapter_in_model(config, net, name)
        return LoraPrior(prior, self.network, tuple(names), rng)


@dataclass(frozen=True)
class Full:
    """Whole copies of the network's weights, in float32; each costs as much memory as the network."""

    network: str = "net"
    dtype: Literal["float32", "loaded"] = "float32"
    """What the network must compute in; with "loaded" the float32 copies are rounded to its type for each prediction."""

    def build(self, prior: Prior, names: Sequence[str] = ("policy",), rng: torch.Generator | None = None) -> FullPrior:
        """Copy the weights under these names and freeze the prior itself. Nothing is random: ``rng`` is not used."""
        _network(prior, self.network, self.dtype)
        _check_names(names)
        return FullPrior(prior, self.network, tuple(names))


class LoraPrior(nn.Module):
    """An :class:`~rl3d.protocols.Actor` whose versions are LoRA adapters. See :class:`Lora`."""

    def __init__(self, prior: Any, network: str, names: tuple[str, ...], rng: torch.Generator | None):
        super().__init__()
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.prior, self.names = prior, names
        self._network = network
        named = [(n, m) for n, m in prior.get_submodule(network).named_modules() if isinstance(m, BaseTunerLayer)]
        self._paths, self._layers = [n for n, _ in named], [m for _, m in named]
        prior.requires_grad_(False)
        layers: list[Any] = list(self._layers)
        for layer in layers:
            down = None
            for name in names:
                a, b = layer.lora_A[name].float().weight, layer.lora_B[name].float().weight
                with torch.no_grad():
                    if down is None:
                        down = torch.empty(a.shape)
                        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=rng)
                    a.copy_(down)
                    b.zero_()
        self._rest()

    def _freeze(self) -> None:
        """Let the adapters alone learn: peft changes this whenever it switches."""
        for name in self.names:
            for p in self.weights(name).values():
                p.requires_grad_(True)

    def weights(self, name: str) -> dict[str, nn.Parameter]:
        """The float32 weights of one adapter, by layer."""
        _check_known(name, self.names)
        layers: list[Any] = list(self._layers)
        return {
            f"{i}.{half}": getattr(layer, half)[name].weight for i, layer in enumerate(layers) for half in ("lora_A", "lora_B")
        }

    def layers(self) -> list[str]:
        """The adapted layers' names in the network, in the order of the weights' keys."""
        return list(self._paths)

    def config(self, name: str) -> dict[str, Any]:
        """Peft's configuration of an adapter, as plain JSON."""
        _check_known(name, self.names)
        config = self.prior.get_submodule(self._network).peft_config[name].to_dict()
        return json.loads(
            json.dumps(config, default=lambda x: sorted(x) if isinstance(x, set) else getattr(x, "value", str(x)))
        )

    def using(self, name: str) -> Prior:
        """The prior with the weights of this name."""
        if name != REFERENCE:
            _check_known(name, self.names)
        return Using(self, name)

    def predict_with(self, name: str, noisy: Latents, level: Level, condition: Any, guidance: float, rescale: float) -> Latents:
        """Predict with the weights of this name; see :meth:`~rl3d.protocols.Prior.predict`."""
        with self._switched(name), _one_path():
            return self.prior.predict(noisy, level, condition, guidance=guidance, rescale=rescale)

    @contextlib.contextmanager
    def _switched(self, name: str) -> Iterator[None]:
        for layer in self._layers:
            if name == REFERENCE:
                layer.enable_adapters(False)
            else:
                layer.enable_adapters(True)
                layer.set_adapter([name])
        # Only flags were changed, so a graph that was recorded before still reaches the weights that it saw.
        self._freeze()
        try:
            yield
        finally:
            self._rest()

    def _rest(self) -> None:
        """Switch adapters off: whoever holds the prior itself goes on with it as it was."""
        layers: list[Any] = list(self._layers)
        for layer in layers:
            layer.enable_adapters(False)
        self._freeze()


class FullPrior(nn.Module):
    """An :class:`~rl3d.protocols.Actor` whose versions are whole copies of the weights. See :class:`Full`."""

    def __init__(self, prior: Any, network: str, names: tuple[str, ...]):
        super().__init__()
        self.prior, self.names = prior, names
        prior.requires_grad_(False)
        self._keys = [f"prior.{network}.{key}" for key, _ in prior.get_submodule(network).named_parameters()]
        originals = [p.detach().float() for p in prior.get_submodule(network).parameters()]
        self.copies = nn.ModuleDict({name: nn.ParameterList(nn.Parameter(p.clone()) for p in originals) for name in names})
        self._call = [_Call(prior)]  # in a list, so that the prior is not registered twice

    def weights(self, name: str) -> dict[str, nn.Parameter]:
        """The float32 weights of one copy, by the network's own names."""
        _check_known(name, self.names)
        return dict(zip(self._keys, self.copies[name], strict=True))  # pyright: ignore[reportArgumentType]

    def using(self, name: str) -> Prior:
        """The prior with the weights of this name."""
        if name != REFERENCE:
            _check_known(name, self.names)
        return Using(self, name)

    def predict_with(self, name: str, noisy: Latents, level: Level, condition: Any, guidance: float, rescale: float) -> Latents:
        """Predict with the weights of this name; see :meth:`~rl3d.protocols.Prior.predict`."""
        call, how = self._call[0], {"guidance": guidance, "rescale": rescale}
        with _one_path():
            if name == REFERENCE:
                return call(noisy, level, condition, **how)
            held = dict(call.named_parameters())
            weights = {key: p.to(held[key].dtype) for key, p in self.weights(name).items()}
            return torch.func.functional_call(call, weights, (noisy, level, condition), how)


class _Call(nn.Module):
    """``predict`` as ``forward``, which is what torch can call with other weights."""

    def __init__(self, prior: Any):
        super().__init__()
        self.prior = prior

    def forward(self, *args, **kwargs) -> Tensor:
        return self.prior.predict(*args, **kwargs)


class Using:
    """A prior as one of its versions: a :class:`~rl3d.protocols.Prior` that holds nothing itself."""

    def __init__(self, actor: LoraPrior | FullPrior, name: str):
        self.actor, self.name, self.info = actor, name, actor.prior.info

    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Any:
        return self.actor.prior.embed(prompts, cameras)

    def encode(self, views: Views) -> Latents:
        return self.actor.prior.encode(views)

    def decode(self, latents: Latents, cameras: Cameras) -> Views:
        return self.actor.prior.decode(latents, cameras)

    def predict(self, noisy: Latents, level: Level, condition: Any, *, guidance: float = 1.0, rescale: float = 0.0) -> Latents:
        return self.actor.predict_with(self.name, noisy, level, condition, guidance, rescale)


@contextlib.contextmanager
def _one_path() -> Iterator[None]:
    """Keep torch's attention layers from other kernels where nothing is differentiated: ratios would not start at 1."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@torch.no_grad()
def blend(actor: Actor, source: str, into: str, keep: float = 0.0) -> None:
    """Move weights towards those of another name: ``into = keep * into + (1 - keep) * source``; ``keep`` 0 copies.

    An exponential moving average, or an old policy that follows. LoRA's two factors are blended one by one, as is customary,
    which is not the blend of their products.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is the part that stays, in [0, 1]; got {keep}")
    target = actor.weights(into)
    for key, p in actor.weights(source).items():
        target[key].lerp_(p, 1 - keep)


def adapter_state(actor: Actor) -> dict[str, Tensor]:
    """All that learns or follows, by ``name/weight``: what a checkpoint holds of an actor, without the frozen prior."""
    return {f"{name}/{key}": p.detach() for name in actor.names for key, p in actor.weights(name).items()}


@torch.no_grad()
def load_adapter_state(actor: Actor, state: dict[str, Tensor]) -> None:
    """Put back what :func:`adapter_state` gave; names and weights must be the same."""
    held = adapter_state(actor)
    if held.keys() != state.keys():
        odd = sorted(held.keys() ^ state.keys())[:4]
        raise ValueError(f"the state is of other adapters: they differ in {odd}; build the actor as it was when saved")
    for key, p in held.items():
        p.copy_(state[key])


def _network(prior: Any, network: str, dtype: str) -> nn.Module:
    net = prior.get_submodule(network)
    rough = {p.dtype for p in net.parameters()} - {torch.float32}
    if dtype == "float32" and rough:
        got = ", ".join(sorted(str(d).removeprefix("torch.") for d in rough))
        raise ValueError(
            f"training wants a network in float32, got {got}, whose weights are already rounded: load the prior in float32 "
            '(--prior.dtype float32), or say dtype="loaded" to learn in float32 on top of the rounded network'
        )
    return net


def _ends(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _check_names(names: Sequence[str]) -> None:
    if REFERENCE in names or len(set(names)) != len(names):
        raise ValueError(f'names must differ, and "{REFERENCE}" is the prior itself, without a set of weights; got {names}')


def _check_known(name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ValueError(f"there are no weights named {name!r}, only {names} and the reference; name them when building")
