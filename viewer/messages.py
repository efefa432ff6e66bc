"""Which messages of clients viser may hear.

viser decodes what it is sent without much suspicion: a message may set any attribute of any control, its handlers included, and
some are kept for every later client. So the gate reads each first.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
from viser import _messages as heard

MESSAGES = {
    message.__name__: message
    for message in (
        heard.ViewerCameraMessage,
        heard.GuiUpdateMessage,
        heard.GuiButtonHoldMessage,
        heard.CommandTriggerMessage,
        heard.ScenePointerMessage,
        heard.SceneNodeClickMessage,
        heard.TransformControlsUpdateMessage,
        heard.TransformControlsDragStartMessage,
        heard.TransformControlsDragEndMessage,
        heard.GetRenderResponseMessage,
        heard.LocalStorageGetItemResponseMessage,
    )
}
"""What a client may say: not uploads, forms, or sharing through viser's public tunnel, for which this viewer has no use."""


def is_heard(raw: bytes | str) -> bool:
    """Whether viser may hear a client's message: one of ``MESSAGES``, of the types that viser says.

    Raises:
        ValueError: if it is no message of viser's, or could not come from its client.
    """
    try:
        message = msgspec.msgpack.decode(raw if isinstance(raw, bytes) else b"")
        kind = message.pop("type") if isinstance(message, dict) else None
        if not isinstance(kind, str) or not isinstance(getattr(heard, kind, None), type):
            raise ValueError("this is no message of viser")
        if kind not in MESSAGES:
            return False
        if message.keys() - {field.name for field in dataclasses.fields(MESSAGES[kind])}:
            raise ValueError("it says more than viser's client does")
        msgspec.convert(message, MESSAGES[kind])
        sound = _finite(message)
    except (msgspec.MsgspecError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"this is no message of viser: {error}") from None
    if kind == "GuiUpdateMessage" and message["updates"].keys() != {"value"}:
        raise ValueError("a client sets values alone")
    if kind == "ViewerCameraMessage":
        size, turn = (message["image_width"], message["image_height"]), message["wxyz"]
        sound = sound and all(0 < n <= 16384 for n in size) and 0.5 < math.hypot(*turn) < 2 and 0 < message["fov"] < math.pi
    if not sound:
        raise ValueError("these numbers mean nothing")
    return True


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
