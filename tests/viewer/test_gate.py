"""The gate: who may come in, and what is served there."""

from urllib.parse import urlsplit

import pytest
import viser
from doors import get, hear, join, place
from rl3d.viewer import gate
from rl3d.viewer.gate import file_address, open_server
from websockets.exceptions import InvalidStatus


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
