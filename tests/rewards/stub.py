"""A local service for tests: scores views by how red they are, and speaks as much of OpenAI's protocol as is needed."""

import base64
import io
import json
import math
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image
from safetensors.numpy import load


def redness(picture: str) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))), float) / 255
    return float((pixels[..., 0] - pixels[..., 2]).mean())


class Service(ThreadingHTTPServer):
    """``faults`` is a list of what to do wrong with the next requests: "slow", "busy", "refuse", "garbage"."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.likelihoods, self.favours_a = True, 0.0

    def handle_error(self, request, client_address):
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers["Authorization"])
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "slow":
            time.sleep(1.0)
        status = {"busy": 503, "refuse": 400}.get(fault, 200)
        answer = b"<html>" if fault == "garbage" else json.dumps(self.answer(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, body):
        if "messages" in body:
            return self.chat(body["messages"][0]["content"])
        if "safetensors" in body:
            rgb = load(base64.b64decode(body["safetensors"]))["rgb"]
            return {"value": float((rgb[..., 0] - rgb[..., 2]).mean())}
        if body["prompt"]["text"] == "unknowable":
            return {"value": None}
        return {"value": float(np.mean([redness(view) for view in body["views"]]))}

    def chat(self, content):
        texts = [i for i, part in enumerate(content) if part["type"] == "text"]
        pictures = [
            part["image_url"]["url"].removeprefix("data:image/png;base64,") if part["type"] != "text" else None
            for part in content
        ]
        if len(texts) == 3:
            a, b = (
                np.mean([redness(p) for p in pictures[x + 1 : y]]) for x, y in ((texts[1], texts[2]), (texts[2], len(content)))
            )
            first, second, odds = "A", "B", 20 * (a - b) + self.server.favours_a
        else:
            first, second, odds = "Yes", "no", 20 * np.mean([redness(p) for p in pictures if p])
        p = 1 / (1 + math.exp(-odds))
        said = first if p > 0.5 else second
        if "unknowable" in content[0]["text"]:
            return {"choices": [{"message": {"content": "perhaps"}}]}
        listed = [{"token": f" {first}", "logprob": math.log(0.9 * p)}, {"token": second, "logprob": math.log(0.9 * (1 - p))}]
        listed.append({"token": "maybe", "logprob": math.log(0.1)})
        likelihoods = {"content": [{"token": said, "top_logprobs": listed}]} if self.server.likelihoods else None
        return {"choices": [{"message": {"content": f"{said}."}, "logprobs": likelihoods}]}


@contextmanager
def serving():
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions"
    finally:
        server.shutdown()
        server.server_close()
