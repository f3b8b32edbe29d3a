"""A server on this machine as vLLM is one: it lists its models and answers chat completions, and counts what it is
asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServedModels:
    """The address, and every text that was asked."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(models: Sequence[str] = ("my-model",), *, status: int = 200) -> Iterator[ServedModels]:
    """The server until the block ends; `status` is what it answers to who asks for its models."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            rows = [{"id": name, "object": "model", "max_model_len": 4096} for name in models]
            if self.path != "/v1/models":
                self.reply(404, {"error": {"message": "no such page"}})
            else:
                self.reply(status, {"object": "list", "data": rows})

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = sent["messages"][-1]["content"]
            with lock:
                server.asked.append(text)
            message = {"role": "assistant", "content": f" and so on from {text[-10:]!r}."}
            usage = {"prompt_tokens": 2 * len(text.split()), "completion_tokens": 9}
            choice = {"message": message, "finish_reason": "stop"}
            self.reply(200, {"model": sent["model"], "choices": [choice], "usage": usage})

        def reply(self, code: int, body: Mapping[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    lock = threading.Lock()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server = ServedModels(f"http://127.0.0.1:{listener.server_address[1]}/v1")
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
