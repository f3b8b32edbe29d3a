"""A server on this machine that lists its models as vLLM does, and whose reply to each text, and to each try at it, is
written down beforehand."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, Any]]


def chat(text: str | None = " and on.", reason: str = "stop", *, prompt: int = 9, **message: Any) -> Reply:
    """A chat completion as a server sends it, but for the model, which is the one that was asked."""
    return 200, {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 3},
    }


@dataclass
class Scripted:
    """The address of the server, how often each text was asked, and what it was sent, each with its path."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def serving(
    replies: Callable[[str, int], Reply], *, models: Sequence[str] = ("m",), listing: int = 200, port: int = 0
) -> Iterator[Scripted]:
    """A server that answers a text, and the number of the try at it from 1, by a function. `listing` is the status that
    it answers to who asks for its models."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            rows = [{"id": name, "object": "model", "max_model_len": 4096} for name in models]
            if self.path != "/v1/models":
                self.reply(404, {"error": {"message": "no such page"}})
            else:
                self.reply(listing, {"object": "list", "data": rows})

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = sent["messages"][-1]["content"] if "messages" in sent else sent["prompt"]
            with lock:
                scripted.bodies.append((self.path, sent))
                scripted.asked[asked] += 1
                number = scripted.asked[asked]
            status, body = replies(asked, number)
            self.reply(status, {"model": sent["model"], **body} if status == 200 else body)

        def reply(self, status: int, body: Mapping[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    scripted = Scripted(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
