"""What clients may say, and what a hostile one does to the others (nothing)."""

import contextlib
import os
import random
import socket
import threading
from pathlib import Path

import pytest
from doors import CAMERA, PROTOCOL, get, hear, join, pack, place, until, well
from rl3d.viewer import gate
from rl3d.viewer.gate import Opened, open_server
from rl3d.viewer.messages import is_heard
from websockets.exceptions import ConnectionClosed

# --- What may be said.


@pytest.mark.parametrize(
    "message",
    [
        CAMERA,
        {"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": [1, 2.5]}},
        {"type": "CommandTriggerMessage", "uuid": "x"},
        {"type": "GetRenderResponseMessage", "payload": b"png", "render_uuid": "x"},
    ],
)
def test_what_visers_client_says_is_heard(message):
    assert is_heard(pack(message))


@pytest.mark.parametrize(
    "kind", ["ShareUrlRequest", "ShareUrlDisconnect", "FileTransferStartUpload", "GuiFormDirtyMessage", "ResetGuiMessage"]
)
def test_what_the_viewer_has_no_use_for_is_not(kind):
    assert not is_heard(pack({"type": kind, "uuid": "x"}))


NONSENSE = [
    *("text", "", b"", b"\xc1", bytes(range(256)), b"\x91" * 5000 + b"\x00", b"\xdf\xff\xff\xff\xff", pack(3), pack([])),
    *(pack({}), pack({"type": 3}), pack({"type": "Nothing"}), pack({"type": "heard"}), pack({"type": ["a"]})),
    pack({"type": "Message"}) + b"more",
    pack({"type": "CommandTriggerMessage", "uuid": 3}),
    pack({"type": "CommandTriggerMessage", "uuid": "x", "excluded_self_client": 1}),
    pack({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"update_cb": []}}),
    pack({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": 1, "removed": True}}),
    pack({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": float("nan")}}),
    pack({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": [[float("inf")]]}}),
    *(pack(CAMERA | {"wxyz": bad}) for bad in ((0.0,) * 4, (1.0,) * 3, "wxyz", None)),
    *(pack(CAMERA | {"image_width": bad}) for bad in (0, -5, 10**9, 1.5, "8")),
    *(
        pack(CAMERA | {"position": (0.0, float("nan"), 0.0)}),
        pack(CAMERA | {"fov": 4.0}),
        pack({"type": "ViewerCameraMessage"}),
    ),
]


@pytest.mark.parametrize("raw", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_named(raw):
    with pytest.raises(ValueError, match=r"viser|value|numbers"):
        is_heard(raw)


def test_random_changes_of_good_messages_are_heard_or_named():
    rng = random.Random(0)
    for _ in range(3000):
        raw = bytearray(pack(CAMERA))
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        with contextlib.suppress(ValueError):
            is_heard(bytes(raw[: rng.randint(0, len(raw))] if rng.random() < 0.3 else raw))


# --- Hostile clients.


def raw(opened: Opened, *parts: bytes) -> socket.socket:
    """A connection that was sent these bytes, as far as the other side takes them."""
    client = socket.create_connection(place(opened), timeout=20)
    with contextlib.suppress(OSError):
        for part in parts:
            client.sendall(part)
    return client


def handshake(opened: Opened) -> bytes:
    host, port = place(opened)
    lines = (f"GET / HTTP/1.1\r\nHost: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    more = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Protocol: {PROTOCOL}", "", "")
    return "\r\n".join(lines + more).encode()


def memory() -> int:
    """What this process holds, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def farewell(client) -> int:
    """The code with which the other side closes a websocket."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(timeout=20)
    return client.close_code


def test_whoever_sends_nonsense_is_shown_out_and_the_others_stay(local):
    with join(local) as good:
        hear(good, "GuiButtonMessage")
        good.send(pack(CAMERA))
        for nonsense in NONSENSE[::3]:
            with join(local) as bad:
                bad.send(pack(CAMERA))
                bad.send(nonsense)
                assert farewell(bad) == 1008
        good.ping().wait(20)
        assert not good.close_code
    assert well(local)


def test_what_is_left_unheard_changes_nothing(local):
    with join(local) as client:
        button = hear(client, "GuiButtonMessage")["uuid"]
        held = len(local.server._websock_server._broadcast_buffer.message_from_id)
        for k in range(50):
            client.send(pack({"type": "GuiFormDirtyMessage", "uuid": str(k)}))
        client.send(pack({"type": "ShareUrlRequest"}))
        upload = {"transfer_uuid": "x", "filename": "x", "mime_type": "x", "part_count": 9, "size_bytes": 10**12}
        client.send(pack({"type": "FileTransferStartUpload", "source_component_uuid": button} | upload))
        client.send(pack({"type": "ResetGuiMessage"}))
        client.send(pack(CAMERA))
        assert until(lambda: local.server.get_clients())
        assert local.server._share_tunnel is None
        assert not local.server.gui._current_file_upload_states
        assert len(local.server._websock_server._broadcast_buffer.message_from_id) <= held + 1
    assert well(local)


def test_no_message_is_larger_than_it_may_be(local):
    before = memory()
    # A frame that says it is 2^62 bytes long, one of 17 MiB, and a message of 2000 fragments.
    with raw(local, handshake(local), b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4), bytes(2**20)) as client:
        assert shown_out(client)
    with raw(local, handshake(local), b"\x82\xff" + (17 * 2**20).to_bytes(8, "big") + bytes(4), *[bytes(2**20)] * 17) as client:
        assert shown_out(client)
    piece = b"\xfe" + (16000).to_bytes(2, "big") + bytes(4) + bytes(16000)
    with raw(local, handshake(local), b"\x02" + piece, *[b"\x00" + piece] * 1999) as client:
        assert shown_out(client)
    assert memory() - before < 200 * 2**20
    assert well(local)


def shown_out(client: socket.socket) -> bool:
    """Whether the other side ends the connection."""
    with contextlib.suppress(ConnectionError):
        while client.recv(2**16):
            pass
    return True


def test_a_flood_of_messages_holds_back_its_sender_alone(local):
    before, stop = memory(), threading.Event()

    def flood() -> None:
        frames = b"".join(frame(pack(CAMERA | {"fov": 1 + k / 1000})) for k in range(500))
        client = raw(local, handshake(local))
        client.settimeout(0.2)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                client.send(frames)
        client.close()

    attack = threading.Thread(target=flood)
    attack.start()
    try:
        for _ in range(3):
            assert well(local)
    finally:
        stop.set()
        attack.join()
    assert memory() - before < 100 * 2**20


def frame(data: bytes) -> bytes:
    return b"\x82\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data


BYTES = random.Random(0).randbytes(20000)


@pytest.mark.parametrize(
    "sent",
    [
        BYTES,
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET " + b"a" * 100000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10000,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + bytes(100000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nOrigin: \xff\r\n\r\n",
        b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + BYTES[:500],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_harm_nothing(local, sent):
    with raw(local, sent) as client:
        client.shutdown(socket.SHUT_WR)
        assert shown_out(client)
    assert get(local)[0] == 200


def test_leaving_in_the_middle_harms_nothing(local):
    opening, before = handshake(local), local.server.get_clients().keys()
    for k in range(0, len(opening), 7):
        raw(local, opening[:k]).close()
    message = frame(pack(CAMERA))
    for k in range(0, len(message), 9):
        raw(local, opening, message[:k]).close()
    assert well(local)
    assert until(lambda: local.server.get_clients().keys() <= before)


def test_a_crowd_that_says_nothing_keeps_nobody_out(local):
    before, crowd = memory(), []
    for _ in range(800):
        crowd.append(raw(local, handshake(local)[:60]))
        if len(crowd) > 300:
            # As many as a process may hold; the oldest were shown out already.
            crowd.pop(0).close()
    assert well(local)
    for client in crowd:
        client.close()
    assert memory() - before < 100 * 2**20
    assert well(local)


def test_the_silent_are_shown_out_in_time(monkeypatch):
    monkeypatch.setattr(gate, "PATIENCE", 0.3)
    opened = open_server("127.0.0.1", 0)
    try:
        with raw(opened, b"GET / HTTP/1.1\r\n") as client:
            assert shown_out(client)
    finally:
        opened.server.stop()


def test_too_many_inside_are_told_so_and_the_next_comes_in_when_one_leaves(monkeypatch):
    monkeypatch.setattr(gate, "MOST_INSIDE", 3)
    opened = open_server("127.0.0.1", 0)
    with contextlib.ExitStack() as stack:
        stack.callback(opened.server.stop)
        clients = [stack.enter_context(join(opened)) for _ in range(3)]
        assert get(opened)[0] == 503
        clients[0].close()
        assert until(lambda: get(opened)[0] == 200)
