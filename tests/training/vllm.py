"""A server that speaks like vLLM, its text from a real tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nift_training.evaluate import generation


@dataclass
class Vllm:
    """What the server holds, what it was asked, how often it is busy first, and after how many answers it breaks, or
    bits of one that it streams."""

    generator: Any
    models: list[str] = field(default_factory=lambda: ["base"])
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    breaks_after: int | None = None
    streams_at_most: int | None = None
    url: str = ""


@contextmanager
def serve(generator: generation.Generator) -> Iterator[Vllm]:
    """The server, as long as it is needed."""
    held = Vllm(generator)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *parts: Any) -> None:
            pass

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self, tokenizer: Any, ids: Sequence[int], reason: str) -> None:
            """The text in bits that begin and end anywhere, as server-sent events."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            text = tokenizer.decode(ids, skip_special_tokens=False)
            bits = [text[start : start + 3] for start in range(0, len(text), 3)]
            for number, bit in enumerate(bits[: held.streams_at_most]):
                ended = reason if number == len(bits) - 1 else None
                event = {"choices": [{"text": bit, "finish_reason": ended}]}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": name} for name in held.models]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                held.keys.append(self.headers["Authorization"])
                if held.breaks_after is not None and len(held.asked) >= held.breaks_after:
                    self.reply(400, b"out of order")
                elif held.busy:
                    held.busy -= 1
                    self.reply(503, b"loading")
                elif self.path.endswith("/load_lora_adapter"):
                    held.loaded[body["lora_name"]] = body["lora_path"]
                    held.models.append(body["lora_name"])
                    self.reply(200, b"Success: LoRA adapter added")
                else:
                    held.asked.append(body)
                    said = generation.generate(held.generator, [body["prompt"]], max_new_tokens=body["max_tokens"])[0]
                    text = held.generator.tokenizer.decode(said.ids, skip_special_tokens=False)
                    reason = "stop" if said.stopped == "eos" else "length"
                    if body.get("stream"):
                        self.stream(held.generator.tokenizer, said.ids, reason)
                        return
                    answer = {"choices": [{"text": text, "finish_reason": reason}]}
                    self.reply(200, json.dumps(answer | {"usage": {"completion_tokens": said.tokens}}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield held
    server.shutdown()
    server.server_close()
