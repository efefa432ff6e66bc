"""Judges on other machines: any HTTP service, and vision-language models behind an OpenAI-compatible endpoint.

What travels is JSON with PNG or safetensors in it, never pickles. A judgement that timed out, or that the service did not
give, is not valid and counts nowhere.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rl3d.protocols import RewardInfo, Shown
from rl3d.rewards.base import judge_each, look
from rl3d.rewards.clip import GRAY
from rl3d.types import Prompt, Score, Views


@dataclass(frozen=True)
class Caller:
    """How a service is called."""

    url: str
    timeout: float = 30.0
    """Seconds for one attempt."""
    retries: int = 2
    """Further attempts after a time-out, a lost connection, or a status of 429 or 5xx."""
    pause: float = 0.5
    """Seconds before the first further attempt; twice as long before each next one."""
    key_variable: str = ""
    """The environment variable that holds the service's key, which is sent as a bearer token and written nowhere."""

    def __post_init__(self):
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"a service has an address that starts with http:// or https://, got {self.url!r}")
        if self.timeout <= 0 or self.retries < 0:
            raise ValueError(f"`timeout` must be above 0 and `retries` at least 0, got {self.timeout} and {self.retries}")

    def post(self, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the JSON of the answer, or None if there was none in time.

        Raises:
            ValueError: if the service refuses the request for good (a status of 4xx but 408 and 429): trying again is no use.
        """
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            if self.key_variable not in os.environ:
                raise ValueError(f"the environment variable {self.key_variable} is not set: put the service's key there")
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 429):
                    said = error.read(300).decode(errors="replace")
                    raise ValueError(f"{self.url} refuses the request with status {error.code}: {said}") from error
            except (OSError, http.client.HTTPException, ValueError):  # time-outs, lost connections, what is not JSON
                pass
        return None


def png(views: Views, index: int, background: float = GRAY) -> list[str]:
    """Each view of a sample as a PNG in base64."""
    import io

    from PIL import Image

    pixels = (views.over(background)[index].detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    found = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        found.append(base64.b64encode(buffer.getvalue()).decode())
    return found


def packed(views: Views, index: int) -> str:
    """All that is known of a sample's views as safetensors in base64: rgb, alpha, depth, normals, poses, intrinsics."""
    from safetensors.torch import save

    one = views.sample(index)
    named = {"rgb": one.rgb, "alpha": one.alpha, "depth": one.depth, "normals": one.normals}
    named |= {"cam_from_world": one.cameras.cam_from_world, "intrinsics": one.cameras.intrinsics}
    tensors = {name: x[0].detach().cpu().contiguous() for name, x in named.items() if x is not None}
    return base64.b64encode(save(tensors)).decode()


@dataclass(frozen=True)
class Remote:
    """Any HTTP service that scores views.

    Once for each sample it is sent ``{"prompt": {"text", "negative"}, "views": [PNG in base64, ...]}``, or
    ``{"prompt": ..., "safetensors": base64}`` with what :func:`packed` holds, and answers ``{"value": number}``; null, or
    anything else, is not valid.
    """

    caller: Caller
    send: Literal["png", "safetensors"] = "png"
    low: float = -math.inf
    """The least value that the service gives."""
    high: float = math.inf
    """The greatest."""
    at_once: int = 4
    """Samples that are judged side by side."""

    def build(self, device: torch.device | str = "cpu") -> Remote:
        return self

    @property
    def info(self) -> RewardInfo:
        url = self.caller.url
        return RewardInfo(f"remote:{url}", "no", (self.low, self.high), f"behind {url}", "see the service's own terms", url)

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views

        def ask(i: int) -> float | None:
            content = {"views": png(views, i)} if self.send == "png" else {"safetensors": packed(views, i)}
            answer = self.caller.post({"prompt": {"text": prompts[i].text, "negative": prompts[i].negative}, **content})
            value = answer.get("value") if isinstance(answer, dict) else None
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

        return _judge(views, ask, self.at_once)


@dataclass(frozen=True)
class AskYesNo:
    """A vision-language model that is asked whether views show what the prompt says: the probability of "yes", in [0, 1].

    Behind an endpoint that speaks OpenAI's chat completions, such as vLLM's or SGLang's. If it gives the likelihood of the
    first word, the value is p(yes) / (p(yes) + p(no)), after VQAScore (Lin et al. 2024); else 1 or 0 for what it answered. An
    answer that is neither is not valid.
    """

    caller: Caller
    """Whose address ends in ``/chat/completions``."""
    model: str
    question: str = 'Do these pictures, which show one object from several sides, show "{prompt}"? Answer with yes or no.'
    at_once: int = 4

    def build(self, device: torch.device | str = "cpu") -> AskYesNo:
        return self

    @property
    def info(self) -> RewardInfo:
        return _about(f"vlm:{self.model}", self.caller)

    def score(self, shown: Shown | Views, prompts: list[Prompt]) -> Score:
        views = look(self.info, shown, prompts).views

        def ask(i: int) -> float | None:
            words = self.question.replace("{prompt}", prompts[i].text)
            return _share(_complete(self.caller, self.model, [words, *png(views, i)], ("yes", "no")), "yes", "no")

        return _judge(views, ask, self.at_once)


@dataclass(frozen=True)
class AskWhich:
    """A vision-language model that says which of two objects fits the prompt better: P(first is better), in [0, 1].

    It is asked both ways round, and the mean is taken, since models favour a place; valid if both answers are.
    """

    caller: Caller
    model: str
    question: str = 'Two objects, A and B, were made for "{prompt}". Which is better? Answer with A or B.'
    at_once: int = 4

    @property
    def info(self) -> RewardInfo:
        return _about(f"vlm pairs:{self.model}", self.caller)

    def prefer(self, a: Shown | Views, b: Shown | Views, prompts: list[Prompt]) -> Score:
        one, other = look(self.info, a, prompts).views, look(self.info, b, prompts).views

        def ask(i: int) -> float | None:
            words = self.question.replace("{prompt}", prompts[i].text)
            ways = []
            for first, second in ((one, other), (other, one)):
                content = [words, "Object A:", *png(first, i), "Object B:", *png(second, i)]
                ways.append(_share(_complete(self.caller, self.model, content, ("a", "b")), "a", "b"))
            forth, back = ways
            return None if forth is None or back is None else (forth + 1 - back) / 2

        return _judge(one, ask, self.at_once, other.rgb)


def _about(name: str, caller: Caller) -> RewardInfo:
    weights, licence = f"behind {caller.url}", "see the model's own page"
    return RewardInfo(name, "no", (0.0, 1.0), weights, licence, "https://arxiv.org/abs/2404.01291")


def _judge(views: Views, ask: Callable[[int], float | None], at_once: int, also: Tensor | None = None) -> Score:
    """Ask about every sample whose pixels are finite, several at a time; mistakes of the user's go through."""
    good = views.rgb.isfinite().flatten(1).all(1) & views.alpha.isfinite().flatten(1).all(1)
    if also is not None:
        good = good & also.isfinite().flatten(1).all(1)
    rows = good.nonzero()[:, 0].tolist()
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        found = dict(zip(rows, pool.map(ask, rows), strict=True))
    return judge_each(len(views.rgb), found.get, views.rgb.detach())


def _complete(caller: Caller, model: str, content: list[str], options: tuple[str, str]) -> dict[str, float]:
    """Ask a chat model; the probability of each option as the first word, as far as it is known.

    ``content`` is texts and, after them, pictures; a picture is told by the first letters of a PNG in base64.
    """
    parts = []
    for piece in content:
        if piece.startswith("iVBORw0KGgo"):
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{piece}"}})
        else:
            parts.append({"type": "text", "text": piece})
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 1, "temperature": 0}
    answer = caller.post({**body, "logprobs": True, "top_logprobs": 20})
    try:
        choice = answer["choices"][0]
        listed = (choice.get("logprobs") or {}).get("content") or []
        said = choice["message"]["content"] or ""
        found: dict[str, float] = {}
        for entry in listed[0]["top_logprobs"] if listed else []:
            word = _word(entry["token"])
            if word in options:
                found[word] = found.get(word, 0.0) + math.exp(entry["logprob"])
    except (TypeError, KeyError, IndexError, AttributeError):
        return {}
    return found or ({_word(said): 1.0} if _word(said) in options else {})


def _word(token: str) -> str:
    return token.strip().strip(".,!\"'*").lower()


def _share(found: Mapping[str, float], one: str, other: str) -> float | None:
    """One option's part of the probability of both; None if neither was among the answers."""
    total = found.get(one, 0.0) + found.get(other, 0.0)
    return found.get(one, 0.0) / total if total > 0 else None
