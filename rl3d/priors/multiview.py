"""The embedded prior's network: a joint multi-view transformer on pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from rl3d.priors.words import SPECIAL

FEATURES = 16
"""Frequencies that describe a noise time."""
ANGLES = torch.tensor([1.0, 2.0, 4.0])
"""Frequencies that describe an azimuth."""


class Attention(nn.Module):
    """Self-attention within groups of tokens, with normalised queries and keys (Dehghani et al. 2023)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = nn.LayerNorm(width // heads, bias=False)
        self.norm_k = nn.LayerNorm(width // heads, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"], groups: int) -> Float[Tensor, "b n d"]:
        """Let each of ``groups`` equal runs of tokens look at itself alone."""
        b, n, d = x.shape
        qkv = self.qkv(x).view(b * groups, n // groups, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = attend(self.norm_q(q), self.norm_k(k), v)
        return self.out(y.transpose(1, 2).reshape(b, n, d))


def attend(q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """Scaled dot-product attention."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # On a CPU torch's fused attention is slower than its two products, most of all backward.
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


class SwiGLU(nn.Module):
    """A gated feed-forward layer (Shazeer 2020)."""

    def __init__(self, width: int):
        super().__init__()
        hidden = 64 * math.ceil(width * 8 / 3 / 64)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    """A transformer block that a vector modulates: adaLN-zero (Peebles & Xie 2023, "DiT", sec. 3.2)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = SwiGLU(width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Float[Tensor, "b n d"], c: Float[Tensor, "b d"], groups: int) -> Float[Tensor, "b n d"]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(c)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, gate_a, self.attention(modulate(x, shift_a, scale_a), groups))
        return torch.addcmul(x, gate_m, self.mlp(modulate(x, shift_m, scale_m)))


def modulate(x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b n d"]:
    """Normalise the tokens, then scale and shift them."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class TextEncoder(nn.Module):
    """A small transformer over words.

    Padding is not masked: those tokens stay, and serve the network as registers (Darcet et al. 2024). The empty caption is the
    null condition of classifier-free guidance; it is learned, since training drops captions.
    """

    def __init__(self, words: int, context: int, width: int, heads: int, depth: int):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(0.02 * torch.randn(context, width))
        layer = nn.TransformerEncoderLayer(width, heads, 3 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.layers(self.words(tokens) + self.positions)


class Refiner(nn.Module):
    """A few convolutions that mend the seams between patches, seeing the noisy pixels again."""

    def __init__(self, channels: int, width: int, hidden: int):
        super().__init__()
        self.enter = nn.Conv2d(2 * channels, hidden, 3, padding=1)
        self.leave = nn.Conv2d(hidden, channels, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * hidden)
        for zero in (self.leave, self.modulation):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)  # pyright: ignore[reportArgumentType]

    def forward(
        self, coarse: Float[Tensor, "b v c h w"], noisy: Float[Tensor, "b v c h w"], c: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b v c h w"]:
        b, v = coarse.shape[:2]
        shift, scale = self.modulation(c).repeat_interleave(v, 0)[..., None, None].chunk(2, dim=1)
        x = self.enter(torch.cat([coarse, noisy], 2).flatten(0, 1))
        x = self.leave(F.silu(torch.addcmul(shift, x, 1 + scale)))
        return coarse + x.unflatten(0, (b, v))


class MultiviewTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Predict clean views of one object from noisy ones, jointly, from text and camera angles.

    Blocks alternate: each view looks at itself, then all views and the text look at each other. Patches are large (8 x 8) and
    the network predicts clean pixels, which works where predicting noise does not (Li & He 2025, "Back to Basics: Let
    Denoising Generative Models Denoise"). The camera is told by its azimuth and elevation only: distance and field of view
    are those of the data, always. Any number of views works; ``views`` were trained. Permuted views with their cameras give
    permuted predictions.
    """

    @register_to_config
    def __init__(
        self,
        words: int = 512,
        context: int = 24,
        channels: int = 4,
        size: int = 64,
        patch: int = 8,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        text_depth: int = 2,
        refiner_width: int = 24,
        views: int = 4,
        elevation_min_deg: float = 0.0,
        elevation_max_deg: float = 40.0,
        distance: float = 3.0,
        fov_y_deg: float = 40.0,
    ):
        super().__init__()
        self.text = TextEncoder(words, context, width, heads, text_depth)
        self.enter = nn.Linear(channels * patch**2, width)
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.camera = nn.Sequential(nn.Linear(2 * len(ANGLES) + 2, width), nn.SiLU(), nn.Linear(width, width))
        self.noise = nn.Sequential(nn.Linear(2 * FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, channels * patch**2)
        self.refiner = Refiner(channels, width, refiner_width)
        for zero in (self.modulation, self.leave):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self,
        noisy: Float[Tensor, "b v c h w"],
        time: Float[Tensor, "b"],
        tokens: Int[Tensor, "b t"],
        azimuth: Float[Tensor, "b v"],
        elevation: Float[Tensor, "b v"],
    ) -> Float[Tensor, "b v c h w"]:
        """Predict the clean views, in float32; the computation is in the type of the weights.

        ``noisy`` is cos(pi time / 2) clean + sin(pi time / 2) noise, with ``time`` in [0, 1]; angles are in radians.
        """
        v, patch, dtype = noisy.shape[1], self.config["patch"], self.enter.weight.dtype
        text = self.text(tokens)
        c = F.silu(self.noise(time_features(time).to(dtype)) + self.pooled(text.mean(1)))
        noisy = noisy.to(dtype)
        x = self.enter(F.pixel_unshuffle(noisy, patch).flatten(3).mT)
        x = x + self.positions + self.camera(camera_features(azimuth, elevation).to(dtype))[:, :, None]
        x = x.flatten(1, 2)
        for i, block in enumerate(self.blocks):
            if i % 2 == 0:
                x = block(x, c, groups=v)
            else:
                text, x = block(torch.cat([text, x], 1), c, groups=1).split([text.shape[1], x.shape[1]], dim=1)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)
        x = self.leave(modulate(x, shift, scale))
        coarse = F.pixel_shuffle(x.unflatten(1, (v, *(s // patch for s in noisy.shape[-2:]))).permute(0, 1, 4, 2, 3), patch)
        return self.refiner(coarse, noisy, c).float()


def repatched(net: MultiviewTransformer, patch: int) -> MultiviewTransformer:
    """A copy that cuts views into patches of another size, with what it knows of patches and places resized.

    After Beyer et al. 2023, "FlexiViT", with plain interpolation: so a network learns what words mean on few large
    patches, cheaply, before it learns details on many small ones.
    """
    old, channels, side = net.config["patch"], net.config["channels"], net.config["size"]
    if side % patch:
        raise ValueError(f"views of {side} pixels cannot be cut into patches of {patch}: take a divisor")
    copy = MultiviewTransformer.from_config({**net.config, "patch": patch})
    state = net.state_dict()

    def resized(x: Float[Tensor, "n c a a"], size: int) -> Float[Tensor, "n c b b"]:
        mode = "area" if size < x.shape[-1] else "bilinear"
        return F.interpolate(x, (size, size), mode=mode, align_corners=None if mode == "area" else False)

    enter = state["enter.weight"].unflatten(1, (channels, old, old))
    state["enter.weight"] = resized(enter, patch).flatten(1) * (old / patch) ** 2  # the same answer to a plain patch
    leave = state["leave.weight"].T.unflatten(1, (channels, old, old))
    state["leave.weight"] = resized(leave, patch).flatten(1).T.contiguous()
    state["leave.bias"] = resized(state["leave.bias"].view(1, channels, old, old), patch).flatten()
    places = state["positions"].T.unflatten(1, (side // old, side // old))[None]
    state["positions"] = resized(places, side // patch)[0].flatten(1).T.contiguous()
    assert isinstance(copy, MultiviewTransformer)
    copy.load_state_dict(state)
    return copy


def reworded(net: MultiviewTransformer, words: int, rng: torch.Generator) -> MultiviewTransformer:
    """A copy that knows more words, ``words`` of them in all; the first ones are those that it knows.

    What a new word means is drawn from the normal distribution of what known ones mean. The unknown word would not do: no
    caption of a training has it, so that it shrank to a sixth of a word's length, and means nothing.
    """
    known = net.text.words.weight.detach()
    if words < len(known):
        raise ValueError(f"a network of {len(known)} words cannot forget any: ask for more words, not {words}")
    copy = MultiviewTransformer.from_config({**net.config, "words": words})
    drawn = torch.randn(words - len(known), known.shape[1], generator=rng)
    taught = known[len(SPECIAL) :]
    added = taught.mean(0) + taught.std(0, unbiased=False) * drawn
    assert isinstance(copy, MultiviewTransformer)
    copy.load_state_dict(net.state_dict() | {"text.words.weight": torch.cat([known, added.to(known)])})
    return copy


def time_features(time: Float[Tensor, "b"]) -> Float[Tensor, "b f"]:
    """Describe noise times by cosines and sines of growing frequency."""
    angle = torch.pi * time[:, None] * torch.arange(1, FEATURES + 1).to(time)
    return torch.cat([angle.cos(), angle.sin()], -1)


def camera_features(azimuth: Float[Tensor, "b v"], elevation: Float[Tensor, "b v"]) -> Float[Tensor, "b v f"]:
    """Describe camera angles by cosines and sines: periodic in azimuth, with 0 at an object's front."""
    angle = azimuth[..., None] * ANGLES.to(azimuth)
    return torch.cat([angle.cos(), angle.sin(), elevation.cos()[..., None], elevation.sin()[..., None]], -1)
