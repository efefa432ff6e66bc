"""The door of the viewer: who may come in, and what may be said.

The gate stands where viser calls ``websockets.asyncio.server.serve``, by that function's own documented parameters
(``process_request``, ``create_connection``, ``max_size`` ...), so every byte that reaches viser has passed it: pages, files,
the opening of a websocket, and each message. A front that forwards to viser on another port would leave that port open to
any page in the user's browser. viser offers no such parameter, so ``serve`` is wrapped while the server is being made;
should a later viser not call it, nothing is served at all.

What is refused, and why:

- A request without the token, wherever one is needed: always, unless the address is a loopback address.
- On a loopback address, a request by any other name than that of this machine: a page elsewhere can point its own name here
  (DNS rebinding).
- A request from a page of another origin: websockets are not bound to their own (cross-site websocket hijacking), and a
  viewer in a frame could be clicked unseen.
- Messages that are no sound ones of viser's client, or that set anything but the value of a control. They end the
  connection; what the viewer has no use for (uploads, sharing through viser's public tunnel, forms) is left unheard.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import io
import ipaddress
import logging
import mimetypes
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import viser
import websockets.asyncio.server
from rl3d.viewer.messages import is_heard
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

LARGEST_MESSAGE = 16 * 2**20
"""Bytes of a message from a client; a picture of its canvas is the largest."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a file that is served."""
MOST_INSIDE = 128
"""Connections that have passed the gate, and as many again that have not said yet what they want."""
PATIENCE = 10.0
"""Seconds in which a connection must have said what it wants."""
MESSAGES_PER_SECOND = 200.0
"""Faster clients are made to wait; viser's own sends some 50."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
}

_placing = threading.Lock()


class Opened(NamedTuple):
    """A viewer that listens."""

    server: viser.ViserServer
    url: str
    """Where it is, with the token where one is needed: to be printed once, for whoever may come in."""


def open_server(
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    *,
    folders: Sequence[Path] = (),
    label: str | None = None,
) -> Opened:
    """Open a viser server behind the gate.

    Args:
        host: address to listen on. A token is needed unless it is a loopback address.
        port: the first free one from here on is taken, of a hundred; 0 takes any.
        token: what a visitor must know, at least 16 letters, digits, "-" or "_". Default: a random one where one is needed.
        folders: whose files may be fetched (:func:`file_address`), up to 64 MiB each. Nothing else is served, but viser's page.
        label: title of the viewer's panel.

    Raises:
        ValueError: if the address cannot be had, or the token can be guessed.
    """
    if token is not None and not (len(token) >= 16 and all(c.isascii() and (c.isalnum() or c in "-_") for c in token)):
        raise ValueError(f'a token is at least 16 letters, digits, "-" or "_", got {token!r}; leave it out for a random one')
    door = _listen(host, port)
    address, port = door.getsockname()[:2]
    local = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    token = token or (None if local else secrets.token_urlsafe(24))
    gate = Gate(door, local, token, tuple(Path(folder).resolve() for folder in folders))
    # viser prints an address without the token; ours is printed instead.
    with _placing, gate.placed(), redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host, port, label=label, verbose=False)
    if not gate.stands:
        server.stop()
        door.close()
        raise RuntimeError(f"viser {viser.__version__} serves in a way that the gate does not know: install viser 1.1")
    server.gui.configure_theme(show_share_button=False, show_logo=False)
    # What listens everywhere is opened here by the name of here.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    name = f"[{name}]" if ":" in name else name
    return Opened(server, f"http://{name}:{port}/" + (f"?token={token}" if token else ""))


def file_address(folders: Sequence[Path], path: Path) -> str:
    """The address on the viewer's server of a file in one of the folders that it was opened with.

    Raises:
        ValueError: if it lies in none of them, or a link leads out.
    """
    for i, folder in enumerate(folders):
        if path.resolve().is_relative_to(folder.resolve()):
            return f"/files/{i}/{quote(path.resolve().relative_to(folder.resolve()).as_posix())}"
    raise ValueError(f"{path} lies in none of the folders that are served: {', '.join(map(str, folders)) or 'there are none'}")


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that viser never looks for an address itself: it would try for ever where there is none."""
    if not 0 <= port < 65536:
        raise ValueError(f"cannot listen on {host!r}, port {port}: ports are 0 to 65535")
    problem = OSError()
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"cannot listen on {host!r}, port {port}: {error}") from None
    for attempt in range(port, min(port + 100, 65536)) if port else (0,):
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((address[0], attempt, *address[2:]))
            door.listen(128)
            return door
        except OSError as error:
            door.close()
            problem = error
    raise ValueError(f"cannot listen on {host!r}, port {port}: {problem.strerror}; choose another --host or --port")


class Gate:
    """Who is at the door and who is inside."""

    def __init__(self, door: socket.socket, local: bool, token: str | None, folders: tuple[Path, ...]) -> None:
        self.door, self.local, self.token, self.folders = door, local, token, folders
        self.cookie = f"rl3d_{door.getsockname()[1]}"
        """Its name: browsers keep one jar for all ports of a host."""
        self.stands = False
        self.silent: dict[Visitor, None] = {}
        """Visitors who have not said what they want, in the order that they came."""
        self.inside: set[Visitor] = set()
        self.quiet = logging.getLogger("rl3d.viewer.gate")
        if not self.quiet.handlers:
            # What strangers send is theirs to worry about; logging's usual last resort would print a traceback for each.
            self.quiet.addHandler(logging.NullHandler())
            self.quiet.propagate = False

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Stand in the way of whoever serves websockets meanwhile."""
        serve = websockets.asyncio.server.serve

        def guarded(handler, host, port, *, process_request, **settings):
            self.stands = True
            settings |= {"max_size": LARGEST_MESSAGE, "max_queue": 4, "open_timeout": PATIENCE, "logger": self.quiet}
            request = partial(self.request, viser_request=process_request)
            return serve(handler, sock=self.door, process_request=request, create_connection=partial(Visitor, self), **settings)

        websockets.asyncio.server.serve = guarded
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve

    def arrive(self, visitor: Visitor) -> None:
        """Let somebody stand at the door; where too many do, the one who has been silent longest must go."""
        self.silent[visitor] = None
        if len(self.silent) > MOST_INSIDE:
            oldest = next(iter(self.silent))
            del self.silent[oldest]
            oldest.transport.abort()

    def leave(self, visitor: Visitor) -> None:
        self.silent.pop(visitor, None)
        self.inside.discard(visitor)

    async def request(
        self, visitor: Visitor, request: Request, viser_request: Callable[[Any, Request], Any]
    ) -> Response | None:
        """Answer a request: refuse it, send a file or viser's page, or let a websocket open (None)."""
        path, _, query = request.path.partition("?")
        opens = any(value.lower() == "websocket" for value in request.headers.get_all("Upgrade"))
        if why := self.foreign(request.headers):
            return _say(HTTPStatus.FORBIDDEN, why)
        known = self.token is None or self._knows(request.headers)
        if self.token and not known and _same(parse_qs(query).get("token", [""])[0], self.token):
            if not opens:
                # To the page without the token, so that it stays in no history and is sent to nobody.
                kept = f"{self.cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"
                return _say(HTTPStatus.SEE_OTHER, "", {"Location": "/", "Set-Cookie": kept, "Cache-Control": "no-store"})
            known = True
        if not known:
            return _say(HTTPStatus.UNAUTHORIZED, "This viewer needs its token: open the address that it printed, all of it.\n")
        self.silent.pop(visitor, None)
        if len(self.inside) >= MOST_INSIDE:
            return _say(HTTPStatus.SERVICE_UNAVAILABLE, "Too many are looking already.\n")
        self.inside.add(visitor)
        if opens:
            said = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
            return None if "viser-v" in said else _say(HTTPStatus.BAD_REQUEST, "Only viser's client has a use for this.\n")
        if path.startswith("/files/"):
            return await asyncio.to_thread(self.file, path.removeprefix("/files/"))
        answer = viser_request(visitor, request)
        answer = await answer if inspect.isawaitable(answer) else answer
        if answer is not None:
            answer.headers.update(HEADERS)
        return answer

    def foreign(self, headers: Headers) -> str | None:
        """Why a request comes from where none should; None if it does not."""
        hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
        try:
            name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
        except ValueError:
            name = None
        if not name:
            return "Name the host, once.\n"
        if self.local and not _means_here(name):
            return f"This viewer is for this machine alone: open it as http://localhost:{self.door.getsockname()[1]}/\n"
        if any(origin.lower() not in (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower()) for origin in origins):
            return "Another site may not use this viewer.\n"
        return None

    def _knows(self, headers: Headers) -> bool:
        pairs = (pair.strip().partition("=") for cookies in headers.get_all("Cookie") for pair in cookies.split(";"))
        return any(name == self.cookie and _same(value, self.token or "") for name, _, value in pairs)

    def file(self, where: str) -> Response:
        """A file of a named folder, by the folder's number and the file's path in it, with links followed first."""
        missing = _say(HTTPStatus.NOT_FOUND, "There is no such file here.\n")
        number, _, name = unquote(where).partition("/")
        try:
            if not (number.isascii() and number.isdigit() and name):
                return missing
            folder = self.folders[int(number)]
            path = (folder / name).resolve()
            if not path.is_relative_to(folder) or not path.is_file():
                return missing
            if path.stat().st_size > LARGEST_FILE:
                return _say(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"It is larger than {LARGEST_FILE >> 20} MiB: open it from disk.\n"
                )
            data = path.read_bytes()
        except (IndexError, OSError, ValueError, RuntimeError):
            return missing
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        # Pages in a run's folder may be anybody's: they run as a site of their own, which the viewer does not listen to.
        alone = {"Content-Security-Policy": "sandbox allow-scripts; frame-ancestors 'self'"}
        return _say(HTTPStatus.OK, data, {"Content-Type": kind, "Cache-Control": "no-cache"} | alone)


class Visitor(ServerConnection):
    """A connection that the gate watches, as websockets lets one be made (``create_connection``)."""

    def __init__(self, gate: Gate, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.gate = gate
        self._due = 0.0
        """When the next message may be heard, on the loop's clock."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]
        self.gate.arrive(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gate.leave(self)
        super().connection_lost(exc)

    async def recv(self, decode: bool | None = None) -> Any:
        """The next message that viser may hear; closes the connection of whoever sends nonsense."""
        while True:
            raw = await super().recv(decode)
            now = self.loop.time()
            # A second's worth may come at once. Waiting here makes TCP hold the sender back.
            self._due = max(self._due, now - 1) + 1 / MESSAGES_PER_SECOND
            await asyncio.sleep(max(0.0, self._due - now))
            try:
                if is_heard(raw):
                    return raw
            except ValueError as error:
                await self.close(1008, str(error)[:100])
                raise ConnectionClosedError(None, None) from None


def _means_here(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(one: str, other: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())


def _say(status: HTTPStatus, body: str | bytes, headers: dict[str, str] | None = None) -> Response:
    data = body.encode() if isinstance(body, str) else body
    kind = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(data)), "Connection": "close"}
    return Response(status.value, status.phrase, Headers(HEADERS | kind | (headers or {})), data)
