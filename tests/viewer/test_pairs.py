"""The page of preferences: as a client hears and answers it, and as Chromium shows it."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
import trimesh
import viser
import zstandard
from PIL import Image
from rl3d.viewer import pairs
from rl3d.viewer.gate import open_server
from websockets.sync.client import connect

from rl3d.choices import read_pairs
from rl3d.contest import Question, questions
from rl3d.export.splats.ply import write_ply
from rl3d.types import Splats

CHROMIUM = Path("/usr/bin/chromium")
RED, BLUE = (1.0, 0.1, 0.1), (0.1, 0.1, 1.0)


def run(folder: Path, prompt: str, colour: tuple[float, float, float]) -> None:
    """A finished run whose asset is a ball of one colour."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"prompt": {"text": prompt, "negative": ""}}))
    means = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=-1) * 0.6
    sh = ((torch.tensor(colour) - 0.5) / 0.28209479).expand(300, 1, 3)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(300, 4)
    splats = Splats(means, torch.full((300, 3), -2.0), quats.clone(), torch.full((300,), 4.0), sh.clone())
    write_ply(folder / "asset.ply", splats)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[Path]:
    """Two recipes by names that a client must not hear, one red and one blue, and three prompts."""
    root = tmp_path_factory.mktemp("contest")
    for k, prompt in enumerate(("a *mug*", "a key", "a chair")):
        run(root / "basic-recipe" / f"secret-{k}", prompt, RED)
        run(root / "tuned-recipe" / f"secret-{k}", prompt, BLUE)
    return [root / "basic-recipe", root / "tuned-recipe"]


@pytest.fixture
def opened(monkeypatch):
    """Servers that are stopped at the end: call it as ``pairs.add`` without the server."""
    monkeypatch.setattr(pairs, "SETTLE", 0.0)
    servers = []

    def show(*arguments, **settings):
        made = open_server("127.0.0.1", 0)
        servers.append(made.server)
        pairs.add(made.server, *arguments, **settings)
        return made

    yield show
    for server in servers:
        server.stop()


class Client:
    """What viser's client does, without a screen: it remembers the state that it was told."""

    def __init__(self, url: str):
        settings = {"subprotocols": [f"viser-v{viser.__version__}"], "compression": None, "max_size": None}
        self.socket = connect(url.replace("http", "ws"), **settings)
        self.all, self.gui, self.commands, self.nodes = b"", {}, {}, {}
        self.look((1.0, 0.0, 0.0, 0.0))

    def look(self, wxyz: tuple[float, float, float, float]) -> None:
        numbers = {"fov": 0.6, "near": 0.1, "far": 100.0, "image_height": 600, "image_width": 800}
        places = {"position": (5.0, 0.0, 0.0), "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}
        self.say({"type": "ViewerCameraMessage", "wxyz": wxyz} | numbers | places)

    def say(self, message: dict) -> None:
        self.socket.send(msgspec.msgpack.encode(message))

    def hear(self, true, tries: int = 200) -> bool:
        """Listen until something is true."""
        for _ in range(tries):
            if true():
                return True
            try:
                raw = self.socket.recv(timeout=0.1)
            except TimeoutError:
                continue
            said = zstandard.decompress(raw[16 : 16 + int.from_bytes(raw[8:16], "little")])
            self.all += said + raw[16 + int.from_bytes(raw[8:16], "little") :]
            for message in msgspec.msgpack.decode(said)["messages"]:
                self.take(message)
        return False

    def take(self, message: dict) -> None:
        kind = message["type"]
        if kind == "GuiUpdateMessage":
            self.gui[message["uuid"]] |= message["updates"]
        elif kind.startswith("Gui") and "props" in message:
            self.gui[message["uuid"]] = {"type": kind} | message["props"]
        elif kind == "RegisterCommandMessage":
            self.commands[message["props"]["hotkey"]] = message["uuid"]
        elif kind == "RemoveSceneNodeMessage":
            self.nodes = {name: node for name, node in self.nodes.items() if not name.startswith(message["name"])}
        elif kind == "SetPositionMessage":
            self.nodes.setdefault(message["name"], {})["position"] = message["position"]
        elif "props" in message and "name" in message:
            self.nodes.setdefault(message["name"], {}).update({"type": kind} | message["props"])

    def press(self, key: str) -> None:
        self.say({"type": "CommandTriggerMessage", "uuid": self.commands[key]})

    def click(self, label: str) -> None:
        uuid = next(uuid for uuid, one in self.gui.items() if label in str(one.get("label", "")))
        self.say({"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": True}})

    def reads(self, text: str) -> bool:
        return any(text in str(one.get("_markdown", "")) for one in self.gui.values())


def test_keys_and_buttons_record_what_was_shown(places, opened, tmp_path):
    asked, file = questions(places, annotator="kim"), tmp_path / "choices.jsonl"
    client = Client(opened(asked, file, "kim").url)
    assert client.hear(lambda: "/left/asset" in client.nodes and "/right/asset" in client.nodes and client.reads("0 of 3"))
    assert set(pairs.KEYS.values()) == client.commands.keys()
    client.press("1")
    assert client.hear(lambda: client.reads("1 of 3 answered, by kim"))
    client.click("Right is better")
    assert client.hear(lambda: client.reads("2 of 3"))
    client.press("U")
    assert client.hear(lambda: client.reads("1 of 3"))
    client.click("Equally good")
    assert client.hear(lambda: client.reads("2 of 3"))
    client.press("N")
    assert client.hear(lambda: client.reads("1 skipped"))
    said = [(p.prompt, p.a, p.b, p.preferred, p.annotator) for p in read_pairs(file)]
    assert said == [
        (asked[0].prompt, asked[0].a, asked[0].b, 1.0, "kim"),
        (asked[1].prompt, asked[1].a, asked[1].b, 0.5, "kim"),
    ]


def test_a_blind_contest_hides_names_until_its_end(places, opened, tmp_path):
    client = Client(opened(questions(places), tmp_path / "choices.jsonl").url)
    for k in range(3):
        assert client.hear(lambda k=k: client.reads(f"{k} of 3") and "/right/asset" in client.nodes)
        for word in (b"basic", b"tuned", b"secret", b"recipe", str(tmp_path.parent).encode()):
            assert word not in client.all
        client.nodes.clear()
        client.press("2")
    assert client.hear(lambda: client.reads(r"basic\-recipe against tuned\-recipe"))
    assert client.reads("95 % intervals")


def test_names_are_said_where_nothing_is_hidden_and_prompts_as_they_are(places, opened, tmp_path):
    mug = [place / "secret-0" for place in places]
    client = Client(opened(questions(mug), tmp_path / "choices.jsonl", blind=False).url)
    assert client.hear(lambda: client.reads(r"a \*mug\*"))
    assert client.reads("tuned-recipe/secret-0")
    assert client.reads("basic-recipe/secret-0")


def test_both_stay_beside_each_other_whichever_way_a_client_looks(places, opened, tmp_path):
    made = opened(questions(places), tmp_path / "choices.jsonl")
    clients = [Client(made.url) for _ in range(2)]
    turns = ((0.5, -0.5, 0.5, -0.5), (0.8, 0.0, 0.6, 0.0))
    for client, turn in zip(clients, turns, strict=True):
        # Once the server has placed the camera; viser's client would then say where it is now.
        assert client.hear(lambda client=client: "/right/word" in client.nodes)
        client.look(turn)
        right = viser.transforms.SO3(np.array(turn)).as_matrix()[:, 0]
        for side, sign in (("/left", -1), ("/right", 1)):
            wanted = sign * pairs.APART * right

            def there(client=client, side=side, wanted=wanted) -> bool:
                return np.allclose(client.nodes.get(side, {}).get("position", (9, 9, 9)), wanted, atol=1e-5)

            assert client.hear(there)


def test_two_who_answer_at_once_answer_once(places, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SETTLE", 1.0)
    file = tmp_path / "choices.jsonl"
    made = opened(questions(places), file)
    clients = [Client(made.url) for _ in range(2)]
    for client in clients:
        assert client.hear(lambda client=client: client.reads("0 of 3") and len(client.commands) == 5)
    time.sleep(1.0)
    for client in clients:
        client.press("1")
        client.press("1")
    assert clients[0].hear(lambda: clients[0].reads("1 of 3"))
    assert clients[1].hear(lambda: clients[1].reads("1 of 3"))
    assert not clients[0].hear(lambda: clients[0].reads("2 of 3"), tries=10)
    assert len(read_pairs(file)) == 1


def test_a_session_is_taken_up_again_by_another_server(places, opened, tmp_path):
    asked, file = questions(places), tmp_path / "choices.jsonl"
    first = Client(opened(asked, file).url)
    assert first.hear(lambda: first.reads("0 of 3"))
    first.press("3")
    assert first.hear(lambda: first.reads("1 of 3"))
    second = Client(opened(asked, file).url)
    assert second.hear(lambda: second.reads("1 of 3"))


def test_pictures_and_meshes_are_shown_and_what_is_broken_can_be_skipped(opened, tmp_path):
    Image.new("RGB", (64, 32), (255, 0, 0)).save(tmp_path / "one.png")
    trimesh.creation.icosphere(2).export(tmp_path / "ball.glb")
    (tmp_path / "broken.ply").write_text("ply\nnonsense")
    said = {name: (str(tmp_path / name),) for name in ("one.png", "ball.glb", "broken.ply")}
    asked = [Question("x", said["one.png"] * 2, said["ball.glb"]), Question("y", said["broken.ply"], said["one.png"])]
    client = Client(opened(asked, tmp_path / "choices.jsonl").url)
    assert client.hear(lambda: "/left/asset" in client.nodes and "/right/asset" in client.nodes)
    left = client.nodes["/left/asset"]
    assert left["type"] == "ImageMessage"
    assert left["render_width"] / left["render_height"] == pytest.approx(4)
    assert client.nodes["/right/asset"]["type"] == "GlbMessage"
    client.press("1")
    assert client.hear(lambda: "cannot be shown" in str(client.nodes.get("/left/word")) and client.reads("1 of 2"))
    client.press("N")
    assert client.hear(lambda: client.reads("That was the last pair"))
    assert client.hear(lambda: not {"/left/asset", "/right/asset"} & client.nodes.keys())


def test_what_cannot_be_recorded_is_said_and_asked_again(places, opened, tmp_path):
    (tmp_path / "choices").mkdir()
    (tmp_path / "choices").chmod(0o500)
    made = opened(questions(places), tmp_path / "choices" / "x" / "y.jsonl")
    client = Client(made.url)
    assert client.hear(lambda: client.reads("0 of 3"))
    # A file where a folder is wanted fails for every user.
    (tmp_path / "choices").chmod(0o700)
    (tmp_path / "choices" / "x").touch()
    client.press("1")
    assert client.hear(lambda: client.reads("This was not recorded"))
    (tmp_path / "choices" / "x").unlink()
    client.press("1")
    assert client.hear(lambda: client.reads("1 of 3"))


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
def test_chromium_shows_both_and_hears_the_keys(places, opened, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    asked, file = questions(places, annotator="kim"), tmp_path / "choices.jsonl"
    made = opened(asked, file, "kim")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        page.goto(made.url)
        page.get_by_text("0 of 3 answered").wait_for(timeout=60000)
        left = "red" if "basic" in asked[0].a[0] else "blue"
        for _ in range(60):
            page.wait_for_timeout(500)
            page.screenshot(path=str(tmp_path / "seen.png"))
            seen = sides(tmp_path / "seen.png")
            if seen.left and seen.right:
                break
        assert (seen.left, seen.right) == (left, {"red": "blue", "blue": "red"}[left])
        page.keyboard.press("2")
        page.get_by_text("1 of 3 answered").wait_for(timeout=20000)
        page.keyboard.press("u")
        page.get_by_text("0 of 3 answered").wait_for(timeout=20000)
        page.get_by_role("button", name="Left is better").click()
        page.get_by_text("1 of 3 answered").wait_for(timeout=20000)
        browser.close()
    assert [p.preferred for p in read_pairs(file)] == [1.0]


def sides(path: Path) -> SimpleNamespace:
    """Which colour is seen in each half of the canvas."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int32)[150:, :880]
    red, blue = (pixels[..., i] - pixels[..., 2 - i] > 100 for i in (0, 2))
    half = pixels.shape[1] // 2
    found = []
    for part in (np.s_[:, :half], np.s_[:, half:]):
        counts = {"red": int(red[part].sum()), "blue": int(blue[part].sum())}
        best = max(counts, key=counts.__getitem__)
        found.append(best if counts[best] > 2000 and min(counts.values()) < counts[best] / 20 else None)
    return SimpleNamespace(left=found[0], right=found[1])
