"""The gate: who may come in, and what a hostile client does to the others (nothing)."""

import contextlib
import http.client
import os
import random
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import viser
import zstandard
from rl3d.viewer import gate
from rl3d.viewer.gate import Opened, file_address, open_server
from rl3d.viewer.messages import is_heard
from websockets.exceptions import ConnectionClosed, InvalidStatus
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two folders that are served, a secret beside them, and links within and out."""
    root = tmp_path_factory.mktemp("served")
    for name in ("runs", "more", "secret", "runs-too"):
        (root / name).mkdir()
    (root / "secret" / "key.txt").write_text("secret")
    (root / "runs-too" / "key.txt").write_text("secret")
    (root / "runs" / "a b.txt").write_text("hello")
    (root / "runs" / "page.html").write_text("<script>1</script>")
    (root / "runs" / "out").symlink_to(root / "secret")
    (root / "runs" / "within.txt").symlink_to(root / "runs" / "a b.txt")
    os.mkfifo(root / "runs" / "pipe")
    return [root / "runs", root / "more"]


@pytest.fixture(scope="module")
def local(folders):
    """A viewer on the loopback address, which needs no token."""
    opened = open_server("127.0.0.1", 0, folders=folders)
    pressed = opened.server.gui.add_button("Press")
    opened.server.pressed = []
    pressed.on_click(lambda _: opened.server.pressed.append(1))
    opened.server.button = pressed
    yield opened
    opened.server.stop()


@pytest.fixture(scope="module")
def public():
    """A viewer on every address, which needs one."""
    opened = open_server("0.0.0.0", 0)
    yield opened
    opened.server.stop()


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


# --- Who may come in.


def test_the_loopback_address_needs_no_token_and_any_other_does(local, public):
    assert "token" not in local.url
    assert get(local)[0] == 200
    assert len(urlsplit(public.url).query) >= len("token=") + 32
    assert get(public)[0] == 401


def test_the_token_opens_the_page_and_a_cookie_keeps_it_open(public):
    query = urlsplit(public.url).query
    status, _, headers = get(public, f"/?{query}")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite" in cookie
    kept = cookie.split(";")[0]
    status, page, headers = get(public, Cookie=f"other=1; {kept}")
    assert status == 200
    assert b"<html" in page
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    with join(public, additional_headers={"Cookie": kept}) as client:
        hear(client, "ReplayDoneMessage")
    with join(public, f"/?{query}") as client:
        hear(client, "ReplayDoneMessage")


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=wrong", "/?token=%ff", "/index.html", "/files/0/a", "/?token=a&token=b"]
)
def test_without_the_token_nothing_is_served(public, path):
    assert get(public, path)[0] == 401
    assert get(public, path, Cookie=f"rl3d_{place(public)[1]}=wrong")[0] == 401
    with pytest.raises(InvalidStatus) as refused:
        join(public, path)
    assert refused.value.response.status_code == 401


def test_the_redirect_leads_nowhere_else(public):
    query = urlsplit(public.url).query
    assert get(public, f"//evil.example/?{query}")[2]["Location"] == "/"


def test_a_token_of_ones_own(folders):
    opened = open_server("127.0.0.1", 0, "a-token-of-my-own")
    try:
        assert opened.url.endswith("?token=a-token-of-my-own")
        assert get(opened)[0] == 401
        assert get(opened, "/?token=a-token-of-my-own")[0] == 303
    finally:
        opened.server.stop()


@pytest.mark.parametrize("token", ["", "short", "with spaces and more", "ünïcödé-tokens-are-out"])
def test_tokens_that_can_be_guessed_are_refused(token):
    with pytest.raises(ValueError, match="at least 16"):
        open_server("127.0.0.1", 0, token)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.7", "localhost.evil.example", "[::ffff", "a b"]
)
def test_a_page_that_points_its_own_name_here_is_refused(local, host):
    assert get(local, Host=host)[0] == 403
    assert get(local, Host=f"{host}:{place(local)[1]}")[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80", "viewer.localhost"])
def test_this_machine_by_any_of_its_names_is_let_in(local, host):
    assert get(local, Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""])
def test_pages_of_other_origins_cannot_open_a_websocket(local, origin):
    with pytest.raises(InvalidStatus) as refused:
        join(local, additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert get(local, Origin=origin)[0] == 403


def test_the_viewers_own_page_can(local):
    with join(local, origin="http://{}:{}".format(*place(local))) as client:
        hear(client, "ReplayDoneMessage")


def test_it_listens_on_the_next_free_port_and_says_what_it_cannot_have(local):
    opened = open_server("127.0.0.1", place(local)[1])
    try:
        assert place(local)[1] < place(opened)[1] < place(local)[1] + 100
    finally:
        opened.server.stop()
    for host, port in (("no.such.host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000)):
        with pytest.raises(ValueError, match="cannot listen on"):
            open_server(host, port)


def test_where_it_cannot_stand_nothing_is_served(monkeypatch):
    """As with a viser that serves in another way."""
    made = []

    class Elsewhere:
        def __init__(self, *_, **__):
            made.append(self)

        def stop(self):
            made.append("stopped")

    monkeypatch.setattr(viser, "ViserServer", Elsewhere)
    with pytest.raises(RuntimeError, match="gate does not know"):
        open_server("127.0.0.1", 0)
    assert made[-1] == "stopped"


# --- Files.


def test_files_of_the_named_folders_are_served(local, folders):
    address = file_address(folders, folders[0] / "a b.txt")
    assert address == "/files/0/a%20b.txt"
    status, body, headers = get(local, address)
    assert (status, body) == (200, b"hello")
    assert headers["Content-Type"] == "text/plain"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert get(local, "/files/0/within.txt")[1] == b"hello"
    assert "sandbox" in get(local, "/files/0/page.html")[2]["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        *("/files/0/../secret/key.txt", "/files/0/%2e%2e/secret/key.txt", "/files/0/..%2fsecret%2fkey.txt"),
        *("/files/0/out/key.txt", "/files/0/../runs-too/key.txt", "/files/0//etc/passwd", "/files/0/%2fetc/passwd"),
        *(
            "/files/0/pipe",
            "/files/0/",
            "/files/0",
            "/files/2/a",
            "/files/-1/a",
            "/files/x/a",
            "/files/0/a%00b",
            "/files/%C2%B2/a",
        ),
        *(
            "/files/0/nothing",
            "/files/0/" + "a" * 4000,
            "/../secret/key.txt",
            "/..%2f..%2fetc/passwd",
            "/files/99999999999999/a",
        ),
    ],
)
def test_nothing_else_is(local, path):
    status, body, _ = get(local, path)
    assert status == 404
    assert b"secret" not in body
    assert b"root:" not in body


def test_large_files_are_left_to_the_disk(local, folders, monkeypatch):
    monkeypatch.setattr(gate, "LARGEST_FILE", 4)
    assert get(local, "/files/0/a%20b.txt")[0] == 413


def test_what_lies_elsewhere_has_no_address(folders):
    for path in (folders[0].parent / "secret" / "key.txt", folders[0] / "out" / "key.txt", folders[0] / ".." / "secret"):
        with pytest.raises(ValueError, match="lies in none"):
            file_address(folders, path)


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
    opening = handshake(local)
    for k in range(0, len(opening), 7):
        raw(local, opening[:k]).close()
    message = frame(pack(CAMERA))
    for k in range(0, len(message), 9):
        raw(local, opening, message[:k]).close()
    assert well(local)
    assert until(lambda: not local.server.get_clients())


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


def test_too_many_inside_are_told_so_and_the_next_comes_in_when_one_leaves(local, monkeypatch):
    monkeypatch.setattr(gate, "MOST_INSIDE", 3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(join(local)) for _ in range(3)]
        assert get(local)[0] == 503
        clients[0].close()
        assert until(lambda: get(local)[0] == 200)
    assert until(lambda: get(local)[0] == 200)
