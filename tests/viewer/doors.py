"""Ways to a viewer, for tests of its gate."""

import http.client
import time
from urllib.parse import urlsplit

import msgspec
import viser
import zstandard
from rl3d.viewer.gate import Opened
from websockets.sync.client import connect

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (3.0, 0, 0.5),
    "fov": 1,
    "near": 0.1,
    "far": 100.0,
    "image_height": 600,
    "image_width": 800,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
PROTOCOL = f"viser-v{viser.__version__}"


def place(opened: Opened) -> tuple[str, int]:
    url = urlsplit(opened.url)
    assert url.hostname
    assert url.port
    return url.hostname, url.port


def get(opened: Opened, path: str = "/", **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(*place(opened), timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def join(opened: Opened, path: str = "/", **settings):
    host, port = place(opened)
    settings = {"subprotocols": [PROTOCOL], "compression": None, "max_size": None} | settings
    return connect(f"ws://{host}:{port}{path}", **settings)


def pack(message: dict) -> bytes:
    return msgspec.msgpack.encode(message)


def hear(client, wanted: str) -> dict:
    """The first message of a type that viser sends."""
    for _ in range(100):
        raw = client.recv(timeout=20)
        packed = raw[16 : 16 + int.from_bytes(raw[8:16], "little")]
        for message in msgspec.msgpack.decode(zstandard.decompress(packed))["messages"]:
            if message["type"] == wanted:
                return message
    raise AssertionError(f"no {wanted} came")


def until(true) -> bool:
    for _ in range(400):
        if true():
            return True
        time.sleep(0.05)
    return False


def well(opened: Opened) -> bool:
    """Whether a good client is served: the page, the backlog, and a button that it presses."""
    assert get(opened)[0] == 200
    before = len(opened.server.pressed)
    with join(opened) as client:
        button = hear(client, "GuiButtonMessage")
        client.send(pack(CAMERA))
        assert until(lambda: opened.server.get_clients())
        client.send(pack({"type": "GuiUpdateMessage", "uuid": button["uuid"], "updates": {"value": True}}))
        assert until(lambda: len(opened.server.pressed) > before)
    return True
