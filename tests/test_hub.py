"""Weights come from folders, a cache, and a hub that is played by a server here; what is wrong with them is said."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from rl3d.cards import CARDS
from rl3d.hub import MODELS, find_file, find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"x": torch.arange(40_000.0)})
FILES = {"config.json": b'{"size": 3}', "unet/model.safetensors": WEIGHTS, "unet/model.bin": b"not wanted"}


class Hub(ThreadingHTTPServer):
    """The two repositories "here/tiny" and "gated/tiny"; ``cut`` bytes after which the next big file breaks off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.asked = dict(FILES), 0, []
        self.missing: set[str] = set()

    def handle_error(self, request, client_address):
        """A connection that this server cut is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.split("?")[0]
        if path.startswith(("/gated/", "/api/models/gated/")):
            return self.answer(b"", 403, body, {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/here/tiny/"):
            return self.answer(json.dumps(self.listing("/tree/" in path)).encode(), 200, body, {})
        start = f"/here/tiny/resolve/{COMMIT}/"
        if path.removeprefix(start) in self.server.missing:
            return self.answer(b"", 404, body, {"X-Error-Code": "EntryNotFound"})
        if path.startswith(start) and (data := self.server.files.get(path.removeprefix(start))) is not None:
            self.server.asked.append((path.removeprefix(start), body, self.headers["Range"]))
            tag = _tags(data)[1]
            return self.answer(data, 200, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"})
        return self.answer(b"", 404, body, {"X-Error-Code": "RepoNotFound"})

    def listing(self, tree: bool):
        entries = []
        for name, data in self.server.files.items():
            git, tag = _tags(data)
            large = {"lfs": {"oid": tag, "sha256": tag, "size": len(data), "pointerSize": 130}} if len(tag) == 64 else {}
            entries.append({"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": git, **large})
        return entries if tree else {"id": "here/tiny", "sha": COMMIT, "siblings": entries}

    def answer(self, data, status, body, headers):
        whole = len(data)
        if status == 200 and body and (asked := self.headers["Range"]):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            data, status, headers = data[begin:], 206, headers | {"Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}
        self.send_response(status)
        for name, value in ({"Content-Length": len(data)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if body and len(data) > 50_000 and self.server.cut:
            data, self.server.cut, self.close_connection = data[: self.server.cut], 0, True
        if body:
            self.wfile.write(data)


def _tags(data):
    """The hash that git gives a file, and what the hub names it by: for large ones the sha256."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return git, hashlib.sha256(data).hexdigest() if len(data) > 1000 else git


@pytest.fixture
def hub():
    with _hub() as server:
        yield server


@contextmanager
def _hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


CARD = """
from rl3d import cards, hub
def card(*sources, **more):
    cards.CARDS["tiny"] = cards.Card("a tiny model", sources, ("config.json", "unet/*.safetensors"), 0.001, "MIT",
                                     "https://example.org/tiny", **more)
def attempt(what):
    try:
        print(what("tiny"))
    except ValueError as error:
        print("ValueError:", error)
"""


def run(code, home, hub=None, **env):
    """What a program prints whose hub is the server, and whose cache is ``home``: both are read when it starts."""
    where = {"HF_HOME": str(home), "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1] if hub else 1}"}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", CARD + code]
    done = subprocess.run(command, env=os.environ | where | quiet | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_published_model_is_downloaded_once_and_checked(tmp_path, hub):
    code = f'card("gone/tiny@{COMMIT}", "here/tiny@{COMMIT}")\nattempt(hub.find_model); print(hub.problems("tiny"))'
    folder, wrong = run(code, tmp_path, hub).splitlines()
    assert (tmp_path / "hub") in Path(folder).parents
    found = {p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file()}
    assert found == {"config.json", "unet/model.safetensors"}
    assert wrong == "[]"
    asked = len(hub.asked)
    again = run(code, tmp_path, None).splitlines()
    assert again == [folder, "[]"], "what is here needs no network"
    assert len(hub.asked) == asked


def test_a_damaged_file_is_named(tmp_path, hub):
    code = f'card("here/tiny@{COMMIT}")\nattempt(hub.find_model)'
    folder = Path(run(code, tmp_path, hub).strip())
    for name in FILES.keys() - {"unet/model.bin"}:
        blob = (folder / name).resolve()
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
    said = run(f'card("here/tiny@{COMMIT}")\nprint(*hub.problems("tiny"), sep="\\n")', tmp_path)
    assert "config.json is not what was downloaded" in said
    assert "model.safetensors has the sha256" in said


def test_a_connection_that_breaks_and_a_file_that_is_missing_are_mended(tmp_path, hub):
    hub.cut, hub.missing = 60_000, {"config.json"}
    code = f'card("here/tiny@{COMMIT}")\nattempt(hub.cached); attempt(hub.find_model); attempt(hub.cached)'
    before, failed, after = run(code, tmp_path, hub).splitlines()
    assert before == after == "None"
    assert "cannot download tiny" in failed
    hub.missing, hub.asked = set(), []
    folder = Path(run(code, tmp_path, hub).splitlines()[-1])
    assert (folder / "unet/model.safetensors").read_bytes() == WEIGHTS
    assert {name for name, body, _ in hub.asked if body} <= {"config.json", "unet/model.safetensors"}
    assert "config.json" in {name for name, body, _ in hub.asked if body}


def test_another_file_than_the_card_describes_is_refused(tmp_path, hub):
    said = run(
        f'card("here/tiny@{COMMIT}", sha256={{"unet/model.safetensors": "0" * 64}})\nattempt(hub.find_model)', tmp_path, hub
    )
    assert "arrived damaged" in said
    assert "not 0000" in said


def test_why_there_is_no_model_is_said(tmp_path, hub):
    said = run(f'card("gated/tiny@{COMMIT}", gated=True)\nattempt(hub.find_model)', tmp_path, hub)
    assert "accept its licence on https://example.org/tiny" in said
    assert "hf auth login" in said
    assert "not there any more" in run(f'card("gone/tiny@{COMMIT}")\nattempt(hub.find_model)', tmp_path, hub)
    offline = run(f'card("here/tiny@{COMMIT}")\nattempt(hub.find_model)', tmp_path, hub, HF_HUB_OFFLINE="1")
    assert "cannot download tiny" in offline
    assert not hub.asked
    assert "it lacks" in run(
        f'card("here/tiny@{COMMIT}")\ncards.CARDS["tiny"] = __import__("dataclasses").replace('
        'cards.CARDS["tiny"], files=("config.json", "vae/*.safetensors"))\nattempt(hub.find_model)',
        tmp_path,
        hub,
    )


def test_paths_and_embedded_models_come_first(tmp_path, monkeypatch):
    assert find_model("encoder").name == "encoder"
    (tmp_path / "mvdream").mkdir()
    (tmp_path / "mvdream" / "x.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setenv("RL3D_WEIGHTS", str(tmp_path))
    assert find_model("mvdream") == tmp_path / "mvdream"
    with pytest.raises(ValueError, match=r"'nowhere' are missing .*mvdream"):
        find_model("nowhere")
    with pytest.raises(ValueError, match=r"no weight file .*hps-2.1"):
        find_file("nowhere.pt")
    assert find_file(str(tmp_path / "mvdream" / "x.safetensors")).is_file()


def test_cards_are_pinned_where_a_pin_is_known():
    assert not CARDS.keys() & set(MODELS)
    for name, card in CARDS.items():
        assert card.licence, name
        assert card.page.startswith("https://"), name
        for source in card.sources:
            if source.startswith("https://"):
                assert set(card.sha256) == set(card.files), f"{name}: a file from anywhere needs a hash"
            else:
                repository, _, commit = source.partition("@")
                assert repository.count("/") == 1, source
                assert commit == "main" or len(commit) == 40, source
