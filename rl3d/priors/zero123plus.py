"""Zero123++ (Shi et al. 2023, arXiv 2310.15110): from a picture of an object to six views of it, drawn as one picture.

Views stand in three rows of two, from fixed sides: azimuths relative to the picture's, elevations absolute.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl3d.hub import find_model
from rl3d.math import Level
from rl3d.priors.loading import index_of
from rl3d.priors.parametrisations import CLEAN, Clock
from rl3d.priors.pictures import GRAY, read_picture
from rl3d.priors.pixels import Autoencoded, opaque_views, pixels_of
from rl3d.priors.pretrained import loading
from rl3d.priors.reference import Reference, look_at_references
from rl3d.priors.sampling import guide
from rl3d.protocols import PriorInfo
from rl3d.types import Cameras, Prompt, Views

Latents = Float[Tensor, "b 6 c h w"]
KIND = "Zero123PlusPipeline"
AZIMUTHS_DEG = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
NEARLY_DEG = 0.5
"""By how much a camera may stand beside its place."""


@dataclass(frozen=True)
class Zero123Plus:
    """Zero123++ from a folder in its own layout. It goes by ``Prompt.image``, and reads no text."""

    folder: str = "zero123plus-1.2"
    """A folder, or a published model by its name (`rl3d weights list`)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network and the picture's encoder compute in; the autoencoder always takes float32."""
    low_memory: bool = False
    """Take less memory and more time: the autoencoder takes one sample at a time; gradients through the network compute again
    what lies within its blocks.
    """
    pixels: int = 320
    """Along a side of each view."""
    elevations_deg: tuple[float, float] = (20.0, -10.0)
    """Of every other view: 20 and -10 in version 1.2, 30 and -20 in 1.1."""
    distance: float = 3.73
    """1 / tan(15 degrees): in version 1.2 an object's bounding sphere reaches to the picture's edges."""
    fov_y_deg: float = 30.0
    """Of version 1.2; 1.1 takes that of the picture."""

    def check(self, prompt: Prompt) -> None:
        """Refuse a folder that is not Zero123++'s, or a prompt that it cannot go by (``ValueError``), without loading it."""
        if not prompt.image:
            raise ValueError(f"{self.folder} goes by a picture: give one with --image FILE")
        if prompt.negative:
            raise ValueError(f"{self.folder} reads no text, so it takes no negative prompt; got {prompt.negative!r}")
        read_picture(prompt.image)
        _check_kind(find_model(self.folder))

    def build(self, device: torch.device | str = "cpu") -> Zero123PlusPrior:
        """Load it, frozen."""
        folder = find_model(self.folder)
        _check_kind(folder)
        parts = loading(folder, lambda: _Parts.load(folder, getattr(torch, self.dtype)))
        return Zero123PlusPrior(parts, self).requires_grad_(False).eval().to(device)


def _check_kind(folder: Path) -> None:
    kind = index_of(folder).get("_class_name")
    if kind != KIND:
        raise ValueError(f"{folder} holds a {kind}, and no {KIND}: take rl3d.priors.pretrained.Pretrained for it")


class _Parts(NamedTuple):
    unet: Any
    vae: Any
    eye: Any
    """CLIP's picture tower."""
    for_eye: Any
    for_vae: Any
    """What makes tensors of pictures for each."""
    no_words: Float[Tensor, "t d"]
    """What the text encoder makes of an empty text: the only one that it was trained with, so that the encoder may leave."""
    ramp: Float[Tensor, "t 1"]
    clock: Clock

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> _Parts:
        from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
        from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        safe: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, **safe)
        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, **safe)
        eye = CLIPVisionModelWithProjection.from_pretrained(folder / "vision_encoder", dtype=dtype, **safe)
        reader = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, **safe)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        count = tokenizer.model_max_length
        ids = tokenizer([""], padding="max_length", max_length=count, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            no_words = reader(ids)[0][0]
        ramp = torch.tensor(index_of(folder)["ramping_coefficients"], dtype=torch.float32)[:, None]
        if len(ramp) != count:
            raise ValueError(f"{len(ramp)} ramping_coefficients for texts of {count} words")
        for_eye, for_vae = (CLIPImageProcessor.from_pretrained(folder / f"feature_extractor_{x}") for x in ("clip", "vae"))
        clock = Clock(EulerAncestralDiscreteScheduler.from_pretrained(folder / "scheduler").config)  # pyright: ignore
        return cls(unet, vae, eye, for_eye, for_vae, no_words, ramp, clock)


class Told(NamedTuple):
    """What the network is told on one side of guidance."""

    words: Float[Tensor, "b t d"]
    picture: Float[Tensor, "b c y x"]
    """The reference, as the autoencoder's own latents."""


class Condition(NamedTuple):
    """With the pictures, and without: a gray one takes their places."""

    wanted: Told
    unwanted: Told


class Zero123PlusPrior(nn.Module):
    """A :class:`~rl3d.protocols.Prior` that draws six views of what a picture shows.

    Its latents are those of the views' common picture, shifted and scaled as it was trained, cut into views.
    """

    info: PriorInfo

    def __init__(self, parts: _Parts, value: Zero123Plus):
        super().__init__()
        self.value, self.net, self.vae, self.eye = value, parts.unet, parts.vae, parts.eye
        self.coder, self.clock = Autoencoded(self.vae), parts.clock
        self._makers = parts.for_eye, parts.for_vae
        self.register_buffer("no_words", parts.no_words)
        self.register_buffer("ramp", parts.ramp)
        self._seen: dict[str, tuple[Tensor | None, Tensor]] = {}
        look_at_references(self.net)
        if value.low_memory:
            self.vae.enable_slicing()
            self.net.enable_gradient_checkpointing()
        size, more = divmod(value.pixels, self.coder.factor)
        multiple = 2 ** (len(self.net.config.block_out_channels) - 1)
        # Three rows must be whole when the network halves them, and so must two columns.
        if more or size < 1 or 2 * size % multiple or 3 * size % multiple:
            needed = self.coder.factor * multiple
            raise ValueError(f"its views are squares of a multiple of {needed} pixels, got {value.pixels}: set `pixels`")
        self.info = PriorInfo(
            channels=self.net.config.in_channels,
            size=size,
            views=6,
            elevation_deg=(min(value.elevations_deg), max(value.elevations_deg)),
            distance=value.distance,
            fov_y_deg=value.fov_y_deg,
            alpha=False,
            negative_prompts=False,
            text=False,
            image=True,
            poses=tuple((azimuth, value.elevations_deg[i % 2]) for i, azimuth in enumerate(AZIMUTHS_DEG)),
            background=GRAY / 255,
        )

    @torch.no_grad()
    def embed(self, prompts: list[Prompt], cameras: Cameras) -> Condition:
        """Look at prompts' pictures; a prompt without one stands for nothing at all.

        Raises:
            ValueError: for cameras in other places than ``info.poses``.
        """
        self._check_places(cameras)
        device = self.net.device
        words, gray = torch.as_tensor(self.no_words), self._look("")[1].to(device)
        looked = [self._look(prompt.image) for prompt in prompts]
        wanted = Told(
            torch.stack(
                [words if whole is None else words + torch.as_tensor(self.ramp) * whole.to(device) for whole, _ in looked]
            ),
            torch.stack([picture.to(device) for _, picture in looked]),
        )
        count = len(prompts)
        return Condition(wanted, Told(words.expand(count, -1, -1), gray.expand(count, -1, -1, -1)))

    def _look(self, path: str) -> tuple[Tensor | None, Tensor]:
        """A picture as CLIP sees it ``[1 d]``, and as latents; a gray one, which CLIP is not shown, for no path."""
        if path not in self._seen:
            from PIL import Image

            picture = read_picture(path) if path else Image.new("RGB", (64, 64))
            for_eye, for_vae = (
                maker(images=picture, return_tensors="pt").pixel_values.to(self.net.device) for maker in self._makers
            )
            seen = self.eye(for_eye.to(self.eye.dtype)).image_embeds.float() if path else None
            # Training drew from the autoencoder's distribution; its mean is the same picture without that little noise.
            self._seen[path] = seen, self.vae.encode(for_vae if path else torch.zeros_like(for_vae)).latent_dist.mean[0]
        return self._seen[path]

    def _check_places(self, cameras: Cameras) -> None:
        poses = torch.tensor(self.info.poses).to(cameras.cam_from_world)
        if cameras.views == len(poses):
            turn = (cameras.azimuths_deg - poses[:, 0] + 180) % 360 - 180
            if turn.abs().max() < NEARLY_DEG and (cameras.elevations_deg - poses[:, 1]).abs().max() < NEARLY_DEG:
                return
        places = ", ".join(f"{azimuth:g}/{elevation:g}" for azimuth, elevation in self.info.poses)
        raise ValueError(
            f"Zero123++ shows six views, at azimuths and elevations of {places} degrees, and was asked for {cameras.views} "
            "elsewhere: take the rig rl3d.cameras.Poses with these"
        )

    def encode(self, views: Views) -> Latents:
        """Lay six views over gray, resize them, and encode them as one picture, without noise. Differentiable."""
        pixels = pixels_of(views, GRAY / 255, self.value.pixels).unflatten(0, views.rgb.shape[:2])
        # Pictures are darkened, 0.5 / 0.8, and latents shifted: their code's own scaling.
        latents = self.coder.encode((joined(pixels) - 0.5) * (0.5 / 0.8) + 0.5)
        return apart((latents - 0.22) * 0.75)

    def decode(self, latents: Latents, cameras: Cameras) -> Views:
        """Decode latents to six views, not clamped; they are opaque, over gray. Differentiable."""
        pixels = self.coder.decode(joined(latents) / 0.75 + 0.22)
        return opaque_views(apart((pixels - 0.5) * (0.8 / 0.5) + 0.5), cameras)

    def predict(
        self, noisy: Latents, level: Level, condition: Condition, *, guidance: float = 1.0, rescale: float = 0.0
    ) -> Latents:
        """The clean latents, in float32; ``guidance`` other than 1 doubles the work. Differentiable.

        The picture is noised like the views: with noise that follows from the noisy latents (:func:`noise_beside`), so that a
        sampler's states are answered the same whenever they are asked.
        """
        scale = math.hypot(level.alpha, level.sigma)
        noisy, level = noisy / scale, Level(level.alpha / scale, level.sigma / scale)
        beside = noise_beside(noisy, condition.wanted.picture.shape[1:])
        if guidance == 1:
            return self._clean(noisy, beside, level, condition.wanted)
        told = Told(*(torch.cat([x, y]) for x, y in zip(*condition, strict=True)))
        two = self._clean(torch.cat([noisy, noisy]), torch.cat([beside, beside]), level, told)
        return guide(*two.chunk(2), guidance, rescale)  # pyright: ignore[reportCallIssue]

    def _clean(self, noisy: Latents, beside: Tensor, level: Level, told: Told) -> Latents:
        dtype, reference = self.net.dtype, Reference()
        time = torch.full((len(noisy),), self.clock.time_of(level), device=noisy.device)
        words, picture = told.words.to(dtype), (level.alpha * told.picture + level.sigma * beside).to(dtype)
        how: dict[str, Any] = {"encoder_hidden_states": words, "return_dict": False}
        self.net(picture, time, cross_attention_kwargs={"reference": reference}, **how)
        said = self.net(joined(noisy).to(dtype), time, cross_attention_kwargs={"reference": reference.read()}, **how)[0]
        return CLEAN[self.clock.predicts](noisy, apart(said), level)


def joined(views: Float[Tensor, "b 6 c h w"]) -> Float[Tensor, "b c y x"]:
    """Six views as one picture, three rows of two."""
    b, _, c, h, w = views.shape
    return views.reshape(b, 3, 2, c, h, w).permute(0, 3, 1, 4, 2, 5).reshape(b, c, 3 * h, 2 * w)


def apart(picture: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 6 c h w"]:
    """Undo :func:`joined`."""
    b, c, h, w = picture.shape
    return picture.reshape(b, c, 3, h // 3, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(b, 6, c, h // 3, w // 2)


def noise_beside(noisy: Latents, shape: torch.Size) -> Float[Tensor, "b c y x"]:
    """Draw the noise of each sample's reference from a stream that the signs of its noisy latents begin.

    Whoever made these drew their noise from the run's generator: so this one follows from it, and a run can be repeated; and
    the same state of a sampler meets the same noise, without which ratios of policies would mean nothing. Signs do not depend
    on scale, nor on the last bits.
    """
    found = []
    for one in (noisy.detach() > 0).cpu():
        digest = hashlib.sha256(one.contiguous().numpy().tobytes()).digest()
        rng = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        found.append(torch.randn(shape, generator=rng))
    return torch.stack(found).to(noisy.device)
