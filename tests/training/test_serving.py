"""Answers through a server that speaks like vLLM: a real HTTP server, its text from a real tiny model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nift_training import answer, evaluate, generation, serving
from nift_training.serving import Server


@dataclass
class Vllm:
    """What the server holds, what it was asked, and how often it is still busy first."""

    generator: Any
    models: list[str] = field(default_factory=lambda: ["base"])
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    url: str = ""


@pytest.fixture
def vllm(tiny: Path) -> Iterator[Vllm]:
    held = Vllm(generation.load(tiny))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *parts: Any) -> None:
            pass

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": name} for name in held.models]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                held.keys.append(self.headers["Authorization"])
                if held.busy:
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
                    answer = {"choices": [{"text": text, "finish_reason": reason}]}
                    self.reply(200, json.dumps(answer | {"usage": {"completion_tokens": said.tokens}}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield held
    server.shutdown()
    server.server_close()


def test_a_server_gives_the_answers_the_weights_give(vllm: Vllm, tiny: Path) -> None:
    questions = [answer.Question(id=n, temperature=0.0, turns=(f"What is {n}?", "Why?")) for n in range(3)]
    options: dict[str, Any] = {"runs": 1, "max_new_tokens": 8, "seed": 0}
    vllm.busy = 2
    server = Server(url=vllm.url, model="base", first_wait=0.01)
    through = generation.served(tiny, server)
    rows = answer.answers(through, answer.MT_BENCH, "zephyr", questions, **options)
    assert rows == answer.answers(generation.load(tiny), answer.MT_BENCH, "zephyr", questions, **options)
    assert len(vllm.asked) == 6
    assert {body["model"] for body in vllm.asked} == {"base"}


def test_a_server_is_asked_to_lay_the_adapter_over_its_base(vllm: Vllm, adapter: Path) -> None:
    with pytest.raises(ValueError, match="does not serve 'tuned' but base"):
        serving.connect(Server(url=vllm.url, model="tuned"))
    serving.connect(Server(url=vllm.url, model="tuned"), adapter)
    assert vllm.loaded == {"tuned": str(adapter)}


def test_evaluate_answers_through_the_server(vllm: Vllm, tiny: Path, tmp_path: Path) -> None:
    questions = tmp_path / "question.jsonl"
    questions.write_text(json.dumps({"question_id": 1, "category": "math", "turns": ["1+1?", "Sure?"]}) + "\n")
    named = ["--mt-bench", str(questions), "--mt-bench-tokens", "4", "--server", vllm.url, "--threads", "2"]
    evaluate.main(
        ["--model", str(tiny), "--template", "zephyr", "--out", str(tmp_path / "out"), *named, "--server-model", "base"]
    )
    assert len((tmp_path / "out" / "mt_bench.jsonl").read_text().splitlines()) == 1
    assert len(vllm.asked) == 2


def test_a_key_goes_to_no_other_machine_in_the_clear(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-of-the-server")
    with pytest.raises(ValueError, match="in the clear"):
        serving.connect(Server(url="http://gpu.example.org/v1", model="base", key_variable="A_KEY"))
    server = Server(url=vllm.url, model="base", key_variable="A_KEY")
    serving.complete(server, ["a"], max_tokens=2, temperature=0.0, seed=0)
    assert vllm.keys == ["Bearer secret-of-the-server"]
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ValueError, match="export A_KEY"):
        serving.connect(server)


def test_what_no_try_can_mend_is_said_at_once(vllm: Vllm) -> None:
    vllm.busy = serving.TRIES
    with pytest.raises(ValueError, match="refuses with 503: loading"):
        serving.complete(
            Server(url=vllm.url, model="base", first_wait=0.001), ["a"], max_tokens=2, temperature=0.0, seed=0
        )
    with pytest.raises(ValueError, match="is no address"):
        serving.connect(Server(url="file:///etc/passwd", model="base"))
